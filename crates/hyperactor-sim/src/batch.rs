//! Many seeds one after the other, some of them twice, and what they came to together.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::engine::{Outcome, run};
use crate::fault::Nanos;
use crate::ledger::{Flaw, FlawKind};
use crate::rng::mix;
use crate::scenario::Scenario;
use crate::seen::Seen;

/// The seeds to which the least values of [`Seen::rows`] belong.
const LEAST_SEEDS: u64 = 10_000;
/// Below this many seeds chance decides what is seen, so nothing is required.
const REQUIRED_FROM: u64 = 1000;

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs a scenario; a panic of the code under test is a flaw like any other.
pub fn judge(scenario: &Scenario, keep_text: bool) -> Outcome {
    static HOOK: Once = Once::new();
    // The text of a panic is only known to the hook; on other threads the default one goes on.
    HOOK.call_once(|| {
        panic::set_hook(Box::new(|info| {
            LAST_PANIC.with(|last| *last.borrow_mut() = info.to_string().replace('\n', " "));
        }));
    });
    panic::catch_unwind(AssertUnwindSafe(|| run(scenario, keep_text))).unwrap_or_else(|_| Outcome {
        flaws: vec![Flaw {
            kind: FlawKind::Panic,
            detail: LAST_PANIC.with(|last| last.take()),
        }],
        seen: Seen::default(),
        hash: 0,
        text: None,
        ended: 0,
        healed_in: 0,
        events: 0,
    })
}

/// What a run of many seeds came to.
#[derive(Debug, Default)]
pub struct Batch {
    /// Seeds without a flaw.
    pub passed: u64,
    /// Seeds with one, and the first flaw of each.
    pub failed: Vec<(u64, Flaw)>,
    /// Seeds that were run twice.
    pub twice: u64,
    /// What was seen in all of them.
    pub seen: Seen,
    /// The hash of all logs.
    pub hash: u64,
    /// The longest time that a healed network took to give every message its outcome.
    pub slowest: (Nanos, u64),
    /// Events handled.
    pub events: u64,
    /// Virtual time, all runs together.
    pub virtual_time: u128,
}

impl Batch {
    /// Runs one more seed; again, if `twice`, to see that it is the same.
    pub fn add(&mut self, seed: u64, twice: bool) {
        let scenario = Scenario::draw(seed);
        let mut outcome = judge(&scenario, false);
        if twice {
            self.twice += 1;
            let again = judge(&scenario, false);
            if again.hash != outcome.hash {
                outcome.flaws.push(Flaw {
                    kind: FlawKind::Nondeterministic,
                    detail: format!("log hashes {:016x} and {:016x}", outcome.hash, again.hash),
                });
            }
        }
        self.seen.add(&outcome.seen);
        self.hash = mix(self.hash ^ outcome.hash);
        self.slowest = self.slowest.max((outcome.healed_in, seed));
        self.events += outcome.events;
        self.virtual_time += u128::from(outcome.ended);
        match outcome.flaws.into_iter().next() {
            None => self.passed += 1,
            Some(flaw) => self.failed.push((seed, flaw)),
        }
    }

    /// Returns what was seen too rarely for this many seeds: text, seen, least.
    pub fn unseen(&self) -> Vec<(&'static str, u64, u64)> {
        let seeds = self.passed + self.failed.len() as u64;
        if seeds < REQUIRED_FROM {
            return Vec::new();
        }
        let scale = |least: u64| least * seeds / LEAST_SEEDS;
        self.seen
            .rows()
            .into_iter()
            .map(|(text, seen, least)| (text, seen, scale(least)))
            .filter(|(_, seen, least)| seen < least)
            .collect()
    }
}
