//! An actor runtime for programs of many processes.
