//! What an actor can tell about its process: the messages by route, and what came back undeliverable.

use hyperactor::host::SERVICE_PROC;
use hyperactor::prelude::*;
use serde::{Deserialize, Serialize};

/// The answer to a question for figures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Message)]
pub(crate) struct Tally {
    /// Messages within the process so far.
    pub(crate) in_process: u64,
    /// Messages to each other process of the host so far.
    pub(crate) siblings: Vec<SiblingTally>,
    /// Messages of the actor that was asked that came back, or of which nobody knows.
    pub(crate) undeliverable: u64,
}

/// Messages to one other process, by its proc's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SiblingTally {
    pub(crate) name: String,
    pub(crate) direct: u64,
    pub(crate) relay: u64,
}

/// Counts what came back to one actor.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    count: u64,
}

impl Lost {
    /// Counts a report; returns the text of the first one, which is the one worth showing.
    pub(crate) fn note(&mut self, report: &Undeliverable) -> Option<String> {
        self.count += 1;
        (self.count == 1).then(|| report.to_string())
    }
}

/// The figures of this process, asked from an actor in it.
pub(crate) fn tally(proc: &Proc, lost: &Lost) -> Tally {
    Tally {
        in_process: proc.traffic().in_process,
        siblings: hyperactor::bootstrap::route_counts()
            .into_iter()
            // Answers to the host are not between siblings.
            .filter(|count| count.proc_id.name() != SERVICE_PROC)
            .map(|count| SiblingTally {
                name: count.proc_id.name().to_owned(),
                direct: count.direct,
                relay: count.relay,
            })
            .collect(),
        undeliverable: lost.count,
    }
}
