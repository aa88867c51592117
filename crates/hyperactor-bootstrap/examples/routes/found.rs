//! What the parts of a run found, to be added up and judged.

use std::time::Duration;

use hyperactor_testkit::{Class, Ledger, SuiteReport};

use crate::oracle::Seen;

/// What one part found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) report: SuiteReport,
    pub(crate) seen: Seen,
    pub(crate) messages: u64,
    pub(crate) delivered: u64,
    pub(crate) unknown: u64,
    pub(crate) lives: u64,
    pub(crate) idle: u64,
    pub(crate) refused: u64,
    pub(crate) sudden: u64,
    pub(crate) held: u64,
    /// Changes after which messages went over the other proc's connection.
    pub(crate) accepted: u64,
    pub(crate) slowest: Duration,
}

impl Found {
    pub(crate) fn add(&mut self, other: &Found) {
        self.report.add(other.report.counts());
        self.see(other.seen);
        self.messages += other.messages;
        self.delivered += other.delivered;
        self.unknown += other.unknown;
        self.lives += other.lives;
        self.idle += other.idle;
        self.refused += other.refused;
        self.sudden += other.sudden;
        self.held += other.held;
        self.accepted += other.accepted;
        self.slowest = self.slowest.max(other.slowest);
    }

    pub(crate) fn see(&mut self, seen: Seen) {
        self.seen.to_straight += seen.to_straight;
        self.seen.to_relay += seen.to_relay;
        self.seen.quiet += seen.quiet;
        self.seen.relayed += seen.relayed;
        self.seen.straight += seen.straight;
        self.seen.violations += seen.violations;
    }

    /// Enters a ledger's verdict.
    pub(crate) fn judge(&mut self, ledger: &Ledger) {
        let verdict = ledger.verdict();
        self.messages += ledger.posted() as u64;
        self.delivered += verdict.count(Class::Delivered) as u64;
        self.unknown += (verdict.count(Class::Unknown) + verdict.count(Class::Recovered)) as u64;
        self.report.judge(
            "each message arrives once, in order, as its outcome says",
            ledger,
        );
    }
}
