//! Who is told when an actor ends: parents, linked actors, monitors, in this process and in others. What a supervisor does
//! about it is in `supervisor`; whether other procs live is in `watch`.

mod context;
mod event;
mod monitor;
mod remote;
mod supervisor;
mod text;
mod watchers;

use std::collections::VecDeque;
use std::sync::Arc;

use hyperactor_refs::ActorId;
use parking_lot::Mutex;

use crate::proc::WeakProc;
use crate::system::System;
use crate::{Proc, limits};

pub use event::{Cause, Earlier, Escalation, Event, Relation};
pub use monitor::{Monitor, MonitorId};
pub use supervisor::{
    Backoff, ChildInfo, ChildSpec, ListChildren, Restart, StartChild, StopChild, Strategy,
    Supervisor,
};
pub(crate) use text::clipped;
pub(crate) use watchers::{Told, Watchers};

/// What a proc keeps for the supervision of its actors.
#[derive(Default)]
pub(crate) struct Supervision {
    remote: remote::Remote,
    /// How actors ended, for those who ask a little late.
    ended: Mutex<VecDeque<Arc<Event>>>,
}

pub(crate) fn bind(system: &System, proc: &WeakProc) {
    remote::bind(system, proc);
}

impl Supervision {
    fn remember(&self, event: Arc<Event>) {
        let mut ended = self.ended.lock();
        if ended.len() >= limits::ENDS_KEPT_MAX {
            ended.pop_front();
        }
        ended.push_back(event);
    }

    fn remembered(&self, actor_id: &ActorId) -> Option<Arc<Event>> {
        let ended = self.ended.lock();
        ended
            .iter()
            .rev()
            .find(|event| event.actor_id == *actor_id)
            .cloned()
    }
}

impl Proc {
    /// Sees to it that somebody is told of the end of an actor, here or elsewhere; at once if there is no such actor (V-04).
    pub(crate) fn watch_actor(&self, key: u64, target: &ActorId, told: Told) {
        if !self.owns(target) {
            return self.watch_remote(key, target, told);
        }
        let unwatched = match self.resident(target) {
            Some(resident) => resident.watchers().add(key, told).err(),
            None => Some(told),
        };
        if let Some(told) = unwatched {
            let event = self.supervision().remembered(target).unwrap_or_else(|| {
                let incarnation = Some(self.incarnation());
                Arc::new(Event::bare(target.clone(), incarnation, Cause::NoSuchActor))
            });
            told.tell(&event);
        }
    }

    pub(crate) fn unwatch_actor(&self, key: u64, target: &ActorId) {
        if !self.owns(target) {
            return self.unwatch_remote(key, target);
        }
        if let Some(resident) = self.resident(target) {
            drop(resident.watchers().remove(key));
        }
    }

    /// Tells everybody who watched an actor that it has ended.
    pub(crate) fn actor_ended(&self, event: &Arc<Event>) {
        self.supervision().remember(Arc::clone(event));
    }
}
