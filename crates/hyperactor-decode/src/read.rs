//! One value out of the whole of some bytes.

use serde::de::DeserializeOwned;

use crate::DecodeError;
use crate::value::Values;

/// Reads one value from the whole of `bytes`.
///
/// # Errors
/// [`DecodeError`].
///
/// # Bounds
/// The stack: [`DECODE_STACK_BYTES`](crate::limits::DECODE_STACK_BYTES), or what the thread has left, if that is less.
#[inline]
pub fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut values = Values::new(bytes);
    let value = T::deserialize(&mut values).map_err(DecodeError::of)?;
    match values.rest() {
        [] => Ok(value),
        rest => Err(DecodeError::LeftOver { bytes: rest.len() }),
    }
}
