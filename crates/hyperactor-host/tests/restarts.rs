//! Procs that end and are started again: what is kept, what is told, and when it is given up. Time is paused.
#![allow(
    clippy::unwrap_used,
    reason = "the panic of a test, and of its helpers, is its report"
)]

use std::sync::Arc;
use std::time::Duration;

use hyperactor_host::{
    DeathCertificate, End, Host, HostedProc, ProcConfig, ProcEvent, ProcExit, ProcHandle, ProcInfo,
    ProcManager, ProcSpawnError, ProcSpec, RestartPolicy,
};
use hyperactor_mailbox::BoxFuture;
use hyperactor_refs::{BindSpec, ChannelAddr, ChannelTransport};
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

const WINDOW: Duration = Duration::from_secs(60);

/// A manager whose procs end when the test says so, and whose starts fail when the test says so.
#[derive(Clone, Default)]
struct Puppets(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// What ends each proc that was made, in the order of their making.
    ends: Vec<watch::Sender<Option<ProcExit>>>,
    fail: u32,
}

impl Puppets {
    /// Ends the proc that was made last.
    fn end(&self, exit: ProcExit) {
        let end = self.0.lock().ends.last().cloned().unwrap();
        end.send_replace(Some(exit));
    }

    fn made(&self) -> usize {
        self.0.lock().ends.len()
    }
}

struct Puppet {
    info: ProcInfo,
    end: watch::Sender<Option<ProcExit>>,
}

impl ProcManager for Puppets {
    fn backend(&self) -> BindSpec {
        BindSpec::Any(ChannelTransport::Local)
    }

    fn spawn(&self, spec: ProcSpec) -> BoxFuture<'_, Result<Box<dyn ProcHandle>, ProcSpawnError>> {
        let mut state = self.0.lock();
        let made = if state.fail > 0 {
            state.fail -= 1;
            let name = spec.proc_id.name().to_owned();
            Err(ProcSpawnError::Stopping { name })
        } else {
            let end = watch::Sender::new(None);
            state.ends.push(end.clone());
            let info = ProcInfo {
                proc_id: spec.proc_id,
                incarnation: spec.incarnation,
                addr: ChannelAddr::local(u64::MAX - 7).unwrap(),
                pid: None,
            };
            Ok(Box::new(Puppet { info, end }) as Box<dyn ProcHandle>)
        };
        Box::pin(std::future::ready(made))
    }
}

impl ProcHandle for Puppet {
    fn info(&self) -> &ProcInfo {
        &self.info
    }

    fn end(&self, _: End) -> BoxFuture<'_, ProcExit> {
        self.end.send_replace(Some(ProcExit::InProcess));
        Box::pin(std::future::ready(ProcExit::InProcess))
    }

    fn exited(&self) -> watch::Receiver<Option<ProcExit>> {
        self.end.subscribe()
    }
}

struct World {
    puppets: Puppets,
    host: Host,
    events: broadcast::Receiver<ProcEvent>,
    first: HostedProc,
}

async fn world(policy: RestartPolicy) -> World {
    let puppets = Puppets::default();
    let host = Host::new(puppets.clone(), ChannelTransport::Local)
        .await
        .unwrap();
    let mut events = host.events();
    let config = ProcConfig::new().with_restart(policy);
    let first = host.spawn("a", config).await.unwrap();
    let (info, restarts) = ready(&mut events).await;
    assert_eq!((&info, restarts), (first.info(), 0));
    World {
        puppets,
        host,
        events,
        first,
    }
}

async fn ready(events: &mut broadcast::Receiver<ProcEvent>) -> (ProcInfo, u32) {
    match events.recv().await.unwrap() {
        ProcEvent::Ready { info, restarts, .. } => (info, restarts),
        other => panic!("{other:?}"),
    }
}

