//! Watches between procs: of actors elsewhere for those here, and of actors here for those elsewhere. Each is one message to
//! the other proc's system, and one back at the end. The beats carry a digest of the watches, so that whatever was lost is
//! found and sent again.

use std::collections::HashMap;
use std::sync::Arc;

use hyperactor_mailbox::{EnvelopeHead, ReturnHandle};
use hyperactor_refs::{ActorId, ProcId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{Cause, Event, Told};
use crate::proc::WeakProc;
use crate::system::System;
use crate::watch::ProcWatch;
use crate::{Message, Proc, ProcLoss, limits};

/// Asks to be told of an actor's end.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[message(name = "hyperactor.system.Watch")]
struct Watch {
    /// Unique among the watches of the asking proc.
    key: u64,
    target: ActorId,
    /// For those who look at the proc.
    watcher: ActorId,
}

/// No longer wants to be told.
#[derive(Clone, Message, Serialize, Deserialize)]
#[message(name = "hyperactor.system.Unwatch")]
struct Unwatch {
    key: u64,
}

/// All the watches that a proc has of actors of another.
#[derive(Clone, Message, Serialize, Deserialize)]
#[message(name = "hyperactor.system.Roll")]
struct Roll {
    watches: Vec<Watch>,
}

/// The actor of a watch has ended.
#[derive(Clone, Message, Serialize, Deserialize)]
#[message(name = "hyperactor.system.Ended")]
struct Ended {
    key: u64,
    event: Event,
}

/// One actor linked itself with another, or unlinked itself.
#[derive(Clone, Message, Serialize, Deserialize)]
#[message(name = "hyperactor.system.Link")]
struct Link {
    from: ActorId,
    to: ActorId,
    is_on: bool,
}

/// An actor is to end with its parent in another proc.
#[derive(Clone, Message, Serialize, Deserialize)]
#[message(name = "hyperactor.system.Adopt")]
struct Adopt {
    child: ActorId,
    parent: ActorId,
}

#[derive(Default)]
pub(super) struct Remote {
    /// Watches of actors elsewhere.
    outgoing: Mutex<HashMap<Arc<ProcId>, Outgoing>>,
    /// Watches that others have of actors here.
    incoming: Mutex<HashMap<Arc<ProcId>, Incoming>>,
}

struct Outgoing {
    /// Held for as long as there are watches.
    _watch: ProcWatch,
    watches: HashMap<u64, (ActorId, Told)>,
}

struct Incoming {
    /// Held for as long as there are watches: when that proc is lost, they go.
    _watch: ProcWatch,
    /// The actor, and the key under which it is watched here.
    watches: HashMap<u64, (ActorId, u64)>,
}

pub(super) fn bind(system: &System, proc: &WeakProc) {
    system.on::<Watch>(proc, |proc, head, watch| {
        proc.take_watch(head.sender().proc(), watch);
    });
    system.on::<Unwatch>(proc, |proc, head, Unwatch { key }| {
        proc.drop_watch(head.sender().proc(), key);
    });
    system.on::<Roll>(proc, |proc, head, roll| {
        proc.take_roll(head.sender().proc(), roll);
    });
    system.on::<Ended>(proc, on_ended);
    system.on::<Link>(proc, |proc, head, link| {
        // V-07: only the proc of an actor speaks for it.
        if *head.sender().proc_id() != *link.from.proc_id() {
            return;
        }
        if let Some(control) = proc.control(&link.to) {
            if link.is_on {
                proc.link_back(&control, &link.from);
            } else {
                proc.unlink_half(&control, &link.from);
            }
        }
    });
    system.on::<Adopt>(proc, |proc, _, adopt| {
        if let Some(control) = proc.control(&adopt.child) {
            proc.orphan_with(&control, &adopt.parent);
        }
    });
}

fn on_ended(proc: &Proc, head: &EnvelopeHead, Ended { key, event }: Ended) {
    let from = head.sender().proc();
    let told = {
        let mut outgoing = proc.remote().outgoing.lock();
        let Some(entry) = outgoing.get_mut(from) else {
            return;
        };
        let told = entry.watches.remove(&key);
        let unused = if entry.watches.is_empty() {
            outgoing.remove(from)
        } else {
            None
        };
        drop(outgoing);
        drop(unused);
        told
    };
    if let Some((target, told)) = told {
        let event = Event {
            actor_id: target,
            ..event
        };
        told.tell(&Arc::new(event));
    }
}

/// V-05: a number that two sets of keys seldom share.
fn digest<'a>(keys: impl Iterator<Item = &'a u64>) -> u64 {
    // The mixing function of SplitMix64 (G. Steele, D. Lea and C. Flood, 2014), so that near keys do not cancel out.
    keys.fold(0, |sum, key| {
        let mut mixed = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        sum ^ mixed ^ (mixed >> 31)
    })
}

