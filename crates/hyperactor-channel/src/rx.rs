//! The everyday receiving end: [`ChannelRx`], one queue fed by all sessions of a server, and the trait [`Rx`].
//! The queue needs no bound of its own: each session's credit bounds what it may put there.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use hyperactor_refs::ChannelAddr;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::completion::TxCompletion;
use crate::tx::BoxFuture;
use crate::{Accept, Deliver, Ignore, Inbound, Outbound, Peer, ServerHandle, Ticket, codes};

/// Receives messages of one type.
pub trait Rx<M: Send + 'static>: Send {
    /// Waits for the next message; `None` when nothing will come any more.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing.
    fn recv(&mut self) -> BoxFuture<'_, Option<M>>;

    /// Takes a message if one is there.
    fn try_recv(&mut self) -> Option<M>;

    /// Where the messages come to.
    fn addr(&self) -> &ChannelAddr;
}

/// Messages that follow each other in the queue and came by the same session.
struct Run<M> {
    inbound: Inbound,
    /// With its size and its destination.
    messages: VecDeque<(M, u32, u32)>,
}

/// Credit of messages taken out is given back in portions of this many messages or bytes, or when a run or its destination ends: one
/// shared counter less to touch for each message.
const RELEASE_MESSAGES: u64 = 32;
const RELEASE_BYTES: u64 = 64 * 1024;

/// Messages of a batch up to which they are copied to the end of what is in the queue already.
const COPIED_MESSAGES: usize = 16;

/// The queue between the sessions and the receiver.
struct Queue<M> {
    state: Mutex<QueueState<M>>,
    filled: Notify,
}

struct QueueState<M> {
    runs: VecDeque<Run<M>>,
    closed: bool,
}

/// Puts what a session receives into the queue.
pub(crate) struct QueueAcceptor<M>(Arc<Queue<M>>);

pub(crate) struct QueueSession<M> {
    queue: Arc<Queue<M>>,
    inbound: Inbound,
    /// What came and is not in the queue yet, with its size and destination: one look at the queue for all of a batch.
    batch: VecDeque<(M, u32, u32)>,
    /// The first number of the last run of those, and one past its last; the runs before it, with their lengths.
    first: u64,
    next: u64,
    before: Vec<(u64, u64)>,
    /// Nothing else fills the queue: it ends with this session.
    _end: Option<QueueAcceptor<M>>,
}

impl<M> Drop for QueueAcceptor<M> {
    fn drop(&mut self) {
        // The server and its sessions have ended, in whichever way: nothing will come any more.
        self.0.close();
    }
}

impl<M> Queue<M> {
    fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_one();
    }
}

impl<M: Send + 'static> Accept<M> for QueueAcceptor<M> {
    type Session = QueueSession<M>;
    type Completion = Ignore;

    fn open(
        &self,
        _peer: Peer,
        inbound: Inbound,
        _outbound: Outbound<M, Ignore>,
    ) -> QueueSession<M> {
        QueueSession {
            queue: Arc::clone(&self.0),
            inbound,
            batch: VecDeque::new(),
            first: 0,
            next: 0,
            before: Vec::new(),
            _end: None,
        }
    }
}

impl<M: Send + 'static> Deliver<M> for QueueSession<M> {
    #[inline]
    fn deliver(&mut self, message: M, ticket: Ticket) {
        if ticket.seq != self.next {
            self.end_run();
            self.first = ticket.seq;
        }
        self.next = ticket.seq + 1;
        self.batch.push_back((message, ticket.size, ticket.to));
    }

    fn batch_ended(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let count = self.batch.len();
        let mut state = self.queue.state.lock();
        if state.closed {
            drop(state);
            return self.refuse();
        }
        let was_empty = state.runs.is_empty();
        let last = state.runs.back_mut();
        match last.filter(|run| run.inbound.is_same(&self.inbound)) {
            // Copied as a whole, where that is little or there is room for it.
            Some(run) if count <= COPIED_MESSAGES.max(run.room()) => {
                run.messages.append(&mut self.batch);
            }
            _ => {
                let next = VecDeque::with_capacity(count);
                state.runs.push_back(Run {
                    inbound: self.inbound.clone(),
                    messages: std::mem::replace(&mut self.batch, next),
                });
            }
        }
        drop(state);
        // Placed: that is what delivered means. Its credit comes back when it is taken out.
        self.end_run();
        for (first, count) in self.before.drain(..) {
            self.inbound.settle_run(first, count);
        }
        if was_empty {
            self.queue.filled.notify_one();
        }
    }
}

impl<M> Run<M> {
    /// How many messages more it takes without being moved.
    fn room(&self) -> usize {
        self.messages.capacity() - self.messages.len()
    }
}

impl<M: Send + 'static> QueueSession<M> {
    /// What comes next does not follow what came last.
    fn end_run(&mut self) {
        if self.first != self.next {
            self.before.push((self.first, self.next - self.first));
            self.first = self.next;
        }
    }

    /// Nobody takes what came.
    #[cold]
    fn refuse(&mut self) {
        self.end_run();
        let runs = self.before.drain(..);
        let numbers = runs.flat_map(|(first, count)| first..first + count);
        for (seq, (message, size, to)) in numbers.zip(self.batch.drain(..)) {
            let ticket = Ticket { seq, size, to };
            self.inbound
                .refuse(ticket, codes::nobody_receives(), message);
        }
    }
}

