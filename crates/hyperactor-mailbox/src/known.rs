//! Where a reference leads, once it was looked up: the mailbox of an actor in the sender's own proc.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use hyperactor_refs::ActorId;

use crate::mailbox::{Mailbox, WeakMailbox};
use crate::outbox::Outbox;

/// Remembers the mailbox that an id was resolved to, for senders of the actor's own proc. It does not keep the actor alive, and
/// is no part of a reference's value: it is not compared, encoded or printed.
///
/// It keeps the memory of the mailbox's [owner](Mailbox::set_owner), as a handle does, and with it that of what the owner holds,
/// as of the mailbox that was closed when its actor ended: a reference count that is taken for each message would be the dearest
/// part of a post.
///
/// What is remembered is never replaced: a mailbox that was closed since, because its actor ended, is looked up anew each
/// time, by this reference and its clones made after the end.
#[derive(Default)]
pub struct KnownMailbox(OnceLock<Known>);

#[derive(Clone)]
struct Known {
    mailbox: WeakMailbox,
    owner: Option<Arc<dyn Any + Send + Sync>>,
}

impl KnownMailbox {
    /// The mailbox, if sender and actor share a proc and it is open.
    pub(crate) fn mailbox(
        &self,
        cx: &(impl Outbox + ?Sized),
        actor_id: &ActorId,
    ) -> Option<Mailbox> {
        if !share_proc(cx, actor_id) {
            return None;
        }
        match self.0.get() {
            Some(known) => known
                .mailbox
                .upgrade()
                .filter(|mailbox| !mailbox.is_closed()),
            None => self.resolve(cx, actor_id),
        }
    }

    /// The [owner](Mailbox::set_owner) of the mailbox, if sender and actor share a proc and the owner is a `T`. Its mailbox
    /// may be closed.
    #[inline]
    pub fn owner<T: Any + Send + Sync>(
        &self,
        cx: &(impl Outbox + ?Sized),
        actor_id: &ActorId,
    ) -> Option<Arc<T>> {
        if !share_proc(cx, actor_id) {
            return None;
        }
        if self.0.get().is_none() {
            self.resolve(cx, actor_id)?;
        }
        let owner = Arc::clone(self.0.get()?.owner.as_ref()?);
        owner.downcast().ok()
    }

    /// As [`owner`](Self::owner), for a look: nothing is counted, and nothing looked up for the first time.
    #[inline(always)]
    pub fn known_owner<T: Any>(
        &self,
        cx: &(impl Outbox + ?Sized),
        actor_id: &ActorId,
    ) -> Option<&T> {
        let owner = self.0.get()?.owner.as_deref()?;
        share_proc(cx, actor_id).then(|| owner.downcast_ref())?
    }

    #[cold]
    fn resolve(&self, cx: &(impl Outbox + ?Sized), actor_id: &ActorId) -> Option<Mailbox> {
        let mailbox = cx.resolve(actor_id)?;
        // Another thread may have been quicker, with the same mailbox.
        let _ = self.0.set(Known {
            mailbox: mailbox.downgrade(),
            owner: mailbox.owner().and_then(|owner| {
                let owner: Arc<dyn Any + Send + Sync> = owner.upgrade()?;
                Some(owner)
            }),
        });
        Some(mailbox)
    }
}

#[inline]
pub(crate) fn share_proc(cx: &(impl Outbox + ?Sized), actor_id: &ActorId) -> bool {
    cx.actor_id().shares_proc(actor_id)
}

impl Clone for KnownMailbox {
    fn clone(&self) -> Self {
        match self.0.get() {
            Some(known) if known.mailbox.is_open() => Self(OnceLock::from(known.clone())),
            _ => Self::default(),
        }
    }
}

impl fmt::Debug for KnownMailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.get() {
            Some(_) => "KnownMailbox(resolved)",
            None => "KnownMailbox(unresolved)",
        })
    }
}
