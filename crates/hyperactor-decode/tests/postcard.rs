//! What `postcard` reads is read, what it refuses is refused, with the same words.

#![allow(missing_docs, reason = "a test")]

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    Unit,
    Newtype(i32),
    Tuple(u8, String),
    Struct { at: u64, on: bool },
    Nested(Box<Kind>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Newtype(i64);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Nothing;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pair(i16, u16);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct All {
    small: (u8, i8, bool, char),
    numbers: (u16, u32, u64, u128, usize),
    signed: (i16, i32, i64, i128, isize),
    floats: (f32, f64),
    text: String,
    list: Vec<Kind>,
    map: BTreeMap<u16, Option<String>>,
    newtype: Newtype,
    nothing: Nothing,
    pair: Pair,
    array: [u8; 3],
    kind: Kind,
}

/// Marsaglia's xorshift64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Of any size, and mostly near an edge of those that take one byte more.
    fn number(&mut self) -> u64 {
        let edge = 1_u64.checked_shl(self.below(66) as u32).unwrap_or(0);
        edge.wrapping_add(self.below(3)).wrapping_sub(1)
    }

    fn text(&mut self) -> String {
        let letters = ['a', 'ß', '€', '😀', '\0'];
        let count = self.below(20);
        (0..count)
            .map(|_| letters[self.below(5) as usize])
            .collect()
    }

    fn kind(&mut self) -> Kind {
        match self.below(5) {
            0 => Kind::Unit,
            1 => Kind::Newtype(self.number() as i32),
            2 => Kind::Tuple(self.number() as u8, self.text()),
            3 => Kind::Struct {
                at: self.number(),
                on: self.below(2) == 0,
            },
            _ => Kind::Nested(Box::new(self.kind())),
        }
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.number()) << self.below(65)
    }

    fn all(&mut self) -> All {
        let list = self.below(5);
        let map = self.below(4);
        All {
            small: (
                self.number() as u8,
                self.number() as i8,
                self.below(2) == 0,
                self.text().chars().next().unwrap_or('z'),
            ),
            numbers: (
                self.number() as u16,
                self.number() as u32,
                self.number(),
                self.wide(),
                self.number() as usize,
            ),
            signed: (
                self.number() as i16,
                self.number() as i32,
                self.number() as i64,
                self.wide() as i128,
                self.number() as isize,
            ),
            // No number that is unequal to itself.
            floats: (self.number() as f32, -(self.number() as f64)),
            text: self.text(),
            list: (0..list).map(|_| self.kind()).collect(),
            map: (0..map)
                .map(|_| {
                    let text = self.text();
                    (
                        self.number() as u16,
                        Some(text).filter(|text| !text.is_empty()),
                    )
                })
                .collect(),
            newtype: Newtype(self.number() as i64),
            nothing: Nothing,
            pair: Pair(self.number() as i16, self.number() as u16),
            array: [self.number() as u8; 3],
            kind: self.kind(),
        }
    }
}

/// What both make of some bytes; says whether that is a value.
fn compare<T: DeserializeOwned + Debug>(bytes: &[u8]) -> bool {
    let read = hyperactor_decode::from_bytes::<T>(bytes);
    let expected = match postcard::take_from_bytes::<T>(bytes) {
        Ok((value, [])) => Ok(format!("{value:?}")),
        Ok((_, rest)) => Err(format!("{} bytes left over", rest.len())),
        Err(error) => Err(error.to_string()),
    };
    let read = read
        .map(|value| format!("{value:?}"))
        .map_err(|error| error.to_string());
    assert_eq!(read, expected, "{bytes:?}");
    read.is_ok()
}

#[test]
fn values_are_read_as_postcard_reads_them_whole_cut_and_changed() {
    let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
    let (mut values, mut others) = (0, 0);
    for _ in 0..400 {
        let value = rng.all();
        let bytes = postcard::to_stdvec(&value).unwrap();
        assert_eq!(hyperactor_decode::from_bytes::<All>(&bytes).unwrap(), value);
        for end in 0..bytes.len() {
            assert!(!compare::<All>(&bytes[..end]));
        }
        for _ in 0..50 {
            let mut changed = bytes.clone();
            for _ in 0..=rng.below(3) {
                let at = rng.below(changed.len() as u64) as usize;
                changed[at] = match rng.below(3) {
                    0 => rng.next() as u8,
                    1 => changed[at] ^ 0x80,
                    _ => changed[at].wrapping_add(1),
                };
            }
            match compare::<All>(&changed) {
                true => values += 1,
                false => others += 1,
            }
        }
    }
    assert!(values > 1_000 && others > 1_000, "{values} {others}");
}

#[test]
fn numbers_of_every_length_are_read_as_postcard_reads_them() {
    let mut rng = Rng(7);
    let mut read = 0;
    for _ in 0..40_000 {
        // As many bytes with a high bit as any number has, and some more.
        let length = rng.below(21) as usize;
        let mut bytes = vec![0xff; length];
        if rng.below(2) == 0 {
            bytes.fill_with(|| rng.next() as u8 | 0x80);
        }
        bytes.push((rng.next() as u8 & 0x7f) >> rng.below(8));
        read += usize::from(compare::<u8>(&bytes));
        read += usize::from(compare::<u16>(&bytes)) + usize::from(compare::<i16>(&bytes));
        read += usize::from(compare::<u32>(&bytes)) + usize::from(compare::<i32>(&bytes));
        read += usize::from(compare::<u64>(&bytes)) + usize::from(compare::<i64>(&bytes));
        read += usize::from(compare::<u128>(&bytes)) + usize::from(compare::<i128>(&bytes));
        compare::<Kind>(&bytes);
        compare::<String>(&bytes);
        compare::<char>(&bytes);
    }
    assert!(read > 50_000, "{read}");
}
