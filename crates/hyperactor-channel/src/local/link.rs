//! The sending side of an in-process channel: values are handed to the receiving side without encoding them. The way back
//! of a session is another one of these, made by the server.
//!
//! One caller at a time moves messages (the first to find work, in its own thread); everyone else only queues, so order
//! holds, no lock is held while foreign code runs, and a receiver that posts into the channel it is called from is no
//! danger. Work that a settlement or a release makes possible runs in a task of its own, never in the caller's stack.
//! Which address serves what is in `table`.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use hyperactor_refs::{ChannelAddr, Incarnation};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::home::{Home, HomeInbound, Lent};
use super::lanes::Waiting;
use super::session::{Half, LocalSession};
use super::state::{Finished, Phase, Slot, State, Step};
use super::table::{self, Dialer, Opened};
use crate::backoff::Backoff;
use crate::inbound::NobodyReceives;
use crate::limits::LOCAL_TURN_MESSAGES;
use crate::outbound::{Capacity, Common, Link};
use crate::{
    Codec, Completion, Deliver, DialOptions, Failure, Inbound, Reason, Rejected, Status, Ticket,
};

/// The sending side of one in-process channel.
pub(crate) struct LocalLink<M: Send + 'static, K: Completion<M>, C: Codec<M>>(Arc<Inner<M, K, C>>);

pub(crate) struct Inner<M: Send + 'static, K: Completion<M>, C: Codec<M>> {
    pub(super) common: Common,
    /// For the names of messages; nothing is encoded.
    codec: Arc<C>,
    outbox_messages: usize,
    runtime: Option<Handle>,
    /// None for the way back of a session.
    dialling: Option<Dialling>,
    /// Where that which takes the messages belongs, when it outlives sessions.
    home: Arc<Home<M>>,
    inbound: Arc<HomeInbound>,
    pub(super) state: Mutex<State<M, K, C::Name>>,
}

struct Dialling {
    number: u64,
    options: DialOptions,
}

/// What a server needs to make the way back to a dialer.
pub(crate) struct Back<M: 'static> {
    pub(super) lent: Lent<M>,
    pub(super) first: u64,
    pub(super) inbound: Arc<HomeInbound>,
    /// Messages of the dialer, the other way.
    pub(super) opposite: Arc<dyn Half>,
    pub(super) window: u64,
    pub(super) runtime: Option<Handle>,
}

impl<M: Send + 'static, K: Completion<M>, C: Codec<M>> LocalLink<M, K, C> {
    /// Sends only.
    pub(crate) fn dial(addr: ChannelAddr, number: u64, options: DialOptions, codec: C) -> Self {
        Self::new(addr, number, options, codec, false, NobodyReceives)
    }

    /// Sends and receives; connects at once.
    pub(crate) fn dial_duplex<D: Deliver<M>>(
        addr: ChannelAddr,
        number: u64,
        options: DialOptions,
        codec: C,
        receive: impl FnOnce(Inbound) -> D,
    ) -> Self {
        Self::new(addr, number, options, codec, true, receive)
    }

    fn new<D: Deliver<M>>(
        addr: ChannelAddr,
        number: u64,
        options: DialOptions,
        codec: C,
        is_eager: bool,
        receive: impl FnOnce(Inbound) -> D,
    ) -> Self {
        let inbound = Arc::new(HomeInbound::default());
        let deliver = Box::new(receive(Inbound::new(inbound.clone())));
        let runtime = Handle::try_current().ok();
        let common = Common::new(addr);
        let mut state = State::new(&common, 0);
        state.is_eager = is_eager;
        state.running = is_eager;
        let inner = Arc::new(Inner {
            common,
            codec: Arc::new(codec),
            outbox_messages: options.outbox_messages.max(1) as usize,
            runtime,
            dialling: Some(Dialling { number, options }),
            home: Arc::new(Home::new(deliver)),
            inbound,
            state: Mutex::new(state),
        });
        if inner.runtime.is_none() {
            inner.state.lock().fail(&inner.common, Reason::NoRuntime);
            Inner::run(&inner);
        } else if is_eager {
            inner.run_in_task();
        }
        Self(inner)
    }

    /// The way back of a session that a server accepts.
    pub(super) fn accepted(
        addr: ChannelAddr,
        outbox_messages: u32,
        codec: Arc<C>,
        back: Back<M>,
    ) -> (Self, Arc<dyn Half>) {
        let common = Common::new(addr);
        // Nothing below the first number was ever posted.
        common.settled.advance(back.first);
        let mut state = State::new(&common, back.first);
        state.phase = Phase::Open;
        let home = back.lent.home();
        state.deliver = back.lent.take();
        state.opposite = Some(back.opposite);
        state.lanes.restart(back.window);
        common.publish(Status::Connected);
        let inner = Arc::new(Inner {
            common,
            codec,
            outbox_messages: outbox_messages.max(1) as usize,
            runtime: back.runtime,
            dialling: None,
            home,
            inbound: back.inbound,
            state: Mutex::new(state),
        });
        let session = Arc::new(LocalSession {
            link: Arc::clone(&inner),
            generation: 0,
        });
        inner.inbound.set(Some(session.clone()));
        (Self(inner), session)
    }
}

