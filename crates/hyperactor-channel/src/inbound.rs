//! The receiving border: who accepts sessions ([`Accept`]), who takes messages ([`Deliver`]), and how each message is
//! settled and gives its credit back ([`Ticket`], [`Inbound`]). Queues are not here: see `rx` for the ready-made one.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use hyperactor_protocol::Verdict;
use hyperactor_refs::{ChannelAddr, Incarnation};

use crate::{Completion, Outbound, codes};

/// Who is at the other end of a session, as far as this side can verify it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// The address of the peer's end, where it has one. Most dialers have none that could be dialled back.
    pub addr: Option<ChannelAddr>,
    /// The user that the peer runs as, from the kernel: Unix sockets and in-process channels.
    pub uid: Option<u32>,
    /// The peer's process, from the kernel: Unix sockets and in-process channels.
    pub pid: Option<u32>,
    /// The life of the peer, as its hello says.
    pub incarnation: Incarnation,
    /// Whether it takes messages: it dialled with [`dial_duplex`](crate::dial_duplex) or
    /// [`dial_duplex_with`](crate::dial_duplex_with).
    pub receives: bool,
}

impl Peer {
    /// A peer of which only the incarnation is known, and that takes no messages.
    pub fn new(incarnation: Incarnation) -> Self {
        Self {
            addr: None,
            uid: None,
            pid: None,
            incarnation,
            receives: false,
        }
    }
}

/// Accepts the sessions of one server.
pub trait Accept<M>: Send + Sync + 'static {
    /// What takes the messages of one session.
    type Session: Deliver<M>;

    /// What learns the outcome of each message that this side sends back; [`Ignore`](crate::Ignore) where it sends none.
    type Completion: Completion<M>;

    /// Called once for each new session; a reconnect that resumes a session does not come here. `inbound` settles the
    /// session's messages; `outbound` sends messages to its dialer, over the same connection and at any time.
    ///
    /// Dropping `outbound` changes nothing: the session's life is its dialer's and its server's matter.
    /// [`Outbound::close`] ends the session, both ways. A dialer that does not receive
    /// ([`dial_with`](crate::dial_with)) refuses each message with [`Reason::PeerClosed`](crate::Reason::PeerClosed).
    fn open(
        &self,
        peer: Peer,
        inbound: Inbound,
        outbound: Outbound<M, Self::Completion>,
    ) -> Self::Session;
}

/// Takes the messages of one session.
pub trait Deliver<M>: Send + 'static {
    /// Takes the next message. Called by the reading task, in the order sent, with no lock of the channel held; it must
    /// not block, because acknowledgements of the same connection wait for it.
    ///
    /// The ticket must be [settled](Inbound::settle) once, and, if it was settled as delivered, [released](Inbound::release)
    /// once the message has left the receiver's queue. Both may happen before this returns.
    fn deliver(&mut self, message: M, ticket: Ticket);

    /// As [`deliver`](Self::deliver), for a message whose sender waits for its outcome. Who passes the message on over
    /// another channel passes this on as well, or each channel on the way adds the delay of its acknowledgements.
    fn deliver_awaited(&mut self, message: M, ticket: Ticket) {
        self.deliver(message, ticket);
    }

    /// Offers the next message as it came, for a receiver that passes messages on over another channel and need not have them
    /// decoded for it. Taken, it counts as delivered to this receiver, with the same duties as by [`deliver`](Self::deliver);
    /// given back, as it is by default, it is decoded and delivered next.
    fn pass(&mut self, parcel: Parcel) -> Option<Parcel> {
        Some(parcel)
    }

    /// A name is told under this number: what was remembered of messages to or from it concerns another. A receiver that takes
    /// no [parcels](Self::pass) need not know.
    fn renamed(&mut self, _name: u32) {}

    /// The session goes on over another connection, which knows no name yet.
    fn reconnected(&mut self) {}

    /// No other message is at hand: what [`deliver`](Self::deliver) kept back, to do it for several messages at once, is to be
    /// done now. Called by the reading task before it waits for anything.
    fn batch_ended(&mut self) {}

    /// The session ended for good; nothing follows.
    fn closed(&mut self) {}
}

