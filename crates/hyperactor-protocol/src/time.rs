//! Time as a value: the core never asks for it. [`Clock`] is the border to whoever knows it.

use std::fmt;
use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Monotonic time since an arbitrary start, in nanoseconds; 584 years of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time(u64);

impl Time {
    /// The arbitrary start.
    pub const ZERO: Self = Self(0);

    /// Returns the time `since_start` after the start; beyond 584 years it stays there.
    pub fn from_duration(since_start: Duration) -> Self {
        Self(nanos(since_start))
    }

    /// Returns the time since the start.
    pub const fn since_start(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// Returns how long before `self` the time `earlier` was; zero if it was not earlier.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}s", self.since_start().as_secs_f64())
    }
}

/// Tells the time; may never go back.
pub trait Clock: Send + Sync + 'static {
    /// Returns the time now.
    fn now(&self) -> Time;
}

/// A clock that stands still until it is moved, for tests and simulations.
#[derive(Debug, Default)]
pub struct ManualClock {
    nanos: AtomicU64,
}

impl ManualClock {
    /// Moves the clock on by `duration`.
    pub fn advance(&self, duration: Duration) {
        self.nanos.fetch_add(nanos(duration), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Time {
        Time(self.nanos.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_saturates_instead_of_wrapping() {
        let late = Time::from_duration(Duration::MAX);
        assert_eq!(late + Duration::from_secs(1), late);
        assert_eq!(Time::ZERO.since(late), Duration::ZERO);
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::default();
        assert_eq!(clock.now(), Time::ZERO);
        clock.advance(Duration::from_millis(3));
        assert_eq!(clock.now(), Time::ZERO + Duration::from_millis(3));
    }
}
