//! Connections that siblings dial, and that carry messages back to them: who is at the other end, and whether anybody still is.
//! Which of two links is used, is decided in `links`.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Weak};

use hyperactor_channel::{Reason, Status};
use hyperactor_mailbox::MailboxSender;
use hyperactor_refs::{ChannelAddr, Incarnation};
use hyperactor_router::{AcceptSession, MailboxClient, MailboxSession};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::Shared;
use super::connect::Link;
use super::sibling::{Core, Sibling};
use crate::limits;

/// Takes the sessions of one proc's socket: gives its messages to the proc, and its connection to the proc's
/// [`LocalProcDialer`](super::LocalProcDialer). See [`sessions_of`](super::LocalProcDialer::sessions_of).
pub struct ProcSessions {
    shared: Arc<Shared>,
    /// The only one that keeps it: see `Receive` in `connect`.
    receive: Arc<dyn MailboxSender>,
}

impl ProcSessions {
    pub(super) fn new(
        shared: Arc<Shared>,
        incarnation: Incarnation,
        receive: Arc<dyn MailboxSender>,
    ) -> Self {
        shared.identity.set(incarnation, Arc::downgrade(&receive));
        Self { shared, receive }
    }
}

impl AcceptSession for ProcSessions {
    type Sender = Arc<dyn MailboxSender>;

    fn opened(&self, session: &MailboxSession) -> Self::Sender {
        if let Some(back) = session.back() {
            let stranger = Stranger {
                session: session.id(),
                incarnation: session.peer().incarnation,
                back: back.clone(),
            };
            self.shared.meet(stranger);
        }
        Arc::clone(&self.receive)
    }

    fn closed(&self, session: &MailboxSession) {
        drop(self.shared.strangers.take_session(session.id()));
    }
}

impl fmt::Debug for ProcSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcSessions")
            .field("socket_dir", &self.shared.socket_dir)
            .finish_non_exhaustive()
    }
}

/// A dialer of which nobody has said who it is.
pub(super) struct Stranger {
    session: u64,
    incarnation: Incarnation,
    back: MailboxClient,
}

/// Dialers that may be announced yet, the oldest first.
///
/// # Bounds
/// [`limits::STRANGERS_MAX`]; beyond, the oldest is forgotten.
#[derive(Default)]
pub(super) struct Strangers(Mutex<VecDeque<Stranger>>);

impl Strangers {
    fn add(&self, stranger: Stranger) {
        let forgotten = {
            let mut strangers = self.0.lock();
            strangers.push_back(stranger);
            if strangers.len() > limits::STRANGERS_MAX {
                strangers.pop_front()
            } else {
                None
            }
        };
        drop(forgotten);
    }

    fn take_session(&self, session: u64) -> Option<Stranger> {
        let mut strangers = self.0.lock();
        let at = strangers
            .iter()
            .position(|stranger| stranger.session == session)?;
        strangers.remove(at)
    }

    fn take_life(&self, incarnation: Incarnation) -> Vec<Stranger> {
        let mut strangers = self.0.lock();
        if strangers.is_empty() {
            return Vec::new();
        }
        let (known, unknown) = strangers
            .drain(..)
            .partition(|stranger| stranger.incarnation == incarnation);
        *strangers = unknown;
        let known: VecDeque<Stranger> = known;
        known.into()
    }
}

impl Shared {
    /// Somebody has dialled.
    fn meet(&self, stranger: Stranger) {
        let Stranger {
            session,
            incarnation,
            ..
        } = stranger;
        // In the table before the look, as an announcement is made before the table is looked into: one of the two finds the
        // other, and who takes it out of the table goes on with it.
        self.strangers.add(stranger);
        let siblings = self.known();
        let Some(sibling) = siblings.iter().find(|sibling| sibling.lives(incarnation)) else {
            tracing::debug!(
                target: "hyperactor::route", event = "route.unannounced", %incarnation,
                "somebody dialled who is not announced yet"
            );
            return;
        };
        if let Some(stranger) = self.strangers.take_session(session) {
            adopt(sibling, stranger);
        }
    }