impl<M: Send + 'static, K: Completion<M>, C: Codec<M>> Link<M, K> for LocalLink<M, K, C> {
    fn common(&self) -> &Common {
        &self.0.common
    }

    fn capacity_for(&self, message: &M) -> Capacity {
        let names = self.0.codec.names(message);
        let mut state = self.0.state.lock();
        match state.lanes.number(names.to) {
            Some(to) => state.lanes.capacity(to),
            None => self.0.common.capacity.clone(),
        }
    }

    fn offer(&self, message: M, completion: K) -> Result<(), Rejected<M, K>> {
        let inner = &self.0;
        let is_awaited = completion.wants_outcome();
        let names = inner.codec.names(&message);
        let mut state = inner.state.lock();
        let placed = match &state.phase {
            Phase::Closed(reason) => Err(reason.clone()),
            _ if state.closing => Err(Reason::Closed),
            _ => inner.place(&mut state, names.to),
        };
        let to = match placed {
            Ok(to) => to,
            Err(reason) => {
                drop(state);
                return Err(Rejected {
                    message,
                    completion,
                    reason,
                });
            }
        };
        let seq = state.slots.next();
        state.lanes.push(Waiting {
            seq,
            to,
            message,
            is_awaited,
        });
        state.slots.push(Slot::Queued(completion));
        let run = !std::mem::replace(&mut state.running, true);
        drop(state);
        if run {
            Inner::run(inner);
        }
        Ok(())
    }

    fn posted(&self) -> u64 {
        self.0.state.lock().slots.next()
    }

    fn close(&self) {
        self.0.close();
    }

    fn abandon(&self, reason: Reason) {
        let mut state = self.0.state.lock();
        state.fail(&self.0.common, reason);
        if !std::mem::replace(&mut state.running, true) {
            drop(state);
            Inner::run(&self.0);
        }
    }
}

