//! The accept loop of byte-stream transports: admits connections, waits for their hello, and hands each to the task of
//! its session. One task owns the table of sessions; no lock guards it.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use hyperactor_protocol::{FrameDecoder, HelloCode, SessionId};
use tokio::sync::{mpsc, watch};
use tokio::task::{self, AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use crate::limits::{HANDSHAKE_DEADLINE, SESSION_HANDOVERS_MAX};
use crate::net::admission::{self, Admission};
use crate::net::handshake::{NoHello, read_hello};
use crate::net::session::{self, Alone, Greeted, Service};
use crate::serve::{Ending, Phase, ending};
use crate::transport::{Connected, Listen};
use crate::{Accept, Codec, ServeOptions};

struct Server<C, A> {
    service: Arc<Service<C, A>>,
    phase: watch::Receiver<Phase>,
    /// Connections without a hello.
    strangers: JoinSet<Option<Greeted>>,
    /// The same, oldest first; some may have ended.
    oldest: VecDeque<AbortHandle>,
    sessions: JoinSet<()>,
    table: HashMap<SessionId, Entry>,
    by_task: HashMap<task::Id, SessionId>,
}

struct Entry {
    task: task::Id,
    connections: mpsc::Sender<Greeted>,
    alone: Arc<Alone>,
}

/// Serves until the owner of the server wants it to end, then until every session has ended.
pub(crate) async fn run<M, C, A>(
    mut listener: Box<dyn Listen>,
    options: ServeOptions,
    codec: C,
    acceptor: A,
    mut phase: watch::Receiver<Phase>,
    mut admission: Admission,
) where
    M: Send + 'static,
    C: Codec<M>,
    A: Accept<M>,
{
    let mut server = Server {
        service: Arc::new(Service {
            addr: listener.addr().clone(),
            options,
            codec: Arc::new(codec),
            acceptor,
        }),
        phase: phase.clone(),
        strangers: JoinSet::new(),
        oldest: VecDeque::new(),
        sessions: JoinSet::new(),
        table: HashMap::new(),
        by_task: HashMap::new(),
    };
    // One at a time: there is one descriptor to refuse with.
    let mut refusals = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Ending::Orderly | Ending::AtOnce = ending(&mut phase) => break,
            Some(ended) = server.sessions.join_next_with_id() => server.forget(&ended),
            Some(hello) = server.strangers.join_next() => {
                if let Ok(Some(greeted)) = hello {
                    server.introduce::<M>(greeted).await;
                }
            }
            Some(_) = refusals.join_next() => admission.refused(),
            () = passed(admission.pause()), if admission.pause().is_some() => admission.pause_is_over(),
            accepted = listener.accept(), if admission.pause().is_none() && refusals.is_empty() => match accepted {
                Ok(connected) => {
                    admission.succeeded();
                    server.admit(connected);
                }
                Err(error) => {
                    if admission.failed(listener.addr(), &error) {
                        match at_once(listener.accept()).await {
                            Some(Ok(connected)) => {
                                let options = server.service.options.clone();
                                drop(refusals.spawn(admission::refuse(connected, options)));
                            }
                            _ => admission.failed_again(),
                        }
                    }
                }
            },
        }
    }
    // Freed first, so that a successor can bind while the sessions end.
    drop(listener);
    refusals.shutdown().await;
    server.strangers.shutdown().await;
    // Each session sees by itself how it is to end, and does not take long.
    while let Some(ended) = server.sessions.join_next_with_id().await {
        server.forget(&ended);
    }
}

async fn passed(pause: Option<Instant>) {
    if let Some(until) = pause {
        sleep_until(until).await;
    }
}

/// Polls a future once, and drops it.
async fn at_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

