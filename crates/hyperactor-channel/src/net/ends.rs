//! One end of a session as the pump sees it, the same at the dialer and at the acceptor: the sending half behind its lock,
//! the settlements of the receiving half, and what takes the messages that come in.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use hyperactor_protocol::{Cut, DataFlags, Frame, Label, Messages, Seq, Session, Time};

use crate::net::inbound::{Gathered, NetInbound};
use crate::net::labels::Known;
use crate::net::link::Shared;
use crate::net::outcomes::Outcomes;
use crate::net::pump::{Arrived, Endpoint};
use crate::{Codec, Completion, DecodeError, Deliver, Names, Parcel, Reason, Ticket, codec, codes};

/// The sending half, owned by the task that drives the session. Dropped before the session is over (a panic, the end of
/// the runtime, of the server), it ends the session, so that every message has its outcome.
pub(crate) struct Owner<M: Send + 'static, K: Completion<M>, C: Codec<M>> {
    pub(crate) shared: Arc<Shared<M, K, C>>,
    outcomes: Outcomes<K, C::Name>,
}

impl<M: Send + 'static, K: Completion<M>, C: Codec<M>> Owner<M, K, C> {
    pub(crate) fn new(shared: Arc<Shared<M, K, C>>) -> Self {
        Self {
            shared,
            outcomes: Outcomes::default(),
        }
    }

    pub(crate) fn give_up(&mut self, reason: Reason) {
        self.shared.give_up(&mut self.outcomes, reason);
        self.shared.tell(&mut self.outcomes);
    }
}

impl<M: Send + 'static, K: Completion<M>, C: Codec<M>> Drop for Owner<M, K, C> {
    fn drop(&mut self) {
        // Does nothing when the session has ended in its own way.
        self.give_up(Reason::Dropped);
    }
}

/// Tells the application's end that it is over, however the task ends.
struct Receiver<M, D: Deliver<M>>(D, std::marker::PhantomData<fn(M)>);

impl<M, D: Deliver<M>> Drop for Receiver<M, D> {
    fn drop(&mut self) {
        // After a panic of the receiver itself nothing more is asked of it.
        if !std::thread::panicking() {
            self.0.closed();
        }
    }
}

/// The number of a message whose decoder runs, its destination and its size.
type Decoding = (Seq, Label, u32);

/// Both halves of one end.
pub(crate) struct Ends<M: Send + 'static, K: Completion<M>, C: Codec<M>, D: Deliver<M>> {
    // Declared first: the outcomes of what was sent are told before the receiver learns of the end.
    owner: Owner<M, K, C>,
    inbound: Arc<NetInbound>,
    receiver: Receiver<M, D>,
    known: Known<C::Name>,
    /// Empty between two uses; its memory is used again.
    gathered: Gathered,
    /// Outcomes or messages came over the present connection.
    pub(crate) is_useful: bool,
}

