//! One direction of one session of an in-process channel, as the receiving side, the server and the other direction see it.

use std::any::Any;
use std::sync::Arc;

use hyperactor_protocol::Verdict;

use super::link::Inner;
use super::state::{Phase, State};
use super::table;
use crate::inbound::Settlements;
use crate::{Codec, Completion, Reason, Status, Ticket, codes};

/// The other direction of a session. No lock is held by whoever calls it.
pub(crate) trait Half: Send + Sync {
    /// Closes this direction, and with it the session.
    fn close(&self);
    /// The other end takes nothing more: what was not handed over comes back.
    fn refuse(&self);
    /// Whether everything here has its outcome.
    fn is_drained(&self) -> bool;
    /// Something has changed that the other direction was asked for.
    fn nudge(&self);
    /// The session is over.
    fn end(&self, reason: Reason);
}

pub(crate) struct LocalSession<M: Send + 'static, K: Completion<M>, C: Codec<M>> {
    pub(super) link: Arc<Inner<M, K, C>>,
    pub(super) generation: u64,
}

impl<M: Send + 'static, K: Completion<M>, C: Codec<M>> LocalSession<M, K, C> {
    /// Does something to the state, if the session is still the present one, and lets a task do what follows.
    fn with(&self, change: impl FnOnce(&mut State<M, K, C::Name>) -> bool) {
        let mut state = self.link.state.lock();
        let must_run = state.generation == self.generation && change(&mut state);
        if (must_run || state.has_work()) && !std::mem::replace(&mut state.running, true) {
            drop(state);
            self.link.run_in_task();
        }
    }
}

impl<M: Send + 'static, K: Completion<M>, C: Codec<M>> Settlements for LocalSession<M, K, C> {
    fn settle(&self, ticket: Ticket, verdict: Verdict, message: Option<Box<dyn Any + Send>>) {
        let message = message
            .and_then(|message| message.downcast::<M>().ok())
            .map(|boxed| *boxed);
        let refused = verdict != Verdict::Delivered;
        let failure = codes::verdict(verdict);
        self.with(|state| {
            state.settle(ticket.seq, failure, message);
            if refused {
                state.lanes.release(ticket.to, 1);
            }
            false
        });
    }

    fn settle_run(&self, first: u64, count: u64) {
        self.with(|state| {
            for seq in first..first + count {
                state.settle(seq, None, None);
            }
            false
        });
    }

    fn release(&self, to: u32, messages: u64, _bytes: u64) {
        self.with(|state| {
            state.lanes.release(to, messages);
            false
        });
    }
}

impl<M: Send + 'static, K: Completion<M>, C: Codec<M>> Half for LocalSession<M, K, C> {
    fn close(&self) {
        self.link.close();
    }

    fn refuse(&self) {
        self.with(|state| {
            state.refusing = true;
            true
        });
    }

    fn is_drained(&self) -> bool {
        let state = self.link.state.lock();
        state.generation != self.generation || state.slots.is_empty()
    }

    fn nudge(&self) {
        self.with(|state| {
            state.nudged = true;
            true
        });
    }

    fn end(&self, reason: Reason) {
        let link = &self.link;
        self.with(|state| {
            let reason = if state.closing && state.slots.is_empty() {
                Reason::Closed
            } else {
                reason
            };
            state.fail(&link.common, reason);
            true
        });
    }
}

impl<M: Send + 'static, K: Completion<M>, C: Codec<M>> table::Served for LocalSession<M, K, C> {
    fn close(&self) {
        let opposite = {
            let state = self.link.state.lock();
            let is_present = state.generation == self.generation;
            is_present.then(|| state.opposite.clone()).flatten()
        };
        if let Some(opposite) = opposite {
            opposite.close();
        }
    }

    fn is_open(&self) -> bool {
        let state = self.link.state.lock();
        state.generation == self.generation && state.phase == Phase::Open
    }

    fn ended(&self, orderly: bool) {
        let link = &self.link;
        self.with(|state| {
            if orderly {
                state.lose(&Reason::Dropped);
                state.fail(&link.common, Reason::PeerClosed);
            } else {
                state.lose(&Reason::PeerRestarted);
                state.leave(&Reason::Dropped);
                state.phase = Phase::Idle;
                let is_idle = state.lanes.is_empty() && !state.is_eager;
                link.common.publish(if is_idle {
                    Status::Idle
                } else {
                    Status::Reconnecting
                });
            }
            // The link may have to look for another server, or to call completions.
            true
        });
    }
}
