//! The sending side of an in-process channel: values are handed to the receiving side without encoding them.
//!
//! One caller at a time moves messages (the first to find work, in its own thread); everyone else only queues, so order
//! holds, no lock is held while foreign code runs, and a receiver that posts into the channel it is called from is no
//! danger. Work that a settlement or a release makes possible runs in a task of its own, never in the caller's stack.
//! Which address serves what is in `table`.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use hyperactor_protocol::Verdict;
use hyperactor_refs::{ChannelAddr, Incarnation};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::state::{Finished, Phase, Slot, State, Step};
use super::table::{self, Opened};
use crate::backoff::Backoff;
use crate::inbound::Settlements;
use crate::limits::LOCAL_TURN_MESSAGES;
use crate::outbound::{Common, Link};
use crate::{
    Completion, Deliver, DialOptions, Failure, Inbound, Reason, Rejected, Status, Ticket, codes,
};

/// The sending side of one in-process channel.
pub(crate) struct LocalLink<M, K>(Arc<Inner<M, K>>);

pub(crate) struct Inner<M, K> {
    common: Common,
    number: u64,
    options: DialOptions,
    runtime: Option<Handle>,
    state: Mutex<State<M, K>>,
}

impl<M: Send + 'static, K: Completion<M>> LocalLink<M, K> {
    pub(crate) fn new(addr: ChannelAddr, number: u64, mut options: DialOptions) -> Self {
        options.outbox_messages = options.outbox_messages.max(1);
        let runtime = Handle::try_current().ok();
        let closed = runtime.is_none().then_some(Reason::NoRuntime);
        let common = Common::new(addr);
        if let Some(reason) = &closed {
            common.publish(Status::Closed(reason.clone()));
        }
        let state = State::new(closed);
        Self(Arc::new(Inner {
            common,
            number,
            options,
            runtime,
            state: Mutex::new(state),
        }))
    }
}

impl<M: Send + 'static, K: Completion<M>> Link<M, K> for LocalLink<M, K> {
    fn common(&self) -> &Common {
        &self.0.common
    }

    fn offer(&self, message: M, completion: K) -> Result<(), Rejected<M, K>> {
        let inner = &self.0;
        let is_awaited = completion.wants_outcome();
        let mut state = inner.state.lock();
        let reason = match &state.phase {
            Phase::Closed(reason) => Some(reason.clone()),
            _ if state.closing => Some(Reason::Closed),
            _ if state.slots.len() >= inner.options.outbox_messages as usize => {
                inner.common.capacity.set(false);
                Some(Reason::Full)
            }
            _ => None,
        };
        if let Some(reason) = reason {
            drop(state);
            return Err(Rejected {
                message,
                completion,
                reason,
            });
        }
        state.queue.push_back((message, is_awaited));
        state.slots.push_back(Slot::Waiting(completion));
        let run = !std::mem::replace(&mut state.running, true);
        drop(state);
        if run {
            Inner::run(inner);
        }
        Ok(())
    }

    fn posted(&self) -> u64 {
        let state = self.0.state.lock();
        state.floor + state.slots.len() as u64
    }

    fn close(&self) {
        self.0.close();
    }
}

