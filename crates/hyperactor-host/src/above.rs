//! The host that this one stands behind, if it does: the one connection that leads there, over which both send, and the task
//! that keeps it. How the host before this one answers is in `entrance`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyperactor_mailbox::{
    BoxFuture, FlushError, Hop, MailboxSender, MessageEnvelope, ReturnHandle, RouteKind,
};
use hyperactor_proc::{Client, Proc};
use hyperactor_refs::ChannelAddr;
use hyperactor_router::{DialOptions, MailboxClient};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::door::{self, Claim, Floor, Unwelcome, Welcome};
use crate::error::HostError;
use crate::limits;
use crate::relay::{Reach, Relay};

/// The name of the host's mailbox for answers from the door of another.
const CLIMBER: &str = "host-behind";

/// The way up. A clone is another handle of the same.
#[derive(Clone, Default)]
pub(crate) struct Above(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Whether there is one, for those who only want to know that there is none.
    is_there: AtomicBool,
    link: RwLock<Option<Link>>,
}

struct Link {
    client: MailboxClient,
    /// The next host, then the one before that, and so on.
    floors: Vec<Floor>,
}

impl Above {
    fn is_there(&self) -> bool {
        self.0.is_there.load(Ordering::Acquire)
    }

    fn set(&self, link: Option<Link>) {
        self.0.is_there.store(link.is_some(), Ordering::Release);
        // The former one is dropped without the lock.
        let former = std::mem::replace(&mut *self.0.link.write(), link);
        drop(former);
    }

    /// The hosts before this one, the next one first.
    pub(crate) fn floors(&self) -> Vec<Floor> {
        let link = self.0.link.read();
        link.as_ref()
            .map(|link| link.floors.clone())
            .unwrap_or_default()
    }

    /// The way to one of them.
    pub(crate) fn way(&self, addr: &ChannelAddr) -> Option<MailboxClient> {
        if !self.is_there() {
            return None;
        }
        let link = self.0.link.read();
        let link = link.as_ref()?;
        let leads = link.floors.iter().any(|floor| floor.addrs.contains(addr));
        leads.then(|| link.client.clone())
    }

    pub(crate) fn flush(&self) -> BoxFuture<'static, Result<(), FlushError>> {
        let client = self.0.link.read().as_ref().map(|link| link.client.clone());
        Box::pin(async move {
            match client {
                Some(client) => client.flush().await,
                None => Ok(()),
            }
        })
    }
}

/// Takes what the host before this one sends.
struct FromAbove(Relay);

impl MailboxSender for FromAbove {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        self.0
            .post_from_outside(envelope, return_handle, Reach::Below);
    }
}

/// Keeps a host behind another.
pub(crate) struct Attachment {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Attachment {
    /// Leaves the other host, in order.
    pub(crate) async fn end(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await
            && error.is_panic()
        {
            tracing::error!(target: "hyperactor::host", "the task that kept the host behind another panicked: {error}");
        }
    }
}

/// Puts a host behind another, and keeps it there until the returned value ends or is dropped: whenever the other is lost, it
/// is tried again.
///
/// # Errors
/// [`HostError::Behind`], when the other host refuses, or does not answer within [`limits::ATTACH_TIMEOUT`].
pub(crate) async fn attach(
    relay: &Relay,
    service: &Proc,
    addr: ChannelAddr,
) -> Result<Attachment, HostError> {
    if relay.addrs().contains(&addr) {
        let reason = "that is an address of the host itself".to_owned();
        return Err(behind(&addr, "itself", reason));
    }
    let answers = service.client(CLIMBER).map_err(|error| HostError::Agent {
        reason: error.to_string(),
    })?;
    let climber = Climber {
        relay: relay.clone(),
        answers,
        addr,
    };
    let end = Instant::now() + limits::ATTACH_TIMEOUT;
    let mut pause = limits::ATTACH_BACKOFF_MIN;
    let client = loop {
        let client = climber.dial();
        match climber.knock(&client).await {
            Ok(()) => break client,
            Err(Unwelcome::Refused(refusal)) if refusal.code != door::STARTING => {
                client.close();
                return Err(behind(&climber.addr, &refusal.code, refusal.text));
            }
            Err(why) if Instant::now() + pause >= end => {
                return Err(behind(&climber.addr, "unreachable", why.to_string()));
            }
            Err(_) => sleep(pause).await,
        }
        pause = longer(pause);
    };
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(climber.stay(client, stopped));
    Ok(Attachment { stop, task })
}

fn behind(addr: &ChannelAddr, code: &str, reason: String) -> HostError {
    HostError::Behind {
        addr: addr.clone(),
        code: code.to_owned(),
        reason,
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).min(limits::ATTACH_BACKOFF_MAX)
}

struct Climber {
    relay: Relay,
    answers: Client,
    addr: ChannelAddr,
}

impl Climber {
    fn dial(&self) -> MailboxClient {
        let options = DialOptions {
            incarnation: self.relay.incarnation(),
            ..DialOptions::default()
        };
        let hop = Hop {
            at: self.addr.to_string(),
            route: RouteKind::Remote,
        };
        let receive = FromAbove(self.relay.clone());
        MailboxClient::dial_duplex(self.addr.clone(), options, receive).with_hop(hop)
    }