impl<M: Send + 'static, K: Completion<M>, C: Codec<M>, D: Deliver<M>> Ends<M, K, C, D> {
    pub(crate) fn new(owner: Owner<M, K, C>, inbound: Arc<NetInbound>, receiver: D) -> Self {
        Self {
            owner,
            inbound,
            receiver: Receiver(receiver, std::marker::PhantomData),
            known: Known::new(),
            gathered: Gathered::default(),
            is_useful: false,
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared<M, K, C>> {
        &self.owner.shared
    }

    pub(crate) fn give_up(&mut self, reason: Reason) {
        self.owner.give_up(reason);
    }

    /// A connection begins.
    pub(crate) fn connected(&mut self) {
        self.known.clear();
        self.receiver.0.reconnected();
        self.is_useful = false;
    }

    pub(crate) fn is_closed(&mut self) -> bool {
        self.with(|session| session.is_closed())
    }

    /// The application's settlements are not kept any more.
    pub(crate) fn end_inbound(&self) {
        self.inbound.end();
    }

    /// Without a connection: brings in what was settled, and keeps the waker for what is settled or posted meanwhile.
    /// Returns when the session must be looked at.
    pub(crate) fn rest(&mut self, waker: &Waker) -> Option<Time> {
        self.sync();
        self.finish();
        while !self.inbound.park(waker, false) {
            self.sync();
            self.finish();
        }
        self.shared().park_detached(waker)
    }

    /// What a wait without a connection can look at without the ends themselves.
    pub(crate) fn watch(&self) -> (Arc<Shared<M, K, C>>, Arc<NetInbound>) {
        (Arc::clone(&self.owner.shared), Arc::clone(&self.inbound))
    }
}

impl<M: Send + 'static, K: Completion<M>, C: Codec<M>, D: Deliver<M>> Ends<M, K, C, D> {
    #[inline(always)]
    fn deliver_decoded(
        &mut self,
        message: Arrived,
        decode: impl FnOnce(&C, Bytes, Names<'_, C::Name>) -> Result<M, DecodeError>,
    ) {
        let Arrived {
            seq,
            to,
            from,
            body,
            size,
            ack_now,
        } = message;
        self.is_useful = true;
        if ack_now {
            self.inbound.expect_urgent(seq.0 + 1);
        }
        let parcel = Parcel {
            body,
            ticket: Ticket {
                seq: seq.0,
                size,
                to: to.number(),
            },
            from: from.number(),
            is_awaited: ack_now,
        };
        let Some(Parcel { body, ticket, .. }) = self.receiver.0.pass(parcel) else {
            return;
        };
        let codec = self.owner.shared.codec();
        let names = self.known.names(to, from);
        match names.and_then(|names| decode(codec, body, names)) {
            Ok(message) => {
                if ack_now {
                    self.receiver.0.deliver_awaited(message, ticket);
                } else {
                    self.receiver.0.deliver(message, ticket);
                }
            }
            Err(error) => self.refuse(seq, to, size, &error),
        }
    }

    /// Takes one of several messages; `decoding` says whose decoder runs.
    #[inline(always)]
    fn take_message(&mut self, message: Arrived, decoding: &Cell<Option<Decoding>>) {
        let whose = (message.seq, message.to, message.size);
        self.deliver_decoded(message, |codec, body, names| {
            decoding.set(Some(whose));
            let decoded = codec.decode(body, names);
            decoding.set(None);
            decoded
        });
    }

    /// Takes the messages of a run.
    fn take_run(
        &mut self,
        (to, from): (Label, Label),
        messages: &mut Messages,
        decoding: &Cell<Option<Decoding>>,
    ) {
        for (seq, body) in messages {
            let message = Arrived::whole(seq, DataFlags::NONE, to, from, body);
            self.take_message(message, decoding);
        }
    }

    /// Learns what a label stands for in the messages that follow.
    fn learn(&mut self, label: Label, name: Bytes) {
        self.receiver.0.renamed(label.number());
        self.known.learn(self.owner.shared.codec(), label, name);
    }

    #[cold]
    fn refuse(&mut self, seq: Seq, to: Label, size: u32, error: &DecodeError) {
        tracing::debug!(%seq, size, %error, "a message does not decode; it is refused alone");
        self.with(|session| {
            let _written_with_the_next_output = session
                .settle(seq, codes::undecodable(error.text()))
                .max(session.release(to, size));
        });
    }
}

impl<M: Send + 'static, K: Completion<M>, C: Codec<M>, D: Deliver<M>> Drop for Ends<M, K, C, D> {
    fn drop(&mut self) {
        self.inbound.end();
    }
}

impl<M: Send + 'static, K: Completion<M>, C: Codec<M>, D: Deliver<M>> Endpoint
    for Ends<M, K, C, D>
{
    fn with<T>(&mut self, work: impl FnOnce(&mut Session) -> T) -> T {
        let Owner { shared, outcomes } = &mut self.owner;
        shared.with(outcomes, work)
    }

    fn sync(&mut self) {
        let Self {
            owner,
            inbound,
            gathered,
            ..
        } = self;
        if inbound.take(gathered) {
            owner
                .shared
                .with(&mut owner.outcomes, |session| gathered.bring_into(session));
        }
    }

    fn unpark(&mut self) {
        self.inbound.unpark();
    }

    fn deliver(&mut self, message: Arrived) {
        self.deliver_decoded(message, codec::decode);
    }

    fn take(&mut self, cuts: &mut Vec<Cut>) {
        let mut cuts = cuts.drain(..);
        let inbound = Arc::clone(&self.inbound);
        let _delivering = inbound.deliver();
        // Whose decoder runs: a guard against its panic for all of them costs less than one for each.
        let decoding = Cell::new(None);
        // What is left of a run, also after a panic.
        let mut run = None;
        loop {
            let taken = catch_unwind(AssertUnwindSafe(|| {
                loop {
                    if let Some((labels, left)) = &mut run {
                        self.take_run(*labels, left, &decoding);
                        run = None;
                    }
                    match cuts.next() {
                        None => return,
                        Some(Cut::Run(next)) => run = Some((next.labels(), next.messages())),
                        Some(Cut::Frame(Frame::Data {
                            seq,
                            flags,
                            to,
                            from,
                            body,
                        })) => {
                            let message = Arrived::whole(seq, flags, to, from, body);
                            self.take_message(message, &decoding);
                        }
                        Some(Cut::Frame(Frame::Name { label, name })) => self.learn(label, name),
                        // The session has acted on all others.
                        Some(Cut::Frame(_)) => {}
                    }
                }
            }));
            match (taken, decoding.take()) {
                (Ok(()), _) => return,
                (Err(_), Some((seq, to, size))) => self.refuse(seq, to, size, &codec::panicked()),
                // The receiver's own, which is not this message's failure.
                (Err(panic), None) => resume_unwind(panic),
            }
        }
    }

    fn delivered(&mut self) {
        self.receiver.0.batch_ended();
    }

    fn finish(&mut self) {
        let Owner { shared, outcomes } = &mut self.owner;
        self.is_useful |= shared.tell(outcomes) != 0;
    }

    fn park(&mut self, waker: &Waker) -> bool {
        match self.owner.shared.park(waker) {
            Some(timer_runs) => self.inbound.park(waker, timer_runs),
            None => false,
        }
    }
}
