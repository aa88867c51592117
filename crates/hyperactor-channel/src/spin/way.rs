//! Whether a thread that looks offers its processor to others between two looks. That costs next to nothing where nobody wants it, and
//! a moment where others only look or handle a message; but who computes keeps it for a slice, which is far longer than any
//! wake-up takes. After that, nobody in this process offers it for some time. There is no clock here; moments are arguments.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::limits::{SPIN_YIELD_PAUSE, SPIN_YIELD_PAUSE_MAX};

/// What the threads of a process know of those that they share processors with.
#[derive(Debug)]
pub(super) struct Way {
    /// Before then, nobody gives way.
    closed_until: Mutex<Option<Instant>>,
}

impl Way {
    pub(super) const fn new() -> Self {
        Self {
            closed_until: Mutex::new(None),
        }
    }

    /// Whether to give way in looks that begin now.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.closed_until.lock().is_none_or(|until| now >= until)
    }

    /// A processor that was offered came back only after so long.
    pub(super) fn came_back_late(&self, away: Duration, now: Instant) {
        let until = now
            + away
                .saturating_mul(SPIN_YIELD_PAUSE)
                .min(SPIN_YIELD_PAUSE_MAX);
        let mut closed_until = self.closed_until.lock();
        *closed_until = (*closed_until).max(Some(until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE: Duration = Duration::from_millis(4);

    #[test]
    fn who_got_the_processor_back_late_keeps_it_for_many_times_as_long() {
        let way = Way::new();
        let now = Instant::now();
        assert!(way.is_open(now));
        way.came_back_late(SLICE, now);
        let pause = SLICE * SPIN_YIELD_PAUSE;
        assert!(!way.is_open(now));
        assert!(!way.is_open(now + pause - Duration::from_nanos(1)));
        assert!(way.is_open(now + pause));
    }

    #[test]
    fn a_short_absence_does_not_end_a_long_pause() {
        let way = Way::new();
        let now = Instant::now();
        way.came_back_late(SLICE, now);
        way.came_back_late(SLICE / 8, now);
        assert!(!way.is_open(now + SLICE * SPIN_YIELD_PAUSE / 2));
    }

    #[test]
    fn a_process_that_was_stopped_gives_way_again_soon() {
        let way = Way::new();
        let now = Instant::now();
        way.came_back_late(Duration::MAX, now);
        assert!(!way.is_open(now));
        assert!(way.is_open(now + SPIN_YIELD_PAUSE_MAX));
    }
}