impl Proc {
    fn remote(&self) -> &Remote {
        &self.supervision().remote
    }

    // Watches of actors elsewhere.

    pub(super) fn watch_remote(&self, key: u64, target: &ActorId, told: Told) {
        // Made before the table is locked: a first watch sends a beat.
        let watch = self.watch_proc(target.proc_id());
        let watcher = told
            .watcher()
            .unwrap_or_else(|| self.system().actor_id().clone());
        let refused = {
            let mut outgoing = self.remote().outgoing.lock();
            let entry = outgoing
                .entry(Arc::clone(target.proc()))
                .or_insert_with(|| Outgoing {
                    _watch: watch.clone(),
                    watches: HashMap::new(),
                });
            if entry.watches.len() >= limits::WATCHES_PER_PROC_MAX {
                Some(told)
            } else {
                entry.watches.insert(key, (target.clone(), told));
                None
            }
        };
        if let Some(told) = refused {
            tracing::error!(proc = %self.proc_id(), target = %target, max = limits::WATCHES_PER_PROC_MAX, "too many watches of actors of one proc: this one is told of an end at once");
            let event = Event::bare(target.clone(), None, Cause::NoSuchActor);
            return told.tell(&Arc::new(event));
        }
        // The proc was lost before the entry was made: nobody else looks at it any more.
        if let Some(loss) = watch.loss() {
            return self.proc_lost(&loss);
        }
        let message = Watch {
            key,
            target: target.clone(),
            watcher,
        };
        self.system().courier.send(self, target.proc(), message);
    }

    pub(super) fn unwatch_remote(&self, key: u64, target: &ActorId) {
        let removed = {
            let mut outgoing = self.remote().outgoing.lock();
            let Some(entry) = outgoing.get_mut(target.proc()) else {
                return;
            };
            let removed = entry.watches.remove(&key);
            let unused = if entry.watches.is_empty() {
                outgoing.remove(target.proc())
            } else {
                None
            };
            drop(outgoing);
            drop(unused);
            removed
        };
        if removed.is_some() {
            self.system()
                .courier
                .send(self, target.proc(), Unwatch { key });
        }
    }

    pub(super) fn link_remote(&self, from: &ActorId, to: &ActorId, is_on: bool) {
        let link = Link {
            from: from.clone(),
            to: to.clone(),
            is_on,
        };
        self.system().courier.send(self, to.proc(), link);
    }

    /// Has an actor of another proc end when one of this does.
    pub(crate) fn adopt_remote(&self, child: &ActorId, parent: &ActorId) {
        let adopt = Adopt {
            child: child.clone(),
            parent: parent.clone(),
        };
        self.system().courier.send(self, child.proc(), adopt);
    }

    /// The digest of the watches of actors of another proc.
    pub(crate) fn outgoing_digest(&self, proc_id: &ProcId) -> u64 {
        let outgoing = self.remote().outgoing.lock();
        outgoing
            .get(proc_id)
            .map_or(0, |entry| digest(entry.watches.keys()))
    }

    /// The digest of the watches that another proc has of actors here.
    pub(crate) fn incoming_digest(&self, proc_id: &ProcId) -> u64 {
        let incoming = self.remote().incoming.lock();
        incoming
            .get(proc_id)
            .map_or(0, |entry| digest(entry.watches.keys()))
    }

    /// Tells another proc all watches of its actors, since it knows of others.
    pub(crate) fn call_roll(&self, proc_id: &Arc<ProcId>) {
        let watches = {
            let outgoing = self.remote().outgoing.lock();
            let entry = outgoing.get(&**proc_id);
            let watches = entry.into_iter().flat_map(|entry| &entry.watches);
            watches
                .map(|(key, (target, told))| Watch {
                    key: *key,
                    target: target.clone(),
                    watcher: told
                        .watcher()
                        .unwrap_or_else(|| self.system().actor_id().clone()),
                })
                .collect()
        };
        let envelope = self.system_envelope(proc_id, Roll { watches });
        // Lost, the next beat finds the same difference.
        self.post_from_here(envelope, ReturnHandle::monitored());
    }