impl<M: Send + 'static, K: Completion<M>, C: Codec<M>> Inner<M, K, C> {
    /// Finds the number of a destination that has room.
    fn place(
        &self,
        state: &mut State<M, K, C::Name>,
        name: Option<&C::Name>,
    ) -> Result<u32, Reason> {
        let room = self.outbox_messages.saturating_sub(state.slots.len());
        let Some(to) = state.lanes.number(name) else {
            state.lanes.refuse(0);
            return Err(Reason::Full);
        };
        if state.lanes.takes(to, room, self.outbox_messages) {
            return Ok(to);
        }
        state.lanes.refuse(to);
        if room == 0 {
            state.lanes.refuse(0);
        }
        Err(Reason::Full)
    }

    pub(super) fn close(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let opposite = match std::mem::replace(&mut state.closing, true) {
            false => state.opposite.clone(),
            true => None,
        };
        let run = !std::mem::replace(&mut state.running, true);
        drop(state);
        if let Some(opposite) = opposite {
            opposite.refuse();
        }
        if run {
            Self::run(self);
        }
    }

    /// Moves messages until nothing can move. The caller has set `running`.
    pub(super) fn run(self: &Arc<Self>) {
        let mut moved = 0;
        while moved < LOCAL_TURN_MESSAGES {
            let step = self.state.lock().step(&self.common);
            match step {
                Step::Finish(batch) => moved += self.finish(batch),
                Step::Connect => self.connect(),
                Step::Hand {
                    deliver,
                    generation,
                    batch,
                } => moved += self.hand(deliver, generation, batch),
                Step::Farewell(delivers) => {
                    for deliver in delivers {
                        self.part_with(deliver);
                    }
                }
                Step::Part(halves) => {
                    for (half, reason) in halves {
                        half.end(reason);
                    }
                }
                Step::End => self.come_home(),
                Step::Ask(opposite) => {
                    if !self.is_over(&*opposite) {
                        return;
                    }
                }
                Step::Rest => return,
            }
        }
        self.run_in_task();
    }

    /// Ends the link, when the other direction is done too. False when it is not, and nobody's turn.
    fn is_over(&self, opposite: &dyn Half) -> bool {
        let is_drained = opposite.is_drained();
        let mut state = self.state.lock();
        if is_drained {
            if state.phase == Phase::Open {
                state.end(&self.common, Reason::Closed);
            }
            return true;
        }
        if state.nudged || state.has_work() {
            return true;
        }
        state.running = false;
        false
    }

    /// A session is over, or the whole link: what takes its messages goes where it belongs.
    fn part_with(&self, mut deliver: Box<dyn Deliver<M>>) {
        // A server's end of a session ends with it; a dialer's waits for the next one.
        if self.dialling.is_none() {
            match self.home.give_back(deliver) {
                Some(back) => deliver = back,
                None => return,
            }
        }
        farewell(deliver);
    }

    /// The link has ended: the receiving end of a dialled one learns of it.
    fn come_home(&self) {
        if self.dialling.is_some() {
            self.inbound.set(None);
            if let Some(deliver) = self.home.end() {
                farewell(deliver);
            }
        }
    }

    /// Goes on in a task of the runtime. The caller has set `running`.
    pub(super) fn run_in_task(self: &Arc<Self>) {
        let job = Job(Some(Arc::clone(self)));
        match &self.runtime {
            Some(runtime) => drop(runtime.spawn(async move { job.run() })),
            None => job.run(),
        }
    }

    fn finish(&self, batch: Vec<Finished<M, K>>) -> usize {
        let count = batch.len();
        let mut called = Vec::with_capacity(count);
        for Finished {
            seq,
            completion,
            failure,
            message,
        } in batch
        {
            called.push(seq);
            guarded(|| match (failure, message) {
                (None, _) => completion.delivered(),
                (Some(failure), Some(message)) => completion.undelivered(message, failure),
                (Some(failure), None) => completion.lost(failure),
            });
        }
        let (floor, waits) = {
            let mut state = self.state.lock();
            state.set_called(called);
            let room = self.outbox_messages.saturating_sub(state.slots.len());
            state.lanes.offer_room(room, self.outbox_messages);
            // The other direction closes, and may wait for this one.
            let is_awaited = state.refusing && state.slots.is_empty();
            let waits = is_awaited.then(|| state.opposite.clone()).flatten();
            (state.slots.taken_below(), waits)
        };
        self.common.settled.advance(floor);
        if let Some(opposite) = waits {
            opposite.nudge();
        }
        count
    }

    fn hand(
        self: &Arc<Self>,
        mut deliver: Box<dyn Deliver<M>>,
        generation: u64,
        mut batch: VecDeque<Waiting<M>>,
    ) -> usize {
        let count = batch.len();
        let size = u32::try_from(size_of::<M>()).unwrap_or(u32::MAX);
        let survived = guarded(|| {
            while let Some(waiting) = batch.pop_front() {
                let Waiting { seq, to, .. } = waiting;
                let ticket = Ticket { seq, size, to };
                if waiting.is_awaited {
                    deliver.deliver_awaited(waiting.message, ticket);
                } else {
                    deliver.deliver(waiting.message, ticket);
                }
            }
            deliver.batch_ended();
        });
        let mut state = self.state.lock();
        if !survived {
            // What it panicked of is unknown; the rest of the batch it has never seen.
            if state.generation == generation {
                for Waiting { seq, message, .. } in batch {
                    let failure = Failure::NotDelivered(Reason::Dropped);
                    state.settle(seq, Some(failure), Some(message));
                }
            }
            state.fail(&self.common, Reason::Dropped);
            drop(state);
            // After its panic nothing more is asked of it, but what it holds may be waited for.
            farewell(deliver);
        } else if state.generation == generation && state.phase == Phase::Open {
            state.deliver = Some(deliver);
            let room = self.outbox_messages.saturating_sub(state.slots.len());
            state.lanes.offer_room(room, self.outbox_messages);
        } else {
            state.farewell.push(deliver);
        }
        count
    }

    /// Opens a session, or starts a task that looks for a server.
    fn connect(self: &Arc<Self>) {
        // The receiving application takes part in opening; a panic of it is a session that was not opened.
        let opened = catch_unwind(AssertUnwindSafe(|| self.try_open()));
        match opened.unwrap_or(Err(Reason::Dropped)) {
            Ok(()) => {}
            Err(reason) => {
                let patience = self.patience();
                if patience.is_zero() || !is_absent(&reason) {
                    self.state.lock().fail(&self.common, reason);
                    return;
                }
                self.common.publish(Status::Reconnecting);
                let inner = Arc::clone(self);
                let search = Search(Some(Arc::clone(self)), reason);
                match &self.runtime {
                    Some(runtime) => drop(runtime.spawn(inner.search(search, patience))),
                    None => drop(search),
                }
            }
        }
    }

    fn patience(&self) -> Duration {
        self.dialling.as_ref().map_or(Duration::ZERO, |dialling| {
            dialling.options.connect_give_up_local
        })
    }

    async fn search(self: Arc<Self>, mut search: Search<M, K, C>, patience: Duration) {
        // Beyond what the clock can name means never.
        let give_up = Instant::now().checked_add(patience);
        let mut backoff = Backoff::new();
        loop {
            let pause = backoff.next().max(Duration::from_millis(1));
            let next = Instant::now() + pause;
            tokio::time::sleep_until(give_up.map_or(next, |give_up| give_up.min(next))).await;
            if matches!(self.state.lock().phase, Phase::Closed(_)) {
                break;
            }
            match self.try_open() {
                Ok(()) => break,
                Err(reason) => {
                    let is_late = give_up.is_some_and(|give_up| Instant::now() >= give_up);
                    let last = is_late || !is_absent(&reason);
                    search.1 = reason;
                    if last {
                        return;
                    }
                }
            }
        }
        search.0 = None;
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.running, true) {
            drop(state);
            Self::run(&self);
        }
    }

    fn try_open(self: &Arc<Self>) -> Result<(), Reason> {
        let Some(Dialling { number, options }) = &self.dialling else {
            return Err(Reason::Dropped);
        };
        let Some((lent, first)) = self.home.lend() else {
            // The session before is still handing over its last messages.
            return Err(absent(&self.common.addr));
        };
        let (generation, receives) = {
            let mut state = self.state.lock();
            state.generation += 1;
            (state.generation, state.is_eager)
        };
        let session = Arc::new(LocalSession {
            link: Arc::clone(self),
            generation,
        });
        let dialer = Dialer {
            addr: &self.common.addr,
            number: *number,
            incarnation: options.incarnation,
            expect: options.expect,
            receives,
            inbound: Inbound::new(session.clone()),
            served: session.clone(),
        };
        let back = Back {
            lent,
            first,
            inbound: Arc::clone(&self.inbound),
            opposite: session,
            window: options.window_messages.max(1).into(),
            runtime: self.runtime.clone(),
        };
        let Opened {
            deliver,
            window,
            back,
        } = table::open::<M>(dialer, back)?;
        let mut state = self.state.lock();
        // The server may have ended between the two locks: then `ended` has moved the generation on.
        if state.generation == generation && !matches!(state.phase, Phase::Closed(_)) {
            state.deliver = Some(deliver);
            state.lanes.restart(window);
            state.opposite = Some(back);
            state.phase = Phase::Open;
            self.common.publish(Status::Connected);
            let closing = state.closing.then(|| state.opposite.clone()).flatten();
            drop(state);
            if let Some(opposite) = closing {
                opposite.refuse();
            }
        } else {
            state.farewell.push(deliver);
            state.parting.push((back, Reason::Dropped));
        }
        Ok(())
    }
}