impl<M: Send + 'static, K: Completion<M>> Inner<M, K> {
    fn close(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.closing = true;
        if !std::mem::replace(&mut state.running, true) {
            drop(state);
            Self::run(self);
        }
    }

    /// Moves messages until nothing can move. The caller has set `running`.
    fn run(self: &Arc<Self>) {
        let mut moved = 0;
        while moved < LOCAL_TURN_MESSAGES {
            let step = self.state.lock().step(&self.common);
            match step {
                Step::Finish(batch) => moved += self.finish(batch),
                Step::Connect => self.connect(),
                Step::Hand {
                    deliver,
                    generation,
                    first,
                    batch,
                } => {
                    moved += self.hand(deliver, generation, first, batch);
                }
                Step::Farewell(delivers) => {
                    for mut deliver in delivers {
                        guarded(|| {
                            deliver.closed();
                            drop(deliver);
                        });
                    }
                }
                Step::Rest => return,
            }
        }
        self.run_in_task();
    }

    /// Goes on in a task of the runtime. The caller has set `running`.
    fn run_in_task(self: &Arc<Self>) {
        let job = Job(Some(Arc::clone(self)));
        match &self.runtime {
            Some(runtime) => drop(runtime.spawn(async move { job.run() })),
            None => job.run(),
        }
    }

    /// Sees to it that someone moves messages, without doing so in the caller's stack.
    fn kick(self: &Arc<Self>, state: &mut State<M, K>) -> bool {
        let work = !state.finished.is_empty()
            || !state.farewell.is_empty()
            || (!state.queue.is_empty() && state.outstanding < state.window);
        work && !std::mem::replace(&mut state.running, true)
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
        let floor = {
            let mut state = self.state.lock();
            for seq in called {
                state.set_called(seq);
            }
            while matches!(state.slots.front(), Some(Slot::Called)) {
                state.slots.pop_front();
                state.floor += 1;
            }
            if state.slots.len() < self.options.outbox_messages as usize {
                self.common.capacity.set(true);
            }
            state.floor
        };
        self.common.settled.advance(floor);
        count
    }

    fn hand(
        self: &Arc<Self>,
        mut deliver: Box<dyn Deliver<M>>,
        generation: u64,
        first: u64,
        mut batch: VecDeque<(M, bool)>,
    ) -> usize {
        let count = batch.len();
        let mut seq = first;
        let size = u32::try_from(size_of::<M>()).unwrap_or(u32::MAX);
        let survived = guarded(|| {
            while let Some((message, is_awaited)) = batch.pop_front() {
                let ticket = Ticket { seq, size };
                if is_awaited {
                    deliver.deliver_awaited(message, ticket);
                } else {
                    deliver.deliver(message, ticket);
                }
                seq += 1;
            }
        });
        let mut state = self.state.lock();
        if !survived {
            // What it panicked of is unknown; the rest of the batch it has never seen.
            let unseen = seq + 1;
            if state.generation == generation {
                for (seq, (message, _)) in (unseen..).zip(batch) {
                    let failure = Failure::NotDelivered(Reason::Dropped);
                    state.settle(seq, Some(failure), Some(message));
                }
            }
            state.fail(&self.common, Reason::Dropped);
            state.farewell.push(deliver);
        } else if state.generation == generation && state.phase == Phase::Open {
            state.deliver = Some(deliver);
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
                if self.options.connect_give_up_local.is_zero() || !is_absent(&reason) {
                    self.state.lock().fail(&self.common, reason);
                    return;
                }
                self.common.publish(Status::Reconnecting);
                let inner = Arc::clone(self);
                let search = Search(Some(Arc::clone(self)), reason);
                match &self.runtime {
                    Some(runtime) => drop(runtime.spawn(inner.search(search))),
                    None => drop(search),
                }
            }
        }
    }

    async fn search(self: Arc<Self>, mut search: Search<M, K>) {
        // Beyond what the clock can name means never.
        let give_up = Instant::now().checked_add(self.options.connect_give_up_local);
        let mut backoff = Backoff::new();
        loop {
            let pause = backoff.next().max(Duration::from_millis(1));
            let next = Instant::now() + pause;
            tokio::time::sleep_until(give_up.map_or(next, |give_up| give_up.min(next))).await;
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
        let generation = {
            let mut state = self.state.lock();
            state.generation += 1;
            state.generation
        };
        let session = Arc::new(LocalSession {
            link: Arc::clone(self),
            generation,
        });
        let served: Arc<dyn table::Served> = session.clone();
        let Opened { deliver, window } = table::open::<M>(
            &self.common.addr,
            self.number,
            self.options.incarnation,
            self.options.expect,
            Inbound::new(session),
            &served,
        )?;
        let mut state = self.state.lock();
        // The server may have ended between the two locks: then `ended` has moved the generation on.
        if state.generation == generation && !matches!(state.phase, Phase::Closed(_)) {
            state.deliver = Some(deliver);
            state.window = window;
            state.outstanding = 0;
            state.phase = Phase::Open;
            self.common.publish(Status::Connected);
        } else {
            state.farewell.push(deliver);
        }
        Ok(())
    }
}

