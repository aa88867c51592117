//! Postcard out of the bytes of a message, without a bound for their number but with one for the stack: a type that contains
//! itself is decoded by recursion, a level for as little as one byte, and a stack that overflows ends the process.
//! The channel's default codec does the same, for those who use channels alone.

use std::slice;

use postcard::Deserializer;
use postcard::de_flavors::Flavor;
use serde::de::DeserializeOwned;

use crate::limits::{DECODE_STACK_BYTES, DECODE_STRIDE_BYTES};

/// Reads one value from the whole of `bytes`.
///
/// # Errors
/// Words for people: what postcard says, how many bytes are left over, or that the value is nested too deeply.
pub(crate) fn whole<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut deserializer = Deserializer::from_flavor(Strides::new(bytes));
    let value = T::deserialize(&mut deserializer).map_err(why)?;
    match deserializer.finalize() {
        Ok([]) => Ok(value),
        Ok(rest) => Err(format!("{} bytes left over", rest.len())),
        Err(error) => Err(why(error)),
    }
}

#[cold]
fn why(error: postcard::Error) -> String {
    match error {
        TOO_DEEP => format!(
            "it is nested too deeply: decoding took more than {DECODE_STACK_BYTES} bytes of stack"
        ),
        error => error.to_string(),
    }
}

/// What stands for it among postcard's errors, which are a closed list: one that nothing else returns.
const TOO_DEEP: postcard::Error = postcard::Error::NotYetImplemented;

/// The bytes of a message, read a stride at a time: between two strides it is seen how deep the stack is. A level of a value
/// takes one byte at least, to say whether there is another, so that within a stride the stack grows by a bounded number of
/// levels. Reading costs the same as from a plain slice.
struct Strides<'de> {
    /// What is left of the stride.
    stride: slice::Iter<'de, u8>,
    /// All that was left when it began.
    bytes: &'de [u8],
    /// Below this address the stack is too deep.
    floor: usize,
}

impl<'de> Strides<'de> {
    fn new(bytes: &'de [u8]) -> Self {
        Self {
            stride: first(bytes).iter(),
            bytes,
            // Stacks grow downwards wherever Linux runs.
            floor: here().saturating_sub(DECODE_STACK_BYTES),
        }
    }

    /// What was not read.
    #[inline(always)]
    fn rest(&self) -> &'de [u8] {
        let read = first(self.bytes).len() - self.stride.len();
        self.bytes.get(read..).unwrap_or_default()
    }

    /// Takes the next bytes, across the end of the stride, and begins a new one behind them.
    #[cold]
    #[inline(never)]
    fn take_across(&mut self, count: usize) -> postcard::Result<&'de [u8]> {
        if here() < self.floor {
            return Err(TOO_DEEP);
        }
        let taken = self.rest().split_at_checked(count);
        let (taken, rest) = taken.ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
        self.bytes = rest;
        self.stride = first(rest).iter();
        Ok(taken)
    }
}

/// A stride, or less at the end.
#[inline(always)]
fn first(bytes: &[u8]) -> &[u8] {
    bytes.get(..DECODE_STRIDE_BYTES).unwrap_or(bytes)
}

/// About where the stack is now.
#[inline(always)]
fn here() -> usize {
    let mark = 0_u8;
    std::ptr::from_ref(&mark).addr()
}

impl<'de> Flavor<'de> for Strides<'de> {
    type Remainder = &'de [u8];
    type Source = &'de [u8];

    #[inline]
    fn pop(&mut self) -> postcard::Result<u8> {
        match self.stride.next() {
            Some(byte) => Ok(*byte),
            None => self
                .take_across(1)?
                .first()
                .copied()
                .ok_or(postcard::Error::DeserializeUnexpectedEnd),
        }
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.rest().len())
    }

    #[inline]
    fn try_take_n(&mut self, count: usize) -> postcard::Result<&'de [u8]> {
        match self.stride.as_slice().split_at_checked(count) {
            Some((taken, rest)) => {
                self.stride = rest.iter();
                Ok(taken)
            }
            None => self.take_across(count),
        }
    }

    fn finalize(self) -> postcard::Result<&'de [u8]> {
        Ok(self.rest())
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Tree {
        Leaf,
        Node(Box<Tree>),
    }

    /// The encoding of a tree of so many levels.
    fn tree(levels: usize) -> Vec<u8> {
        let mut bytes = vec![1; levels];
        bytes.push(0);
        bytes
    }

    #[test]
    fn a_value_is_decoded_as_deep_as_the_stack_may_be_and_refused_beyond() {
        let mut decoded = 0;
        let mut levels = 1;
        let error = loop {
            match whole::<Tree>(&tree(levels)) {
                Ok(_) => decoded = levels,
                Err(error) => break error,
            }
            levels *= 2;
            assert!(levels < 10_000_000, "nothing is too deep");
        };
        assert!(decoded >= 128, "{decoded} levels are few");
        assert!(error.contains("nested too deeply"), "{error}");
        // Where it is refused does not depend on what follows.
        assert_eq!(whole::<Tree>(&tree(1_000_000)).unwrap_err(), error);
        assert_eq!(whole::<Tree>(&vec![1; 1_000_000]).unwrap_err(), error);
    }

    #[test]
    fn values_of_every_length_are_read_as_postcard_reads_them() {
        type Value = (Vec<u8>, String, u16, Option<String>);
        for length in 0..3 * DECODE_STRIDE_BYTES {
            let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let value = (
                bytes,
                "a".repeat(length),
                300_u16,
                Some("b".repeat(length / 2)),
            );
            let mut encoded = postcard::to_stdvec(&value).unwrap();
            assert_eq!(whole::<Value>(&encoded).unwrap(), value);
            for end in 0..encoded.len() {
                assert!(whole::<Value>(&encoded[..end]).is_err());
            }
            encoded.push(0);
            assert_eq!(whole::<Value>(&encoded).unwrap_err(), "1 bytes left over");
        }
    }

    #[test]
    fn many_values_side_by_side_are_not_deep() {
        let values = vec![(1_u8, String::from("a")); 1_000_000];
        let bytes = postcard::to_stdvec(&values).unwrap();
        assert_eq!(whole::<Vec<(u8, String)>>(&bytes).unwrap(), values);
    }
}
