//! How a proc is doing, seen without asking any of its actors: [`ProcSnapshot`], here and from other procs.

use std::sync::Arc;
use std::time::Duration;

use hyperactor_mailbox::{OncePortRef, Outbox};
use hyperactor_refs::{ActorId, Incarnation, ProcId};
use serde::{Deserialize, Serialize};

use crate::control::AnyCell;
use crate::proc::WeakProc;
use crate::system::{self, FromSystem, System};
use crate::{AskError, Message, Proc, Traffic, ask, limits};

/// A proc at one moment.
///
/// Each entry is true for itself; they are not all of the same instant, since nobody is stopped for it.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[message(name = "hyperactor.ProcSnapshot")]
#[non_exhaustive]
pub struct ProcSnapshot {
    /// Which proc.
    pub proc_id: Arc<ProcId>,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// How many messages went which way.
    pub traffic: Traffic,
    /// How many actors there are.
    pub total: u64,
    /// The first of them by id; at most [`limits::LISTED_ACTORS_MAX`].
    pub actors: Vec<ActorSnapshot>,
    /// The clients, by id; at most [`limits::LISTED_ACTORS_MAX`].
    pub clients: Vec<ActorId>,
    /// The names that were given to actors.
    pub names: Vec<(String, ActorId)>,
    /// The groups that have their home here, with the number of their members.
    pub groups: Vec<(String, u64)>,
    /// Other procs that are watched from here.
    pub watched: Vec<Arc<ProcId>>,
}

/// An actor at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ActorSnapshot {
    /// Who.
    pub actor_id: ActorId,
    /// The name of its type in its program.
    pub actor_type: String,
    /// What it was doing, in words for people: [`ActorStatus`](crate::ActorStatus) as text.
    pub status: String,
    /// Messages in its queue, without the few that it has taken out to handle.
    pub queued: u64,
    /// Messages that it handled.
    pub handled: u64,
    /// Messages whose handling failed.
    pub failed: u64,
    /// Messages that it had posted and that came back.
    pub returned: u64,
    /// How long it was not waiting for messages, in total. What a handler waits for itself is counted. On Linux the clock is
    /// the coarse one, so short times show in the mean only.
    pub busy: Duration,
    /// How long it has been busy without a pause, if it is.
    pub busy_for: Option<Duration>,
    /// The type of the message that it handles, if it is busy.
    pub message: Option<String>,
    /// Its parent, if that is in the same proc.
    pub parent: Option<ActorId>,
    /// Its children.
    pub children: Vec<ActorId>,
    /// Actors that are told of its end, and the systems of procs that are.
    pub watchers: Vec<ActorId>,
    /// Actors that it is linked with.
    pub links: Vec<ActorId>,
}

/// Asks a proc for its snapshot.
#[derive(Message, Serialize, Deserialize)]
#[message(name = "hyperactor.system.ReadSnapshot")]
struct ReadSnapshot {
    reply: OncePortRef<ProcSnapshot>,
}

/// The snapshot of a proc, this or any other. It needs no answer of the actors there, nor of the agent: it is made by the
/// task that takes the request from the network.
///
/// # Errors
/// [`AskError`]: the proc did not answer.
///
/// # Cancel safety
/// Cancel safe; it changes nothing.
///
/// # Panics
/// As [`ActorRef::ask`](crate::ActorRef::ask).
pub async fn read_snapshot(
    cx: &(impl Outbox + ?Sized),
    proc_id: &ProcId,
) -> Result<ProcSnapshot, AskError> {
    let dest = system::port::<ReadSnapshot>(&Arc::new(proc_id.clone()));
    ask::ask(cx, dest, limits::ASK_DEADLINE, |reply| ReadSnapshot {
        reply,
    })
    .await
}

pub(crate) fn bind(system: &System, proc: &WeakProc) {
    system.on::<ReadSnapshot>(proc, |proc, _, ReadSnapshot { reply }| {
        reply.post(&FromSystem(proc.clone()), proc.snapshot());
    });
}

impl Proc {
    /// How this proc and its actors are doing.
    ///
    /// # Bounds
    /// Its time grows with the number of actors; no actor is waited for.
    pub fn snapshot(&self) -> ProcSnapshot {
        let mut controls = self.controls(|_| true);
        controls.sort_by(|a, b| a.actor_id().cmp(b.actor_id()));
        let mut clients = self.client_ids();
        clients.sort();
        clients.truncate(limits::LISTED_ACTORS_MAX);
        let system = self.system();
        ProcSnapshot {
            proc_id: Arc::clone(self.downgrade().proc_id()),
            incarnation: self.incarnation(),
            traffic: self.traffic(),
            total: controls.len() as u64,
            actors: controls
                .iter()
                .take(limits::LISTED_ACTORS_MAX)
                .map(|cell| of(&**cell))
                .collect(),
            clients,
            names: self.names().list(),
            groups: system.groups.list(),
            watched: system.watches.proc_ids(),
        }
    }
}

fn of(control: &dyn AnyCell) -> ActorSnapshot {
    let reading = control.counters().read();
    let mut children = control.child_ids();
    children.sort();
    ActorSnapshot {
        actor_id: control.actor_id().clone(),
        actor_type: control.actor_type().to_owned(),
        status: control.status_now().to_string(),
        queued: control.queued() as u64,
        handled: reading.handled,
        failed: reading.failed,
        returned: reading.returned,
        busy: reading.busy,
        busy_for: reading.busy_for,
        message: reading.message.map(str::to_owned),
        parent: control.parent_id(),
        children,
        watchers: control.watchers().actor_ids(),
        links: control.links(),
    }
}
