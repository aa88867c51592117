//! What a supervisor does when a child ends, as plain values: which children are concerned, how often, after how long. No
//! actor is touched here.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Whom the end of one child concerns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Strategy {
    /// That child alone is started again.
    #[default]
    OneForOne,
    /// All children are stopped and started again.
    OneForAll,
    /// That child, and those that were started after it, are stopped and started again.
    RestForOne,
}

/// Which ends of a child are followed by a new start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Restart {
    /// Every end.
    #[default]
    Permanent,
    /// Every end but an orderly one.
    Transient,
    /// None; nor is it started again when it was stopped because of a sibling.
    Temporary,
}

impl Restart {
    pub(super) fn wants(self, is_orderly: bool) -> bool {
        match self {
            Self::Permanent => true,
            Self::Transient => !is_orderly,
            Self::Temporary => false,
        }
    }
}

/// How long a supervisor waits before it starts a child again.
///
/// The first time within the window of the [intensity](super::Supervisor::intensity) it does not wait. After that the wait
/// is drawn evenly between nothing and a bound that doubles from time to time, up to a cap ("full jitter", M. Brooker,
/// "Exponential Backoff And Jitter", 2015): those who failed together do not come back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
}

impl Backoff {
    /// Waits up to `base` the second time, and never longer than `cap`.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap }
    }

    /// Never waits.
    pub fn none() -> Self {
        Self::new(Duration::ZERO, Duration::ZERO)
    }

    /// The bound of the wait before a start that follows `earlier` others within the window.
    pub fn bound(&self, earlier: u32) -> Duration {
        let Some(doublings) = earlier.checked_sub(1) else {
            return Duration::ZERO;
        };
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }

    /// The wait itself; `random` is any number.
    pub(super) fn delay(&self, earlier: u32, random: u64) -> Duration {
        let bound = u64::try_from(self.bound(earlier).as_nanos()).unwrap_or(u64::MAX);
        // The high half of the product is even over the range, to one part in 2^64.
        let share = (u128::from(random) * (u128::from(bound) + 1)) >> 64;
        Duration::from_nanos(u64::try_from(share).unwrap_or(bound))
    }
}

impl Default for Backoff {
    /// From 10 ms to 1 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(10), Duration::from_secs(1))
    }
}

/// Counts restarts within a window of time that moves along.
#[derive(Debug)]
pub(super) struct Intensity {
    pub(super) restarts_max: u32,
    pub(super) window: Duration,
    restarts: VecDeque<Instant>,
}

impl Intensity {
    pub(super) fn new(restarts_max: u32, window: Duration) -> Self {
        Self {
            restarts_max,
            window,
            restarts: VecDeque::new(),
        }
    }

    /// Notes a restart. How many there were within the window before it, or nothing if this one is too many.
    pub(super) fn note(&mut self, now: Instant) -> Option<u32> {
        while let Some(first) = self.restarts.front()
            && now.duration_since(*first) > self.window
        {
            self.restarts.pop_front();
        }
        let earlier = u32::try_from(self.restarts.len()).unwrap_or(u32::MAX);
        if earlier >= self.restarts_max {
            return None;
        }
        self.restarts.push_back(now);
        Some(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_begins_at_nothing_doubles_and_is_capped() {
        let backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(70));
        let bounds: Vec<u128> = (0..6).map(|n| backoff.bound(n).as_millis()).collect();
        assert_eq!(bounds, [0, 10, 20, 40, 70, 70]);
        assert_eq!(backoff.bound(u32::MAX), Duration::from_millis(70));
        assert_eq!(Backoff::none().bound(9), Duration::ZERO);
    }

    #[test]
    fn the_jitter_reaches_from_nothing_to_the_bound_and_never_beyond() {
        let backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
        assert_eq!(backoff.delay(3, 0), Duration::ZERO);
        assert_eq!(backoff.delay(3, u64::MAX), Duration::from_millis(40));
        assert_eq!(backoff.delay(3, 1 << 63), Duration::from_millis(20));
        let longest = Backoff::new(Duration::MAX, Duration::MAX);
        assert!(longest.delay(30, u64::MAX) <= Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn restarts_count_only_within_the_window() {
        let start = Instant::now();
        let mut intensity = Intensity::new(2, Duration::from_secs(5));
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(intensity.note(at(0)), Some(0));
        assert_eq!(intensity.note(at(4)), Some(1));
        assert_eq!(intensity.note(at(5)), None);
        // The first one has left the window, and what was refused never entered it.
        assert_eq!(intensity.note(at(6)), Some(1));
        assert_eq!(intensity.note(at(20)), Some(0));
    }

    #[test]
    fn no_restart_at_all_can_be_asked_for() {
        let mut intensity = Intensity::new(0, Duration::from_secs(5));
        assert_eq!(intensity.note(Instant::now()), None);
    }
}
