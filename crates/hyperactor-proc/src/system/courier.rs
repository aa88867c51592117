//! Messages between systems that have to arrive: kept until they are delivered, sent again when they were not, given up
//! when their destination is gone.

use std::collections::HashMap;
use std::sync::Arc;

use hyperactor_mailbox::{
    Failure, Message, MessageEnvelope, ReturnHandle, ReturnSink, Token, Undeliverable,
};
use hyperactor_refs::ProcId;
use parking_lot::Mutex;

use crate::proc::WeakProc;
use crate::watch::Sign;
use crate::{Proc, ProcLoss, limits};

#[derive(Default)]
pub(crate) struct Courier {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    letters: HashMap<u64, Letter>,
}

struct Letter {
    to: Arc<ProcId>,
    make: Arc<dyn Fn(&Proc) -> MessageEnvelope + Send + Sync>,
    is_under_way: bool,
    tries: u32,
}

impl Courier {
    /// Sends a message to the system of another proc, as often as it takes.
    ///
    /// A receiver may get it twice: what is sent so must not mind.
    pub(crate) fn send<M: Message + Clone + Sync>(
        &self,
        proc: &Proc,
        to: &Arc<ProcId>,
        message: M,
    ) {
        let make = {
            let to = Arc::clone(to);
            Arc::new(move |proc: &Proc| proc.system_envelope(&to, message.clone()))
        };
        let id = {
            let mut state = self.state.lock();
            if state.letters.len() >= limits::LETTERS_MAX {
                tracing::error!(proc = %proc.proc_id(), to = %to, message = %M::type_name(), "too many messages wait for procs that do not answer: one is dropped");
                return;
            }
            state.next += 1;
            let id = state.next;
            let letter = Letter {
                to: Arc::clone(to),
                make,
                is_under_way: true,
                tries: 1,
            };
            state.letters.insert(id, letter);
            id
        };
        self.post(proc, id);
    }

    fn post(&self, proc: &Proc, id: u64) {
        let make = match self.state.lock().letters.get(&id) {
            Some(letter) => Arc::clone(&letter.make),
            None => return,
        };
        let sink = Arc::new(Delivery(proc.downgrade()));
        proc.post_from_here(
            make(proc),
            ReturnHandle::new(
                sink,
                Token {
                    id,
                    ..Token::default()
                },
            ),
        );
    }

    /// Sends again what came back.
    pub(crate) fn round(&self, proc: &Proc) {
        let due: Vec<u64> = {
            let mut state = self.state.lock();
            let due = state
                .letters
                .iter_mut()
                .filter(|(_, letter)| !letter.is_under_way);
            due.map(|(id, letter)| {
                letter.is_under_way = true;
                letter.tries += 1;
                *id
            })
            .collect()
        };
        for id in due {
            self.post(proc, id);
        }
    }

    /// Gives up what is for a proc that is gone.
    pub(crate) fn forget(&self, to: &ProcId) {
        self.state
            .lock()
            .letters
            .retain(|_, letter| *letter.to != *to);
    }

    /// Whether nothing waits to be sent again.
    pub(crate) fn is_empty(&self) -> bool {
        self.state
            .lock()
            .letters
            .values()
            .all(|letter| letter.is_under_way)
    }

    fn failed(&self, proc: &Proc, id: u64, failure: &Failure) {
        let given_up = {
            let mut state = self.state.lock();
            let Some(letter) = state.letters.get_mut(&id) else {
                return;
            };
            // V-06: sent again until it is delivered, or the proc is lost.
            let is_given_up = match Sign::of(failure) {
                // Alive, it is there and cannot read it: another version.
                Sign::Gone | Sign::Lost | Sign::Alive => true,
                Sign::Doubt | Sign::Busy => letter.tries >= limits::LETTER_TRIES_MAX,
            };
            if is_given_up {
                state.letters.remove(&id).map(|letter| letter.to)
            } else {
                letter.is_under_way = false;
                None
            }
        };
        match given_up {
            None => proc.system().ticker.ensure(proc),
            Some(to) => {
                tracing::warn!(proc = %proc.proc_id(), to = %to, failure = %failure, "a message to the system of another proc is given up");
                if matches!(Sign::of(failure), Sign::Alive | Sign::Busy) {
                    // No beat will find this out, and nobody may wait for an end that is not told.
                    proc.proc_lost(&ProcLoss::Unreachable {
                        proc_id: to,
                        failure: failure.clone(),
                    });
                }
            }
        }
    }
}

struct Delivery(WeakProc);

impl Delivery {
    fn failed(&self, token: Token, failure: &Failure) {
        if let Ok(proc) = self.0.upgrade() {
            proc.system().courier.failed(&proc, token.id, failure);
        }
    }
}

impl ReturnSink for Delivery {
    fn delivered(&self, token: Token) {
        if let Ok(proc) = self.0.upgrade() {
            proc.system().courier.state.lock().letters.remove(&token.id);
        }
    }

    fn undelivered(&self, token: Token, report: Undeliverable) {
        self.failed(token, &report.failure);
    }

    fn abandoned(&self, token: Token) {
        self.failed(token, &hyperactor_mailbox::Unknown::Dropped.into());
    }

    fn lost(&self, token: Token, failure: Failure) {
        self.failed(token, &failure);
    }
}
