//! Every number that bounds something in this crate: bytes of stack.

/// Bytes of stack that decoding one message may take: a quarter of what threads have that nobody chose for. A value of some words
/// that contains others of its kind is decoded to a depth of some hundreds at least, some thousands in optimised builds; one of
/// kilobytes, to a depth of some tens. On a thread with a smaller stack it is what that has left without
/// [`DECODE_MARGIN_BYTES`]; give such a thread 256 KiB at least.
pub const DECODE_STACK_BYTES: usize = 512 * 1024;

/// Bytes of stack that stay free below the deepest level that is decoded. One level of a value must fit.
pub const DECODE_MARGIN_BYTES: usize = 64 * 1024;

/// Bytes of stack that decoding takes before it asks where the stack of its thread ends, which costs a thread a fraction
/// of a millisecond, once.
pub const DECODE_SHALLOW_BYTES: usize = 32 * 1024;

/// Bytes of stack that decoding one message may take where the end of the stack cannot be told: without `/proc`, or with guard
/// pages that are not among the mappings of the process.
pub const DECODE_UNKNOWN_STACK_BYTES: usize = 128 * 1024;
