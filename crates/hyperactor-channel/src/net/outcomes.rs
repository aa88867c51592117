//! What became of the messages of a session over a byte stream: the session's events, gathered under the lock, and the completions
//! that are told without it. How messages get into the session is in `link`.

use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use hyperactor_protocol::{Cause, Event, Failure as CoreFailure, HelloCode};

use crate::net::link::{Shared, State, saturate};
use crate::{Codec, Completion, Failure, Names, Reason, Status, codec, codes};

/// Outcomes of messages that follow each other, on their way to their completions.
enum Finished<N> {
    /// So many were delivered.
    Delivered(usize),
    /// One was not.
    Failed(Box<Failed<N>>),
}

/// Why a message failed, and what it can be rebuilt from.
struct Failed<N> {
    failure: Failure,
    body: Option<Bytes>,
    to: Option<N>,
    from: Option<N>,
}

/// Outcomes gathered under the lock, to be told without it.
pub(crate) struct Outcomes<K, N> {
    finished: Vec<Finished<N>>,
    /// Whose they are, in the same order.
    completions: Vec<K>,
    floor: u64,
    /// Why the channel ended, if it has.
    closed: Option<Reason>,
}

impl<K, N> Default for Outcomes<K, N> {
    fn default() -> Self {
        Self {
            finished: Vec::new(),
            completions: Vec::new(),
            floor: 0,
            closed: None,
        }
    }
}

impl<M: Send + 'static, K: Completion<M>, C: Codec<M>> Shared<M, K, C> {
    /// Tells gathered outcomes to their completions, in order and without the lock.
    pub(crate) fn tell(&self, outcomes: &mut Outcomes<K, C::Name>) -> usize {
        // First of all, so that whoever learns of a failure knows that this channel is of no more use.
        if let Some(reason) = outcomes.closed.take() {
            self.common.capacity.set(true);
            self.common.publish(Status::Closed(reason));
        }
        let told = outcomes.completions.len();
        if told == 0 {
            return 0;
        }
        let mut completions = outcomes.completions.drain(..);
        let mut finished = outcomes.finished.drain(..);
        // How many of a run are still to be told: one whose completion panics is behind it.
        let mut run = 0;
        let mut tell = || {
            loop {
                while run != 0 {
                    run -= 1;
                    if let Some(completion) = completions.next() {
                        completion.delivered();
                    }
                }
                match finished.next() {
                    Some(Finished::Delivered(count)) => run = count,
                    Some(Finished::Failed(failed)) => {
                        if let Some(completion) = completions.next() {
                            self.fail(completion, *failed);
                        }
                    }
                    None => return,
                }
            }
        };
        // A completion that panics is its user's fault and must not keep the others from being called.
        while catch_unwind(AssertUnwindSafe(&mut tell)).is_err() {
            tracing::error!(addr = %self.common.addr, "a completion panicked");
        }
        drop((completions, finished));
        self.common.settled.advance(outcomes.floor);
        told
    }

    fn fail(&self, completion: K, failed: Failed<C::Name>) {
        let Failed {
            failure,
            body,
            to,
            from,
        } = failed;
        let names = Names {
            to: to.as_ref(),
            from: from.as_ref(),
        };
        match body.and_then(|body| codec::decode(&*self.codec, body, names).ok()) {
            Some(message) => completion.undelivered(message, failure),
            None => completion.lost(failure),
        }
    }
}

impl<K, N: Clone + Eq + Hash> State<K, N> {
    /// Acts on the session's events, and gathers the outcomes among them.
    pub(super) fn gather<M, C: Codec<M, Name = N>>(
        &mut self,
        shared: &Shared<M, K, C>,
        outcomes: &mut Outcomes<K, N>,
    ) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Resolved { first, count } => {
                    let completions = &mut outcomes.completions;
                    let before = completions.len();
                    self.slots
                        .take_run(first.0, count, |slot| slot.completion, completions);
                    let run = Finished::Delivered(completions.len() - before);
                    outcomes.finished.push(run);
                }
                Event::Failed {
                    post,
                    failure,
                    body,
                } => {
                    let failure = self.failure(shared, failure);
                    if let Some(slot) = self.slots.take(post.0) {
                        // Its labels are its own until now: another name may get them from here on.
                        let failed = Failed {
                            failure,
                            body,
                            to: self.labels.name(slot.to).cloned(),
                            from: self.labels.name(slot.from).cloned(),
                        };
                        outcomes.completions.push(slot.completion);
                        let failed = Finished::Failed(Box::new(failed));
                        outcomes.finished.push(failed);
                    }
                }
                Event::Room { label } if label.is_none() => {
                    shared.common.capacity.set(true);
                    self.labels.open_all();
                }
                Event::Room { label } => self.labels.open(label),
                Event::PeerGoodbye(_) => self.closed = Some(Reason::PeerClosed),
                Event::Drained => self.closed = Some(Reason::Closed),
                Event::Closed(cause) => self.closed = Some(self.reason(shared, cause)),
                _ => {}
            }
        }
        if self.closed.is_some() {
            // A post that is tried again learns of it.
            self.labels.open_all();
            outcomes.closed.clone_from(&self.closed);
        }
        outcomes.floor = self.slots.taken_below();
    }

    fn failure<M, C: Codec<M>>(&self, shared: &Shared<M, K, C>, failure: CoreFailure) -> Failure {
        match failure {
            CoreFailure::NotDelivered(cause) => Failure::NotDelivered(self.reason(shared, cause)),
            // Why there is no other connection says nothing of what was sent over an earlier one.
            CoreFailure::Unknown(Cause::TimedOut) => Failure::Unknown(self.silent()),
            CoreFailure::Unknown(cause) => Failure::Unknown(self.reason(shared, cause)),
        }
    }

    fn silent(&self) -> Reason {
        Reason::Silent(self.session.config().delivery_timeout)
    }

    fn reason<M, C: Codec<M>>(&self, shared: &Shared<M, K, C>, cause: Cause) -> Reason {
        match cause {
            Cause::Refused(refusal) => codes::refused(refusal),
            Cause::PeerClosed { .. } => Reason::PeerClosed,
            Cause::PeerRestarted => Reason::PeerRestarted,
            Cause::SessionLost => Reason::SessionLost,
            Cause::TooLarge { size, max } => Reason::TooLarge {
                size: saturate(size),
                max: saturate(max),
            },
            Cause::HelloRefused(HelloCode::WrongIncarnation) => Reason::PeerRestarted,
            Cause::HelloRefused(code) => Reason::Refused {
                addr: shared.common.addr.clone(),
                code: code.number(),
                text: code.to_string(),
            },
            Cause::Violation(violation) => Reason::Violation(violation.to_string()),
            Cause::TimedOut => self.reason.clone().unwrap_or_else(|| self.silent()),
            Cause::Damaged => Reason::Encode("an encoder damaged the outgoing log".to_owned()),
            _ => self.reason.clone().unwrap_or(Reason::Dropped),
        }
    }
}