async fn ended(
    events: &mut broadcast::Receiver<ProcEvent>,
) -> (Arc<DeathCertificate>, Option<Duration>) {
    match events.recv().await.unwrap() {
        ProcEvent::Ended {
            certificate,
            restart_in,
        } => (certificate, restart_in),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_proc_that_fails_comes_back_under_its_name_as_another_life() {
    let mut world = world(RestartPolicy::on_failure()).await;
    let mut lives = vec![world.first.info().incarnation];
    for round in 1..=3 {
        world.puppets.end(ProcExit::Signalled(9));
        let (certificate, restart_in) = ended(&mut world.events).await;
        assert_eq!(certificate.incarnation, *lives.last().unwrap());
        assert_eq!(certificate.exit, ProcExit::Signalled(9));
        assert!(!certificate.wanted);
        assert!(restart_in.is_some());
        let error = world.host.spawn("a", ProcConfig::new()).await.unwrap_err();
        assert_eq!(error.code(), "name-in-use", "the name is kept for the proc");
        let (info, restarts) = ready(&mut world.events).await;
        assert_eq!(restarts, round);
        assert!(!lives.contains(&info.incarnation));
        lives.push(info.incarnation);
        assert_eq!(world.host.proc("a").unwrap().info(), &info);
    }
    assert_eq!(world.first.join().await, ProcExit::Signalled(9));
    assert_eq!(world.first.certificate().unwrap().incarnation, lives[0]);
}

#[tokio::test(start_paused = true)]
async fn a_proc_that_ends_too_often_is_given_up_and_its_name_is_free() {
    let mut world = world(RestartPolicy::always().at_most(2, WINDOW)).await;
    for round in 1..=2 {
        world.puppets.end(ProcExit::Exited(1));
        assert!(ended(&mut world.events).await.1.is_some());
        assert_eq!(ready(&mut world.events).await.1, round);
    }
    world.puppets.end(ProcExit::Exited(1));
    assert_eq!(ended(&mut world.events).await.1, None);
    let ProcEvent::GaveUp { proc_id, restarts } = world.events.recv().await.unwrap() else {
        panic!("it was not given up");
    };
    assert_eq!((proc_id.name(), restarts), ("a", 2));
    world.host.spawn("a", ProcConfig::new()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_end_that_was_asked_for_is_final() {
    let mut world = world(RestartPolicy::always()).await;
    world.first.end(End::Kill).await;
    let (certificate, restart_in) = ended(&mut world.events).await;
    assert!(certificate.wanted);
    assert_eq!(restart_in, None);
    assert!(world.host.proc("a").is_none());
    world.host.spawn("a", ProcConfig::new()).await.unwrap();
    assert_eq!(world.puppets.made(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_fails_is_tried_again_like_any_other() {
    let mut world = world(RestartPolicy::always().at_most(3, WINDOW)).await;
    world.puppets.0.lock().fail = 2;
    world.puppets.end(ProcExit::Exited(1));
    assert!(ended(&mut world.events).await.1.is_some());
    for _ in 0..2 {
        match world.events.recv().await.unwrap() {
            ProcEvent::RestartFailed {
                restart_in: Some(_),
                reason,
                ..
            } => assert!(reason.contains("`a`"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ready(&mut world.events).await.1, 3);
}

#[tokio::test(start_paused = true)]
async fn a_proc_that_waits_for_its_restart_can_be_given_up() {
    let hour = Duration::from_secs(3_600);
    let policy = RestartPolicy::always().with_backoff(hour, hour);
    let mut world = world(policy).await;
    assert!(!world.host.give_up("a"), "it runs");
    world.puppets.end(ProcExit::Exited(0));
    assert!(ended(&mut world.events).await.1.is_some());
    assert!(world.host.give_up("a"));
    assert!(!world.host.give_up("a"));
    world.host.spawn("a", ProcConfig::new()).await.unwrap();
    tokio::time::sleep(2 * hour).await;
    assert_eq!(world.puppets.made(), 2, "it came back all the same");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_stops_restarts_nothing() {
    let hour = Duration::from_secs(3_600);
    let policy = RestartPolicy::always().with_backoff(hour, hour);
    let mut world = world(policy).await;
    world.puppets.end(ProcExit::Exited(0));
    assert!(ended(&mut world.events).await.1.is_some());
    let before = tokio::time::Instant::now();
    world.host.stop(Duration::from_secs(1)).await;
    assert!(before.elapsed() < hour / 2, "the stop waited for a restart");
    tokio::time::sleep(2 * hour).await;
    assert_eq!(world.puppets.made(), 1);
}
