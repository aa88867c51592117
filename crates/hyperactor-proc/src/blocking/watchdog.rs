//! Finds the turns that take long, and has another worker of their runtime look for input. Which turns these are is told by
//! the threads that run actors: each has a slot in which it writes the number of the turn it is in, and a thread of the
//! process's own compares these with what it saw a moment ago. A turn pays two stores for it.
//!
//! That thread looks for as long as actors have turns, then dozes, and ends where nothing happens for longer: a process at rest
//! has neither its ticks nor its memory.

use std::cell::OnceCell;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::thread_use::{Observed, Watched, is_own_doing};
use crate::limits;

/// Stands for a processor time that is not known.
const UNKNOWN: u64 = u64::MAX;

/// What one thread does. The first two are written by that thread, the others by the watching one. Shares its cache lines with nothing
/// else.
#[repr(align(64))]
struct Slot {
    /// How many turns have begun.
    begun: AtomicU64,
    /// The number of the one that is under way, from 1; 0 while there is none.
    now: AtomicU64,
    /// The number of the last one that was found to take long.
    slow: AtomicU64,
    /// The two first ones as they were at the last look.
    begun_seen: AtomicU64,
    now_seen: AtomicU64,
    /// The processor time that the thread had used when the turn of `now_seen` was seen first; nanoseconds, and that there is none
    /// where it is not known.
    computed_seen: AtomicU64,
    /// The number of the last turn for which another worker was woken.
    told: AtomicU64,
    thread: Watched,
    runtime: Handle,
}

thread_local! {
    /// Nothing where the thread's first turn of an actor with other workers found itself in no runtime that has any.
    static SLOT: OnceCell<Option<Arc<Slot>>> = const { OnceCell::new() };
}

/// Polls, and says whether it was found to take long: never where there are no other workers to wake. The call must not panic.
#[inline(always)]
pub(super) fn watched<T>(has_workers: bool, poll: impl FnOnce() -> T) -> (T, bool) {
    let turn = has_workers.then(|| here(Slot::begin)).flatten();
    if turn.is_some() && STATE.load(Ordering::Relaxed) != LOOKING {
        rouse();
    }
    let polled = poll();
    let was_slow = turn.and_then(|turn| here(|slot| slot.end(turn)));
    (polled, was_slow.unwrap_or(false))
}

/// How many turns of the process have been found to take long so far: as long as that stays the same, none has that is under way.
static FOUND: AtomicU64 = AtomicU64::new(0);

/// See [`FOUND`].
#[inline(always)]
pub(super) fn found() -> u64 {
    FOUND.load(Ordering::Relaxed)
}

/// Whether the turn in which this thread is was found to take long.
#[cold]
pub(super) fn is_long() -> bool {
    here(|slot| {
        let now = slot.now.load(Ordering::Relaxed);
        (now != 0 && slot.told.load(Ordering::Relaxed) == now).then_some(())
    })
    .flatten()
    .is_some()
}

/// What a call finds in this thread's slot; nothing where the thread has none, or is ending.
#[inline(always)]
fn here<T>(call: impl FnOnce(&Slot) -> T) -> Option<T> {
    let slot = |slot: &OnceCell<Option<Arc<Slot>>>| {
        let slot = slot.get_or_init(Slot::of_this_thread).as_deref();
        slot.map(call)
    };
    SLOT.try_with(slot).ok().flatten()
}

/// The number of a turn, and that of the one inside of which it is, or 0.
#[derive(Clone, Copy)]
struct Turn {
    number: u64,
    outer: u64,
}

impl Slot {
    #[cold]
    fn of_this_thread() -> Option<Arc<Self>> {
        let runtime = Handle::try_current().ok()?;
        if runtime.runtime_flavor() != RuntimeFlavor::MultiThread {
            return None;
        }
        let slot = Arc::new(Self::of(runtime));
        WATCH.lock().slots.push(Arc::downgrade(&slot));
        Some(slot)
    }

    fn of(runtime: Handle) -> Self {
        Self {
            begun: AtomicU64::new(0),
            now: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            begun_seen: AtomicU64::new(0),
            now_seen: AtomicU64::new(0),
            computed_seen: AtomicU64::new(UNKNOWN),
            told: AtomicU64::new(0),
            thread: Watched::this(),
            runtime,
        }
    }

    /// A turn begins.
    #[inline(always)]
    fn begin(&self) -> Turn {
        let number = self.begun.load(Ordering::Relaxed) + 1;
        let outer = self.now.load(Ordering::Relaxed);
        self.begun.store(number, Ordering::Relaxed);
        self.now.store(number, Ordering::Relaxed);
        Turn { number, outer }
    }

