//! What waits for an actor or a client beside its messages: undeliverables, and the ends of children. Bounded;
//! what does not fit is logged.

use std::collections::VecDeque;

use hyperactor_mailbox::Undeliverable;
use hyperactor_refs::ActorId;
use parking_lot::Mutex;

use crate::{ActorExit, limits};

pub(crate) enum Report {
    Undeliverable(Box<Undeliverable>),
    ChildExit { child: ActorId, exit: ActorExit },
}

impl Report {
    /// The last resort: nobody will look at it.
    pub(crate) fn log(&self, actor: &ActorId) {
        match self {
            Self::Undeliverable(report) => warn(actor, report),
            Self::ChildExit { child, exit } => {
                tracing::warn!(actor = %actor, child = %child, exit = %exit, "a child ended");
            }
        }
    }
}

/// Logs an undeliverable: ids, reason and route, never the payload.
pub(crate) fn warn(actor: &ActorId, report: &Undeliverable) {
    tracing::warn!(
        actor = %actor,
        dest = %report.envelope.dest(),
        code = report.failure.code(),
        "{report}",
    );
}

/// A bounded queue of reports.
#[derive(Default)]
pub(crate) struct Reports {
    queue: Mutex<VecDeque<Report>>,
}

impl Reports {
    /// Keeps a report, or gives it back when there are [`limits::REPORTS_MAX`] already.
    pub(crate) fn push(&self, report: Report) -> Option<Report> {
        let mut queue = self.queue.lock();
        if queue.len() >= limits::REPORTS_MAX {
            return Some(report);
        }
        queue.push_back(report);
        None
    }

    pub(crate) fn pop(&self) -> Option<Report> {
        self.queue.lock().pop_front()
    }
}
