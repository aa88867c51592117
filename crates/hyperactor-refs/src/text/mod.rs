//! Text below the grammar: percent-escapes, pieces of an input with their place, numbers, and the error of a parse.
//! What the pieces mean stands with the types that are made of them.

pub(crate) mod error;
pub(crate) mod escape;
pub(crate) mod piece;
#[cfg(any(feature = "fuzzing", feature = "proptest", test))]
pub(crate) mod pieces;
