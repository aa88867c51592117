//! What a suite is given, and the books of messages that its receivers leave behind.

use std::path::Path;

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

/// How many times the aim the longest of many may take, where the machine does other work besides.
pub(crate) const BUSY: u32 = 3;

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
