//! One value out of the whole of some bytes.

use postcard::Deserializer;
use serde::de::DeserializeOwned;

use crate::DecodeError;
use crate::stack::Watched;

/// Reads one value from the whole of `bytes`.
///
/// # Errors
/// [`DecodeError`].
///
/// # Bounds
/// The stack: [`DECODE_STACK_BYTES`](crate::limits::DECODE_STACK_BYTES), or what the thread has left, if that is less.
#[inline]
pub fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut deserializer = Deserializer::from_flavor(Watched::new(bytes));
    let value = T::deserialize(&mut deserializer).map_err(DecodeError::of)?;
    match deserializer.finalize() {
        Ok([]) => Ok(value),
        Ok(rest) => Err(DecodeError::LeftOver { bytes: rest.len() }),
        Err(error) => Err(DecodeError::of(error)),
    }
}
