//! Procs of an earlier life of a host, as a manager finds them for the next. The manager here finds what a test says; real ones
//! are in another crate.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyperactor_host::{
    DeathCertificate, End, Host, HostError, LocalProcManager, OnHostLoss, ProcConfig, ProcEvent,
    ProcExit, ProcHandle, ProcInfo, ProcManager, ProcSpawnError, ProcSpec, RestartPolicy, Survivor,
};
use hyperactor_mailbox::BoxFuture;
use hyperactor_proc::Registry;
use hyperactor_refs::{BindSpec, ChannelAddr, ChannelTransport, Incarnation, ProcId};
use hyperactor_testkit::eventually;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

/// How a survivor is found.
struct Found {
    config: ProcConfig,
    /// `Some`: it has ended already.
    exit: Option<ProcExit>,
    back: oneshot::Receiver<()>,
}

/// A manager of procs in this process that finds one proc of an earlier life, or refuses to.
struct Finds {
    found: Mutex<Option<Result<Found, ProcSpawnError>>>,
    exited: watch::Sender<Option<ProcExit>>,
    abandoned: Arc<AtomicBool>,
    local: LocalProcManager,
}

impl Finds {
    fn new(found: Result<Found, ProcSpawnError>) -> Self {
        Self {
            found: Mutex::new(Some(found)),
            exited: watch::Sender::new(None),
            abandoned: Arc::default(),
            local: LocalProcManager::new(Registry::new()),
        }
    }
}

impl ProcManager for Finds {
    fn backend(&self) -> BindSpec {
        self.local.backend()
    }

    fn spawn(&self, spec: ProcSpec) -> BoxFuture<'_, Result<Box<dyn ProcHandle>, ProcSpawnError>> {
        self.local.spawn(spec)
    }

    fn survivors(
        &self,
        frontend: &ChannelAddr,
        backend: &ChannelAddr,
    ) -> Result<Vec<Survivor>, ProcSpawnError> {
        let Some(found) = self.found.lock().take() else {
            return Ok(Vec::new());
        };
        let found = found?;
        let spec = ProcSpec {
            proc_id: Arc::new(ProcId::direct(frontend.clone(), "old").unwrap()),
            incarnation: Incarnation::new(7),
            frontend: frontend.clone(),
            aliases: Vec::new(),
            backend: backend.clone(),
            config: found.config,
        };
        self.exited.send_replace(found.exit);
        let handle = Handle {
            info: ProcInfo {
                proc_id: Arc::clone(&spec.proc_id),
                incarnation: spec.incarnation,
                addr: backend.clone(),
                pid: Some(1),
            },
            exited: self.exited.clone(),
        };
        let back = found.back;
        Ok(vec![Survivor {
            spec,
            handle: Box::new(handle),
            back: Box::pin(async move { back.await.is_ok() }),
        }])
    }

    fn abandoned(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
    }
}

struct Handle {
    info: ProcInfo,
    exited: watch::Sender<Option<ProcExit>>,
}

impl ProcHandle for Handle {
    fn info(&self) -> &ProcInfo {
        &self.info
    }

    fn end(&self, _: End) -> BoxFuture<'_, ProcExit> {
        self.exited.send_replace(Some(ProcExit::Announced(0)));
        Box::pin(std::future::ready(ProcExit::Announced(0)))
    }

    fn exited(&self) -> watch::Receiver<Option<ProcExit>> {
        self.exited.subscribe()
    }

    fn certificate(&self) -> Option<Arc<DeathCertificate>> {
        let exit = (*self.exited.borrow())?;
        let proc_id = Arc::clone(&self.info.proc_id);
        let end = DeathCertificate::new(proc_id, self.info.incarnation, exit);
        Some(Arc::new(end))
    }
}

fn stays() -> ProcConfig {
    ProcConfig::new().with_on_host_loss(OnHostLoss::Stay)
}

async fn host(manager: Finds) -> Result<Host, HostError> {
    Host::new(manager, ChannelTransport::Local).await
}

fn living() -> (Finds, oneshot::Sender<()>) {
    let (came, back) = oneshot::channel();
    let found = Found {
        config: stays(),
        exit: None,
        back,
    };
    (Finds::new(Ok(found)), came)
}

#[tokio::test]
async fn a_proc_that_lives_on_is_there_at_once_and_announced_when_it_is_back() {
    let (manager, came) = living();
    let abandoned = Arc::clone(&manager.abandoned);
    let host = host(manager).await.unwrap();
    let mut events = host.events();
    let old = host.proc("old").unwrap();
    assert_eq!(old.info().incarnation, Incarnation::new(7));
    let error = host.spawn("old", ProcConfig::new()).await.unwrap_err();
    assert_eq!(error.code(), "name-in-use");
    assert!(events.try_recv().is_err(), "it is not back yet");
    came.send(()).unwrap();
    let ProcEvent::Ready {
        info, taken_back, ..
    } = events.recv().await.unwrap()
    else {
        panic!("something else happened");
    };
    assert_eq!((info, taken_back), (old.info().clone(), true));
    let report = host.stop(Duration::from_secs(1)).await;
    assert!(report.is_clean(), "{report:?}");
    drop(host);
    assert!(!abandoned.load(Ordering::SeqCst), "it was stopped");
}

#[tokio::test]
async fn a_proc_that_died_meanwhile_is_certified_and_started_again_by_its_policy() {
    let (_, back) = oneshot::channel();
    let pause = Duration::from_millis(1);
    let policy = RestartPolicy::on_failure().with_backoff(pause, pause);
    let found = Found {
        config: stays().with_restart(policy),
        exit: Some(ProcExit::Lost),
        back,
    };
    let host = host(Finds::new(Ok(found))).await.unwrap();
    // Asked for late, and told all the same.
    let lives_again = || {
        let proc = host.proc("old");
        proc.is_some_and(|proc| proc.info().incarnation != Incarnation::new(7))
    };
    eventually(Duration::from_secs(10), lives_again).await;
    let mut events = host.events();
    let ProcEvent::Ended {
        certificate,
        restart_in,
    } = events.recv().await.unwrap()
    else {
        panic!("something else happened");
    };
    assert_eq!(certificate.exit, ProcExit::Lost);
    assert!(restart_in.is_some());
    let ProcEvent::Ready {
        info,
        restarts,
        taken_back,
    } = events.recv().await.unwrap()
    else {
        panic!("something else happened");
    };
    assert_eq!((restarts, taken_back), (1, false));
    assert_ne!(info.incarnation, Incarnation::new(7));
    host.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_host_that_is_dropped_abandons_what_it_has() {
    let (manager, _came) = living();
    let abandoned = Arc::clone(&manager.abandoned);
    let host = host(manager).await.unwrap();
    let old = host.proc("old").unwrap();
    drop(host);
    assert!(abandoned.load(Ordering::SeqCst));
    assert_eq!(*old.exited().borrow(), None, "nobody ended it");
}

#[tokio::test]
async fn a_host_does_not_start_where_a_proc_cannot_be_its_own() {
    let refused = ProcSpawnError::Serve {
        name: "old".to_owned(),
        reason: "it is of another host".to_owned(),
    };
    let manager = Finds::new(Err(refused));
    let abandoned = Arc::clone(&manager.abandoned);
    let error = host(manager).await.unwrap_err();
    assert_eq!(error.code(), "serve");
    assert!(abandoned.load(Ordering::SeqCst), "it is left alone");
}