/// The receiving end of a served address: messages of all its sessions, each session's in the order sent.
///
/// A message counts as delivered once it is in this queue. Taking it out gives its credit back to its sender. Dropping
/// the receiver stops the server and drops what was not taken.
pub struct ChannelRx<M> {
    queue: Arc<Queue<M>>,
    /// What was taken from the queue in one go and not yet handed out.
    batch: VecDeque<Run<M>>,
    /// Taken from the first run, and not yet given back: messages and bytes.
    taken: (u64, u64),
    source: Option<Source<M>>,
    addr: ChannelAddr,
}

/// Where the messages of a receiver come from, kept as long as it is.
enum Source<M> {
    Server(ServerHandle),
    Session(Outbound<M, TxCompletion>),
}

impl<M> fmt::Debug for ChannelRx<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelRx")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

/// An acceptor and the queue it fills.
pub(crate) struct Feed<M>(Arc<Queue<M>>);

impl<M: Send + 'static> Feed<M> {
    pub(crate) fn new() -> Self {
        let state = Mutex::new(QueueState {
            runs: VecDeque::new(),
            closed: false,
        });
        Self(Arc::new(Queue {
            state,
            filled: Notify::new(),
        }))
    }

    pub(crate) fn acceptor(&self) -> QueueAcceptor<M> {
        QueueAcceptor(Arc::clone(&self.0))
    }

    pub(crate) fn into_rx(self, server: ServerHandle) -> ChannelRx<M> {
        let addr = server.addr().clone();
        ChannelRx {
            queue: self.0,
            batch: VecDeque::new(),
            taken: (0, 0),
            source: Some(Source::Server(server)),
            addr,
        }
    }

    /// What fills the queue from one session alone.
    pub(crate) fn session(&self, inbound: Inbound) -> QueueSession<M> {
        QueueSession {
            queue: Arc::clone(&self.0),
            inbound,
            batch: VecDeque::new(),
            first: 0,
            next: 0,
            before: Vec::new(),
            _end: Some(self.acceptor()),
        }
    }

    pub(crate) fn into_session_rx(self, outbound: Outbound<M, TxCompletion>) -> ChannelRx<M> {
        let addr = outbound.addr().clone();
        ChannelRx {
            queue: self.0,
            batch: VecDeque::new(),
            taken: (0, 0),
            source: Some(Source::Session(outbound)),
            addr,
        }
    }
}

impl<M: Send + 'static> ChannelRx<M> {
    /// Waits for the next message; `None` when everything was taken and nothing will come any more: after
    /// [`close`](Self::close), or when the runtime of the server is gone.
    ///
    /// # Cancel safety
    ///
    /// A message leaves the queue only in the poll that returns it: dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<M> {
        loop {
            if let Some(message) = self.try_recv() {
                return Some(message);
            }
            if self.queue.state.lock().closed {
                // What came between the look into the queue and the look at the mark.
                return self.try_recv();
            }
            self.queue.filled.notified().await;
        }
    }

    /// Takes a message if one is there.
    #[inline]
    pub fn try_recv(&mut self) -> Option<M> {
        if self.batch.is_empty() {
            std::mem::swap(&mut self.batch, &mut self.queue.state.lock().runs);
        }
        let run = self.batch.front_mut()?;
        // A run is never empty: it is made with those of a batch and removed with its last.
        let (message, size, to) = run.messages.pop_front()?;
        let (messages, bytes) = &mut self.taken;
        *messages += 1;
        *bytes += u64::from(size);
        let is_due = *messages >= RELEASE_MESSAGES || *bytes >= RELEASE_BYTES;
        let is_last = run.messages.front().is_none_or(|next| next.2 != to);
        if is_due || is_last {
            self.release(to);
        }
        Some(message)
    }

    /// Gives back the credit of what was taken out of the first run, all of it for this destination.
    fn release(&mut self, to: u32) {
        let (messages, bytes) = std::mem::take(&mut self.taken);
        if let Some(run) = self.batch.front() {
            run.inbound.release_many(to, messages, bytes);
            if run.messages.is_empty() {
                self.batch.pop_front();
            }
        }
    }

    /// Where the messages come to: what others dial. Of a receiver of one session, the address of its server.
    pub fn addr(&self) -> &ChannelAddr {
        &self.addr
    }

    /// Stops the server in order: nothing more is accepted, what was placed is acknowledged, peers are told goodbye.
    /// Of a receiver of one session, closes that session, both ways ([`Outbound::close`]), and waits for its end.
    /// What is in the queue can still be received. Calling it twice is fine.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, the server or the session goes on ending in order by itself.
    pub async fn close(&mut self) {
        match self.source.take() {
            Some(Source::Server(server)) => server.stop().await,
            Some(Source::Session(outbound)) => {
                outbound.close();
                let why = outbound.closed().await;
                tracing::debug!(addr = %self.addr, %why, "a session was closed");
            }
            None => {}
        }
        self.queue.close();
    }
}

impl<M> Drop for ChannelRx<M> {
    fn drop(&mut self) {
        let rest = {
            let mut state = self.queue.state.lock();
            state.closed = true;
            std::mem::take(&mut state.runs)
        };
        // Dropped without the lock: a message may run code of its user.
        drop(rest);
    }
}

impl<M: Send + 'static> Rx<M> for ChannelRx<M> {
    fn recv(&mut self) -> BoxFuture<'_, Option<M>> {
        Box::pin(ChannelRx::recv(self))
    }

    fn try_recv(&mut self) -> Option<M> {
        ChannelRx::try_recv(self)
    }

    fn addr(&self) -> &ChannelAddr {
        ChannelRx::addr(self)
    }
}
