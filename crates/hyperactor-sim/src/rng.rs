//! Where every choice of a run comes from: xoshiro256** 1.0, seeded by SplitMix64, both by David Blackman and
//! Sebastiano Vigna (<https://prng.di.unimi.it/>). The same everywhere; not for secrets.

/// A generator of repeatable numbers.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// A generator that begins at `seed`; `stream` keeps the choices of one part from shifting those of another.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut state = mix(seed ^ mix(stream));
        Self {
            state: [(); 4].map(|()| {
                state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                mix(state)
            }),
        }
    }

    /// Returns the next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let [s0, s1, s2, s3] = self.state;
        let result = s1.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let (s2, s3) = (s2 ^ s0, s3 ^ s1);
        self.state = [s0 ^ s3, s1 ^ s2, s2 ^ (s1 << 17), s3.rotate_left(45)];
        result
    }

    /// Returns a number below `end`, which counts as 1 when it is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The high half of the product; its bias is far below what a run could notice.
        let product = u128::from(self.next_u64()) * u128::from(end.max(1));
        (product >> 64) as u64
    }

    /// Returns a number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Returns a number from `low` to `high` whose size class is drawn first: small ones are as common as large ones.
    pub fn small(&mut self, low: u64, high: u64) -> u64 {
        let classes = u64::from(u64::BITS - (high - low).leading_zeros()) + 1;
        let class = self.below(classes);
        (low + self.below(1 << class.min(62))).min(high)
    }

    /// Returns true once in `times`.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// SplitMix64's output function: every bit of the input moves about half of the output's.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_numbers_and_streams_differ() {
        let (mut one, mut same, mut other) = (Rng::new(7, 1), Rng::new(7, 1), Rng::new(7, 2));
        let (a, b, c) = (one.next_u64(), same.next_u64(), other.next_u64());
        assert_eq!(a, b);
        assert_ne!(a, c);
    }

    #[test]
    fn small_numbers_are_favoured_and_stay_in_range() {
        let mut rng = Rng::new(1, 1);
        let drawn: Vec<u64> = (0..1000).map(|_| rng.small(1, 1000)).collect();
        assert!(drawn.iter().all(|each| (1..=1000).contains(each)));
        assert!(drawn.iter().filter(|each| **each < 20).count() > 300);
    }
}
