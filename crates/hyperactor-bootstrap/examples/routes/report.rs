//! What a run is given, and what it gives back: figures, and what held and what did not.

use std::fmt::Display;

use hyperactor_testkit::{Ledger, Rng, Scale, Seed};

pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What a run is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    pub(crate) seed: Seed,
    pub(crate) scale: Scale,
}

impl Context {
    /// A figure, scaled; at least one.
    pub(crate) fn scaled(&self, full: u64) -> u64 {
        self.scale.of(full)
    }
}

/// A generator whose choices do not shift with how many this one makes later.
pub(crate) fn another(rng: &mut Rng) -> Rng {
    Seed::new(rng.next_u64()).rng()
}

/// Counts what held and what did not.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

/// How many failures are told in full.
const FAILURES_TOLD: u64 = 20;

impl Report {
    pub(crate) fn figure(&self, name: &str, value: impl Display) {
        println!("        {name:<58} {value}");
    }

    pub(crate) fn check(&mut self, what: &str, holds: bool, seen: impl Display) {
        if holds {
            self.passed += 1;
            return;
        }
        self.failed += 1;
        if self.failed <= FAILURES_TOLD {
            println!("FAILED  {what}: {seen}");
        }
    }

    /// A count that shows that something really took place.
    pub(crate) fn at_least(&mut self, name: &str, seen: u64, minimum: u64) {
        println!("        {name:<58} {seen} (at least {minimum})");
        self.check(name, seen >= minimum, "it hardly took place");
    }

    /// Judges a ledger: each kind of fault is named in the failure.
    pub(crate) fn judge(&mut self, what: &str, ledger: &Ledger) {
        let verdict = ledger.verdict();
        self.check(what, verdict.is_clean(), &verdict);
    }

    /// Adds what a part of the run found.
    pub(crate) fn add(&mut self, part: &Report) {
        self.passed += part.passed;
        self.failed += part.failed;
    }
}
