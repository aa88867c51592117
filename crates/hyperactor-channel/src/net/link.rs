//! The sending side over a byte stream, as posts see it: the session with its outgoing log, and the completions of what
//! is in it, behind one short lock. Connecting and pumping is the driver's matter, in `dialer`.

use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;

use bytes::{Bytes, BytesMut};
use hyperactor_protocol::limits::SHARED_BODY_BYTES;
use hyperactor_protocol::{
    Cause, DataFlags, Event, Failure as CoreFailure, HelloCode, Label, Outgoing, PushError,
    Session, SessionId, Time,
};
use hyperactor_refs::ChannelAddr;
use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;

use crate::inbound::NobodyReceives;
use crate::net::dialer::{Driver, Patience};
use crate::net::ends::{Ends, Owner};
use crate::net::inbound::NetInbound;
use crate::net::labels::Labels;
use crate::net::memory;
use crate::options::random_u64;
use crate::outbound::{Capacity, Common, Labelled, Link, Passed, Passing};
use crate::slots::Slots;
use crate::{
    Codec, Completion, Deliver, DialOptions, EncodeError, Failure, Inbound, Names, Reason,
    Rejected, Status, clock, codec, codes,
};

/// The sending side of one channel over a byte stream: a dialled one, or the way back of an accepted one.
pub(crate) struct NetLink<M, K, C: Codec<M>> {
    shared: Arc<Shared<M, K, C>>,
    /// For the driver that is started with the first message.
    dialling: Option<(Handle, Patience)>,
}

/// What the handles and the driver share.
pub(crate) struct Shared<M, K, C: Codec<M>> {
    pub(crate) common: Common,
    codec: Arc<C>,
    state: Mutex<State<K, C::Name>>,
}

pub(crate) struct State<K, N> {
    session: Session,
    labels: Labels<N>,
    /// By post id; they are consecutive from 0, as those of the slots.
    slots: Slots<Slot<K>>,
    /// The driver, while it has nothing to do.
    parked: Option<Waker>,
    /// There is a driver.
    driven: bool,
    /// What an end of the session means, when the driver knows better than the session.
    reason: Option<Reason>,
    closed: Option<Reason>,
}

/// One message without an outcome.
struct Slot<K> {
    completion: K,
    to: Label,
    from: Label,
}

/// An outcome, on its way to its completion.
struct Finished<K, N> {
    completion: K,
    failed: Option<Box<Failed<N>>>,
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
    finished: Vec<Finished<K, N>>,
    floor: u64,
    /// Why the channel ended, if it has.
    closed: Option<Reason>,
}

impl<K, N> Default for Outcomes<K, N> {
    fn default() -> Self {
        Self {
            finished: Vec::new(),
            floor: 0,
            closed: None,
        }
    }
}

impl<M: Send + 'static, K: Completion<M>, C: Codec<M>> NetLink<M, K, C> {
    /// Sends only; connects with the first message.
    pub(crate) fn dial(addr: ChannelAddr, options: &DialOptions, codec: C) -> Self {
        let runtime = Handle::try_current().ok();
        let shared = dialled(addr, options, codec, runtime.is_none());
        let dialling = runtime.map(|runtime| (runtime, Patience::new(options, false)));
        Self { shared, dialling }
    }

    /// Sends and receives; connects at once.
    pub(crate) fn dial_duplex<D: Deliver<M>>(
        addr: ChannelAddr,
        options: &DialOptions,
        codec: C,
        receive: impl FnOnce(Inbound) -> D,
    ) -> Self {
        let runtime = Handle::try_current().ok();
        let shared = dialled(addr, options, codec, runtime.is_none());
        let inbound = Arc::new(NetInbound::new(&options.config()));
        let receiver = receive(Inbound::new(inbound.clone()));
        let ends = Ends::new(Owner::new(Arc::clone(&shared)), inbound, receiver);
        match runtime {
            Some(runtime) => {
                shared.state.lock().driven = true;
                let driver = Driver::new(ends, Patience::new(options, true));
                // The driver ends with the channel; dropped by the runtime before that, it settles what is open.
                drop(runtime.spawn(driver.run()));
            }
            None => drop(ends),
        }
        Self {
            shared,
            dialling: None,
        }
    }

    /// The way back of an accepted session, which its own task drives.
    pub(crate) fn accepted(shared: Arc<Shared<M, K, C>>) -> Self {
        Self {
            shared,
            dialling: None,
        }
    }
}

