//! What keeps a handler that blocks its thread from holding up anybody but its own actor: how each turn of an actor is polled.
//! Whose turns take long is found out by a thread of its own, in `watchdog.rs`.
//!
//! A worker of a tokio runtime that found input runs the task that it is for, and polls for no more input until that task
//! gives way; the other workers sleep, and nobody tells them. A task that was woken meanwhile by the one that blocks is kept
//! for the same worker. So an actor that lately took long is polled **apart**: its worker's duties go to another thread of
//! the runtime before, tasks that it wakes go to the other workers, and its own thread may block. Of an actor that was
//! always quick nothing is known before its first long turn: there the watchdog wakes another worker.
//!
//! A turn that takes long says nothing of the actor where it neither computed nor slept: others had the processors. And an actor
//! whose turns take long by their many messages handles fewer in each, until none does.

mod thread_use;
mod watchdog;

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::counters::Counters;
use crate::limits;
use thread_use::waited;

/// How an actor's turns went lately. Written by its own task alone.
pub(crate) struct Pace {
    /// Quick turns until it counts as quick again; 0 where it does.
    slow: AtomicU8,
    /// How many messages it handles before others have their turn.
    most: AtomicU32,
    /// Whether its task's runtime has other threads that could take over. Noted when the task begins: the runtime that a turn
    /// finds itself in may be another one, entered by a guard, whose workers have no part in it.
    has_workers: bool,
}

impl Pace {
    /// For an actor whose task that runtime polls.
    pub(crate) fn on(runtime: &Handle) -> Self {
        Self {
            slow: AtomicU8::new(0),
            most: AtomicU32::new(limits::MESSAGES_PER_TURN),
            has_workers: runtime.runtime_flavor() == RuntimeFlavor::MultiThread,
        }
    }

    /// How many messages the actor may handle before it lets others run.
    #[inline(always)]
    pub(crate) fn messages_per_turn(&self) -> u32 {
        self.most.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn is_usual(&self) -> bool {
        !self.is_slow() && self.messages_per_turn() == limits::MESSAGES_PER_TURN
    }

    fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed) != 0
    }

    fn learn(&self, was_slow: bool) {
        let slow = match was_slow {
            true => limits::SLOW_TURNS_REMEMBERED,
            false => self.slow.load(Ordering::Relaxed).saturating_sub(1),
        };
        self.slow.store(slow, Ordering::Relaxed);
    }

    /// Finds the number of messages that make no turn slow: a turn that was slow by many of them need not have been, and then
    /// nobody needs to poll it apart.
    fn learn_messages(&self, was_slow: bool, took: Duration, handled: u64) {
        let most = self.most.load(Ordering::Relaxed);
        let was_full = handled >= u64::from(most);
        let most = if was_slow && handled < 2 {
            // By itself, not by their number.
            most
        } else if was_slow {
            u32::try_from(handled / 2).unwrap_or(most).clamp(1, most)
        } else if was_full && took < limits::SLOW_TURN / 4 {
            most.saturating_mul(2).min(limits::MESSAGES_PER_TURN)
        } else {
            most
        };
        self.most.store(most, Ordering::Relaxed);
    }
}

/// What an actor knows of the turns of its process that were found to take long.
pub(crate) struct Finds(u64);

impl Finds {
    pub(crate) fn so_far() -> Self {
        Self(watchdog::found())
    }

    /// Whether the turn of this thread is among those that were found since this was asked last, so that it is to end.
    #[inline(always)]
    pub(crate) fn has_this(&mut self) -> bool {
        let found = watchdog::found();
        found != std::mem::replace(&mut self.0, found) && watchdog::is_long()
    }
}

/// Polls an actor for one turn, in which it counts the messages that it handles. The call must not panic.
#[inline(always)]
pub(crate) fn turn<T>(pace: &Pace, counters: &Counters, poll: impl FnOnce() -> T) -> T {
    if !pace.is_usual() {
        return unusual(pace, counters, poll);
    }
    let (polled, was_slow) = watchdog::watched(pace.has_workers, poll);
    if was_slow {
        pace.learn(true);
    }
    polled
}