    /// Tells the other host what is here, and learns what is there.
    async fn knock(&self, client: &MailboxClient) -> Result<(), Unwelcome> {
        let own = self.relay.addrs().iter().cloned();
        let claim = Claim {
            incarnation: self.relay.incarnation(),
            addrs: own.chain(self.relay.visitors().addrs()).collect(),
        };
        let Welcome { floors } =
            door::knock(&self.answers, client, &self.addr, Some(claim)).await?;
        self.relay.above().set(Some(Link {
            client: client.clone(),
            floors,
        }));
        Ok(())
    }

    /// Keeps in touch until it is told to stop, or nobody is there any more who could.
    async fn stay(self, mut client: MailboxClient, mut stopped: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = self.keep(&client) => {}
                _ = stopped.wait_for(|stopped| *stopped) => break,
            }
            self.relay.above().set(None);
            client.close();
            tokio::select! {
                again = self.find_again() => client = again,
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
        }
        self.relay.above().set(None);
        client.close();
        if timeout(limits::SERVER_STOP_TIMEOUT, client.left())
            .await
            .is_err()
        {
            tracing::debug!(target: "hyperactor::host", addr = %self.addr, "the host before this one did not take leave in time");
        }
    }

    /// Returns when the other host is lost.
    async fn keep(&self, client: &MailboxClient) {
        let mut changes = self.relay.visitors().changes();
        let mut status = client.status();
        loop {
            tokio::select! {
                // Another connection, perhaps to another life that knows nothing of this host.
                _ = status.changed() => {}
                _ = changes.changed() => {}
                () = sleep(limits::ATTACH_REFRESH) => {}
            }
            if client.is_closed() {
                tracing::warn!(target: "hyperactor::host", addr = %self.addr, "the host before this one is gone");
                return;
            }
            match self.knock(client).await {
                Ok(()) => {}
                Err(Unwelcome::Refused(refusal)) => {
                    tracing::warn!(target: "hyperactor::host", addr = %self.addr, reason = %refusal, "the host before this one refuses");
                    return;
                }
                // It may come back: the client says when it has given it up.
                Err(why) => {
                    tracing::debug!(target: "hyperactor::host", addr = %self.addr, %why, "the host before this one does not answer");
                }
            }
        }
    }

    async fn find_again(&self) -> MailboxClient {
        let mut pause = limits::ATTACH_BACKOFF_MIN;
        loop {
            sleep(pause).await;
            let client = self.dial();
            match self.knock(&client).await {
                Ok(()) => {
                    tracing::info!(target: "hyperactor::host", addr = %self.addr, "the host before this one is back");
                    return client;
                }
                Err(why) => {
                    tracing::debug!(target: "hyperactor::host", addr = %self.addr, %why, "the host before this one is not back");
                    client.close();
                }
            }
            pause = longer(pause);
        }
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").finish_non_exhaustive()
    }
}
