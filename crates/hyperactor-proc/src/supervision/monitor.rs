//! Waiting for an actor's end from anywhere: [`Monitor`] is a value to wait on, [`MonitorId`] names a monitor that an actor
//! has set.

use std::fmt;
use std::sync::Arc;

use hyperactor_refs::ActorId;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Cause, Event, Relation, Told};
use crate::proc::WeakProc;
use crate::{Proc, ProcLoss};

/// Names one monitor of an actor: told with its event, and given to
/// [`demonitor`](crate::Context::demonitor). No two monitors of a proc's life have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MonitorId(u64);

impl MonitorId {
    pub(crate) fn new(key: u64) -> Self {
        Self(key)
    }

    pub(crate) fn key(self) -> u64 {
        self.0
    }
}

impl fmt::Display for MonitorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "monitor {}", self.0)
    }
}

/// A monitor for code that is no actor: waits for the end of an actor, wherever it lives.
///
/// Made by [`Proc::monitor`]. Dropping it ends the monitor.
pub struct Monitor {
    proc: WeakProc,
    target: ActorId,
    key: u64,
    told: watch::Receiver<Option<Arc<Event>>>,
}

impl Monitor {
    /// Who is monitored.
    pub fn actor_id(&self) -> &ActorId {
        &self.target
    }

    /// How the actor ended, if that is known already.
    pub fn event(&self) -> Option<Event> {
        let told = self.told.borrow().clone();
        told.map(|event| event.told_as(self.relation()))
    }

    /// Waits for the actor's end, for the loss of its proc, or for the news that there is no such actor.
    ///
    /// # Cancel safety
    /// Cancel safe; it only watches.
    pub async fn ended(&self) -> Event {
        let mut told = self.told.clone();
        let event = match told.wait_for(Option::is_some).await {
            Ok(event) => event.clone(),
            Err(_) => None,
        };
        match event {
            Some(event) => event.told_as(self.relation()),
            None => self.unwatched(),
        }
    }

    fn relation(&self) -> Relation {
        Relation::Monitored(MonitorId::new(self.key))
    }

    /// The proc that watched is gone, and with it everybody who could tell more.
    fn unwatched(&self) -> Event {
        let loss = ProcLoss::Died {
            proc_id: Arc::clone(self.proc.proc_id()),
            certificate: None,
            seen: "the proc that watched was dropped".to_owned(),
        };
        Event::bare(self.target.clone(), None, Cause::ProcLost(loss)).told_as(self.relation())
    }
}

impl Proc {
    /// Monitors an actor of this proc or any other, without being an actor.
    ///
    /// It is told once: at the actor's end, at the loss of its proc, or at once if there is no such actor. See
    /// [`Proc::watch_proc`] for how soon the loss of a proc is known, and for what it costs.
    pub fn monitor(&self, target: &ActorId) -> Monitor {
        let key = self.next_key();
        let (slot, told) = watch::channel(None);
        let monitor = Monitor {
            proc: self.downgrade(),
            target: target.clone(),
            key,
            told,
        };
        self.watch_actor(key, target, Told::Slot(slot));
        monitor
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if self.told.borrow().is_none()
            && let Ok(proc) = self.proc.upgrade()
        {
            proc.unwatch_actor(self.key, &self.target);
        }
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Monitor({})", self.target)
    }
}
