//! Envelopes that come in over one session, whichever end opened it: posted into a sender, and settled by their return handles.
//! Who accepts sessions is in `server`, who opens them in `client`.

use std::collections::VecDeque;
use std::sync::Arc;

use hyperactor_channel::{Codec, Deliver, Inbound, Names, Parcel, Ticket, Verdict};
use hyperactor_mailbox::{
    Failure, MailboxSender, MessageEnvelope, Passage, ReturnHandle, ReturnSink, Sealed, Token,
    Undeliverable, Unknown, is_plain,
};
use hyperactor_refs::ActorId;

use crate::codec::EnvelopeCodec;
use crate::limits::{PASSAGE_REST, PASSAGES, PASSED_TOGETHER};
use crate::reasons;

/// Posts what comes in over one session into a sender, and passes on undecoded what that sender lets through.
pub(crate) struct Incoming<S> {
    sender: S,
    sink: Arc<SessionSink>,
    /// For messages whose sender waits for the outcome: a relay asks its next hop for an answer at once, too.
    awaited: Arc<SessionSink>,
    passages: Passages,
}

impl<S> Incoming<S> {
    pub(crate) fn new(sender: S, inbound: Inbound) -> Self {
        // Made once for the session: a return handle costs one reference count of it.
        let sink = |inbound, is_awaited| {
            Arc::new(SessionSink {
                inbound,
                is_awaited,
            })
        };
        Self {
            sender,
            awaited: sink(inbound.clone(), true),
            sink: sink(inbound, false),
            passages: Passages::default(),
        }
    }
}

impl<S: MailboxSender> Incoming<S> {
    fn return_handle(&self, ticket: Ticket, is_awaited: bool) -> ReturnHandle {
        let sink = if is_awaited {
            &self.awaited
        } else {
            &self.sink
        };
        let token = Token {
            id: ticket.seq,
            size: ticket.size,
            to: ticket.to,
        };
        ReturnHandle::new(sink.clone(), token)
    }

    fn post(&mut self, envelope: MessageEnvelope, ticket: Ticket, is_awaited: bool) {
        if let Some(pair) = self.passages.asked.take() {
            let passage = self.sender.passage(&envelope);
            self.passages.learn(pair, &envelope, passage);
        }
        let return_handle = self.return_handle(ticket, is_awaited);
        self.sender.post(envelope, return_handle);
    }

    /// Passes on what has gathered, and posts what is not taken.
    fn flush(&mut self) {
        let Passages { found, run, at, .. } = &mut self.passages;
        if run.is_empty() {
            return;
        }
        let Some(Some(way)) = found.get(*at) else {
            // What gathers is taken out before its way is; were it not, each would be reported as dropped.
            return run.clear();
        };
        let stays = way.passage.pass(run);
        for Sealed {
            body,
            return_handle,
        } in run.drain(..)
        {
            let names = Names {
                to: Some(&way.dest),
                from: Some(&way.sender),
            };
            match EnvelopeCodec.decode(body, names) {
                Ok(envelope) => self.sender.post(envelope, return_handle),
                // Cannot be: what gathers is plain. Dropped, it is reported.
                Err(error) => tracing::error!(%error, "a plain envelope does not decode"),
            }
        }
        if !stays {
            found[*at] = None;
        }
    }
}

impl<S: MailboxSender> Deliver<MessageEnvelope> for Incoming<S> {
    fn deliver(&mut self, envelope: MessageEnvelope, ticket: Ticket) {
        self.post(envelope, ticket, false);
    }

    fn deliver_awaited(&mut self, envelope: MessageEnvelope, ticket: Ticket) {
        self.post(envelope, ticket, true);
    }

    fn pass(&mut self, parcel: Parcel) -> Option<Parcel> {
        let pair = Pair {
            to: parcel.ticket.to,
            from: parcel.from,
        };
        let place = self.passages.place(pair);
        if place.is_none() || !is_plain(&parcel.body) {
            self.passages.asked = if place.is_none() {
                self.passages.ask(pair)
            } else {
                None
            };
            self.flush();
            return Some(parcel);
        }
        if let Some(place) = place.filter(|place| *place != self.passages.at) {
            self.flush();
            self.passages.at = place;
        }
        let return_handle = self.return_handle(parcel.ticket, parcel.is_awaited);
        self.passages.run.push_back(Sealed {
            body: parcel.body,
            return_handle,
        });
        if self.passages.run.len() >= PASSED_TOGETHER {
            self.flush();
        }
        None
    }

    fn renamed(&mut self, name: u32) {
        self.flush();
        self.passages.forget(name);
    }

    fn reconnected(&mut self) {
        self.flush();
        self.passages.found.clear();
    }

    fn batch_ended(&mut self) {
        self.flush();
    }
}

/// From whom and to whom, by the numbers that the session has for them on its present connection.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Pair {
    to: u32,
    from: u32,
}

impl Pair {
    /// The numbers of a session count up, those of one pair mostly together: each is spread over all bits before the highest
    /// of them are taken.
    fn place(self) -> usize {
        // 2⁶⁴ over the golden ratio (Knuth, The Art of Computer Programming, 6.4).
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let both = u64::from(self.to) << 32 | u64::from(self.from);
        let spread = (both ^ both >> 29).wrapping_mul(SPREAD);
        (spread >> 32) as usize % PASSAGES
    }
}

/// The ways of envelopes that need not be decoded, and those that gather for one of them.
///
/// # Bounds
/// [`PASSAGES`] ways, of which one that falls on the place of another takes it; [`PASSED_TOGETHER`] envelopes.
#[derive(Default)]
struct Passages {
    /// Nothing at all before the first is found: who only receives has none.
    found: Vec<Option<Found>>,
    /// Those that gather, all for the same way; and its place.
    run: VecDeque<Sealed>,
    at: usize,
    /// The envelope that is decoded now has no way here, and one is to be asked for.
    asked: Option<Pair>,
    /// Envelopes without a way until one is asked for again.
    rest: u32,
}