/// Polls an actor that took long lately, and learns from how long it takes.
#[cold]
fn unusual<T>(pace: &Pace, counters: &Counters, poll: impl FnOnce() -> T) -> T {
    let (begun, before, handled) = (Instant::now(), waited(), counters.handled_so_far());
    let polled = match pace.is_slow() {
        true => apart(pace, poll),
        false => watchdog::watched(pace.has_workers, poll).0,
    };
    let passed = begun.elapsed();
    // Not what it waited for a processor that others had.
    let kept = waited()
        .zip(before)
        .map(|(now, before)| now.saturating_sub(before));
    let took = passed.saturating_sub(kept.unwrap_or_default());
    let was_slow = took >= limits::SLOW_TURN;
    pace.learn(was_slow);
    pace.learn_messages(was_slow, took, counters.handled_so_far() - handled);
    polled
}

/// Polls on a thread that is no worker of the runtime meanwhile, where there is another one.
fn apart<T>(pace: &Pace, poll: impl FnOnce() -> T) -> T {
    let handle = Handle::try_current().ok().filter(|_| pace.has_workers);
    let handle = handle.filter(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    let place = handle.as_ref().and_then(Place::take);
    let (Some(handle), Some(_place)) = (handle, place) else {
        return watchdog::watched(pace.has_workers, poll).0;
    };
    // The inner call is ready at once. It is there for what a turn has on a worker, and has not while the thread blocks: the budget
    // by which a task that always finds something to do gives way.
    tokio::task::block_in_place(|| handle.block_on(async { poll() }))
}

/// The turns that are apart now, in the whole process. Each runtime compares it with the number of its own workers: where a process
/// has several, slow actors of a large one may leave those of a small one none, and these are then polled as ever.
static APART: AtomicUsize = AtomicUsize::new(0);

/// The right to a thread beside the workers, given back when dropped.
struct Place;

impl Place {
    /// As many as the runtime has workers: with more, slow actors would take the processors from everybody else.
    fn take(handle: &Handle) -> Option<Self> {
        let most = handle.metrics().num_workers();
        let take = |taken| (taken < most).then(|| taken + 1);
        let took = APART.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        took.is_ok().then_some(Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        APART.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        Pace::on(runtime.handle())
    }

    #[test]
    fn a_turn_that_was_slow_by_its_messages_gets_fewer_of_them() {
        const QUICK: Duration = Duration::ZERO;
        let pace = pace();
        let all = pace.messages_per_turn();
        pace.learn_messages(true, limits::SLOW_TURN, u64::from(all));
        assert_eq!(pace.messages_per_turn(), all / 2);
        pace.learn_messages(true, limits::SLOW_TURN, 12);
        assert_eq!(pace.messages_per_turn(), 6);
        // Near what is slow: neither more nor fewer.
        pace.learn_messages(false, limits::SLOW_TURN / 2, 6);
        assert_eq!(pace.messages_per_turn(), 6);
        pace.learn_messages(true, limits::SLOW_TURN, 1);
        assert_eq!(pace.messages_per_turn(), 6, "one is slow by itself");
        pace.learn_messages(true, limits::SLOW_TURN, 2);
        assert_eq!(pace.messages_per_turn(), 1);
        for _ in 0..4 {
            pace.learn_messages(false, QUICK, 8);
        }
        assert_eq!(
            pace.messages_per_turn(),
            16,
            "more were not there: they say nothing"
        );
        for _ in 0..8 {
            pace.learn_messages(false, QUICK, u64::from(all));
        }
        assert_eq!(pace.messages_per_turn(), all);
    }

    #[test]
    fn one_slow_turn_is_remembered_for_a_number_of_quick_ones() {
        let pace = pace();
        assert!(!pace.is_slow());
        pace.learn(true);
        for _ in 0..limits::SLOW_TURNS_REMEMBERED {
            assert!(pace.is_slow());
            pace.learn(false);
        }
        assert!(!pace.is_slow());
        pace.learn(false);
        assert!(!pace.is_slow());
    }

    #[test]
    fn where_nobody_else_could_take_over_a_slow_actor_is_polled_as_ever() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let pace = Pace::on(runtime.handle());
        pace.learn(true);
        assert_eq!(turn(&pace, &Counters::default(), || 1), 1);
        assert_eq!(
            runtime.block_on(async { turn(&pace, &Counters::default(), || 2) }),
            2
        );
    }
}
