//! The headers of an envelope: a few small values under numbers, for those who route and observe.

use std::fmt;

use bytes::Bytes;

use crate::limits;

/// A bounded list of values under numbers. Empty costs no allocation.
///
/// # Bounds
/// At most [`limits::HEADERS_PER_ENVELOPE`] entries of at most [`limits::HEADER_VALUE_BYTES`] bytes.
#[derive(Clone, Default, PartialEq, Eq)]
// The box keeps an envelope without headers one word wide at this place.
#[allow(clippy::box_collection)]
pub struct Headers(Option<Box<Vec<(u32, Bytes)>>>);

impl Headers {
    /// No headers.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }

    /// Sets the value of a key, and returns the one it had.
    ///
    /// # Errors
    /// [`HeadersFull`] when a limit would be passed; nothing has changed then.
    pub fn set(&mut self, key: u32, value: impl Into<Bytes>) -> Result<Option<Bytes>, HeadersFull> {
        let value = value.into();
        if value.len() > limits::HEADER_VALUE_BYTES {
            return Err(HeadersFull::Value {
                key,
                size: value.len(),
            });
        }
        let entries = self.0.get_or_insert_default();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.0 == key) {
            return Ok(Some(std::mem::replace(&mut entry.1, value)));
        }
        if entries.len() == limits::HEADERS_PER_ENVELOPE {
            return Err(HeadersFull::Entries { key });
        }
        entries.push((key, value));
        Ok(None)
    }

    /// The value of a key.
    #[must_use]
    pub fn value(&self, key: u32) -> Option<&Bytes> {
        self.iter()
            .find(|entry| entry.0 == key)
            .map(|entry| entry.1)
    }

    /// Removes a key and returns its value.
    pub fn remove(&mut self, key: u32) -> Option<Bytes> {
        let entries = self.0.as_mut()?;
        let at = entries.iter().position(|entry| entry.0 == key)?;
        let value = entries.remove(at).1;
        if entries.is_empty() {
            self.0 = None;
        }
        Some(value)
    }

    /// The entries in the order they were first set.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Bytes)> {
        self.0
            .iter()
            .flat_map(|entries| entries.iter().map(|(key, value)| (*key, value)))
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |entries| entries.len())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (key, value) in self.iter() {
            map.entry(&key, &format_args!("{} bytes", value.len()));
        }
        map.finish()
    }
}

/// A header was not set, because a limit would have been passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadersFull {
    /// There are as many entries as there may be.
    #[error(
        "header {key} not set: an envelope has at most {} headers",
        limits::HEADERS_PER_ENVELOPE
    )]
    Entries {
        /// The key that was to be set.
        key: u32,
    },
    /// The value is too long.
    #[error(
        "header {key} not set: its value has {size} bytes, the limit is {}",
        limits::HEADER_VALUE_BYTES
    )]
    Value {
        /// The key that was to be set.
        key: u32,
        /// The size of the value in bytes.
        size: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_set_replaced_and_removed() {
        let mut headers = Headers::new();
        assert_eq!(headers.set(7, "a"), Ok(None));
        assert_eq!(headers.set(7, "b"), Ok(Some(Bytes::from("a"))));
        assert_eq!(headers.value(7), Some(&Bytes::from("b")));
        assert_eq!(headers.remove(7), Some(Bytes::from("b")));
        assert_eq!(headers, Headers::new());
    }

    #[test]
    fn headers_are_bounded_in_number_and_size() {
        let mut headers = Headers::new();
        for key in 0..limits::HEADERS_PER_ENVELOPE as u32 {
            assert_eq!(headers.set(key, ""), Ok(None));
        }
        assert_eq!(headers.set(99, ""), Err(HeadersFull::Entries { key: 99 }));
        let size = limits::HEADER_VALUE_BYTES + 1;
        assert_eq!(
            headers.set(0, vec![0; size]),
            Err(HeadersFull::Value { key: 0, size })
        );
        assert_eq!(headers.set(0, vec![0; size - 1]), Ok(Some(Bytes::new())));
    }

    #[test]
    fn debug_shows_the_size_of_a_header_and_not_its_value() {
        let mut headers = Headers::new();
        headers.set(3, "secret").unwrap();
        assert_eq!(format!("{headers:?}"), "{3: 6 bytes}");
    }
}
