//! What a wake-up costs on this machine, and from it the time that looking may take. Found out once a process, when the first
//! conversation is long enough to gain by it, by two threads of their own that sleep most of the time; nobody waits for them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::limits::{
    SPIN_BUDGET_DEFAULT, SPIN_BUDGET_MAX, SPIN_BUDGET_MIN, SPIN_BUDGET_WAKES, WAKE_PROBE_PAUSE,
    WAKE_PROBES,
};

/// The processors that the process had when it was first asked.
pub(super) struct Cores {
    pub(super) count: usize,
    /// Two of them that are not the same.
    ends: Option<(usize, usize)>,
}

/// Asked early: a process that is confined to one processor later has peers on others.
pub(super) fn cores() -> &'static Cores {
    static CORES: LazyLock<Cores> = LazyLock::new(|| {
        let set = sched_getaffinity(None).ok();
        let mut usable =
            (0..CpuSet::MAX_CPU).filter(|cpu| set.as_ref().is_some_and(|set| set.is_set(*cpu)));
        let ends = usable.next().zip(usable.next_back());
        // Quotas count, too.
        let count = thread::available_parallelism().map_or(1, usize::from);
        Cores { count, ends }
    });
    &CORES
}

/// The full budget; `None` until it is known. The first call has it found out.
pub(super) fn full_budget() -> Option<Duration> {
    static FULL: OnceLock<Duration> = OnceLock::new();
    static BEGUN: AtomicBool = AtomicBool::new(false);
    if let Some(full) = FULL.get() {
        return Some(*full);
    }
    if !BEGUN.swap(true, Ordering::Relaxed) {
        let measuring = thread::Builder::new()
            .name("wake-probe".to_owned())
            .spawn(|| {
                let found = wake_cost().map_or(SPIN_BUDGET_DEFAULT, budget_for);
                tracing::debug!(budget = ?found, "what a wake-up costs was found out");
                // It is set by this thread alone.
                let _always_the_first = FULL.set(found);
            });
        if let Err(error) = measuring {
            tracing::debug!(%error, "what a wake-up costs cannot be found out");
            let _always_the_first = FULL.set(SPIN_BUDGET_DEFAULT);
        }
    }
    None
}

fn budget_for(wake: Duration) -> Duration {
    (wake * SPIN_BUDGET_WAKES).clamp(SPIN_BUDGET_MIN, SPIN_BUDGET_MAX)
}

/// The median of what it takes a thread to wake another on an idle processor; `None` where there is one processor, or threads
/// cannot be had.
fn wake_cost() -> Option<Duration> {
    let (here, there) = cores().ends?;
    let is_over = Arc::new(AtomicBool::new(false));
    let turn = Arc::new(AtomicBool::new(false));
    confine(here)?;
    let caller = thread::current();
    let echo = {
        let (is_over, turn) = (Arc::clone(&is_over), Arc::clone(&turn));
        let echo = move || {
            let confined = confine(there);
            while !is_over.load(Ordering::Acquire) {
                if turn.swap(false, Ordering::AcqRel) {
                    caller.unpark();
                } else {
                    thread::park();
                }
            }
            confined
        };
        thread::Builder::new()
            .name("wake-echo".to_owned())
            .spawn(echo)
            .ok()?
    };
    let mut trips: Vec<_> = (0..WAKE_PROBES)
        .map(|_| trip(echo.thread(), &turn))
        .collect();
    is_over.store(true, Ordering::Release);
    echo.thread().unpark();
    echo.join().ok()??;
    trips.sort_unstable();
    trips.get(trips.len() / 2).map(|trip| *trip / 2)
}

/// There and back, after a pause in which both processors went to rest as far as others let them.
fn trip(echo: &Thread, turn: &AtomicBool) -> Duration {
    thread::sleep(WAKE_PROBE_PAUSE);
    let began = Instant::now();
    turn.store(true, Ordering::Release);
    echo.unpark();
    while turn.load(Ordering::Acquire) {
        thread::park();
    }
    began.elapsed()
}

/// Confines this thread to one processor.
fn confine(cpu: usize) -> Option<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_within_its_bounds_whatever_a_wake_costs() {
        for nanos in [0, 1_000, 30_000, 1_000_000_000] {
            let budget = budget_for(Duration::from_nanos(nanos));
            assert!((SPIN_BUDGET_MIN..=SPIN_BUDGET_MAX).contains(&budget));
        }
        assert!((SPIN_BUDGET_MIN..=SPIN_BUDGET_MAX).contains(&SPIN_BUDGET_DEFAULT));
    }

    #[test]
    fn a_wake_costs_something_where_there_are_two_processors() {
        // In a thread of its own: it is confined afterwards.
        let found = thread::spawn(wake_cost).join().unwrap();
        assert_eq!(found.is_some(), cores().ends.is_some());
        assert!(found.is_none_or(|wake| !wake.is_zero()));
    }
}
