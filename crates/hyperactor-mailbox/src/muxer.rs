//! All mailboxes of one proc, by actor.

use std::borrow::Borrow;
use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use hyperactor_refs::ActorId;
use parking_lot::RwLock;

use crate::envelope::MessageEnvelope;
use crate::failure::NotDelivered;
use crate::hash::KeyHash;
use crate::limits;
use crate::mailbox::{BindError, Mailbox, PortSink};
use crate::recent::{self, Recent};
use crate::sender::{BoxFuture, FlushError, MailboxSender};
use crate::settle::ReturnHandle;

/// The table is cut into parts with a lock each, so that threads that post to different actors seldom meet.
const SHARDS: usize = 16;

/// Finds the mailbox of an envelope's destination. A clone is another handle of the same table.
///
/// # Bounds
/// At most [`limits::ACTORS_PER_MUXER`] actors. Of those that were unbound about [`limits::DEPARTED_ACTORS`] are
/// remembered: messages for them come back as [`NotDelivered::ActorStopped`], later as [`NotDelivered::UnknownActor`].
#[derive(Clone)]
pub struct MailboxMuxer(Arc<Table>);

struct Table {
    shards: [RwLock<Shard>; SHARDS],
    recent: Recent<dyn PortSink, { limits::RECENT_PORTS }>,
}

#[derive(Default)]
struct Shard {
    /// Each is its own key, which it has inside.
    live: HashSet<Keyed, KeyHash>,
    departed: HashSet<ActorId, KeyHash>,
    /// The departed, the longest ago first.
    departures: VecDeque<ActorId>,
}

/// A mailbox as an entry of a table by actor.
struct Keyed(Mailbox);

impl PartialEq for Keyed {
    fn eq(&self, other: &Self) -> bool {
        self.0.actor_id() == other.0.actor_id()
    }
}

impl Eq for Keyed {}

impl Hash for Keyed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.actor_id().hash(state);
    }
}

impl Borrow<ActorId> for Keyed {
    fn borrow(&self) -> &ActorId {
        self.0.actor_id()
    }
}

impl MailboxMuxer {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Table {
            shards: std::array::from_fn(|_| RwLock::default()),
            recent: Recent::default(),
        }))
    }

    /// Takes in the mailbox of an actor.
    ///
    /// # Errors
    /// [`BindError::ActorTaken`] when there is one of the same actor, [`BindError::TooManyActors`] at the limit.
    pub fn bind(&self, mailbox: Mailbox) -> Result<(), BindError> {
        let mut shard = self.shard(mailbox.actor_id()).write();
        // The limit is kept a part at a time: actors spread over the parts by their hash.
        let is_full = shard.live.len() >= limits::ACTORS_PER_MUXER / SHARDS;
        let actor_id = mailbox.actor_id();
        if shard.live.contains(actor_id) {
            return Err(BindError::ActorTaken {
                actor_id: actor_id.clone(),
            });
        }
        if is_full {
            return Err(BindError::TooManyActors {
                actor_id: actor_id.clone(),
                max: limits::ACTORS_PER_MUXER,
            });
        }
        if shard.departed.remove(actor_id) {
            shard.departures.retain(|departed| departed != actor_id);
        }
        shard.live.insert(Keyed(mailbox));
        Ok(())
    }

    /// Takes out the mailbox of an actor, and remembers for a while that there was one.
    pub fn unbind(&self, actor_id: &ActorId) -> Option<Mailbox> {
        let mut shard = self.shard(actor_id).write();
        recent::forget();
        let Keyed(mailbox) = shard.live.take(actor_id)?;
        shard.departed.insert(mailbox.actor_id().clone());
        shard.departures.push_back(mailbox.actor_id().clone());
        if shard.departures.len() > limits::DEPARTED_ACTORS / SHARDS
            && let Some(oldest) = shard.departures.pop_front()
        {
            shard.departed.remove(&oldest);
        }
        Some(mailbox)
    }

    /// The mailbox of an actor.
    #[must_use]
    pub fn get(&self, actor_id: &ActorId) -> Option<Mailbox> {
        let shard = self.shard(actor_id).read();
        shard.live.get(actor_id).map(|keyed| keyed.0.clone())
    }

    /// The ids of all actors, in no order.
    #[must_use]
    pub fn actor_ids(&self) -> Vec<ActorId> {
        let shards = self.0.shards.iter();
        shards
            .flat_map(|shard| {
                let shard = shard.read();
                let ids = shard.live.iter().map(|keyed| keyed.0.actor_id().clone());
                ids.collect::<Vec<_>>()
            })
            .collect()
    }

    /// How many actors there are.
    #[must_use]
    pub fn len(&self) -> usize {
        let shards = self.0.shards.iter();
        shards.map(|shard| shard.read().live.len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, actor_id: &ActorId) -> &RwLock<Shard> {
        // The highest bits choose: the maps within use the others.
        &self.0.shards[(KeyHash::default().hash_one(actor_id) >> 60) as usize % SHARDS]
    }
}

impl Default for MailboxMuxer {
    fn default() -> Self {
        Self::new()
    }
}

impl MailboxSender for MailboxMuxer {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let dest = envelope.dest();
        let missed = if recent::is_kept(dest.index()) {
            match self.0.recent.find(dest, recent::age()) {
                Ok(sink) => return sink.deliver(envelope, return_handle),
                Err(missed) => Some(missed),
            }
        } else {
            None
        };
        let actor_id = dest.actor_id();
        let found = {
            let shard = self.shard(actor_id).read();
            shard
                .live
                .get(actor_id)
                .map(|keyed| keyed.0.clone())
                .ok_or_else(|| shard.departed.contains(actor_id))
        };
        match found {
            Ok(mailbox) => mailbox.place_found(envelope, return_handle, |dest, sink| {
                if let Some(missed) = missed {
                    self.0.recent.keep(dest, missed, sink);
                }
            }),
            Err(is_departed) => {
                let actor_id = actor_id.clone();
                let reason = if is_departed {
                    NotDelivered::ActorStopped { actor_id }
                } else {
                    NotDelivered::UnknownActor { actor_id }
                };
                return_handle.undeliverable(envelope, reason);
            }
        }
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        // Everything is settled before `post` returns.
        Box::pin(std::future::ready(Ok(())))
    }
}

impl fmt::Debug for MailboxMuxer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailboxMuxer")
            .field("actors", &self.len())
            .finish()
    }
}
