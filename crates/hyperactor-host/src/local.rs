//! Procs in this process: [`LocalProcManager`]. For tests, and for programs that want hosts without processes.

use std::sync::Arc;
use std::time::Duration;

use hyperactor_channel::ServeOptions;
use hyperactor_mailbox::{BoxFuture, ProcExit};
use hyperactor_proc::{Proc, ProcAgent, Registry};
use hyperactor_refs::{BindSpec, ChannelTransport};
use hyperactor_router::{MailboxServer, MailboxServerHandle};
use tokio::sync::watch;

use crate::forwarding::{BackendForwarding, Forwarding};
use crate::limits;
use crate::manager::{ProcHandle, ProcManager, ProcSpawnError};
use crate::spec::{End, ProcInfo, ProcSpec};

/// Makes procs in this process, each with an address and an agent of its own, as if it were a process.
pub struct LocalProcManager {
    registry: Registry,
    forwarding: Arc<dyn Forwarding>,
    bind: Arc<dyn Fn(&ProcSpec) -> BindSpec + Send + Sync>,
    backend: BindSpec,
    /// Dropped with the manager: then its procs end.
    alive: watch::Sender<()>,
}

impl LocalProcManager {
    /// A manager whose procs can spawn the actors of `registry`. Everything moves by in-process channels, and every message
    /// between two procs goes through the host.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self {
            registry,
            forwarding: Arc::new(BackendForwarding),
            bind: Arc::new(|_| BindSpec::Any(ChannelTransport::Local)),
            backend: BindSpec::Any(ChannelTransport::Local),
            alive: watch::Sender::new(()),
        }
    }

    /// Chooses the forwarder of each proc.
    #[must_use]
    pub fn with_forwarding(mut self, forwarding: impl Forwarding) -> Self {
        self.forwarding = Arc::new(forwarding);
        self
    }

    /// Chooses where each proc is served.
    #[must_use]
    pub fn with_bind(
        mut self,
        bind: impl Fn(&ProcSpec) -> BindSpec + Send + Sync + 'static,
    ) -> Self {
        self.bind = Arc::new(bind);
        self
    }

    /// Chooses where the host listens for these procs.
    #[must_use]
    pub fn with_backend(mut self, backend: impl Into<BindSpec>) -> Self {
        self.backend = backend.into();
        self
    }

    async fn make(&self, spec: ProcSpec) -> Result<Box<dyn ProcHandle>, ProcSpawnError> {
        let name = spec.proc_id.name().to_owned();
        let forwarder = self.forwarding.forwarder(&spec);
        let proc = Proc::with_incarnation((*spec.proc_id).clone(), spec.incarnation, forwarder);
        let options = ServeOptions {
            incarnation: spec.incarnation,
            ..ServeOptions::default()
        };
        // Served before the agent runs: whoever hears from it can answer.
        let server = MailboxServer::serve((self.bind)(&spec), proc.clone(), options)
            .await
            .map_err(|error| ProcSpawnError::Serve {
                name: name.clone(),
                reason: error.to_string(),
            })?;
        ProcAgent::spawn_in(&proc, self.registry.clone()).map_err(|error| {
            let code = error.code().to_owned();
            ProcSpawnError::Refused {
                name: name.clone(),
                code,
                reason: error.to_string(),
            }
        })?;
        let info = ProcInfo {
            proc_id: spec.proc_id,
            incarnation: spec.incarnation,
            addr: server.addr().clone(),
            pid: None,
        };
        let wish = watch::Sender::new(None);
        let exited = watch::Sender::new(None);
        let exit = exited.subscribe();
        let (wishes, alive) = (wish.subscribe(), self.alive.subscribe());
        tokio::spawn(async move {
            live(proc, server, wishes, alive).await;
            exited.send_replace(Some(ProcExit::InProcess));
        });
        Ok(Box::new(LocalProc {
            info,
            wish,
            exited: exit,
        }))
    }
}

/// The life of a proc in this process, until it has ended.
async fn live(
    proc: Proc,
    server: MailboxServerHandle,
    mut wishes: watch::Receiver<Option<End>>,
    mut alive: watch::Receiver<()>,
) {
    let mut end = tokio::select! {
        end = next_wish(&mut wishes) => end,
        // The manager is gone.
        _ = alive.changed() => End::Kill,
    };
    loop {
        let deadline = match end {
            End::Drain { deadline } => deadline,
            _ => Duration::ZERO,
        };
        tokio::select! {
            report = proc.stop(deadline) => {
                tracing::debug!(target: "hyperactor::host", event = "proc.stopped", proc = %proc.proc_id(), ?report, "a proc in this process has stopped");
                break;
            }
            // A more forceful wish overtakes a drain.
            harder = next_wish(&mut wishes), if deadline > Duration::ZERO => end = harder,
        }
    }
    if tokio::time::timeout(limits::SERVER_STOP_TIMEOUT, server.stop())
        .await
        .is_err()
    {
        tracing::debug!(target: "hyperactor::host", proc = %proc.proc_id(), "the server of a proc did not say goodbye in time");
    }
}

async fn next_wish(wishes: &mut watch::Receiver<Option<End>>) -> End {
    match wishes.changed().await {
        Ok(()) => wishes.borrow_and_update().unwrap_or(End::Kill),
        // The handle is gone.
        Err(_) => End::Kill,
    }
}

impl ProcManager for LocalProcManager {
    fn backend(&self) -> BindSpec {
        self.backend.clone()
    }

    fn spawn(&self, spec: ProcSpec) -> BoxFuture<'_, Result<Box<dyn ProcHandle>, ProcSpawnError>> {
        Box::pin(self.make(spec))
    }
}

impl std::fmt::Debug for LocalProcManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalProcManager")
            .field("backend", &self.backend)
            .field("procs", &self.alive.receiver_count())
            .finish_non_exhaustive()
    }
}

/// A proc in this process.
struct LocalProc {
    info: ProcInfo,
    wish: watch::Sender<Option<End>>,
    exited: watch::Receiver<Option<ProcExit>>,
}

impl ProcHandle for LocalProc {
    fn info(&self) -> &ProcInfo {
        &self.info
    }

    fn end(&self, how: End) -> BoxFuture<'_, ProcExit> {
        self.wish.send_if_modified(|wish| {
            let first_or_harder = wish.is_none() || (how == End::Kill && *wish != Some(End::Kill));
            if first_or_harder {
                *wish = Some(how);
            }
            first_or_harder
        });
        let mut exited = self.exited.clone();
        Box::pin(async move {
            match exited.wait_for(Option::is_some).await {
                Ok(exit) => exit.unwrap_or(ProcExit::Lost),
                // Its runtime ended, and the proc with it.
                Err(_) => ProcExit::Lost,
            }
        })
    }

    fn exited(&self) -> watch::Receiver<Option<ProcExit>> {
        self.exited.clone()
    }
}
