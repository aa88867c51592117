//! References to senders: [`MailboxRouter`].

use std::fmt;
use std::sync::Arc;

use hyperactor_mailbox::{
    BoxFuture, BoxedMailboxSender, FlushError, MailboxSender, MessageEnvelope, NotDelivered,
    ReturnHandle,
};
use hyperactor_refs::{PrefixMap, Reference};
use parking_lot::RwLock;

/// Sends each envelope to the sender that is bound to the longest prefix of its destination: its port, its actor or its
/// proc. A clone is another handle of the same table.
///
/// # Ordering
/// Binding another sender to a prefix does not wait for what the former one still has under way.
#[derive(Clone, Default)]
pub struct MailboxRouter(Arc<RwLock<Table>>);

#[derive(Default)]
struct Table {
    senders: PrefixMap<BoxedMailboxSender>,
    fallback: Option<BoxedMailboxSender>,
}

impl MailboxRouter {
    /// An empty table: everything comes back as [`NotDelivered::NoRoute`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Binds a sender to a prefix, and gives the one that was there.
    pub fn bind(
        &self,
        reference: impl Into<Reference>,
        sender: impl MailboxSender,
    ) -> Option<BoxedMailboxSender> {
        let sender = sender.into_boxed();
        self.0.write().senders.insert(reference.into(), sender)
    }

    /// Takes a prefix out, and gives the sender that was there.
    pub fn unbind(&self, reference: &Reference) -> Option<BoxedMailboxSender> {
        self.0.write().senders.remove(reference)
    }

    /// Sets the sender of all that no prefix fits, and gives the former one.
    pub fn fallback(&self, sender: impl MailboxSender) -> Option<BoxedMailboxSender> {
        let sender = sender.into_boxed();
        self.0.write().fallback.replace(sender)
    }

    /// The prefixes that are bound, in no order.
    #[must_use]
    pub fn bound(&self) -> Vec<Reference> {
        self.0
            .read()
            .senders
            .iter()
            .map(|(reference, _)| reference)
            .collect()
    }
}

impl MailboxSender for MailboxRouter {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let sender = {
            let table = self.0.read();
            table
                .senders
                .lookup(envelope.dest())
                .or(table.fallback.as_ref())
                .cloned()
        };
        match sender {
            // Spends a step: the sender may lead back here.
            Some(sender) => sender.post(envelope, return_handle),
            None => {
                let port_id = envelope.dest().clone();
                let detail = "nothing is bound to a prefix of it, and there is no fallback".into();
                return_handle.undeliverable(envelope, NotDelivered::NoRoute { port_id, detail });
            }
        }
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        let senders: Vec<_> = {
            let table = self.0.read();
            let bound = table.senders.iter().map(|(_, sender)| sender);
            bound.chain(&table.fallback).cloned().collect()
        };
        Box::pin(flush_all(senders))
    }
}

/// Flushes all, to the end, and tells the first failure.
pub(crate) async fn flush_all(senders: Vec<BoxedMailboxSender>) -> Result<(), FlushError> {
    let mut result = Ok(());
    // One after the other: all move on by themselves meanwhile, so it takes as long as the slowest.
    for sender in senders {
        let flushed = sender.flush().await;
        result = result.and(flushed);
    }
    result
}

impl fmt::Debug for MailboxRouter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.0.read();
        f.debug_struct("MailboxRouter")
            .field("bound", &table.senders.len())
            .field("fallback", &table.fallback.is_some())
            .finish()
    }
}