fn is_absent(reason: &Reason) -> bool {
    matches!(reason, Reason::Connect { errno: Some(_), .. })
}

/// Tells a receiving end that nothing follows.
pub(super) fn farewell<M: 'static>(mut deliver: Box<dyn Deliver<M>>) {
    guarded(|| {
        deliver.closed();
        drop(deliver);
    });
}

/// Runs foreign code; says whether it returned. The panic hook has reported a panic by then.
fn guarded(call: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(call)).is_ok()
}

/// Moves messages when it runs, and also when the runtime drops it instead.
struct Job<M: Send + 'static, K: Completion<M>, C: Codec<M>>(Option<Arc<Inner<M, K, C>>>);

impl<M: Send + 'static, K: Completion<M>, C: Codec<M>> Job<M, K, C> {
    fn run(mut self) {
        if let Some(inner) = self.0.take() {
            Inner::run(&inner);
        }
    }
}

impl<M: Send + 'static, K: Completion<M>, C: Codec<M>> Drop for Job<M, K, C> {
    fn drop(&mut self) {
        // The runtime is shutting down: nothing runs in tasks any more, so end here what is under way.
        if let Some(inner) = self.0.take() {
            inner.state.lock().fail(&inner.common, Reason::Dropped);
            Inner::run(&inner);
        }
    }
}

/// The search for a server; dropped before it succeeded, it ends the link with the last reason.
struct Search<M: Send + 'static, K: Completion<M>, C: Codec<M>>(
    Option<Arc<Inner<M, K, C>>>,
    Reason,
);

impl<M: Send + 'static, K: Completion<M>, C: Codec<M>> Drop for Search<M, K, C> {
    fn drop(&mut self) {
        if let Some(inner) = self.0.take() {
            let mut state = inner.state.lock();
            state.fail(&inner.common, self.1.clone());
            if !std::mem::replace(&mut state.running, true) {
                drop(state);
                Inner::run(&inner);
            }
        }
    }
}

/// What a dialer of this process must know of a server of this process to be let in.
pub(crate) fn absent(addr: &ChannelAddr) -> Reason {
    // The numbers and words of the kernel for the same thing, so that callers need not tell transports apart.
    Reason::Connect {
        addr: addr.clone(),
        error: "nobody serves this address in this process".to_owned(),
        errno: Some(rustix::io::Errno::CONNREFUSED.raw_os_error()),
    }
}

/// Whether an expectation is met.
pub(crate) fn is_expected(expect: Option<Incarnation>, actual: Incarnation) -> bool {
    expect.is_none_or(|expected| expected == actual)
}
