//! What one direction of an in-process channel has at a moment, and what is to be done next. Doing it (calling foreign
//! code, starting tasks) is in `link`; nothing here calls anything.

use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::Arc;

use super::lanes::{Lanes, Waiting};
use super::session::Half;
use crate::limits::LOCAL_BATCH_MESSAGES;
use crate::outbound::Common;
use crate::slots::Slots;
use crate::{Completion, Deliver, Failure, Reason, Status};

pub(super) struct State<M, K, N> {
    pub(super) phase: Phase,
    /// Nothing more is taken; the link ends when all has its outcome, both ways.
    pub(super) closing: bool,
    /// The other end closes: what was not handed over comes back.
    pub(super) refusing: bool,
    /// The other direction of the present session.
    pub(super) opposite: Option<Arc<dyn Half>>,
    /// Counts the sessions of this link: what an earlier one says does not count.
    pub(super) generation: u64,
    /// What takes the messages; not here while it is being called.
    pub(super) deliver: Option<Box<dyn Deliver<M>>>,
    /// Posted, not handed over.
    pub(super) lanes: Lanes<M, N>,
    /// Messages whose completion has not returned.
    pub(super) slots: Slots<Slot<K>>,
    pub(super) finished: Vec<Finished<M, K>>,
    /// Someone moves messages.
    pub(super) running: bool,
    /// Whoever moves messages shall look again before it rests.
    pub(super) nudged: bool,
    /// The receiving side ended; what is to be told to it.
    pub(super) farewell: Vec<Box<dyn Deliver<M>>>,
    /// The other direction of a session that ended, and why.
    pub(super) parting: Vec<(Arc<dyn Half>, Reason)>,
    /// The link has ended, and its own receiving end was not told.
    pub(super) is_untold: bool,
    /// Looks for a server also when nothing waits.
    pub(super) is_eager: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No session; the next message opens one.
    Idle,
    /// A task looks for the server.
    Connecting,
    Open,
    Closed(Reason),
}

pub(super) enum Slot<K> {
    /// Not handed over.
    Queued(K),
    /// Handed over.
    Handed(K),
    /// Its completion is being called.
    Finishing,
}

pub(super) struct Finished<M, K> {
    pub(super) seq: u64,
    pub(super) completion: K,
    pub(super) failure: Option<Failure>,
    pub(super) message: Option<M>,
}

pub(super) enum Step<M, K> {
    Finish(Vec<Finished<M, K>>),
    Connect,
    Hand {
        deliver: Box<dyn Deliver<M>>,
        generation: u64,
        batch: VecDeque<Waiting<M>>,
    },
    Farewell(Vec<Box<dyn Deliver<M>>>),
    Part(Vec<(Arc<dyn Half>, Reason)>),
    /// The link has ended.
    End,
    /// This direction is done: is the other one?
    Ask(Arc<dyn Half>),
    Rest,
}

