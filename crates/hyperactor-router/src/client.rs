//! A sender over one channel: [`MailboxClient`].

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use hyperactor_channel as channel;
use hyperactor_channel::{
    Completion, DialOptions, Labelled, Passed, Passing, Reason, Rejected, Status, dial_duplex_with,
    dial_with,
};
use hyperactor_mailbox::{
    BoxFuture, Capacity, FlushError, Hop, MailboxSender, MessageEnvelope, NotDelivered,
    ReturnHandle, Room, Sealed,
};
use hyperactor_refs::ChannelAddr;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::codec::EnvelopeCodec;
use crate::completion::{EnvelopeCompletion, Way};
use crate::overflow::{EnvelopeOutbound, Overflow};
use crate::session::Incoming;

/// Sends envelopes over a channel to one address. A clone is another handle of the same channel.
///
/// An envelope is encoded once, in the posting thread, straight into the channel's log. Its outcome comes from the far
/// end: delivered means placed in the destination mailbox, however many relays are between. Dropping the last handle
/// lets what was posted go out and have its outcome.
///
/// # Ordering
/// What one thread posts arrives in the order posted, across any number of reconnects.
///
/// # Bounds
/// Envelopes of this process: the channel's outbox, of which each destination has its share; beyond, they come back with
/// the capacity of their destination to wait on. Envelopes that pass through: the credit that their senders were given.
#[derive(Clone)]
pub struct MailboxClient {
    outbound: EnvelopeOutbound,
    overflow: Arc<Overflow>,
    way: Arc<Way>,
    runtime: Option<Handle>,
}

/// An envelope that was not taken, because the client's channel has ended for good.
pub(crate) struct Ended {
    envelope: MessageEnvelope,
    completion: EnvelopeCompletion,
    reason: Reason,
}

impl Ended {
    /// Whether the channel ended because the peer speaks no common version: it would say the same again.
    pub(crate) fn is_of_another_version(&self) -> bool {
        // The number is that of the wire specification.
        matches!(self.reason, Reason::Refused { code: 1, .. })
    }

    /// Gives the envelope back with the reason for which the channel ended.
    pub(crate) fn give_back(self) {
        let failure = channel::Failure::NotDelivered(self.reason);
        self.completion.undelivered(self.envelope, failure);
    }

    /// What was to be posted.
    pub(crate) fn into_post(self) -> (MessageEnvelope, ReturnHandle) {
        (self.envelope, self.completion.return_handle)
    }
}

impl MailboxClient {
    /// A client for an address. It connects with the first envelope; what goes wrong shows in the outcome of envelopes.
    ///
    /// Call it inside a tokio runtime; outside of one, every envelope comes back.
    #[must_use]
    pub fn dial(addr: ChannelAddr) -> Self {
        Self::dial_with(addr, DialOptions::default())
    }

    /// As [`dial`](Self::dial), with options.
    #[must_use]
    pub fn dial_with(addr: ChannelAddr, options: DialOptions) -> Self {
        let capacity = u64::from(options.outbox_messages);
        let outbound = dial_with(addr.clone(), options, EnvelopeCodec);
        Self::over(outbound, addr, capacity, Handle::try_current().ok())
    }

    /// As [`dial_with`](Self::dial_with), and what the server sends back over the connection
    /// ([`MailboxSession::back`](crate::MailboxSession::back)) is posted into `receive`, exactly as a
    /// [`MailboxServer`](crate::MailboxServer) would: each arrival spends a step of its time to live, and what `receive`
    /// says of it is its outcome.
    ///
    /// It connects at once, and stays connected as long as a handle of it is there. When it has
    /// [closed](Self::closed), nothing comes back any more: dial anew then. That happens when the server stops in order or
    /// closes the session, when nobody answers for the time that the options give, and on faults that another try would not
    /// mend; a server that restarts meanwhile is found again.
    #[must_use]
    pub fn dial_duplex(
        addr: ChannelAddr,
        options: DialOptions,
        receive: impl MailboxSender,
    ) -> Self {
        let capacity = u64::from(options.outbox_messages);
        let outbound = dial_duplex_with(addr.clone(), options, EnvelopeCodec, |inbound| {
            Incoming::new(receive, inbound)
        });
        Self::over(outbound, addr, capacity, Handle::try_current().ok())
    }

    /// A client over a channel that is there: one that was dialled, or the way back of one that was accepted.
    pub(crate) fn over(
        outbound: EnvelopeOutbound,
        addr: ChannelAddr,
        capacity: u64,
        runtime: Option<Handle>,
    ) -> Self {
        Self {
            outbound,
            overflow: Overflow::new(),
            way: Arc::new(Way {
                addr,
                hop: None,
                capacity,
            }),
            runtime,
        }
    }

    /// The same channel; what comes back through this handle and its clones has `hop` added to its route.
    #[must_use]
    pub fn with_hop(mut self, hop: Hop) -> Self {
        Arc::make_mut(&mut self.way).hop = Some(hop);
        self
    }

    /// The same channel; what fails by this handle and its clones names `addr` as the other end. For the way back of a
    /// session whose dialer is known by an address of its own.
    #[must_use]
    pub fn with_addr(mut self, addr: ChannelAddr) -> Self {
        Arc::make_mut(&mut self.way).addr = addr;
        self
    }

