//! A request whose sender waits for the reply, as it is seen by whoever has the request: [`Asked`], the reasons for
//! which no reply comes, and the chain of those who wait. The port for the reply is in `once_port.rs`, its reference
//! in `once_ref.rs`.

use std::any::Any;
use std::sync::Arc;

use hyperactor_refs::ActorId;
use serde::{Deserialize, Serialize};

use crate::duty::Holders;
use crate::failure::NotDelivered;
use crate::sender::BoxFuture;

/// Why the reply to a request will never come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Never {
    /// Every reference to the port for the reply was dropped unused.
    #[error("the reply's port was dropped unused")]
    Dropped,
    /// The actor that had the request has ended.
    #[error("ended: {cause}")]
    Ended {
        /// How it ended, in words.
        cause: String,
    },
    /// The request was dropped from a full queue.
    #[error("{reason}")]
    Shed {
        /// Why, in words.
        reason: String,
    },
    /// The reply was sent and could not be delivered.
    #[error("the reply was not delivered: {reason}")]
    Undelivered {
        /// Why, in words.
        reason: String,
    },
}

impl Never {
    /// A short name that stays the same across releases.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Dropped => "unanswered",
            Self::Ended { .. } => "target-ended",
            Self::Shed { .. } => "shed",
            Self::Undelivered { .. } => "reply-undelivered",
        }
    }
}

/// One step of a chain of waiting actors: who waits, and at which port of its mailbox for the reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitLink {
    /// Who waits.
    pub actor_id: ActorId,
    /// The index of the port, which names this one wait.
    pub reply_port: u64,
}

/// What a sender has in hand while it waits for a reply, so that a circle of waiting actors can be told from a row.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum InHand {
    /// It is no actor, or not within a handler: others can reach it while it waits.
    #[default]
    Free,
    /// An actor that handles nothing else while it waits; the request that it handles, if it is one.
    Busy(Option<Arc<dyn Asked>>),
}

/// A request whose sender waits for a reply, as seen by those who have it.
///
/// Called with no lock of this crate held. Must not block.
pub trait Asked: Send + Sync + 'static {
    /// Whether somebody still waits for the reply.
    fn is_wanted(&self) -> bool;

    /// Resolves when nobody waits any more. Dropping the future loses nothing.
    fn unwanted(&self) -> BoxFuture<'_, ()>;

    /// The sender told that it waits no more.
    fn withdrawn(&self) {}

    /// The last reference to the port for the reply was dropped unused.
    fn dropped(&self);

    /// A reply was sent. Told once, but where the port [counts](Self::holders) its references itself.
    fn answered(&self) {}

    /// Takes the reply itself, if it waits in this process for one of this type: `reply` is an `Option` of it, and empty
    /// afterwards. Whether it did.
    fn take_reply(&self, reply: &mut dyn Any) -> bool {
        let _ = reply;
        false
    }

    /// Somebody is about to learn the id of the port for the reply, and may post to it by that alone.
    fn named(self: Arc<Self>) {}

    /// Where the port has a place to count its references, for whoever makes the first one.
    fn holders(&self) -> Option<&Holders> {
        None
    }

    /// Whether the one who waits is in another process, and has to be told of a reply that could not be delivered.
    fn is_elsewhere(&self) -> bool {
        false
    }

    /// A reply was sent, and is known not to arrive.
    fn undelivered(&self, reason: &NotDelivered) {
        let _ = reason;
    }

    /// The reference to the port was encoded: somebody in another process is to answer.
    fn handed_over(&self) {}

    /// A handler has the request in hand. Until [`let_go`](Self::let_go) a [drop](Self::dropped) is not told, because
    /// only then is it known whether it was the handler's failure.
    fn taken(&self);

    /// The handler is done with the request, and did not fail.
    fn let_go(&self);

    /// The reply will not come.
    fn never(&self, why: Never);

    /// Whether an actor is perhaps among [those who wait](Self::chain): asked first, since almost always it is not.
    fn is_behind(&self, actor_id: &ActorId) -> bool;

    /// Those who wait, the first one first, and last whoever sent this request. Empty where others can reach the
    /// sender while it waits.
    fn chain(self: Arc<Self>) -> Vec<WaitLink>;
}
