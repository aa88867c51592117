//! Envelopes on their way through this process that found their channel full.
//!
//! They were let in by credit that their sender was given, so they are neither refused (nobody could wait for room on
//! the sender's behalf) nor unbounded: they wait here, in order, until the channel has room.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyperactor_channel::{Completion, Failure, Outbound, Reason, Rejected};
use hyperactor_mailbox::MessageEnvelope;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::completion::EnvelopeCompletion;

pub(crate) type EnvelopeOutbound = Outbound<MessageEnvelope, EnvelopeCompletion>;

/// The waiting envelopes of one channel.
pub(crate) struct Overflow {
    /// Set while anything waits, or is being passed on: whoever sees it queues behind.
    is_active: AtomicBool,
    state: Mutex<State>,
    /// How many envelopes have been passed on.
    passed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(MessageEnvelope, EnvelopeCompletion)>,
    is_active: bool,
    queued: u64,
}

impl Overflow {
    pub(crate) fn new() -> Arc<Self> {
        let passed = watch::Sender::new(0);
        Arc::new(Self {
            is_active: AtomicBool::new(false),
            state: Mutex::default(),
            passed,
        })
    }

    /// Whether envelopes wait. A sender that saw its own envelope go in here sees true until it is passed on.
    pub(crate) fn is_active(&self) -> bool {
        self.is_active.load(Ordering::Acquire)
    }

    /// Puts an envelope behind those that wait, and sees to it that they are passed on.
    pub(crate) fn push(
        self: &Arc<Self>,
        outbound: &EnvelopeOutbound,
        runtime: Option<&Handle>,
        envelope: MessageEnvelope,
        completion: EnvelopeCompletion,
    ) {
        let starts = {
            let mut state = self.state.lock();
            state.waiting.push_back((envelope, completion));
            state.queued += 1;
            self.is_active.store(true, Ordering::Release);
            !std::mem::replace(&mut state.is_active, true)
        };
        if starts {
            let pump = Pump {
                overflow: Arc::clone(self),
                held: None,
                is_done: false,
            };
            match runtime {
                Some(runtime) => drop(runtime.spawn(pump.run(outbound.clone()))),
                // Cannot be: without a runtime the channel is closed, not full. Dropping the pump reports them.
                None => drop(pump),
            }
        }
    }

    /// Resolves when everything that waits now was passed to the channel.
    pub(crate) async fn flush(&self) {
        let target = self.state.lock().queued;
        let mut passed = self.passed.subscribe();
        // The sender lives in `self`, so the wait ends with its condition only.
        if passed.wait_for(|passed| *passed >= target).await.is_err() {
            tracing::debug!("an overflow ended while it was flushed");
        }
    }

    /// The first that waits; with none, the pump's work is done.
    fn next(&self) -> Option<(MessageEnvelope, EnvelopeCompletion)> {
        let mut state = self.state.lock();
        let next = state.waiting.pop_front();
        if next.is_none() {
            state.is_active = false;
            self.is_active.store(false, Ordering::Release);
        }
        next
    }

    fn passed(&self) {
        self.passed.send_modify(|passed| *passed += 1);
    }
}

/// Passes on what waits. Dropped before it is done, as when the runtime ends, it gives everything back.
struct Pump {
    overflow: Arc<Overflow>,
    /// Found the channel full, and is tried again first.
    held: Option<(MessageEnvelope, EnvelopeCompletion)>,
    /// Nothing waits any more; what comes from now on is another pump's.
    is_done: bool,
}

impl Pump {
    async fn run(mut self, outbound: EnvelopeOutbound) {
        loop {
            let Some((envelope, completion)) = self.take() else {
                return;
            };
            match outbound.offer(envelope, completion) {
                Ok(()) => self.overflow.passed(),
                Err(rejected) if rejected.reason == Reason::Full => {
                    self.held = Some((rejected.message, rejected.completion));
                    // Room, or the end of the channel: the next offer tells which.
                    drop(outbound.ready().await);
                }
                Err(Rejected {
                    message,
                    completion,
                    reason,
                }) => {
                    completion.undelivered(message, Failure::NotDelivered(reason));
                    self.overflow.passed();
                }
            }
        }
    }

    fn take(&mut self) -> Option<(MessageEnvelope, EnvelopeCompletion)> {
        let next = self.held.take().or_else(|| self.overflow.next());
        self.is_done = next.is_none();
        next
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        while !self.is_done {
            let Some((envelope, completion)) = self.take() else {
                return;
            };
            completion.undelivered(envelope, Failure::NotDelivered(Reason::Dropped));
            self.overflow.passed();
        }
    }
}