fn dialled<M: Send + 'static, K: Completion<M>, C: Codec<M>>(
    addr: ChannelAddr,
    options: &DialOptions,
    codec: C,
    is_lost: bool,
) -> Arc<Shared<M, K, C>> {
    let id = SessionId(u128::from(random_u64()) << 64 | u128::from(random_u64()));
    let session = Session::dialer(options.config(), id, options.incarnation, clock::now())
        .expecting(options.expect)
        .with_buffers(Arc::clone(memory::pool()) as _);
    let shared = Shared::new(addr, Arc::new(codec), session);
    if is_lost {
        shared.common.publish(Status::Closed(Reason::NoRuntime));
        shared.state.lock().closed = Some(Reason::NoRuntime);
    }
    Arc::new(shared)
}

impl<M: Send + 'static, K: Completion<M>, C: Codec<M>> Link<M, K> for NetLink<M, K, C> {
    fn common(&self) -> &Common {
        &self.shared.common
    }

    fn capacity_for(&self, message: &M) -> Capacity {
        let shared = &self.shared;
        let names = catch_unwind(AssertUnwindSafe(|| shared.codec.names(message)));
        let room = names
            .ok()
            .and_then(|names| shared.state.lock().labels.room(names.to));
        room.unwrap_or_else(|| shared.common.capacity.clone())
    }

    fn offer(&self, message: M, completion: K) -> Result<(), Rejected<M, K>> {
        let shared = &self.shared;
        let flags = if completion.wants_outcome() {
            DataFlags::ACK_NOW
        } else {
            DataFlags::NONE
        };
        let Some((tail, room, names)) = codec::parts(&*shared.codec, &message) else {
            let reason = Reason::Encode("its codec panicked".to_owned());
            return Err(Rejected {
                message,
                completion,
                reason,
            });
        };
        let mut guard = shared.state.lock();
        let state = &mut *guard;
        let labels = match &state.closed {
            Some(reason) => Err(reason.clone()),
            None => state.labels.pair(&mut state.session, &*shared.codec, names),
        };
        let (to, from) = match labels {
            Ok(labels) => labels,
            Err(reason) => {
                if reason == Reason::Full {
                    // Told with the session's room, whichever name found no label.
                    shared.common.capacity.set(false);
                    state.labels.refuse_name(names.to);
                }
                drop(guard);
                return Err(Rejected {
                    message,
                    completion,
                    reason,
                });
            }
        };
        let outgoing = Outgoing {
            flags,
            to,
            from,
            room,
            shared: tail,
        };
        let pushed = state
            .session
            .push(outgoing, |out| codec::encode(&*shared.codec, &message, out));
        match pushed {
            Ok(_) => {
                let first = state.slots.is_empty();
                state.slots.push(Slot {
                    completion,
                    to,
                    from,
                });
                // A driver that waits for credit is left alone; one that has nothing under way must learn of the first.
                let waker = if first || state.session.has_output() {
                    state.parked.take()
                } else {
                    None
                };
                let start = !std::mem::replace(&mut state.driven, true);
                drop(guard);
                if let Some(waker) = waker {
                    waker.wake();
                }
                if start {
                    self.start();
                }
                Ok(())
            }
            Err(error) => {
                if matches!(error, PushError::Full) {
                    if !to.is_none() {
                        state.labels.refuse(to);
                    }
                    if to.is_none() || !state.session.has_room() {
                        shared.common.capacity.set(false);
                    }
                }
                // A damaged log has failed the session.
                if state.session.is_closed() {
                    self.end(guard);
                } else {
                    drop(guard);
                }
                Err(Rejected {
                    message,
                    completion,
                    reason: push_reason(error),
                })
            }
        }
    }

    fn labelled(&self, message: &M) -> Option<Labelled> {
        let shared = &self.shared;
        let names = catch_unwind(AssertUnwindSafe(|| shared.codec.names(message))).ok()?;
        names.to?;
        let mut guard = shared.state.lock();
        let State {
            session,
            labels,
            closed: None,
            ..
        } = &mut *guard
        else {
            return None;
        };
        let (to, from) = labels.pair(session, &*shared.codec, names).ok()?;
        let since = (labels.since(to), labels.since(from));
        Some(Labelled { to, from, since })
    }

    fn pass(&self, names: Labelled, run: &mut dyn Iterator<Item = Passing<K>>) -> Passed<K> {
        let shared = &self.shared;
        let Labelled { to, from, since } = names;
        let mut guard = shared.state.lock();
        let state = &mut *guard;
        if state.closed.is_some() || (state.labels.since(to), state.labels.since(from)) != since {
            return Passed::Renamed;
        }
        let first = state.slots.is_empty();
        let codec = &*shared.codec;
        let mut refused = None;
        for next in run {
            if let Err(back) = state.push_passing(codec, names, next) {
                refused = Some(back);
                break;
            }
        }
        // As for a message that is offered.
        let has_any = !state.slots.is_empty();
        let waker = if has_any && (first || state.session.has_output()) {
            state.parked.take()
        } else {
            None
        };
        let start = has_any && !std::mem::replace(&mut state.driven, true);
        drop(guard);
        if let Some(waker) = waker {
            waker.wake();
        }
        if start {
            self.start();
        }
        refused.map_or(Passed::All, Passed::Refused)
    }

    fn posted(&self) -> u64 {
        self.shared.state.lock().slots.next()
    }

    fn close(&self) {
        let mut state = self.shared.state.lock();
        state.session.close();
        self.end(state);
    }

    fn abandon(&self, reason: Reason) {
        let mut state = self.shared.state.lock();
        if !state.session.is_closed() {
            state.reason = Some(reason);
            state.session.fail(Cause::Abandoned, clock::now());
            self.end(state);
        }
    }
}

