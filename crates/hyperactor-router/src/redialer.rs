//! A sender to one address that outlives whoever serves there: [`MailboxRedialer`].

use std::fmt;
use std::sync::Arc;

use hyperactor_channel::DialOptions;
use hyperactor_mailbox::{BoxFuture, FlushError, MailboxSender, MessageEnvelope, ReturnHandle};
use hyperactor_refs::ChannelAddr;

use crate::prefix_router::flush_all;
use crate::slot::Slot;

/// Sends everything to one address, through one [`MailboxClient`](crate::MailboxClient) after the other: one that has ended for
/// good, because nobody served the address for a while, is replaced with the next post. A clone is another handle of the same
/// sender.
///
/// # Ordering
/// What one thread posts arrives in the order posted. What a client that ended could not deliver has its outcome, and is not
/// sent again by the next.
#[derive(Clone)]
pub struct MailboxRedialer {
    slot: Arc<Slot>,
}

impl MailboxRedialer {
    /// A sender to an address. It connects with the first envelope.
    #[must_use]
    pub fn new(addr: ChannelAddr, options: DialOptions) -> Self {
        Self {
            slot: Slot::new(addr, Arc::new(options)),
        }
    }
}

impl MailboxSender for MailboxRedialer {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        self.slot.post(envelope, return_handle);
    }

    /// Resolves when everything posted before has an outcome, by whichever client it went.
    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        let clients = self.slot.clients().into_iter();
        Box::pin(flush_all(clients.map(MailboxSender::into_boxed).collect()))
    }
}

impl fmt::Debug for MailboxRedialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailboxRedialer")
            .field("addr", &format_args!("{}", self.slot.addr()))
            .finish_non_exhaustive()
    }
}
