//! Where a reference leads, once it was looked up: the mailbox of an actor in the sender's own proc.

use std::fmt;
use std::sync::{Arc, OnceLock};

use hyperactor_refs::ActorId;

use crate::mailbox::{Mailbox, WeakMailbox};
use crate::outbox::Outbox;

/// Remembers the mailbox that an id was resolved to, for senders of the actor's own proc. It does not keep the mailbox
/// alive, and is no part of a reference's value: it is not compared, encoded or printed.
///
/// What is remembered is never replaced: a mailbox that was closed since, because its actor ended, is looked up anew each
/// time, by this reference and its clones made after the end.
#[derive(Default)]
pub struct KnownMailbox(OnceLock<WeakMailbox>);

impl KnownMailbox {
    /// The mailbox, if sender and actor share a proc and it is open.
    pub(crate) fn mailbox(
        &self,
        cx: &(impl Outbox + ?Sized),
        actor_id: &ActorId,
    ) -> Option<Mailbox> {
        let (own, dest) = (cx.actor_id().proc(), actor_id.proc());
        if !Arc::ptr_eq(own, dest) && **own != **dest {
            return None;
        }
        if let Some(known) = self.0.get() {
            return known.upgrade().filter(|mailbox| !mailbox.is_closed());
        }
        let mailbox = cx.resolve(actor_id)?;
        // Another thread may have been quicker, with the same mailbox.
        let _ = self.0.set(mailbox.downgrade());
        Some(mailbox)
    }
}

impl Clone for KnownMailbox {
    fn clone(&self) -> Self {
        match self.0.get() {
            Some(known) if known.is_open() => Self(OnceLock::from(known.clone())),
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