impl<M: Send + 'static, K: Completion<M>, C: Codec<M>> NetLink<M, K, C> {
    /// Wakes the driver for the end of the session; without a driver, tells it here.
    fn end(&self, mut state: MutexGuard<'_, State<K, C::Name>>) {
        if state.driven {
            let waker = state.parked.take();
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        } else {
            // No message was ever taken: there is nobody to tell and nothing to wait for.
            state.driven = true;
            let mut outcomes = Outcomes::default();
            state.gather(&self.shared, &mut outcomes);
            drop(state);
            self.shared.tell(&mut outcomes);
        }
    }

    fn start(&self) {
        let config = self.shared.state.lock().session.config().clone();
        let inbound = Arc::new(NetInbound::new(&config));
        let receiver = NobodyReceives(Inbound::new(inbound.clone()));
        let ends = Ends::new(Owner::new(Arc::clone(&self.shared)), inbound, receiver);
        match &self.dialling {
            Some((runtime, patience)) => {
                // The driver ends with the channel; dropped by the runtime before that, it settles what is open.
                drop(runtime.spawn(Driver::new(ends, patience.clone()).run()));
            }
            None => drop(ends),
        }
    }
}

fn push_reason(error: PushError<EncodeError>) -> Reason {
    match error {
        PushError::Full => Reason::Full,
        PushError::TooLarge { size, max } => Reason::TooLarge {
            size: saturate(size),
            max: saturate(max),
        },
        PushError::Encode(error) => Reason::Encode(error.text().to_owned()),
        PushError::UnknownLabel { label } => Reason::Encode(format!("{label} is no label")),
        PushError::Damaged => Reason::Encode("its encoder damaged the outgoing log".to_owned()),
        _ => Reason::Closed,
    }
}