impl<M, K, N> State<M, K, N>
where
    M: Send + 'static,
    K: Completion<M>,
    N: Clone + Eq + Hash,
{
    pub(super) fn new(common: &Common, first: u64) -> Self {
        Self {
            phase: Phase::Idle,
            closing: false,
            refusing: false,
            opposite: None,
            generation: 0,
            deliver: None,
            lanes: Lanes::new(common.capacity.clone()),
            slots: Slots::new(first),
            finished: Vec::new(),
            running: false,
            nudged: false,
            farewell: Vec::new(),
            parting: Vec::new(),
            is_untold: false,
            is_eager: false,
        }
    }

    /// What is to be done next; the caller does it without the lock. After `Rest` it is nobody's turn.
    pub(super) fn step(&mut self, common: &Common) -> Step<M, K> {
        if self.refusing && !self.lanes.is_empty() {
            self.return_waiting(&Reason::PeerClosed);
        }
        if !self.finished.is_empty() {
            return Step::Finish(std::mem::take(&mut self.finished));
        }
        if !self.farewell.is_empty() {
            return Step::Farewell(std::mem::take(&mut self.farewell));
        }
        if !self.parting.is_empty() {
            return Step::Part(std::mem::take(&mut self.parting));
        }
        if std::mem::take(&mut self.is_untold) {
            return Step::End;
        }
        let is_done = self.closing && self.slots.is_empty();
        match self.phase {
            Phase::Idle if !self.lanes.is_empty() || (self.is_eager && !self.closing) => {
                self.phase = Phase::Connecting;
                return Step::Connect;
            }
            Phase::Open if self.lanes.is_ready() => {
                if let Some(deliver) = self.deliver.take() {
                    let batch = self.lanes.next(LOCAL_BATCH_MESSAGES);
                    for waiting in &batch {
                        self.set_handed(waiting.seq);
                    }
                    return Step::Hand {
                        deliver,
                        generation: self.generation,
                        batch,
                    };
                }
            }
            Phase::Open if is_done => {
                if let Some(opposite) = &self.opposite {
                    self.nudged = false;
                    return Step::Ask(Arc::clone(opposite));
                }
            }
            // A search that has nothing to find any more ends with it.
            Phase::Idle | Phase::Connecting if is_done => {
                self.end(common, Reason::Closed);
                return Step::Part(std::mem::take(&mut self.parting));
            }
            _ => {}
        }
        self.running = false;
        Step::Rest
    }

    /// Whether someone has to do something.
    pub(super) fn has_work(&self) -> bool {
        !self.finished.is_empty()
            || !self.farewell.is_empty()
            || !self.parting.is_empty()
            || self.is_untold
            || (self.phase == Phase::Open && self.lanes.is_ready())
    }

    pub(super) fn end(&mut self, common: &Common, reason: Reason) {
        self.phase = Phase::Closed(reason.clone());
        self.is_untold = true;
        self.leave(&reason);
        self.lanes.open_all();
        common.capacity.set(true);
        common.publish(Status::Closed(reason));
    }

    /// The present session is over: what it says from now on does not count, and its other direction ends too.
    pub(super) fn leave(&mut self, reason: &Reason) {
        self.generation += 1;
        self.refusing = false;
        self.farewell.extend(self.deliver.take());
        let reason = match reason {
            Reason::Closed => Reason::PeerClosed,
            _ => Reason::Dropped,
        };
        let opposite = self.opposite.take();
        self.parting
            .extend(opposite.map(|opposite| (opposite, reason)));
    }

    /// Ends the link: what was handed over and not settled is unknown, what was not is not delivered.
    pub(super) fn fail(&mut self, common: &Common, reason: Reason) {
        if matches!(self.phase, Phase::Closed(_)) {
            return;
        }
        self.lose(&reason);
        self.return_waiting(&reason);
        self.end(common, reason);
    }

    /// What was handed over and not settled ends as unknown.
    pub(super) fn lose(&mut self, reason: &Reason) {
        for seq in self.slots.numbers() {
            self.settle(seq, Some(Failure::Unknown(reason.clone())), None);
        }
    }

    fn return_waiting(&mut self, reason: &Reason) {
        for Waiting { seq, message, .. } in self.lanes.drain() {
            let failure = Failure::NotDelivered(reason.clone());
            self.set_handed(seq);
            self.settle(seq, Some(failure), Some(message));
        }
    }

    /// The outcome of a message that was handed over is known; the first one counts.
    pub(super) fn settle(&mut self, seq: u64, failure: Option<Failure>, message: Option<M>) {
        let Some(slot) = self.slots.get_mut(seq) else {
            return;
        };
        if matches!(slot, Slot::Handed(_))
            && let Slot::Handed(completion) = std::mem::replace(slot, Slot::Finishing)
        {
            self.finished.push(Finished {
                seq,
                completion,
                failure,
                message,
            });
        }
    }

    fn set_handed(&mut self, seq: u64) {
        let Some(slot) = self.slots.get_mut(seq) else {
            return;
        };
        *slot = match std::mem::replace(slot, Slot::Finishing) {
            Slot::Queued(completion) => Slot::Handed(completion),
            other => other,
        };
    }

    /// The completions of these messages have returned.
    pub(super) fn set_called(&mut self, seqs: Vec<u64>) {
        for seq in seqs {
            drop(self.slots.take(seq));
        }
    }
}
