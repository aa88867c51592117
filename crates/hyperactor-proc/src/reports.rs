//! What waits for an actor beside its messages: the ends of those it watches, and undeliverables. The latter are
//! bounded, and what does not fit is logged; each watch has one end, so those are as many as the watches.

use std::collections::VecDeque;

use hyperactor_mailbox::Undeliverable;
use hyperactor_refs::ActorId;
use parking_lot::Mutex;

use crate::{Event, limits};

pub(crate) enum Report {
    Undeliverable(Box<Undeliverable>),
    Event(Box<Event>),
}

impl Report {
    /// The last resort: nobody will look at it.
    pub(crate) fn log(&self, actor: &ActorId) {
        match self {
            Self::Undeliverable(report) => warn(actor, report),
            Self::Event(event) => {
                tracing::debug!(target: "hyperactor::actor", event = "supervision.unheard", actor = %actor, ended = %event.actor_id, code = event.cause.code(), "an actor ended before it was told of another's end");
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
    events: VecDeque<Report>,
    undeliverables: VecDeque<Report>,
}

impl Reports {
    /// Keeps a report, or gives it back: because there are [`limits::REPORTS_MAX`] undeliverables already, or because they
    /// are closed.
    pub(crate) fn push(&self, report: Report) -> Option<Report> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Some(report);
        }
        match &report {
            Report::Event(_) => state.events.push_back(report),
            Report::Undeliverable(_) if state.undeliverables.len() >= limits::REPORTS_MAX => {
                return Some(report);
            }
            Report::Undeliverable(_) => state.undeliverables.push_back(report),
        }
        None
    }

    /// The next one: events first.
    pub(crate) fn pop(&self) -> Option<Report> {
        let mut state = self.state.lock();
        let event = state.events.pop_front();
        event.or_else(|| state.undeliverables.pop_front())
    }

    /// Takes events out; whether there were any.
    pub(crate) fn forget_events(&self, which: impl Fn(&Event) -> bool) -> bool {
        let mut state = self.state.lock();
        let before = state.events.len();
        let is_kept = |report: &Report| match report {
            Report::Event(event) => !which(event),
            Report::Undeliverable(_) => true,
        };
        state.events.retain(is_kept);
        state.events.len() < before
    }

    /// Takes nothing more, and gives what nobody has looked at.
    pub(crate) fn close(&self) -> VecDeque<Report> {
        let mut state = self.state.lock();
        state.is_closed = true;
        let mut left = std::mem::take(&mut state.events);
        left.append(&mut state.undeliverables);
        left
    }
}