    /// Where it leads.
    #[must_use]
    pub fn addr(&self) -> &ChannelAddr {
        &self.way.addr
    }

    /// Follows the state of the channel.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.outbound.status()
    }

    /// Whether the channel has ended for good: every later post comes back. Dial anew then.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(*self.outbound.status().borrow(), Status::Closed(_))
    }

    /// Takes nothing more. What was posted still goes out and has its outcome.
    pub fn close(&self) {
        self.outbound.close();
    }

    /// Ends the channel now, both ways: nobody is at its other end any more, as the caller has learned in another way. What
    /// was not sent comes back, what was sent and has no outcome is unknown, each for this reason.
    pub fn abandon(&self, reason: Reason) {
        self.outbound.abandon(reason);
    }

    /// Waits until the channel has ended for good, and says why.
    ///
    /// # Cancel safety
    /// Cancel safe: dropping it loses nothing.
    pub async fn closed(&self) -> Reason {
        self.outbound.closed().await
    }

    /// As [`closed`](Self::closed), and the server was told goodbye, if it listens. To be waited for where the process ends
    /// next: a server that hears no goodbye keeps the session for a while.
    ///
    /// # Cancel safety
    /// Cancel safe: dropping it loses nothing.
    pub async fn left(&self) -> Reason {
        self.outbound.left().await
    }

    /// Posts, unless the channel has ended for good.
    // The error is the envelope that was passed in; boxing it would cost an allocation to save a copy.
    #[allow(clippy::result_large_err)]
    pub(crate) fn try_post(
        &self,
        envelope: MessageEnvelope,
        return_handle: ReturnHandle,
    ) -> Result<(), Ended> {
        let is_leased = return_handle.is_leased();
        let completion = EnvelopeCompletion {
            return_handle,
            way: Arc::clone(&self.way),
        };
        if is_leased && self.overflow.holds(envelope.dest().actor_id()) {
            // Behind those that wait, so as not to overtake its own sender's earlier ones.
            self.overflow
                .push(&self.outbound, self.runtime.as_ref(), envelope, completion);
            return Ok(());
        }
        let Err(Rejected {
            message: envelope,
            completion,
            reason,
        }) = self.outbound.offer(envelope, completion)
        else {
            return Ok(());
        };
        match reason {
            Reason::Full if is_leased => {
                self.overflow
                    .push(&self.outbound, self.runtime.as_ref(), envelope, completion);
            }
            Reason::Full => self.give_back_full(envelope, completion),
            Reason::TooLarge { .. } | Reason::Encode(_) => {
                completion.undelivered(envelope, channel::Failure::NotDelivered(reason));
            }
            reason => {
                return Err(Ended {
                    envelope,
                    completion,
                    reason,
                });
            }
        }
        Ok(())
    }

    /// What stands for the actors of an envelope in this channel.
    pub(crate) fn labelled(&self, envelope: &MessageEnvelope) -> Option<Labelled> {
        self.outbound.labelled(envelope)
    }

    /// Passes on those in front, as [`try_post`](Self::try_post) would, up to the first that finds no room; says whether there may
    /// be a next time.
    pub(crate) fn pass(&self, names: Labelled, run: &mut VecDeque<Sealed>) -> bool {
        if self.overflow.holds_any() {
            // Some may wait there that these must not overtake.
            return true;
        }
        let mut passing = std::iter::from_fn(|| {
            let Sealed {
                body,
                return_handle,
            } = run.pop_front()?;
            let way = Arc::clone(&self.way);
            let completion = EnvelopeCompletion { return_handle, way };
            Some(Passing { body, completion })
        });
        match self.outbound.pass(names, &mut passing) {
            Passed::All => true,
            Passed::Renamed => false,
            Passed::Refused(Passing { body, completion }) => {
                let return_handle = completion.return_handle;
                run.push_front(Sealed {
                    body,
                    return_handle,
                });
                true
            }
        }
    }

    fn give_back_full(&self, envelope: MessageEnvelope, completion: EnvelopeCompletion) {
        let room = self.outbound.capacity_for(&envelope);
        let mut report = completion.report(envelope, channel::Failure::NotDelivered(Reason::Full));
        report.failure = NotDelivered::QueueFull {
            port_id: report.envelope.dest().clone(),
            capacity: self.way.capacity,
        }
        .into();
        report.capacity = Some(Capacity::new(Arc::new(ChannelRoom(room))));
        completion.return_handle.report(report);
    }
}

/// The room of a destination in a channel, as something a mailbox's sender can wait for.
struct ChannelRoom(channel::Capacity);

impl Room for ChannelRoom {
    fn has_room(&self) -> bool {
        self.0.has_room()
    }

    fn available(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.available())
    }
}

impl MailboxSender for MailboxClient {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        if let Err(ended) = self.try_post(envelope, return_handle) {
            ended.give_back();
        }
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        Box::pin(async {
            self.overflow.flush().await;
            self.outbound
                .flush()
                .await
                .map_err(|error| FlushError::Closed {
                    to: self.way.addr.to_string(),
                    error: error.to_string(),
                })
        })
    }
}

impl fmt::Debug for MailboxClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailboxClient")
            .field("addr", &format_args!("{}", self.way.addr))
            .field("status", &*self.outbound.status().borrow())
            .finish_non_exhaustive()
    }
}
