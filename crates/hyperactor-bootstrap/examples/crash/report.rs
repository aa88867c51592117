//! What a suite is given, and what it gives back: counts, figures, and the books of messages.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use hyperactor_testkit::{Key, Ledger, Outcome, Scale, Seed, TempSocketDir};

use crate::actors::{self, Told};

pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What every suite is given.
pub(crate) struct Context {
    pub(crate) seed: Seed,
    pub(crate) scale: Scale,
    /// A folder for evidence.
    pub(crate) folder: TempSocketDir,
}

impl Context {
    /// A figure of the suite, scaled; at least one.
    pub(crate) fn scaled(&self, full: u64) -> u64 {
        self.scale.of(full)
    }
}

/// Counts what held and what did not.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

/// How many times the aim the longest of many may take, where the machine does other work besides.
pub(crate) const BUSY: u32 = 3;

/// How many failures are told in full.
const FAILURES_TOLD: u64 = 20;

impl Report {
    pub(crate) fn figure(&mut self, name: &str, value: impl Display) {
        println!("  {name:<44} {value}");
    }

    pub(crate) fn check(&mut self, what: &str, holds: bool, seen: impl Display) {
        if holds {
            self.passed += 1;
            return;
        }
        self.failed += 1;
        if self.failed <= FAILURES_TOLD {
            println!("  FAILED  {what}: {seen}");
        }
    }

    /// Judges times. Half of them keep to the aim whatever else the machine does, and the longest to [`BUSY`] times that.
    pub(crate) fn keep_to(&mut self, what: &str, aim: Duration, mut times: Vec<Duration>) {
        times.sort_unstable();
        let Some(longest) = times.last().copied() else {
            return self.check(what, false, "nothing was measured");
        };
        let median = times[times.len() / 2];
        self.figure(what, format!("median {median:.1?}, longest {longest:.1?}"));
        self.check(
            what,
            median <= aim && longest <= aim * BUSY,
            format!("the aim is {aim:?}"),
        );
    }

    /// Adds what a part of the suite found.
    pub(crate) fn add(&mut self, part: &Report) {
        self.passed += part.passed;
        self.failed += part.failed;
        self.skipped += part.skipped;
    }

    /// Judges a ledger: each fault is a failure.
    pub(crate) fn judge(&mut self, what: &str, ledger: &Ledger) {
        let verdict = ledger.verdict();
        self.check(what, verdict.is_clean(), &verdict);
    }
}

/// Enters what a sender was asked to post and what it was told.
pub(crate) fn book(ledger: &Ledger, sender: u32, stream: u32, first: u64, told: &Told) {
    for (index, outcome) in told.outcomes.iter().enumerate() {
        let number = first + index as u64;
        let message = ledger.post(sender, stream, actors::body(number));
        let key = message.key();
        debug_assert_eq!(key.number, number, "streams are posted in order");
        let outcomes: &[Outcome] = match *outcome {
            actors::DELIVERED => &[Outcome::Delivered],
            actors::NOT_DELIVERED => &[Outcome::NotDelivered],
            actors::UNKNOWN => &[Outcome::Unknown],
            actors::TWICE => &[Outcome::Unknown, Outcome::Unknown],
            _ => &[],
        };
        for outcome in outcomes {
            ledger.outcome(key, *outcome);
        }
    }
}

/// Reads what a receiver wrote down; a receiver that took nothing has no journal.
pub(crate) fn read(ledger: &Ledger, journal: &Path) -> Result<usize> {
    if journal.exists() {
        Ok(ledger.read_journal(journal)?)
    } else {
        Ok(0)
    }
}

/// The arrivals of a journal in the order in which they were written: the life that took each, and its key.
pub(crate) fn arrivals(journal: &Path) -> Result<Vec<(u64, Key)>> {
    if !journal.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(journal)?;
    let arrivals = text.split_inclusive('\n').filter_map(|line| {
        let mut fields = line.strip_suffix('\n')?.split(' ');
        let mut next = || u64::from_str_radix(fields.next()?, 16).ok();
        let life = next()?;
        let key = Key {
            sender: next()?.try_into().ok()?,
            stream: next()?.try_into().ok()?,
            number: next()?,
        };
        Some((life, key))
    });
    Ok(arrivals.collect())
}