    /// Tells everybody who watched an actor of a proc that is lost, and forgets what that proc watched here (V-08).
    pub(crate) fn proc_lost(&self, loss: &ProcLoss) {
        let proc_id = loss.proc_id();
        let outgoing = self.remote().outgoing.lock().remove(proc_id);
        let incoming = self.remote().incoming.lock().remove(proc_id);
        let incarnation = loss
            .certificate()
            .map(|certificate| certificate.incarnation);
        let watches = outgoing.into_iter().flat_map(|entry| entry.watches);
        for (_, (target, told)) in watches {
            let event = Event::bare(target, incarnation, Cause::ProcLost(loss.clone()));
            told.tell(&Arc::new(event));
        }
        let watches = incoming.into_iter().flat_map(|entry| entry.watches);
        for (_, (target, key)) in watches {
            self.unwatch_actor(key, &target);
        }
    }

    // Watches that others have of actors here.

    fn take_watch(&self, from: &Arc<ProcId>, watch: Watch) {
        if !self.owns(&watch.target) {
            return;
        }
        let guard = self.watch_proc(from);
        let key = self.next_key();
        {
            let mut incoming = self.remote().incoming.lock();
            let entry = incoming
                .entry(Arc::clone(from))
                .or_insert_with(|| Incoming {
                    _watch: guard,
                    watches: HashMap::new(),
                });
            let is_full = entry.watches.len() >= limits::WATCHES_PER_PROC_MAX;
            if is_full || entry.watches.contains_key(&watch.key) {
                return;
            }
            entry.watches.insert(watch.key, (watch.target.clone(), key));
        }
        let told = Told::Remote {
            proc: self.downgrade(),
            to: Arc::clone(from),
            key: watch.key,
            watcher: watch.watcher,
        };
        self.watch_actor(key, &watch.target, told);
    }

    fn drop_watch(&self, from: &Arc<ProcId>, key: u64) {
        if let Some((target, key)) = self.forget_incoming(from, key) {
            self.unwatch_actor(key, &target);
        }
    }

    fn forget_incoming(&self, from: &ProcId, key: u64) -> Option<(ActorId, u64)> {
        let mut incoming = self.remote().incoming.lock();
        let entry = incoming.get_mut(from)?;
        let watch = entry.watches.remove(&key);
        let unused = if entry.watches.is_empty() {
            incoming.remove(from)
        } else {
            None
        };
        drop(incoming);
        drop(unused);
        watch
    }

    fn take_roll(&self, from: &Arc<ProcId>, roll: Roll) {
        let wanted: HashMap<u64, Watch> = roll
            .watches
            .into_iter()
            .take(limits::WATCHES_PER_PROC_MAX)
            .map(|watch| (watch.key, watch))
            .collect();
        let stale: Vec<u64> = {
            let incoming = self.remote().incoming.lock();
            let entry = incoming.get(&**from);
            let known = entry.into_iter().flat_map(|entry| entry.watches.keys());
            known
                .filter(|key| !wanted.contains_key(key))
                .copied()
                .collect()
        };
        for key in stale {
            self.drop_watch(from, key);
        }
        for watch in wanted.into_values() {
            self.take_watch(from, watch);
        }
    }

    /// Sends the end of an actor to a proc that watched it.
    pub(super) fn tell_remote(&self, to: &Arc<ProcId>, key: u64, event: &Arc<Event>) {
        self.forget_incoming(to, key);
        let event = Event::clone(event);
        let Cause::Panicked(report) = &event.cause else {
            return self.send_ended(to, key, event);
        };
        let is_ready = report
            .backtrace
            .as_ref()
            .is_none_or(|trace| trace.is_resolved());
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if !is_ready => {
                let (proc, to) = (self.clone(), Arc::clone(to));
                // The first time takes long enough to hold up everybody else on this thread.
                runtime.spawn_blocking(move || proc.send_ended(&to, key, event));
            }
            _ => self.send_ended(to, key, event),
        }
    }

    fn send_ended(&self, to: &Arc<ProcId>, key: u64, mut event: Event) {
        if let Cause::Panicked(report) = &mut event.cause {
            report.backtrace = report.backtrace.take().map(|trace| trace.resolved());
        }
        self.system().courier.send(self, to, Ended { key, event });
    }
}