    /// The turn ends; whether it was found to take long.
    #[inline(always)]
    fn end(&self, turn: Turn) -> bool {
        self.now.store(turn.outer, Ordering::Relaxed);
        self.slow.load(Ordering::Relaxed) == turn.number
    }

    /// Compares with the last look.
    fn look(&self) -> Seen {
        self.look_at(&self.thread)
    }

    fn look_at(&self, thread: &impl Observed) -> Seen {
        let begun = self.begun.load(Ordering::Relaxed);
        let now = self.now.load(Ordering::Relaxed);
        let has_begun = self.begun_seen.swap(begun, Ordering::Relaxed) != begun;
        let was_here = self.now_seen.swap(now, Ordering::Relaxed) == now;
        if now == 0 || self.slow.load(Ordering::Relaxed) == now {
            // What was found slow needs no more looks.
            return if has_begun {
                Seen::Turns
            } else {
                Seen::Nothing
            };
        }
        if !was_here {
            let computed = thread.computed().map(|computed| computed.as_nanos());
            // 584 years.
            let computed = computed.and_then(|nanos| u64::try_from(nanos).ok());
            let computed = computed.unwrap_or(UNKNOWN);
            self.computed_seen.store(computed, Ordering::Relaxed);
            return Seen::Turns;
        }
        let before = self.computed_seen.load(Ordering::Relaxed);
        let before = (before != UNKNOWN).then(|| Duration::from_nanos(before));
        if is_own_doing(thread, before) {
            self.slow.store(now, Ordering::Relaxed);
        }
        match self.told.swap(now, Ordering::Relaxed) == now {
            true => Seen::Turns,
            false => Seen::Long,
        }
    }
}

/// What one thread did since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    Turns,
    /// One turn took all the time, and this was not known yet; whether by its own doing stands in the slot.
    Long,
}

/// There is no watching thread.
const GONE: u8 = 0;
/// It sleeps until it is told of a turn.
const DOZING: u8 = 1;
/// It looks every [`LOOK_PERIOD`](limits::LOOK_PERIOD), and need not be told of turns.
const LOOKING: u8 = 2;

/// Set to `LOOKING` by whoever has a turn, with the lock of `WATCH`, or by the watching thread, which sees a turn; to the other
/// two by the watching thread alone.
static STATE: AtomicU8 = AtomicU8::new(GONE);

static WATCH: Mutex<Watch> = Mutex::new(Watch {
    slots: Vec::new(),
    thread: None,
    refused: None,
});

struct Watch {
    /// A slot goes with its thread.
    slots: Vec<Weak<Slot>>,
    thread: Option<Thread>,
    /// When the system last had no thread for it.
    refused: Option<Instant>,
}

/// Has the watching thread look from now on.
#[cold]
fn rouse() {
    let mut watch = WATCH.lock();
    let state = STATE.load(Ordering::Relaxed);
    let refused = watch.refused.map(|refused| refused.elapsed());
    if state == LOOKING
        || (state == GONE && refused.is_some_and(|since| since < limits::WATCHDOG_LINGER))
    {
        return;
    }
    // First: who is woken, or begins, looks at this, and may do so before another line of this is run.
    STATE.store(LOOKING, Ordering::Relaxed);
    if let (DOZING, Some(thread)) = (state, &watch.thread) {
        return thread.unpark();
    }
    let thread = thread::Builder::new().name("actor-watch".to_owned());
    match thread.spawn(keep_watch) {
        Ok(handle) => watch.thread = Some(handle.thread().clone()),
        Err(error) => {
            tracing::warn!(%error, "no thread to watch actors: one that blocks may hold up what comes in");
            watch.refused = Some(Instant::now());
            STATE.store(GONE, Ordering::Relaxed);
        }
    }
}

/// The watching thread.
fn keep_watch() {
    // Kept for its memory, empty between two looks.
    let mut slots = Vec::new();
    loop {
        let mut quiet = 0;
        while quiet < limits::QUIET_LOOKS {
            thread::sleep(limits::LOOK_PERIOD);
            quiet = if look(&mut slots) { 0 } else { quiet + 1 };
        }
        STATE.store(DOZING, Ordering::Relaxed);
        // A turn that begins now may not see that yet: there is one more look.
        thread::park_timeout(limits::LOOK_PERIOD);
        if look(&mut slots) {
            STATE.store(LOOKING, Ordering::Relaxed);
            continue;
        }
        let dozing = Instant::now();
        while STATE.load(Ordering::Relaxed) == DOZING {
            let left = limits::WATCHDOG_LINGER.saturating_sub(dozing.elapsed());
            if left.is_zero() {
                let mut watch = WATCH.lock();
                if STATE.load(Ordering::Relaxed) == DOZING {
                    watch.thread = None;
                    return STATE.store(GONE, Ordering::Relaxed);
                }
            }
            thread::park_timeout(left);
        }
    }
}