fn saturate(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

impl<M: Send + 'static, K: Completion<M>, C: Codec<M>> Shared<M, K, C> {
    pub(crate) fn new(addr: ChannelAddr, codec: Arc<C>, session: Session) -> Self {
        let state = State {
            session,
            labels: Labels::new(),
            slots: Slots::new(0),
            parked: None,
            driven: false,
            reason: None,
            closed: None,
        };
        Self {
            common: Common::new(addr),
            codec,
            state: Mutex::new(state),
        }
    }

    pub(crate) fn codec(&self) -> &C {
        &self.codec
    }

    /// Whoever calls this drives the session, and tells its end.
    pub(crate) fn drive(&self) {
        self.state.lock().driven = true;
    }

    /// Works with the session under the lock, and gathers the outcomes that came of it.
    pub(crate) fn with<T>(
        &self,
        outcomes: &mut Outcomes<K, C::Name>,
        work: impl FnOnce(&mut Session) -> T,
    ) -> T {
        let mut state = self.state.lock();
        let done = work(&mut state.session);
        state.gather(self, outcomes);
        done
    }

    /// Parks the driver, unless there is something to write or to tell. Says whether the session has a timer that runs
    /// out as soon as an acknowledgement may wait: what is settled meanwhile is seen soon enough then.
    pub(crate) fn park(&self, waker: &Waker) -> Option<bool> {
        let mut state = self.state.lock();
        let busy = state.session.has_output() || state.session.is_closed();
        if !state.keep(waker, busy) {
            return None;
        }
        let soon = clock::now() + state.session.config().ack_delay;
        Some(
            state
                .session
                .next_timeout()
                .is_some_and(|next| next <= soon),
        )
    }

    /// Parks the driver, unless messages wait or the session is over.
    pub(crate) fn park_idle(&self, waker: &Waker) -> bool {
        let mut state = self.state.lock();
        let busy = !state.slots.is_empty() || state.session.is_closed();
        state.keep(waker, busy)
    }

    /// Parks a driver that waits for a connection, and says when the session must be looked at.
    pub(crate) fn park_detached(&self, waker: &Waker) -> Option<Time> {
        let mut state = self.state.lock();
        state.keep(waker, false);
        state.session.next_timeout()
    }

    /// Whether the session is over; keeps the waker until it is.
    pub(crate) fn is_over(&self, waker: &Waker) -> bool {
        let mut state = self.state.lock();
        let is_over = state.session.is_closed();
        !state.keep(waker, is_over)
    }

    /// Whether the driver is parked, and nothing has woken it.
    pub(crate) fn is_parked(&self) -> bool {
        self.state.lock().parked.is_some()
    }

    /// Ends the session for a reason of this side.
    pub(crate) fn give_up(&self, outcomes: &mut Outcomes<K, C::Name>, reason: Reason) {
        let mut state = self.state.lock();
        state.reason = Some(reason);
        state.session.fail(Cause::Abandoned, clock::now());
        state.gather(self, outcomes);
    }

    /// What a silence means from now on: nobody answered the last time it was tried, or nothing in particular.
    pub(crate) fn note(&self, reason: Option<Reason>) {
        self.state.lock().reason = reason;
    }

    /// Tells gathered outcomes to their completions, in order and without the lock.
    pub(crate) fn tell(&self, outcomes: &mut Outcomes<K, C::Name>) -> usize {
        // First of all, so that whoever learns of a failure knows that this channel is of no more use.
        if let Some(reason) = outcomes.closed.take() {
            self.common.capacity.set(true);
            self.common.publish(Status::Closed(reason));
        }
        let told = outcomes.finished.len();
        let mut finished = outcomes.finished.drain(..);
        let mut tell = || {
            for Finished { completion, failed } in finished.by_ref() {
                self.call(completion, failed);
            }
        };
        // A completion that panics is its user's fault and must not keep the others from being called.
        while catch_unwind(AssertUnwindSafe(&mut tell)).is_err() {
            tracing::error!(addr = %self.common.addr, "a completion panicked");
        }
        drop(finished);
        if told != 0 {
            self.common.settled.advance(outcomes.floor);
        }
        told
    }

    fn call(&self, completion: K, failed: Option<Box<Failed<C::Name>>>) {
        let Some(failed) = failed else {
            return completion.delivered();
        };
        let Failed {
            failure,
            body,
            to,
            from,
        } = *failed;
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
    /// Takes a message that goes on as it came, or gives it back: why is for whoever offers it then.
    fn push_passing<M: 'static, C: Codec<M>>(
        &mut self,
        codec: &C,
        Labelled { to, from, .. }: Labelled,
        passing: Passing<K>,
    ) -> Result<(), Passing<K>>
    where
        K: Completion<M>,
    {
        let Passing { body, completion } = passing;
        let flags = if completion.wants_outcome() {
            DataFlags::ACK_NOW
        } else {
            DataFlags::NONE
        };
        let mut outgoing = Outgoing {
            flags,
            to,
            from,
            room: body.len(),
            shared: Bytes::new(),
        };
        let pushed = if body.len() < SHARED_BODY_BYTES {
            self.session.push(outgoing, |out| {
                let begun = codec::pass(codec, &body, out)?;
                out.extend_from_slice(body.get(begun..).unwrap_or_default());
                Ok::<(), EncodeError>(())
            })
        } else {
            let mut head = BytesMut::new();
            let Ok(begun) = codec::pass(codec, &body, &mut head) else {
                return Err(Passing { body, completion });
            };
            outgoing.room = head.len();
            outgoing.shared = body.slice(begun.min(body.len())..);
            self.session.push(outgoing, |out| {
                out.extend_from_slice(&head);
                Ok::<(), EncodeError>(())
            })
        };
        match pushed {
            Ok(_) => {
                self.slots.push(Slot {
                    completion,
                    to,
                    from,
                });
                Ok(())
            }
            Err(_) => Err(Passing { body, completion }),
        }
    }

    fn keep(&mut self, waker: &Waker, busy: bool) -> bool {
        if busy {
            self.parked = None;
            return false;
        }
        match &mut self.parked {
            Some(parked) => parked.clone_from(waker),
            None => self.parked = Some(waker.clone()),
        }
        true
    }

    fn gather<M, C: Codec<M, Name = N>>(
        &mut self,
        shared: &Shared<M, K, C>,
        outcomes: &mut Outcomes<K, N>,
    ) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Resolved { first, count } => {
                    self.slots
                        .take_run(first.0, count, |Slot { completion, .. }| {
                            let failed = None;
                            outcomes.finished.push(Finished { completion, failed });
                        });
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
                        outcomes.finished.push(Finished {
                            completion: slot.completion,
                            failed: Some(Box::new(failed)),
                        });
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