impl<C, A> Server<C, A> {
    /// Lets a connection say hello, if its user is ours.
    fn admit(&mut self, connected: Connected) {
        let Connected { stream, identity } = connected;
        if !identity.is_ours() {
            tracing::warn!(
                uid = identity.uid,
                pid = identity.pid,
                "a connection of another user is refused"
            );
            return;
        }
        self.oldest.retain(|stranger| !stranger.is_finished());
        while self.oldest.len() >= self.service.options.unauthenticated_max.max(1) {
            if let Some(stranger) = self.oldest.pop_front() {
                stranger.abort();
            }
        }
        let max_frame = self.service.options.config().max_frame;
        self.oldest.push_back(self.strangers.spawn(async move {
            let mut stream = stream;
            let mut decoder = FrameDecoder::new(max_frame);
            match timeout(HANDSHAKE_DEADLINE, read_hello(&mut stream, &mut decoder)).await {
                Ok(Ok(hello)) => return Some(Greeted { stream, decoder, hello, identity }),
                Ok(Err(NoHello::Malformed(error))) => {
                    tracing::warn!(%error, pid = identity.pid, "a connection without a valid hello is closed");
                }
                Ok(Err(NoHello::Io(error))) => {
                    tracing::debug!(%error, "a connection ended before its hello");
                }
                Err(_) => tracing::debug!(pid = identity.pid, "no hello came in time"),
            }
            None
        }));
    }

    /// Hands a connection to its session, or begins one.
    async fn introduce<M>(&mut self, greeted: Greeted)
    where
        M: Send + 'static,
        C: Codec<M>,
        A: Accept<M>,
    {
        let id = greeted.hello.session;
        let greeted = match self.table.get(&id) {
            None => greeted,
            Some(entry) => match entry.connections.try_send(greeted) {
                Ok(()) => return,
                Err(mpsc::error::TrySendError::Full(greeted)) => {
                    return greeted
                        .refuse(&self.service.options, HelloCode::TooMany)
                        .await;
                }
                // That task is ending: what comes now begins anew.
                Err(mpsc::error::TrySendError::Closed(greeted)) => greeted,
            },
        };
        if self.sessions.len() >= self.service.options.sessions_max && !self.give_one_up() {
            tracing::warn!(
                sessions = self.sessions.len(),
                "a session too many is refused"
            );
            return greeted
                .refuse(&self.service.options, HelloCode::TooMany)
                .await;
        }
        let (connections, next) = mpsc::channel(SESSION_HANDOVERS_MAX);
        let service = Arc::clone(&self.service);
        let alone = Arc::<Alone>::default();
        let phase = self.phase.clone();
        let session = session::run::<M, C, A>(service, greeted, next, phase, Arc::clone(&alone));
        let task = self.sessions.spawn(session).id();
        let entry = Entry {
            task,
            connections,
            alone,
        };
        self.table.insert(id, entry);
        self.by_task.insert(task, id);
    }

    /// Ends the session that has been without a connection for the longest; says whether there is one. Those who died
    /// without a goodbye must not lock others out until their sessions expire. A dialer that comes back after all faces a new
    /// state, and learns that nobody knows of what it had under way.
    fn give_one_up(&mut self) -> bool {
        let alone = self
            .table
            .iter()
            .filter_map(|(id, entry)| Some((entry.alone.since()?, *id)));
        let Some((_, id)) = alone.min() else {
            return false;
        };
        tracing::debug!(session = %id, "a session without a connection makes room for another");
        // Its task ends when nobody can hand it connections any more.
        self.table.remove(&id);
        true
    }

    fn forget(&mut self, ended: &Result<(task::Id, ()), JoinError>) {
        let task = match ended {
            Ok((task, ())) => *task,
            Err(error) => {
                if error.is_panic() {
                    tracing::error!(%error, "the receiver of a session panicked; the session ended");
                }
                error.id()
            }
        };
        let Some(id) = self.by_task.remove(&task) else {
            return;
        };
        if self.table.get(&id).is_some_and(|entry| entry.task == task) {
            self.table.remove(&id);
        }
    }
}
