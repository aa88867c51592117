//! What an in-process channel has at a moment, and what is to be done next. Doing it (calling foreign code, starting
//! tasks) is in `link`; nothing here calls anything.

use std::collections::VecDeque;

use crate::limits::LOCAL_BATCH_MESSAGES;
use crate::outbound::Common;
use crate::{Completion, Deliver, Failure, Reason, Status};

pub(super) struct State<M, K> {
    pub(super) phase: Phase,
    /// Nothing more is taken; the link ends when all has its outcome.
    pub(super) closing: bool,
    /// Counts the sessions of this link: what an earlier one says does not count.
    pub(super) generation: u64,
    /// What takes the messages; not here while it is being called.
    pub(super) deliver: Option<Box<dyn Deliver<M>>>,
    /// Posted, not handed over; and whether someone waits for the outcome.
    pub(super) queue: VecDeque<(M, bool)>,
    /// One slot for each message from `floor` on.
    pub(super) slots: VecDeque<Slot<K>>,
    /// Below it every completion was called.
    pub(super) floor: u64,
    /// The sequence number of the first message in `queue`.
    pub(super) handed: u64,
    /// Handed over and not released.
    pub(super) outstanding: u64,
    pub(super) window: u64,
    pub(super) finished: Vec<Finished<M, K>>,
    /// Someone moves messages.
    pub(super) running: bool,
    /// The receiving side ended; what is to be told to it.
    pub(super) farewell: Vec<Box<dyn Deliver<M>>>,
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
    Waiting(K),
    /// Its completion is being called.
    Finishing,
    Called,
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
        first: u64,
        batch: VecDeque<(M, bool)>,
    },
    Farewell(Vec<Box<dyn Deliver<M>>>),
    Rest,
}

impl<M: Send + 'static, K: Completion<M>> State<M, K> {
    pub(super) fn new(closed: Option<Reason>) -> Self {
        Self {
            phase: closed.map_or(Phase::Idle, Phase::Closed),
            closing: false,
            generation: 0,
            deliver: None,
            queue: VecDeque::new(),
            slots: VecDeque::new(),
            floor: 0,
            handed: 0,
            outstanding: 0,
            window: 0,
            finished: Vec::new(),
            running: false,
            farewell: Vec::new(),
        }
    }

    /// What is to be done next; the caller does it without the lock. After `Rest` it is nobody's turn.
    pub(super) fn step(&mut self, common: &Common) -> Step<M, K> {
        if !self.finished.is_empty() {
            return Step::Finish(std::mem::take(&mut self.finished));
        }
        if !self.farewell.is_empty() {
            return Step::Farewell(std::mem::take(&mut self.farewell));
        }
        match self.phase {
            Phase::Idle if !self.queue.is_empty() => {
                self.phase = Phase::Connecting;
                return Step::Connect;
            }
            Phase::Open if !self.queue.is_empty() && self.outstanding < self.window => {
                if let Some(deliver) = self.deliver.take() {
                    let room =
                        usize::try_from(self.window - self.outstanding).unwrap_or(usize::MAX);
                    let count = room.min(self.queue.len()).min(LOCAL_BATCH_MESSAGES);
                    let batch = self.queue.drain(..count).collect();
                    let first = self.handed;
                    self.handed += count as u64;
                    self.outstanding += count as u64;
                    return Step::Hand {
                        deliver,
                        generation: self.generation,
                        first,
                        batch,
                    };
                }
            }
            Phase::Idle | Phase::Open if self.closing && self.slots.is_empty() => {
                self.end(common, Reason::Closed);
                return Step::Farewell(std::mem::take(&mut self.farewell));
            }
            _ => {}
        }
        self.running = false;
        Step::Rest
    }

    fn end(&mut self, common: &Common, reason: Reason) {
        self.phase = Phase::Closed(reason.clone());
        self.generation += 1;
        self.farewell.extend(self.deliver.take());
        common.capacity.set(true);
        common.publish(Status::Closed(reason));
    }

    /// Ends the link: what was handed over and not settled is unknown, what was not is not delivered.
    pub(super) fn fail(&mut self, common: &Common, reason: Reason) {
        if matches!(self.phase, Phase::Closed(_)) {
            return;
        }
        self.lose(&reason);
        while let Some((message, _)) = self.queue.pop_front() {
            let seq = self.handed;
            self.handed += 1;
            self.settle(
                seq,
                Some(Failure::NotDelivered(reason.clone())),
                Some(message),
            );
        }
        self.end(common, reason);
    }

    /// What was handed over and not settled ends as unknown.
    pub(super) fn lose(&mut self, reason: &Reason) {
        for seq in self.floor..self.handed {
            self.settle(seq, Some(Failure::Unknown(reason.clone())), None);
        }
    }

    /// The outcome of a message is known; the first one counts.
    pub(super) fn settle(&mut self, seq: u64, failure: Option<Failure>, message: Option<M>) {
        let Some(slot) = self.slot(seq) else { return };
        if matches!(slot, Slot::Waiting(_))
            && let Slot::Waiting(completion) = std::mem::replace(slot, Slot::Finishing)
        {
            self.finished.push(Finished {
                seq,
                completion,
                failure,
                message,
            });
        }
    }

    /// The completion of a message has returned.
    pub(super) fn set_called(&mut self, seq: u64) {
        if let Some(slot) = self.slot(seq) {
            *slot = Slot::Called;
        }
    }

    fn slot(&mut self, seq: u64) -> Option<&mut Slot<K>> {
        let index = usize::try_from(seq.checked_sub(self.floor)?).ok()?;
        self.slots.get_mut(index)
    }
}
