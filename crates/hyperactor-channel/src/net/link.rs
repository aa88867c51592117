//! The sending side over a byte stream, as posts see it: the session with its outgoing log, and the completions of what
//! is in it, behind one short lock. Connecting and pumping is the driver's matter, in `dialer`.

use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;

use bytes::{Bytes, BytesMut};
use hyperactor_protocol::limits::SHARED_BODY_BYTES;
use hyperactor_protocol::{Cause, DataFlags, Label, Outgoing, PushError, Session, SessionId, Time};
use hyperactor_refs::ChannelAddr;
use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;

use crate::inbound::NobodyReceives;
use crate::net::dialer::{Driver, Patience};
use crate::net::ends::{Ends, Owner};
use crate::net::inbound::NetInbound;
use crate::net::labels::Labels;
use crate::net::memory;
use crate::net::outcomes::Outcomes;
use crate::options::random_u64;
use crate::outbound::{Capacity, Common, Labelled, Link, Passed, Passing};
use crate::slots::Slots;
use crate::{
    Codec, Completion, Deliver, DialOptions, EncodeError, Inbound, Reason, Rejected, Status, clock,
    codec,
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
    pub(super) codec: Arc<C>,
    state: Mutex<State<K, C::Name>>,
}

pub(crate) struct State<K, N> {
    pub(super) session: Session,
    pub(super) labels: Labels<N>,
    /// By post id; they are consecutive from 0, as those of the slots.
    pub(super) slots: Slots<Slot<K>>,
    /// The driver, while it has nothing to do.
    parked: Option<Waker>,
    /// There is a driver.
    driven: bool,
    /// What an end of the session means, when the driver knows better than the session.
    pub(super) reason: Option<Reason>,
    pub(super) closed: Option<Reason>,
}

/// One message without an outcome.
pub(super) struct Slot<K> {
    pub(super) completion: K,
    pub(super) to: Label,
    pub(super) from: Label,
}

/// What a post leaves to be done.
enum Next {
    Nothing,
    /// The driver waits for this one.
    Wake(Waker),
    /// There is no driver yet.
    Start,
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
        let flags = flags_for(&completion);
        let Some((tail, room, names)) = codec::parts(&*shared.codec, &message) else {
            let reason = Reason::Encode("its codec panicked".to_owned());
            return Err(rejected(message, completion, reason));
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
                return Err(rejected(message, completion, reason));
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
                let next = state.next_step(first);
                drop(guard);
                self.take_step(next);
                Ok(())
            }
            Err(error) => {
                let reason = self.refused(guard, error, to);
                Err(rejected(message, completion, reason))
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
        let next = if state.slots.is_empty() {
            Next::Nothing
        } else {
            state.next_step(first)
        };
        drop(guard);
        self.take_step(next);
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
    #[inline]
    fn take_step(&self, next: Next) {
        match next {
            Next::Nothing => {}
            Next::Wake(waker) => waker.wake(),
            Next::Start => self.start(),
        }
    }

    /// A message to this label was not taken into the session: notes who waits for room, ends a session that is over, and
    /// says why.
    #[cold]
    #[inline(never)]
    fn refused(
        &self,
        mut guard: MutexGuard<'_, State<K, C::Name>>,
        error: PushError<EncodeError>,
        to: Label,
    ) -> Reason {
        let state = &mut *guard;
        if matches!(error, PushError::Full) {
            if !to.is_none() {
                state.labels.refuse(to);
            }
            if to.is_none() || !state.session.has_room() {
                self.shared.common.capacity.set(false);
            }
        }
        // A damaged log has failed the session.
        if state.session.is_closed() {
            self.end(guard);
        } else {
            drop(guard);
        }
        push_reason(error)
    }

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

/// What a message that asks for its outcome says on its way.
#[inline]
fn flags_for<M>(completion: &impl Completion<M>) -> DataFlags {
    if completion.wants_outcome() {
        DataFlags::ACK_NOW
    } else {
        DataFlags::NONE
    }
}

#[inline]
fn rejected<M, K>(message: M, completion: K, reason: Reason) -> Rejected<M, K> {
    Rejected {
        message,
        completion,
        reason,
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

pub(super) fn saturate(size: u64) -> usize {
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
        let flags = flags_for(&completion);
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

    /// What is to be done without the lock once messages were taken: behind others or, if they are the `first`, alone.
    #[inline]
    fn next_step(&mut self, first: bool) -> Next {
        if !self.driven {
            self.driven = true;
            return Next::Start;
        }
        // A driver that waits for credit is left alone; one that has nothing under way must learn of the first.
        if self.parked.is_some() && (first || self.session.has_output()) {
            return self.parked.take().map_or(Next::Nothing, Next::Wake);
        }
        Next::Nothing
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
}
