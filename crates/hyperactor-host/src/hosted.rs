//! One proc of a host, as its callers hold it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use hyperactor_mailbox::{DeathCertificate, ProcExit};
use hyperactor_proc::{ActorRef, Outbox, RemoteSpawn, RemoteSpawnError, spawn_remote};
use hyperactor_refs::ProcId;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::logs::ProcLogs;
use crate::manager::ProcHandle;
use crate::spec::{End, EndedBy, ProcInfo};

/// A proc that a host made. A clone is another handle of the same proc; dropping them all leaves the proc running: it
/// is the host's.
#[derive(Clone)]
pub struct HostedProc {
    pub(crate) inner: Arc<Hosted>,
}

pub(crate) struct Hosted {
    pub(crate) handle: Box<dyn ProcHandle>,
    /// Published when the proc has ended, its name is free and no message is routed to it any more.
    pub(crate) exited: watch::Sender<Option<ProcExit>>,
    /// Set before the end is published.
    certificate: OnceLock<Arc<DeathCertificate>>,
    pub(crate) ended_by: Mutex<EndedBy>,
}

impl Hosted {
    pub(crate) fn new(handle: Box<dyn ProcHandle>) -> Self {
        let exited = watch::Sender::new(None);
        Self {
            handle,
            exited,
            certificate: OnceLock::new(),
            ended_by: Mutex::new(EndedBy::Itself),
        }
    }

    /// Notes who wants the proc to end; the first one counts.
    pub(crate) fn end_is_wanted_by(&self, by: EndedBy) {
        let mut ended_by = self.ended_by.lock();
        if *ended_by == EndedBy::Itself && self.exited.borrow().is_none() {
            *ended_by = by;
        }
    }

    /// Publishes the end of the proc.
    pub(crate) fn publish_end(&self, certificate: Arc<DeathCertificate>) {
        let exit = certificate.exit;
        self.certificate.get_or_init(|| certificate);
        self.exited.send_replace(Some(exit));
    }

    /// Nobody watches the proc any more. Who waits for its end is told that it cannot be learnt here.
    pub(crate) fn let_go(&self) {
        self.exited.send_replace(Some(ProcExit::Lost));
    }

    pub(crate) async fn end(&self, how: End, by: EndedBy) -> ProcExit {
        self.end_is_wanted_by(by);
        let ended = self.handle.end(how).await;
        let mut exited = self.exited.subscribe();
        // The host's own watcher publishes it, after it has tidied up. It lives as long as its runtime.
        let published = exited.wait_for(Option::is_some).await;
        published.ok().and_then(|exit| *exit).unwrap_or(ended)
    }
}

impl HostedProc {
    /// Who the proc is.
    #[must_use]
    pub fn proc_id(&self) -> &ProcId {
        &self.info().proc_id
    }

    /// The proc's name on its host.
    #[must_use]
    pub fn name(&self) -> &str {
        self.proc_id().name()
    }

    /// What is known about it: address, incarnation, process.
    #[must_use]
    pub fn info(&self) -> &ProcInfo {
        self.inner.handle.info()
    }

    /// Spawns an actor in the proc, by its type's name, with parameters that travel there.
    ///
    /// # Errors
    /// [`RemoteSpawnError`]: the proc does not answer, does not know the type, or refuses the name or the parameters.
    ///
    /// # Cancel safety
    /// A dropped future leaves open whether the actor is spawned.
    pub async fn spawn<A: RemoteSpawn>(
        &self,
        cx: &(impl Outbox + ?Sized),
        name: impl Into<String>,
        params: A::Params,
    ) -> Result<ActorRef<A>, RemoteSpawnError> {
        spawn_remote::<A>(cx, self.proc_id(), name, params).await
    }

    /// Ends the proc. Returns when it has ended and its name is free.
    ///
    /// # Cancel safety
    /// Dropping the future takes nothing back: the proc ends all the same.
    ///
    /// # Bounds
    /// A drain ends within its deadline and a margin of the manager's own.
    pub async fn end(&self, how: End) -> ProcExit {
        self.inner.end(how, EndedBy::Caller).await
    }

    /// Tells when the proc has ended, and how. The value is `None` until then; when it is there, the proc's name is free
    /// and messages to it come back at once.
    #[must_use]
    pub fn exited(&self) -> watch::Receiver<Option<ProcExit>> {
        self.inner.exited.subscribe()
    }

    /// Waits until the proc has ended, and says how.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn join(&self) -> ProcExit {
        let mut exited = self.exited();
        // The sender lives in this handle: the wait ends with the condition.
        let exit = exited.wait_for(Option::is_some).await;
        exit.ok().and_then(|exit| *exit).unwrap_or(ProcExit::Lost)
    }

    /// How the proc ended, and why as far as it is known; `None` until [`exited`](Self::exited) tells.
    #[must_use]
    pub fn certificate(&self) -> Option<Arc<DeathCertificate>> {
        self.inner.certificate.get().cloned()
    }

    /// The last lines that the proc's process wrote to standard output and standard error, also after its end. Empty
    /// where that is not captured; see [`OutputPolicy`](crate::OutputPolicy).
    #[must_use]
    pub fn logs(&self) -> ProcLogs {
        self.inner.handle.logs()
    }

    /// Who wanted the proc to end, as far as it was anybody; [`EndedBy::Itself`] while it runs.
    #[must_use]
    pub fn ended_by(&self) -> EndedBy {
        *self.inner.ended_by.lock()
    }
}

impl fmt::Debug for HostedProc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostedProc")
            .field("proc_id", &format_args!("{}", self.proc_id()))
            .field("pid", &self.info().pid)
            .field("exited", &*self.inner.exited.borrow())
            .finish_non_exhaustive()
    }
}
