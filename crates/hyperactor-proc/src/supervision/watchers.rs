//! Who is to be told of one actor's end.

use std::sync::{Arc, Weak};

use hyperactor_refs::{ActorId, ProcId};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Event, Relation};
use crate::control::{AnyCell, End};
use crate::proc::WeakProc;

/// The watchers of one actor.
#[derive(Default)]
pub(crate) struct Watchers(Mutex<State>);

#[derive(Default)]
struct State {
    is_closed: bool,
    told: Vec<(u64, Told)>,
}

impl Watchers {
    /// Adds one, or gives it back because the actor has ended.
    pub(crate) fn add(&self, key: u64, told: Told) -> Result<(), Told> {
        let mut state = self.0.lock();
        if state.is_closed {
            return Err(told);
        }
        state.told.push((key, told));
        Ok(())
    }

    pub(crate) fn remove(&self, key: u64) -> Option<Told> {
        let mut state = self.0.lock();
        let at = state.told.iter().position(|(other, _)| *other == key)?;
        Some(state.told.swap_remove(at).1)
    }

    /// Takes no more, and tells all.
    pub(crate) fn tell(&self, event: &Arc<Event>) {
        let told = {
            let mut state = self.0.lock();
            state.is_closed = true;
            std::mem::take(&mut state.told)
        };
        for (_, told) in told {
            told.tell(event);
        }
    }

    /// Who they are, where they are actors.
    pub(crate) fn actor_ids(&self) -> Vec<ActorId> {
        let state = self.0.lock();
        state
            .told
            .iter()
            .filter_map(|(_, told)| told.watcher())
            .collect()
    }
}

/// One who is told of an end, once.
pub(crate) enum Told {
    /// An actor of this proc.
    Actor {
        cell: Weak<dyn AnyCell>,
        key: u64,
        relation: Relation,
    },
    /// An actor of this proc that ends with the one that it watches.
    Orphan { cell: Weak<dyn AnyCell>, key: u64 },
    /// A future that waits.
    Slot(watch::Sender<Option<Arc<Event>>>),
    /// An actor, or a future, of another proc.
    Remote {
        proc: WeakProc,
        to: Arc<ProcId>,
        key: u64,
        watcher: ActorId,
    },
    /// A list that the actor was in.
    List {
        leave: Box<dyn FnOnce(&Event) + Send + Sync>,
        watcher: ActorId,
    },
}

impl Told {
    /// Tells. Called with no lock held.
    pub(crate) fn tell(self, event: &Arc<Event>) {
        match self {
            Self::Actor {
                cell,
                key,
                relation,
            } => {
                if let Some(control) = cell.upgrade()
                    && control.stops_watching(key)
                {
                    control.supervise(event.told_as(relation));
                }
            }
            Self::Orphan { cell, key } => {
                if let Some(control) = cell.upgrade()
                    && control.stops_watching(key)
                {
                    tracing::info!(target: "hyperactor::actor", event = "actor.orphaned", actor = %control.actor_id(), parent = %event.actor_id, "the parent in another proc has ended, and this actor with it");
                    control.end(End::Stop);
                }
            }
            // Dropped by whoever waited: then nobody does.
            Self::Slot(slot) => drop(slot.send_replace(Some(Arc::clone(event)))),
            Self::Remote { proc, to, key, .. } => {
                if let Ok(proc) = proc.upgrade() {
                    proc.tell_remote(&to, key, event);
                }
            }
            Self::List { leave, .. } => leave(event),
        }
    }

    pub(super) fn watcher(&self) -> Option<ActorId> {
        match self {
            Self::Actor { cell, .. } | Self::Orphan { cell, .. } => {
                cell.upgrade().map(|cell| cell.actor_id().clone())
            }
            Self::Slot(_) => None,
            Self::Remote { watcher, .. } | Self::List { watcher, .. } => Some(watcher.clone()),
        }
    }
}