fn is_absent(reason: &Reason) -> bool {
    matches!(reason, Reason::Connect { errno: Some(_), .. })
}

/// Runs foreign code; says whether it returned. The panic hook has reported a panic by then.
fn guarded(call: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(call)).is_ok()
}

/// Moves messages when it runs, and also when the runtime drops it instead.
struct Job<M: Send + 'static, K: Completion<M>>(Option<Arc<Inner<M, K>>>);

impl<M: Send + 'static, K: Completion<M>> Job<M, K> {
    fn run(mut self) {
        if let Some(inner) = self.0.take() {
            Inner::run(&inner);
        }
    }
}

impl<M: Send + 'static, K: Completion<M>> Drop for Job<M, K> {
    fn drop(&mut self) {
        // The runtime is shutting down: nothing runs in tasks any more, so end here what is under way.
        if let Some(inner) = self.0.take() {
            inner.state.lock().fail(&inner.common, Reason::Dropped);
            Inner::run(&inner);
        }
    }
}

/// The search for a server; dropped before it succeeded, it ends the link with the last reason.
struct Search<M: Send + 'static, K: Completion<M>>(Option<Arc<Inner<M, K>>>, Reason);

impl<M: Send + 'static, K: Completion<M>> Drop for Search<M, K> {
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

/// One session of a link, as the receiving side sees it.
pub(crate) struct LocalSession<M, K> {
    link: Arc<Inner<M, K>>,
    generation: u64,
}

impl<M: Send + 'static, K: Completion<M>> LocalSession<M, K> {
    /// Does something to the state, if the session is still the present one, and lets a task do what follows.
    fn with(&self, change: impl FnOnce(&mut State<M, K>)) {
        let mut state = self.link.state.lock();
        if state.generation == self.generation {
            change(&mut state);
        }
        if self.link.kick(&mut state) {
            drop(state);
            self.link.run_in_task();
        }
    }
}

impl<M: Send + 'static, K: Completion<M>> Settlements for LocalSession<M, K> {
    fn settle(&self, ticket: Ticket, verdict: Verdict, message: Option<Box<dyn Any + Send>>) {
        let message = message
            .and_then(|message| message.downcast::<M>().ok())
            .map(|boxed| *boxed);
        let refused = verdict != Verdict::Delivered;
        let failure = codes::verdict(verdict);
        self.with(|state| {
            if ticket.seq < state.handed {
                state.settle(ticket.seq, failure, message);
            }
            if refused {
                state.outstanding = state.outstanding.saturating_sub(1);
            }
        });
    }

    fn release(&self, messages: u64, _bytes: u64) {
        self.with(|state| state.outstanding = state.outstanding.saturating_sub(messages));
    }
}

impl<M: Send + 'static, K: Completion<M>> table::Served for LocalSession<M, K> {
    fn unsettled(&self) -> bool {
        let state = self.link.state.lock();
        state.generation == self.generation
            && state
                .slots
                .iter()
                .take(usize::try_from(state.handed - state.floor).unwrap_or(0))
                .any(|slot| matches!(slot, Slot::Waiting(_)))
    }

    fn ended(&self, orderly: bool) {
        let link = &self.link;
        let mut state = link.state.lock();
        if state.generation != self.generation {
            return;
        }
        if orderly {
            state.lose(&Reason::Dropped);
            state.fail(&link.common, Reason::PeerClosed);
        } else {
            state.lose(&Reason::PeerRestarted);
            state.generation += 1;
            let deliver = state.deliver.take();
            state.farewell.extend(deliver);
            state.phase = Phase::Idle;
            let idle = state.queue.is_empty();
            link.common.publish(if idle {
                Status::Idle
            } else {
                Status::Reconnecting
            });
        }
        // The link may have to look for another server, or to call completions.
        if !std::mem::replace(&mut state.running, true) {
            drop(state);
            link.run_in_task();
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