/// One look at all threads that run actors; whether anything went on.
fn look(slots: &mut Vec<Arc<Slot>>) -> bool {
    {
        let mut watch = WATCH.lock();
        watch.slots.retain(|slot| {
            let living = slot.upgrade();
            let is_living = living.is_some();
            slots.extend(living);
            is_living
        });
    }
    let mut has_turns = false;
    // The last owner of a slot may be here, and with it that of a runtime's remains: no lock is held.
    for slot in slots.drain(..) {
        let seen = slot.look();
        has_turns |= seen != Seen::Nothing;
        if seen == Seen::Long {
            FOUND.fetch_add(1, Ordering::Relaxed);
            // Comes from no worker, so the runtime wakes one that sleeps, if any does; having done this it looks for input.
            slot.runtime.spawn(async {});
        }
    }
    has_turns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> (tokio::runtime::Runtime, Slot) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let slot = Slot::of(runtime.handle().clone());
        (runtime, slot)
    }

    /// A thread as it would have to be for the test.
    struct Thread {
        computed: Duration,
        is_ready: bool,
    }

    impl Observed for Thread {
        fn computed(&self) -> Option<Duration> {
            Some(self.computed)
        }

        fn is_ready(&self) -> bool {
            self.is_ready
        }
    }

    const ASLEEP: Thread = Thread {
        computed: Duration::ZERO,
        is_ready: false,
    };

    #[test]
    fn a_turn_that_is_seen_twice_took_long_and_is_told_so_once() {
        let (_runtime, slot) = slot();
        assert_eq!(slot.look_at(&ASLEEP), Seen::Nothing);
        let turn = slot.begin();
        assert_eq!(slot.look_at(&ASLEEP), Seen::Turns);
        assert_eq!(slot.look_at(&ASLEEP), Seen::Long);
        assert_eq!(slot.look_at(&ASLEEP), Seen::Nothing);
        assert!(slot.end(turn));
        assert_eq!(slot.look_at(&ASLEEP), Seen::Nothing);
    }

    #[test]
    fn a_thread_that_is_kept_from_the_processor_is_told_of_and_not_held_to_be_slow() {
        let (_runtime, slot) = slot();
        let mut thread = Thread {
            computed: Duration::from_secs(1),
            is_ready: true,
        };
        let turn = slot.begin();
        assert_eq!(slot.look_at(&thread), Seen::Turns);
        assert_eq!(slot.look_at(&thread), Seen::Long);
        assert_eq!(slot.look_at(&thread), Seen::Turns, "once");
        assert!(!slot.end(turn));
        let turn = slot.begin();
        assert_eq!(slot.look_at(&thread), Seen::Turns);
        // A little with each look: it is the turn's sum that counts.
        for _ in 0..3 {
            thread.computed += limits::LOOK_PERIOD / 5;
            slot.look_at(&thread);
        }
        assert!(slot.end(turn));
    }

    #[test]
    fn turns_one_after_the_other_are_not_one_that_takes_long() {
        let (_runtime, slot) = slot();
        for _ in 0..3 {
            let turn = slot.begin();
            assert_eq!(slot.look_at(&ASLEEP), Seen::Turns);
            assert!(!slot.end(turn));
        }
        let turn = slot.begin();
        assert!(!slot.end(turn));
        assert_eq!(slot.look_at(&ASLEEP), Seen::Turns);
        assert_eq!(slot.look_at(&ASLEEP), Seen::Nothing);
    }

    #[test]
    fn a_turn_within_a_turn_leaves_the_outer_one_in_its_place() {
        let (_runtime, slot) = slot();
        let outer = slot.begin();
        assert_eq!(slot.look_at(&ASLEEP), Seen::Turns);
        let inner = slot.begin();
        assert_eq!(slot.look_at(&ASLEEP), Seen::Turns);
        assert!(!slot.end(inner));
        assert_eq!(slot.look_at(&ASLEEP), Seen::Turns);
        assert_eq!(slot.look_at(&ASLEEP), Seen::Long);
        assert!(slot.end(outer));
    }
}
