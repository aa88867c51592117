//! Envelopes on their way through this process that found no room for their destination in the channel.
//!
//! They were let in by credit that their sender was given, so they are neither refused (nobody could wait for room on
//! the sender's behalf) nor unbounded: they wait here, each destination's in their order, until there is room for it.
//! A destination that is stuck keeps no other waiting.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyperactor_channel::{Completion, Failure, Outbound, Reason, Rejected};
use hyperactor_mailbox::MessageEnvelope;
use hyperactor_refs::ActorId;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::completion::EnvelopeCompletion;

pub(crate) type EnvelopeOutbound = Outbound<MessageEnvelope, EnvelopeCompletion>;

/// The waiting envelopes of one channel.
pub(crate) struct Overflow {
    /// How many destinations have something here: as a rule none, and nobody takes the lock.
    active: AtomicUsize,
    lanes: Mutex<HashMap<ActorId, Lane>>,
}

/// What waits for one destination, or is being passed on. It is there as long as its pump is.
struct Lane {
    waiting: VecDeque<(MessageEnvelope, EnvelopeCompletion)>,
    queued: u64,
    /// How many envelopes have been passed on.
    passed: watch::Sender<u64>,
}

impl Overflow {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            active: AtomicUsize::new(0),
            lanes: Mutex::default(),
        })
    }

    /// Whether envelopes for a destination wait. A sender that saw its own envelope go in here sees true until it is
    /// passed on.
    pub(crate) fn holds(&self, dest: &ActorId) -> bool {
        self.active.load(Ordering::Acquire) != 0 && self.lanes.lock().contains_key(dest)
    }

    /// Whether envelopes wait for any destination.
    pub(crate) fn holds_any(&self) -> bool {
        self.active.load(Ordering::Acquire) != 0
    }

    /// Puts an envelope behind those that wait for its destination, and sees to it that they are passed on.
    pub(crate) fn push(
        self: &Arc<Self>,
        outbound: &EnvelopeOutbound,
        runtime: Option<&Handle>,
        envelope: MessageEnvelope,
        completion: EnvelopeCompletion,
    ) {
        let dest = envelope.dest().actor_id().clone();
        let starts = {
            let mut lanes = self.lanes.lock();
            let starts = !lanes.contains_key(&dest);
            let lane = lanes.entry(dest.clone()).or_insert_with(|| Lane {
                waiting: VecDeque::new(),
                queued: 0,
                passed: watch::Sender::new(0),
            });
            lane.waiting.push_back((envelope, completion));
            lane.queued += 1;
            self.active.store(lanes.len(), Ordering::Release);
            starts
        };
        if starts {
            let pump = Pump {
                overflow: Arc::clone(self),
                dest,
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
        let targets: Vec<_> = {
            let lanes = self.lanes.lock();
            let target = |lane: &Lane| (lane.passed.subscribe(), lane.queued);
            lanes.values().map(target).collect()
        };
        for (mut passed, target) in targets {
            // The lane goes with its last envelope: then everything was passed on.
            if passed.wait_for(|passed| *passed >= target).await.is_err() {
                tracing::trace!("a lane was passed on to its end while it was flushed");
            }
        }
    }

    /// The first that waits for a destination; with none, its pump's work is done.
    fn next(&self, dest: &ActorId) -> Option<(MessageEnvelope, EnvelopeCompletion)> {
        let mut lanes = self.lanes.lock();
        let next = lanes.get_mut(dest)?.waiting.pop_front();
        if next.is_none() {
            lanes.remove(dest);
            self.active.store(lanes.len(), Ordering::Release);
        }
        next
    }

    fn passed(&self, dest: &ActorId) {
        if let Some(lane) = self.lanes.lock().get(dest) {
            lane.passed.send_modify(|passed| *passed += 1);
        }
    }
}

/// Passes on what waits for one destination. Dropped before it is done, as when the runtime ends, it gives everything
/// back.
struct Pump {
    overflow: Arc<Overflow>,
    dest: ActorId,
    /// Found no room, and is tried again first.
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
                Ok(()) => self.overflow.passed(&self.dest),
                Err(rejected) if rejected.reason == Reason::Full => {
                    let room = outbound.capacity_for(&rejected.message);
                    self.held = Some((rejected.message, rejected.completion));
                    // Room, or the end of the channel: the next offer tells which.
                    room.available().await;
                }
                Err(Rejected {
                    message,
                    completion,
                    reason,
                }) => {
                    completion.undelivered(message, Failure::NotDelivered(reason));
                    self.overflow.passed(&self.dest);
                }
            }
        }
    }

    fn take(&mut self) -> Option<(MessageEnvelope, EnvelopeCompletion)> {
        let next = self.held.take().or_else(|| self.overflow.next(&self.dest));
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
            self.overflow.passed(&self.dest);
        }
    }
}
