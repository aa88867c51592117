//! What keeps a handler that blocks its thread from holding up anybody but its own actor: how each turn of an actor is polled.
//! Whose turns take long is found out by a thread of its own, in `watchdog.rs`.
//!
//! A worker of a tokio runtime that found input runs the task that it is for, and polls for no more input until that task
//! gives way; the other workers sleep, and nobody tells them. A task that was woken meanwhile by the one that blocks is kept
//! for the same worker. So an actor that lately took long is polled **apart**: its worker's duties go to another thread of
//! the runtime before, tasks that it wakes go to the other workers, and its own thread may block. Of an actor that was
//! always quick nothing is known before its first long turn: there the watchdog wakes another worker.

mod watchdog;

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::limits;

/// How an actor's turns went lately. Written by its own task alone.
#[derive(Default)]
pub(crate) struct Pace {
    /// Quick turns until it counts as quick again; 0 where it does.
    slow: AtomicU8,
    /// Whether its task's runtime has other threads that could take over. Noted when the task begins: the runtime that a turn
    /// finds itself in may be another one, entered by a guard, whose workers have no part in it.
    has_workers: bool,
}

impl Pace {
    /// For an actor whose task that runtime polls.
    pub(crate) fn on(runtime: &Handle) -> Self {
        Self {
            has_workers: runtime.runtime_flavor() == RuntimeFlavor::MultiThread,
            ..Self::default()
        }
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
}

/// Polls an actor for one turn. The call must not panic.
#[inline(always)]
pub(crate) fn turn<T>(pace: &Pace, poll: impl FnOnce() -> T) -> T {
    if pace.is_slow() {
        return apart(pace, poll);
    }
    let (polled, was_slow) = watchdog::watched(pace.has_workers, poll);
    if was_slow {
        pace.learn(true);
    }
    polled
}

/// Polls an actor that was slow lately, on a thread that is no worker of the runtime meanwhile.
#[cold]
fn apart<T>(pace: &Pace, poll: impl FnOnce() -> T) -> T {
    let handle = Handle::try_current().ok().filter(|_| pace.has_workers);
    let handle = handle.filter(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    let place = handle.as_ref().and_then(Place::take);
    let (Some(handle), Some(_place)) = (handle, place) else {
        let (polled, was_slow) = watchdog::watched(pace.has_workers, poll);
        pace.learn(was_slow);
        return polled;
    };
    let begun = Instant::now();
    // The inner call is ready at once. It is there for what a turn has on a worker, and has not while the thread blocks: the budget
    // by which a task that always finds something to do gives way.
    let polled = tokio::task::block_in_place(|| handle.block_on(async { poll() }));
    pace.learn(begun.elapsed() >= limits::SLOW_TURN);
    polled
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

    #[test]
    fn one_slow_turn_is_remembered_for_a_number_of_quick_ones() {
        let pace = Pace::default();
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
        assert_eq!(turn(&pace, || 1), 1);
        assert_eq!(runtime.block_on(async { turn(&pace, || 2) }), 2);
    }
}
