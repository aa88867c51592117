//! Why bytes are no value of a type.

use crate::limits::DECODE_STACK_BYTES;
use crate::stack::TOO_DEEP;

/// Why bytes are no value of the type that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The value has more levels than there is stack for.
    #[error(
        "it is nested too deeply for the stack of its thread, of which decoding takes {DECODE_STACK_BYTES} bytes at most"
    )]
    TooDeep,
    /// There are bytes behind the value: most likely its sender has another type.
    #[error("{bytes} bytes left over")]
    LeftOver {
        /// How many.
        bytes: usize,
    },
    /// The bytes are no encoding of such a value.
    #[error(transparent)]
    Malformed(postcard::Error),
}

impl DecodeError {
    #[cold]
    pub(crate) fn of(error: postcard::Error) -> Self {
        match error {
            TOO_DEEP => Self::TooDeep,
            error => Self::Malformed(error),
        }
    }

    /// A stable name of the kind of error, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooDeep => "too-deep",
            Self::LeftOver { .. } => "left-over",
            Self::Malformed(_) => "malformed",
        }
    }
}
