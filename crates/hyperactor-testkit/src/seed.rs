//! Randomness that can be repeated: one seed for a test, printed, and taken from the environment.
//!
//! The generator is xoshiro256** 1.0, seeded by SplitMix64, both by David Blackman and Sebastiano Vigna
//! (<https://prng.di.unimi.it/>). It is fast, small and the same everywhere; it is not for secrets.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::hash;

/// Where a test's choices come from.
///
/// `HYPERACTOR_SEED` repeats a run: a failing test prints the line to set.
///
/// ```
/// use hyperactor_testkit::Seed;
///
/// let seed: Seed = "0x2a".parse()?;
/// let (mut one, mut other) = (seed.rng(), seed.rng());
/// assert_eq!(one.next_u64(), other.next_u64());
/// assert_ne!(seed.fork("network").rng().next_u64(), seed.fork("clock").rng().next_u64());
/// # Ok::<(), hyperactor_testkit::SeedError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seed(u64);

/// A text that is no seed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no seed: expected a number up to 64 bits, such as 42 or 0x2a")]
pub struct SeedError(String);

impl Seed {
    /// The environment variable that fixes the seed.
    pub const VARIABLE: &'static str = "HYPERACTOR_SEED";

    /// A fixed seed.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// Takes the seed from the environment, or makes a new one; prints the line that repeats the run.
    ///
    /// # Panics
    ///
    /// When the variable holds something else than a number: a mistyped seed must not pass as a new one.
    #[must_use]
    pub fn from_env() -> Self {
        let seed = match std::env::var(Self::VARIABLE) {
            Ok(text) => text
                .parse()
                .unwrap_or_else(|error| panic!("{}: {error}", Self::VARIABLE)),
            Err(std::env::VarError::NotPresent) => Self(hash::random()),
            Err(error) => panic!("{}: {error}", Self::VARIABLE),
        };
        eprintln!("{}={seed}", Self::VARIABLE);
        seed
    }

    /// The number itself.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }

    /// A seed for one part of the test: choices that one part makes do not shift those of another.
    #[must_use]
    pub fn fork(self, part: &str) -> Self {
        Self(hash::fnv(&[&self.0.to_le_bytes(), part.as_bytes()]))
    }

    /// A generator that begins at this seed.
    #[must_use]
    pub fn rng(self) -> Rng {
        let mut state = self.0;
        Rng {
            state: [(); 4].map(|()| split_mix(&mut state)),
        }
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:#018x}", self.0)
    }
}

impl FromStr for Seed {
    type Err = SeedError;

    fn from_str(text: &str) -> Result<Self, SeedError> {
        let number = match text.strip_prefix("0x") {
            Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16),
            _ => text.parse(),
        };
        number.map(Self).map_err(|_| SeedError(text.to_owned()))
    }
}

/// A generator of repeatable numbers: xoshiro256**.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let [s0, s1, s2, s3] = self.state;
        let result = s1.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let (s2, s3) = (s2 ^ s0, s3 ^ s1);
        self.state = [s0 ^ s3, s1 ^ s2, s2 ^ (s1 << 17), s3.rotate_left(45)];
        result
    }

    /// A number from `0` to `end - 1`, all equally likely.
    ///
    /// The method is Daniel Lemire's (<https://arxiv.org/abs/1805.10941>).
    ///
    /// # Panics
    ///
    /// When `end` is 0: there is no such number.
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "no number is below 0");
        loop {
            let product = u128::from(self.next_u64()) * u128::from(end);
            let (high, low) = ((product >> 64) as u64, product as u64);
            // Only the first `2^64 mod end` values of the low half would tip the scales.
            if low >= end || low >= end.wrapping_neg() % end {
                return high;
            }
        }
    }

    /// A number from `start` to `end - 1`.
    ///
    /// # Panics
    ///
    /// When the range is empty.
    pub fn range(&mut self, range: std::ops::Range<u64>) -> u64 {
        assert!(range.start < range.end, "{range:?} is empty");
        range.start + self.below(range.end - range.start)
    }

    /// True `times` out of `of` times.
    ///
    /// # Panics
    ///
    /// When `of` is 0.
    pub fn chance(&mut self, times: u64, of: u64) -> bool {
        self.below(of) < times
    }

    /// One of the items, or nothing if there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        (!items.is_empty()).then(|| &items[self.below(items.len() as u64) as usize])
    }

    /// Puts the items into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (2..=items.len()).rev() {
            items.swap(end - 1, self.below(end as u64) as usize);
        }
    }

    /// Fills a buffer with random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let next = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&next[..chunk.len()]);
        }
    }

    /// Random bytes, `length` of them.
    #[must_use]
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes);
        bytes
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_the_reference_numbers() {
        // From the reference program, started with the state 1, 2, 3, 4.
        let mut rng = Rng {
            state: [1, 2, 3, 4],
        };
        let numbers = [(); 6].map(|()| rng.next_u64());
        assert_eq!(
            numbers,
            [
                11_520,
                0,
                1_509_978_240,
                1_215_971_899_390_074_240,
                1_216_172_134_540_287_360,
                607_988_272_756_665_600
            ]
        );
    }

    #[test]
    fn seeding_gives_the_reference_numbers() {
        let mut state = 1_477_776_061_723_855_037;
        let numbers = [(); 3].map(|()| split_mix(&mut state));
        assert_eq!(
            numbers,
            [
                1_985_237_415_132_408_290,
                2_979_275_885_539_914_483,
                13_511_426_838_097_143_398
            ]
        );
    }

    #[test]
    fn numbers_stay_below_their_end_and_reach_all() {
        let mut rng = Seed::new(1).rng();
        let mut seen = [0_u32; 7];
        for _ in 0..7_000 {
            seen[rng.below(7) as usize] += 1;
        }
        assert!(
            seen.iter().all(|count| (800..1_200).contains(count)),
            "{seen:?}"
        );
        assert_eq!(rng.below(1), 0);
        assert!((5..9).contains(&rng.range(5..9)));
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<u32> = (0..50).collect();
        Seed::new(2).rng().shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn bytes_of_odd_lengths_are_filled() {
        let mut rng = Seed::new(3).rng();
        assert_eq!(rng.bytes(0), []);
        let bytes = rng.bytes(4_097);
        assert!(bytes[4_080..].iter().any(|byte| *byte != 0));
        assert_eq!(rng.pick::<u8>(&[]), None);
        assert_eq!(rng.pick(&[5]), Some(&5));
    }

    #[test]
    fn a_seed_prints_as_it_parses() {
        for seed in [Seed::new(0), Seed::new(42), Seed::new(u64::MAX)] {
            assert_eq!(seed.to_string().parse(), Ok(seed));
        }
        assert_eq!("42".parse(), Ok(Seed::new(42)));
        for wrong in ["", "0x", "0x+1", "x", "-1", "18446744073709551616"] {
            let error = wrong.parse::<Seed>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{wrong}`")), "{error}");
        }
    }

    #[test]
    fn parts_have_choices_of_their_own() {
        let seed = Seed::new(7);
        assert_eq!(seed.fork("a"), seed.fork("a"));
        assert_ne!(seed.fork("a"), seed.fork("b"));
        assert_ne!(seed.fork("a"), Seed::new(8).fork("a"));
    }
}