struct Found {
    pair: Pair,
    dest: ActorId,
    sender: ActorId,
    passage: Passage,
}

impl Passages {
    #[inline]
    fn place(&self, pair: Pair) -> Option<usize> {
        if self.found.is_empty() {
            return None;
        }
        let place = pair.place();
        let found = self.found.get(place)?.as_ref()?;
        (found.pair == pair).then_some(place)
    }

    /// Whether to ask for a way of this pair's.
    fn ask(&mut self, pair: Pair) -> Option<Pair> {
        if self.rest == 0 {
            return Some(pair);
        }
        self.rest -= 1;
        None
    }

    /// What came of asking; nothing gathers at the moment. Where there is no way, or it takes the place of another one, there
    /// is no asking for each envelope: that costs more than it can bring.
    fn learn(&mut self, pair: Pair, envelope: &MessageEnvelope, passage: Option<Passage>) {
        let Some(passage) = passage else {
            self.rest = PASSAGE_REST;
            return;
        };
        if self.found.is_empty() {
            self.found.resize_with(PASSAGES, || None);
        }
        let place = &mut self.found[pair.place()];
        if place.is_some() {
            self.rest = PASSAGE_REST;
        }
        *place = Some(Found {
            pair,
            dest: envelope.dest().actor_id().clone(),
            sender: envelope.sender().clone(),
            passage,
        });
    }

    /// A number is another's from now on.
    fn forget(&mut self, name: u32) {
        for place in &mut self.found {
            place.take_if(|found| found.pair.to == name || found.pair.from == name);
        }
    }
}

/// Settles the messages of one session.
struct SessionSink {
    inbound: Inbound,
    is_awaited: bool,
}

fn ticket(token: Token) -> Ticket {
    Ticket {
        seq: token.id,
        size: token.size,
        to: token.to,
    }
}

impl ReturnSink for SessionSink {
    fn delivered(&self, token: Token) {
        self.inbound.settle(ticket(token), Verdict::Delivered);
    }

    fn undelivered(&self, token: Token, report: Undeliverable) {
        let verdict = reasons::verdict_of(&report.failure, &report.route);
        self.inbound.refuse(ticket(token), verdict, report.envelope);
    }

    fn abandoned(&self, token: Token) {
        self.lost(token, Unknown::Dropped.into());
    }

    fn lost(&self, token: Token, failure: Failure) {
        self.inbound
            .settle(ticket(token), reasons::verdict_of(&failure, &[]));
    }

    fn released(&self, token: Token) {
        self.inbound.release(ticket(token));
    }

    fn delivered_beyond(&self, token: Token) {
        self.inbound.settle_and_release(ticket(token));
    }

    fn wants_release(&self) -> bool {
        true
    }

    fn releases_by_size(&self) -> bool {
        true
    }

    fn wants_outcome(&self) -> bool {
        self.is_awaited
    }
}

#[cfg(test)]
mod tests {
    use hyperactor_mailbox::Pass;
    use hyperactor_refs::{ChannelAddr, PortId, ProcId};

    use super::*;

    #[test]
    fn pairs_whose_numbers_were_given_out_together_have_places_of_their_own() {
        // As a session gives them out: to each pair the next two, or to one sender's destinations one after the other.
        let apart = |at: u32| Pair {
            to: 2 * at + 1,
            from: 2 * at + 2,
        };
        let of_one = |at: u32| Pair {
            to: at + 2,
            from: 1,
        };
        let pairs = PASSAGES as u32 / 2;
        for kind in [apart, of_one] {
            for first in [0, 1_000, 60_000] {
                let places: std::collections::BTreeSet<_> =
                    (first..first + pairs).map(|at| kind(at).place()).collect();
                assert!(
                    places.len() * 2 > pairs as usize,
                    "{} of {pairs} pairs have a place of their own",
                    places.len()
                );
            }
        }
    }

    #[test]
    fn a_way_that_is_not_there_is_not_asked_for_with_each_envelope() {
        let mut passages = Passages::default();
        let pair = Pair { to: 1, from: 2 };
        let mut asked = 0;
        for _ in 0..10 * (PASSAGE_REST + 1) {
            if passages.ask(pair).is_some() {
                asked += 1;
                passages.rest = PASSAGE_REST;
            }
        }
        assert_eq!(asked, 10);
    }

    /// A way that takes all.
    struct All;

    impl Pass for All {
        fn pass(&self, run: &mut VecDeque<Sealed>) -> bool {
            run.clear();
            true
        }
    }

    #[test]
    fn the_ways_of_a_number_that_is_told_anew_are_forgotten_and_others_are_not() {
        let addr = ChannelAddr::local(7).unwrap();
        let proc_id = ProcId::direct(addr, "p").unwrap();
        let actor = ActorId::root(proc_id, "a");
        let dest = PortId::new(actor.clone(), 1);
        let envelope = MessageEnvelope::typed(actor, dest, 1_u64);
        let pairs = [(1, 2), (3, 1), (4, 5)].map(|(to, from)| Pair { to, from });
        let mut passages = Passages::default();
        for pair in pairs {
            passages.learn(pair, &envelope, Some(Passage::new(All)));
        }
        let known = |passages: &Passages| pairs.map(|pair| passages.place(pair).is_some());
        assert_eq!(known(&passages), [true; 3]);
        passages.forget(1);
        assert_eq!(known(&passages), [false, false, true]);
    }
}