impl<M: 'static> Deliver<M> for Box<dyn Deliver<M>> {
    fn deliver(&mut self, message: M, ticket: Ticket) {
        (**self).deliver(message, ticket);
    }

    fn deliver_awaited(&mut self, message: M, ticket: Ticket) {
        (**self).deliver_awaited(message, ticket);
    }

    fn pass(&mut self, parcel: Parcel) -> Option<Parcel> {
        (**self).pass(parcel)
    }

    fn renamed(&mut self, name: u32) {
        (**self).renamed(name);
    }

    fn reconnected(&mut self) {
        (**self).reconnected();
    }

    fn batch_ended(&mut self) {
        (**self).batch_ended();
    }

    fn closed(&mut self) {
        (**self).closed();
    }
}

/// What takes messages where nobody receives: each is refused.
pub(crate) struct NobodyReceives(pub(crate) Inbound);

impl<M: Send + 'static> Deliver<M> for NobodyReceives {
    fn deliver(&mut self, message: M, ticket: Ticket) {
        self.0.refuse(ticket, codes::nobody_receives(), message);
    }
}

/// A received message that is not decoded.
pub struct Parcel {
    /// Its bytes, without its names.
    pub body: Bytes,
    /// By which it is settled. [`Ticket::to`] stands for its destination as [`from`](Self::from) does for its sender.
    pub ticket: Ticket,
    /// What its sender's name was told as over the present connection, 0 for a message without one.
    pub from: u32,
    /// Whether its sender waits for the outcome.
    pub is_awaited: bool,
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parcel")
            .field("ticket", &self.ticket)
            .field("from", &self.from)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Names one received message towards its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Its sequence number in the session.
    pub seq: u64,
    /// What it counts in credit, in bytes.
    pub size: u32,
    /// The number that its session has for its destination, 0 for a message without one. Whose credit is given back with it.
    pub to: u32,
}

/// Settles and releases the received messages of one session, from any thread. Cheap to clone. Using it after the
/// session has ended does nothing.
#[derive(Clone)]
pub struct Inbound(Arc<dyn Settlements>);

/// What is behind an [`Inbound`]: a session over a byte stream, or an in-process link.
pub(crate) trait Settlements: Send + Sync + 'static {
    fn settle(&self, ticket: Ticket, verdict: Verdict, message: Option<Box<dyn Any + Send>>);
    /// So many messages, one after the other, were delivered.
    fn settle_run(&self, first: u64, count: u64);
    fn release(&self, to: u32, messages: u64, bytes: u64);
    /// Both for one message that was delivered.
    fn settle_and_release(&self, ticket: Ticket) {
        self.settle(ticket, Verdict::Delivered, None);
        self.release(ticket.to, 1, u64::from(ticket.size));
    }
}

impl Inbound {
    pub(crate) fn new(settlements: Arc<dyn Settlements>) -> Self {
        Self(settlements)
    }

    /// Says what became of a message: exactly once for each ticket, in any order. Never blocks and calls nothing back
    /// from within. A verdict other than `Delivered` gives the credit back too: such a message is not released.
    pub fn settle(&self, ticket: Ticket, verdict: Verdict) {
        self.0.settle(ticket, verdict, None);
    }

    /// As [`settle`](Self::settle) with `Delivered` for `count` messages whose tickets have the numbers from `first` on.
    pub fn settle_run(&self, first: u64, count: u64) {
        self.0.settle_run(first, count);
    }

    /// As [`settle`](Self::settle) for a message that was not placed, giving the message back. A sender in this process
    /// gets this very value with its failure; one behind a byte stream still has its own copy, and `message` is dropped.
    pub fn refuse<M: Send + 'static>(&self, ticket: Ticket, verdict: Verdict, message: M) {
        self.0.settle(ticket, verdict, Some(Box::new(message)));
    }

    /// Gives the credit of a delivered message back: it left the receiver's queue. Once for each ticket that was settled
    /// as delivered, before or after. Never blocks and calls nothing back from within.
    pub fn release(&self, ticket: Ticket) {
        self.0.release(ticket.to, 1, u64::from(ticket.size));
    }

    /// As [`release`](Self::release) for several messages of one destination at once: [`Ticket::to`], their number and
    /// the sum of their sizes.
    pub fn release_many(&self, to: u32, messages: u64, bytes: u64) {
        self.0.release(to, messages, bytes);
    }

    /// As [`settle`](Self::settle) with `Delivered` and [`release`](Self::release) at once, for a message that lies in no queue here.
    pub fn settle_and_release(&self, ticket: Ticket) {
        self.0.settle_and_release(ticket);
    }

    /// Whether both settle the same session.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound").finish_non_exhaustive()
    }
}