    /// A sibling was announced: it may have dialled before.
    pub(super) fn meet_strangers(&self, sibling: &Sibling, incarnation: Incarnation) {
        for stranger in self.strangers.take_life(incarnation) {
            adopt(sibling, stranger);
        }
    }
}

fn adopt(sibling: &Sibling, stranger: Stranger) {
    let Stranger {
        incarnation, back, ..
    } = stranger;
    let connect = sibling.core().connect();
    // Without an address its failures could not be told from those of others.
    let (Some(addr), Some(runtime)) = (connect.addr().cloned(), connect.runtime()) else {
        return;
    };
    let link: Arc<dyn Link> = Arc::new(back.clone().with_addr(addr.clone()));
    let Some(number) = sibling.adopt(incarnation, link) else {
        return;
    };
    let watch = Watch {
        core: Arc::downgrade(sibling.core()),
        status: back.status(),
        back,
        addr,
        incarnation,
        number,
    };
    runtime.spawn(watch.run());
}

/// Watches over a link that a sibling dialled: its dialer connects again when the connection is lost, unless it is dead, and
/// then nobody else would notice.
struct Watch {
    core: Weak<Core>,
    back: MailboxClient,
    status: watch::Receiver<Status>,
    addr: ChannelAddr,
    incarnation: Incarnation,
    number: u64,
}

impl Watch {
    /// Runs until the link is over, or the dialer of this side is gone.
    async fn run(mut self) {
        let mut was_connected = false;
        loop {
            match self.present() {
                Status::Closed(_) => break,
                Status::Connected => {
                    was_connected = true;
                    // An error is a status that nobody can change any more.
                    if self.status.changed().await.is_err() {
                        break;
                    }
                }
                _ => {
                    let Some(core) = self.core.upgrade() else {
                        return;
                    };
                    if was_connected {
                        core.lost(self.number);
                    }
                    drop(core);
                    if !self.wait_for_dialer().await {
                        return;
                    }
                }
            }
        }
        if let Some(core) = self.core.upgrade() {
            core.ended(self.number);
        }
    }

    fn present(&mut self) -> Status {
        self.status.borrow_and_update().clone()
    }

    /// Waits until there is a connection again, or the link is over; ends it when nobody is there to connect. `false` when
    /// nobody is interested any more.
    async fn wait_for_dialer(&mut self) -> bool {
        let lost = Instant::now();
        let mut pause = limits::PROBE_BACKOFF_MIN;
        loop {
            let is_settled =
                |status: &Status| matches!(status, Status::Connected | Status::Closed(_));
            if let Ok(settled) = timeout(pause, self.status.wait_for(is_settled)).await {
                return settled.is_ok();
            }
            pause = (pause * 2).min(limits::PROBE_BACKOFF_MAX);
            let Some(core) = self.core.upgrade() else {
                return false;
            };
            let lives = core.lives(self.incarnation);
            let probe = core.connect().probe();
            drop(core);
            let gone = if lives {
                nobody(timeout(limits::PROBE_TIMEOUT, probe).await)
            } else {
                Some(("the host said that it has ended".to_owned(), None))
            };
            let gone = gone.or_else(|| {
                let error = "it did not connect again".to_owned();
                (lost.elapsed() >= limits::LINK_RESUME_MAX).then_some((error, None))
            });
            if let Some((error, errno)) = gone {
                let addr = self.addr.clone();
                self.back.abandon(Reason::Connect { addr, error, errno });
            }
        }
    }
}

/// What says that nobody serves a socket any more: its kernel, and nothing else.
fn nobody(
    answer: Result<io::Result<()>, tokio::time::error::Elapsed>,
) -> Option<(String, Option<i32>)> {
    match answer {
        Ok(Err(error))
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            Some((error.to_string(), error.raw_os_error()))
        }
        _ => None,
    }
}
