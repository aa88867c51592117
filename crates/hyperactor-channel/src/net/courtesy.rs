//! What a connection that moves much owes to those of its process that carry little: its turn ends sooner, and its thread offers the
//! processor before the next one. Otherwise a small message, and the process that waits for it, wait until the system takes the
//! processor away, a whole tick of its clock. When the bytes are moved, and how a turn ends, is the pump's matter.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyperactor_protocol::Time;

use crate::clock;
use crate::limits::{
    COURTESY_BYTES, COURTESY_LATE, COURTESY_PAUSE, COURTESY_PAUSE_MAX, COURTESY_WINDOW,
};

/// What the connections of a process know of each other.
#[derive(Debug)]
pub(super) struct House {
    /// Until then, somebody carries little. In nanoseconds of the channels' clock, as is the other.
    little_until: AtomicU64,
    /// Before then, nobody offers the processor.
    kept_until: AtomicU64,
}

/// This process.
static HOUSE: House = House::new();

impl House {
    pub(super) const fn new() -> Self {
        Self {
            little_until: AtomicU64::new(0),
            kept_until: AtomicU64::new(0),
        }
    }

    /// Some connection carries little.
    fn note_little(&self, now: Time) {
        let until = nanos(now + 2 * COURTESY_WINDOW);
        self.little_until.fetch_max(until, Ordering::Relaxed);
    }

    /// A processor that was offered came back only after so long.
    fn note_away(&self, away: Duration, now: Time) {
        if away < COURTESY_LATE {
            return;
        }
        let pause = away.saturating_mul(COURTESY_PAUSE).min(COURTESY_PAUSE_MAX);
        self.kept_until
            .fetch_max(nanos(now + pause), Ordering::Relaxed);
    }

    /// Whether those that move much are to let others go first.
    fn is_wanted(&self, now: Time) -> bool {
        let now = nanos(now);
        now < self.little_until.load(Ordering::Relaxed)
            && now >= self.kept_until.load(Ordering::Relaxed)
    }
}

fn nanos(time: Time) -> u64 {
    u64::try_from(time.since_start().as_nanos()).unwrap_or(u64::MAX)
}

/// A connection's part in it.
#[derive(Debug)]
pub(super) struct Courtesy {
    house: &'static House,
    /// Bytes moved in this turn.
    turn: usize,
    /// Bytes moved since the window began.
    window: usize,
    window_began: Time,
}

impl Courtesy {
    pub(super) fn new() -> Self {
        Self::within(&HOUSE, Time::ZERO)
    }

    pub(super) fn within(house: &'static House, now: Time) -> Self {
        Self {
            house,
            turn: 0,
            window: 0,
            window_began: now,
        }
    }

    /// A turn begins.
    pub(super) fn begin(&mut self) {
        self.turn = 0;
    }

    /// Bytes were read or written.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.turn += bytes;
        self.window += bytes;
    }

    /// Whether others are to have their turn before this connection moves more. Asked after something was moved.
    pub(super) fn is_over(&mut self, now: Time) -> bool {
        if now >= self.window_began + COURTESY_WINDOW {
            // Who moves little for a whole window has somebody who waits for each message; who moves much has its share anyway.
            if self.window < COURTESY_BYTES {
                self.house.note_little(now);
            }
            self.window = 0;
            self.window_began = now;
        }
        self.turn >= COURTESY_BYTES && self.house.is_wanted(now)
    }

    /// Between two turns: offers the processor to whoever waits for it, if somebody is to go first.
    pub(super) fn give_way(&self) {
        let began = clock::now();
        if !self.house.is_wanted(began) {
            return;
        }
        std::thread::yield_now();
        let now = clock::now();
        self.house.note_away(now.since(began), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_micros(100);

    /// Moves so many bytes in each turn for so long, and says in how many of the turns it was to let others go first.
    fn turns(courtesy: &mut Courtesy, bytes: usize, from: Time, count: u32) -> u32 {
        let mut over = 0;
        for turn in 0..count {
            courtesy.begin();
            courtesy.moved(bytes);
            over += u32::from(courtesy.is_over(from + turn * SOON));
        }
        over
    }

    #[test]
    fn who_moves_much_alone_or_beside_others_that_do_keeps_its_turn() {
        static HOUSE: House = House::new();
        let now = Time::from_duration(Duration::from_secs(1));
        let mut one = Courtesy::within(&HOUSE, now);
        let mut other = Courtesy::within(&HOUSE, now);
        for _ in 0..10 {
            assert_eq!(turns(&mut one, COURTESY_BYTES, now, 1_000), 0);
            assert_eq!(turns(&mut other, COURTESY_BYTES, now, 1_000), 0);
        }
    }

    #[test]
    fn who_moves_much_beside_one_that_carries_little_lets_it_go_first_and_not_for_long_after_it() {
        static HOUSE: House = House::new();
        let mut now = Time::from_duration(Duration::from_secs(1));
        let mut much = Courtesy::within(&HOUSE, now);
        let mut little = Courtesy::within(&HOUSE, now);
        let window = u32::try_from(COURTESY_WINDOW.as_micros() / SOON.as_micros()).unwrap();
        assert_eq!(turns(&mut little, 64, now, window + 1), 0);
        now = now + COURTESY_WINDOW;
        assert_eq!(turns(&mut much, COURTESY_BYTES, now, window), window);
        assert_eq!(
            turns(&mut much, COURTESY_BYTES - 1, now, window),
            0,
            "it did not move much"
        );
        assert_eq!(turns(&mut little, 64, now, window), 0);
        now = now + 2 * COURTESY_WINDOW;
        assert_eq!(
            turns(&mut much, COURTESY_BYTES, now, 1_000),
            0,
            "nobody waits any more"
        );
    }

    #[test]
    fn a_processor_that_came_back_late_is_kept_for_many_times_as_long() {
        static HOUSE: House = House::new();
        let now = Time::from_duration(Duration::from_secs(1));
        let wanted = |after| {
            HOUSE.note_little(now + after);
            HOUSE.is_wanted(now + after)
        };
        HOUSE.note_away(COURTESY_LATE - Duration::from_nanos(1), now);
        assert!(wanted(Duration::ZERO));
        HOUSE.note_away(COURTESY_LATE, now);
        let pause = COURTESY_LATE * COURTESY_PAUSE;
        assert!(!wanted(pause - Duration::from_nanos(1)));
        assert!(wanted(pause));
        // A process that was stopped does not keep it for ever.
        HOUSE.note_away(Duration::MAX, now);
        assert!(!wanted(pause));
        assert!(wanted(COURTESY_PAUSE_MAX));
    }
}
