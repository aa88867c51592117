//! The orderly end of a proc: drain, then stop, then abort, each within the deadline that was given.

use std::sync::Arc;
use std::time::Duration;

use hyperactor_mailbox::{FlushError, MailboxSender};
use hyperactor_refs::ActorId;
use tokio::time::{Instant, timeout_at};

use crate::control::{AnyCell, End, all_ended};
use crate::{ActorExit, Proc, limits};

/// How the end of a proc went.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StopReport {
    /// Actors that handled everything in their queues and ended.
    pub drained: Vec<ActorId>,
    /// Actors that ended when they were asked to stop; some messages may have been left in their queues.
    pub stopped: Vec<ActorId>,
    /// Actors that had to be aborted.
    pub aborted: Vec<ActorId>,
    /// Actors that failed or panicked while they were ending, with how.
    pub failed: Vec<(ActorId, ActorExit)>,
    /// Actors that block their thread and were left behind.
    pub stuck: Vec<ActorId>,
    /// Messages that were in the queues of actors and were not handled, over the whole life of the proc.
    pub unhandled: u64,
    /// Whether everything that was handed to the forwarder has an outcome. `Err(FlushError::Unsupported)` is the
    /// answer of a forwarder that does not keep track.
    pub flushed: Result<(), FlushError>,
}

impl StopReport {
    /// Whether every actor ended without force, every message in a queue was handled and every message out has an
    /// outcome, as far as the forwarder knows.
    pub fn is_clean(&self) -> bool {
        self.stopped.is_empty()
            && self.aborted.is_empty()
            && self.failed.is_empty()
            && self.stuck.is_empty()
            && self.unhandled == 0
            && matches!(self.flushed, Ok(()) | Err(FlushError::Unsupported))
    }
}

impl Proc {
    /// Ends all actors of the proc and refuses new ones, but for children that living actors still need.
    ///
    /// First they are asked to drain, with the first part of the deadline
    /// ([`limits::DRAIN_SHARE_OF_DEADLINE`]); then those that live are asked to stop, until the deadline; then they
    /// are aborted. Parents end before their children, so that what a parent still hands to a child is handled.
    /// At last the forwarder is flushed with what is left of the deadline.
    ///
    /// Clients are not ended. Calling it again, also at the same time, is fine.
    ///
    /// An actor must not wait for the end of its own proc: it would be waiting for itself, until it is aborted.
    ///
    /// # Bounds
    /// At most the deadline, [`limits::ABORT_GRACE`], and the same again for the flush.
    ///
    /// # Cancel safety
    /// A future that is dropped leaves the proc closed and the actors asked to end as far as it had come.
    ///
    /// # Panics
    /// Outside of a tokio runtime, or in one without a timer, as tokio's own timers do.
    pub async fn stop(&self, deadline: Duration) -> StopReport {
        self.close();
        let start = Instant::now();
        let drain_until = start + deadline / limits::DRAIN_SHARE_OF_DEADLINE;
        let stop_until = start + deadline;

        let all = self.controls(|_| true);
        // A parent drains its children when it has drained itself.
        let drained = ended_by(self.roots(), all, End::Drain, drain_until).await;
        let stopped = ended_by(drained.left.clone(), drained.left, End::Stop, stop_until).await;
        let abort_until = Instant::now() + limits::ABORT_GRACE;
        let aborted = ended_by(stopped.left.clone(), stopped.left, End::Abort, abort_until).await;
        for control in &aborted.left {
            tracing::error!(actor = %control.actor_id(), "an actor blocks its thread and cannot be ended");
        }

        let flush_until = stop_until.max(Instant::now() + limits::ABORT_GRACE);
        let flushed = match timeout_at(flush_until, self.flush()).await {
            Ok(result) => result,
            Err(_) => Err(FlushError::Closed {
                to: self.proc_id().to_string(),
                error: "the deadline of the stop ended before every message had an outcome"
                    .to_owned(),
            }),
        };
        let failed = [drained.failed, stopped.failed, aborted.failed].concat();
        StopReport {
            failed,
            drained: drained.ended,
            stopped: stopped.ended,
            aborted: aborted.ended,
            stuck: ids(&aborted.left),
            unhandled: self.traffic().unhandled,
            flushed,
        }
    }

    fn roots(&self) -> Vec<Arc<dyn AnyCell>> {
        self.controls(|control| !control.has_parent())
    }
}

#[derive(Default)]
struct Phase {
    ended: Vec<ActorId>,
    failed: Vec<(ActorId, ActorExit)>,
    left: Vec<Arc<dyn AnyCell>>,
}

/// Asks some actors to end and waits for all of `watched`, until a point in time.
async fn ended_by(
    asked: Vec<Arc<dyn AnyCell>>,
    watched: Vec<Arc<dyn AnyCell>>,
    end: End,
    until: Instant,
) -> Phase {
    for control in &asked {
        control.end(end);
    }
    // Elapsed or not, what counts is how each of them is now.
    timeout_at(until, all_ended(&watched)).await.ok();
    let mut phase = Phase::default();
    for control in watched {
        let exit = control.status_now().exit().cloned();
        let id = control.actor_id().clone();
        match exit {
            None => phase.left.push(control),
            Some(ActorExit::Stopped | ActorExit::Aborted) => phase.ended.push(id),
            Some(exit) => phase.failed.push((id, exit)),
        }
    }
    phase
}

fn ids(controls: &[Arc<dyn AnyCell>]) -> Vec<ActorId> {
    controls
        .iter()
        .map(|control| control.actor_id().clone())
        .collect()
}
