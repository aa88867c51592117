//! Procs, actors and their handlers; no transport.
