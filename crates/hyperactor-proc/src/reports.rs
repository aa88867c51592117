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

/// A bounded queue of reports, until nobody looks at it any more.
#[derive(Default)]
pub(crate) struct Reports {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_closed: bool,
    queue: VecDeque<Report>,
}

impl Reports {
    /// Keeps a report, or gives it back: because there are [`limits::REPORTS_MAX`] already, or because they are
    /// closed.
    pub(crate) fn push(&self, report: Report) -> Option<Report> {
        let mut state = self.state.lock();
        if state.is_closed || state.queue.len() >= limits::REPORTS_MAX {
            return Some(report);
        }
        state.queue.push_back(report);
        None
    }

    pub(crate) fn pop(&self) -> Option<Report> {
        self.state.lock().queue.pop_front()
    }

    /// Takes nothing more, and gives what nobody has looked at.
    pub(crate) fn close(&self) -> VecDeque<Report> {
        let mut state = self.state.lock();
        state.is_closed = true;
        std::mem::take(&mut state.queue)
    }
}
