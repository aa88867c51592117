//! Frames and the session state machine: no I/O, no clock, no runtime.
