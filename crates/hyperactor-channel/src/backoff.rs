//! Exponential backoff with full jitter. When to reset it is the caller's matter.

use std::time::Duration;

use crate::limits::{BACKOFF_FIRST, BACKOFF_MAX};
use crate::options::random_u64;

/// Pauses that grow from [`BACKOFF_FIRST`] to [`BACKOFF_MAX`], each drawn evenly between zero and its size ("full jitter",
/// M. Brooker, "Exponential Backoff And Jitter", 2015), so that many who fail together do not return together.
#[derive(Debug)]
pub(crate) struct Backoff {
    ceiling: Duration,
    random: u64,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self {
            ceiling: BACKOFF_FIRST,
            random: random_u64(),
        }
    }

    /// The next pause in its full size, for one who disturbs nobody else.
    pub(crate) fn next_whole(&mut self) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = (ceiling * 2).min(BACKOFF_MAX);
        ceiling
    }

    /// The next pause.
    pub(crate) fn next(&mut self) -> Duration {
        let ceiling = self.next_whole();
        // xorshift64 (Marsaglia 2003): jitter needs no better randomness than that.
        self.random |= 1;
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        // The upper 53 bits, as a number in [0, 1).
        ceiling.mul_f64((self.random >> 11) as f64 / (1_u64 << 53) as f64)
    }

    /// Starts anew: something useful has happened.
    pub(crate) fn reset(&mut self) {
        self.ceiling = BACKOFF_FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_stay_below_a_ceiling_that_doubles_up_to_the_limit() {
        let mut backoff = Backoff::new();
        let mut ceiling = BACKOFF_FIRST;
        for _ in 0..20 {
            assert!(backoff.next() <= ceiling);
            ceiling = (ceiling * 2).min(BACKOFF_MAX);
        }
        assert_eq!(ceiling, BACKOFF_MAX);
        backoff.reset();
        assert!(backoff.next() <= BACKOFF_FIRST);
    }

    #[test]
    fn two_backoffs_do_not_pause_alike() {
        let (mut a, mut b) = (Backoff::new(), Backoff::new());
        let pauses = |backoff: &mut Backoff| (0..8).map(|_| backoff.next()).collect::<Vec<_>>();
        assert_ne!(pauses(&mut a), pauses(&mut b));
    }
}
