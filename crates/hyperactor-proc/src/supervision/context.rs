//! Monitors and links, as an actor sets them.

use std::sync::Arc;

use hyperactor_refs::ActorId;

use super::{MonitorId, Relation, Told};
use crate::control::{AnyCell, Control};
use crate::{Actor, ActorHandle, Context, Proc, ProcGone, SpawnError, SpawnOptions};

impl<A: Actor> Context<A> {
    /// Spawns a child as [`spawn`](Self::spawn) does, under a name of its own: its id is that of an actor that the proc
    /// spawned under the name, and the same again after a restart.
    ///
    /// # Errors
    /// As [`Proc::spawn`](crate::Proc::spawn).
    pub fn spawn_as<C: Actor>(
        &self,
        name: &str,
        child: C,
        options: &SpawnOptions,
    ) -> Result<ActorHandle<C>, SpawnError> {
        self.proc()?
            .spawn_child_as(&self.any_cell(), name, child, options)
    }

    /// Monitors an actor of this proc or any other: this one is told of its end by
    /// [`on_supervision`](Actor::on_supervision), once. The monitored actor learns nothing of it.
    ///
    /// An actor that is not there, or in a proc that is not there, is an end too: the event comes at once, or as soon as that
    /// is known; see [`Proc::watch_proc`] for the bounds.
    ///
    /// # Errors
    /// [`ProcGone`] when the last owner of the own proc has dropped it.
    pub fn monitor(&self, actor_id: &ActorId) -> Result<MonitorId, ProcGone> {
        let proc = self.proc()?;
        let key = proc.next_key();
        let id = MonitorId::new(key);
        proc.watch_for(&self.any_cell(), key, actor_id, Relation::Monitored(id));
        Ok(id)
    }

    /// Ends a monitor; whether it was still there. Its event does not come afterwards.
    pub fn demonitor(&self, id: MonitorId) -> bool {
        let control = self.control();
        let target = control.watched_under(id.key());
        let was_told = control.forget_events(|event| event.relation == Relation::Monitored(id));
        if let (Some(target), Ok(proc)) = (&target, self.proc()) {
            control.stops_watching(id.key());
            proc.unwatch_actor(id.key(), target);
        }
        target.is_some() || was_told
    }

    /// Links this actor with another one, of this proc or any other: when either ends, the other is told by
    /// [`on_supervision`](Actor::on_supervision), whose default fails it, unless the end was orderly. Linking twice is
    /// linking once.
    ///
    /// # Errors
    /// As [`monitor`](Self::monitor).
    pub fn link(&self, actor_id: &ActorId) -> Result<(), ProcGone> {
        self.proc()?.link(&self.any_cell(), actor_id);
        Ok(())
    }

    /// Ends a link, on both sides. An end of the other actor that this one was not yet told of is not told.
    pub fn unlink(&self, actor_id: &ActorId) {
        if let Ok(proc) = self.proc() {
            proc.unlink(self.control(), actor_id);
            self.control().forget_events(|event| {
                event.relation == Relation::Linked && event.actor_id == *actor_id
            });
        }
    }
}

impl Proc {
    /// Has an actor of this proc watch another.
    pub(crate) fn watch_for(
        &self,
        cell: &Arc<dyn AnyCell>,
        key: u64,
        target: &ActorId,
        relation: Relation,
    ) {
        if cell.starts_watching(key, target, Some(relation)) {
            let told = Told::Actor {
                cell: Arc::downgrade(cell),
                key,
                relation,
            };
            self.watch_actor(key, target, told);
        }
    }

    /// Has an actor of this proc end when another does.
    pub(crate) fn orphan_with(&self, cell: &Arc<dyn AnyCell>, parent: &ActorId) {
        let key = self.next_key();
        if cell.starts_watching(key, parent, None) {
            let told = Told::Orphan {
                cell: Arc::downgrade(cell),
                key,
            };
            self.watch_actor(key, parent, told);
        }
    }

    fn link(&self, cell: &Arc<dyn AnyCell>, target: &ActorId) {
        let own = cell.actor_id();
        if own == target || cell.link_key(target).is_some() {
            return;
        }
        self.watch_for(cell, self.next_key(), target, Relation::Linked);
        if !self.owns(target) {
            return self.link_remote(own, target, true);
        }
        if let Some(other) = self.control(target) {
            self.link_back(&other, own);
        }
    }

    /// The other half of a link.
    pub(crate) fn link_back(&self, cell: &Arc<dyn AnyCell>, target: &ActorId) {
        if cell.link_key(target).is_none() {
            self.watch_for(cell, self.next_key(), target, Relation::Linked);
        }
    }

    fn unlink(&self, control: &Control, target: &ActorId) {
        let own = control.actor_id();
        self.unlink_half(control, target);
        if !self.owns(target) {
            return self.link_remote(own, target, false);
        }
        if let Some(other) = self.control(target) {
            self.unlink_half(&other, own);
        }
    }

    pub(crate) fn unlink_half(&self, control: &Control, target: &ActorId) {
        if let Some(key) = control.link_key(target) {
            control.stops_watching(key);
            self.unwatch_actor(key, target);
        }
    }
}
