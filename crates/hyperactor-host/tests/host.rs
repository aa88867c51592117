//! A host with procs in this process: names, routes between them, and the end.
#![allow(
    clippy::unwrap_used,
    reason = "the panic of a test, and of its helpers, is its report"
)]

use std::sync::Arc;
use std::time::Duration;

use hyperactor_host::{
    End, EndedBy, Host, HostError, LocalProcManager, ProcConfig, ProcExit, ProcHandle, ProcInfo,
    ProcManager, ProcSpawnError, ProcSpec,
};
use hyperactor_mailbox::{
    BoxFuture, Failure, MailboxSender, MessageEnvelope, NotDelivered, ReturnHandle, SendFailure,
};
use hyperactor_proc::{
    Actor, ActorError, ActorRef, ActorResult, Context, Handler, Message, OncePortRef, Registry,
    RemoteSpawn,
};
use hyperactor_refs::{ActorId, BindSpec, ChannelAddr, ChannelTransport, PortId, ProcId};
use hyperactor_router::MailboxClient;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

/// Answers for itself, or asks another.
#[derive(Actor, Default)]
#[actor(messages(Ask))]
struct Parrot;

#[derive(Message, Serialize, Deserialize)]
struct Ask {
    then: Vec<ActorRef<Parrot>>,
    reply: OncePortRef<Vec<String>>,
}

impl RemoteSpawn for Parrot {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self)
    }
}

impl Handler<Ask> for Parrot {
    async fn handle(&mut self, cx: &Context<Self>, ask: Ask) -> ActorResult {
        let mut names = vec![cx.actor_id().proc_id().name().to_owned()];
        if let Some((next, rest)) = ask.then.split_first() {
            let then = rest.to_vec();
            names.extend(next.ask(cx, |reply| Ask { then, reply }).await?);
        }
        cx.reply(ask.reply, names);
        Ok(())
    }
}

async fn host(transport: ChannelTransport) -> Host {
    let manager = LocalProcManager::new(Registry::new().with::<Parrot>());
    Host::new(manager, transport).await.unwrap()
}

const DRAIN: End = End::Drain {
    deadline: Duration::from_secs(5),
};

#[tokio::test]
async fn messages_between_procs_go_through_the_host() {
    for transport in [
        ChannelTransport::Local,
        ChannelTransport::Unix,
        ChannelTransport::Tcp,
    ] {
        let host = host(transport).await;
        let client = host.service_proc().client("test").unwrap();
        let mut parrots = Vec::new();
        for name in ["a", "b", "c"] {
            let proc = host.spawn(name, ProcConfig::new()).await.unwrap();
            parrots.push(proc.spawn::<Parrot>(&client, "parrot", ()).await.unwrap());
        }
        let then = parrots[1..].to_vec();
        let names = parrots[0]
            .ask(&client, |reply| Ask { then, reply })
            .await
            .unwrap();
        assert_eq!(names, ["a", "b", "c"]);
        let report = host.stop(Duration::from_secs(5)).await;
        assert!(report.is_clean(), "{report:?}");
        let ended: Vec<_> = report.procs.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(ended, ["a", "b", "c"]);
    }
}

#[tokio::test]
async fn two_hosts_reach_each_others_procs() {
    let (one, two) = (
        host(ChannelTransport::Unix).await,
        host(ChannelTransport::Tcp).await,
    );
    let client = one.service_proc().client("test").unwrap();
    let near = one.spawn("near", ProcConfig::new()).await.unwrap();
    let far = two.spawn("far", ProcConfig::new()).await.unwrap();
    let near = near.spawn::<Parrot>(&client, "parrot", ()).await.unwrap();
    let far = far.spawn::<Parrot>(&client, "parrot", ()).await.unwrap();
    let then = vec![far];
    let names = near
        .ask(&client, |reply| Ask { then, reply })
        .await
        .unwrap();
    assert_eq!(names, ["near", "far"]);
    one.stop(Duration::from_secs(5)).await;
    two.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn an_unknown_name_comes_back_at_once_with_the_names_there_are() {
    let host = host(ChannelTransport::Unix).await;
    host.spawn("a", ProcConfig::new()).await.unwrap();
    // From outside, by the frontend.
    let outside = MailboxClient::dial(host.addr().clone());
    let (handle, outcome) = ReturnHandle::oneshot();
    let nobody = host.proc_id("nobody").unwrap();
    outside.post(envelope(nobody), handle);
    let Err(SendFailure::Returned(report)) = outcome.await else {
        panic!("it was delivered")
    };
    let Failure::NotDelivered(NotDelivered::UnknownProc {
        host: at, known, ..
    }) = report.failure
    else {
        panic!("{}", report.failure);
    };
    assert_eq!(at, *host.addr());
    assert_eq!(known, ["a", "service"]);
    host.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn the_frontend_is_no_relay_for_strangers() {
    let (host, other) = (
        host(ChannelTransport::Unix).await,
        host(ChannelTransport::Unix).await,
    );
    let outside = MailboxClient::dial(host.addr().clone());
    let (handle, outcome) = ReturnHandle::oneshot();
    outside.post(envelope(other.proc_id("service").unwrap()), handle);
    let failure = outcome.await.unwrap_err().into_failure();
    assert_eq!(failure.code(), "no-route", "{failure}");
    host.stop(Duration::from_secs(5)).await;
    other.stop(Duration::from_secs(5)).await;
}

fn envelope(proc_id: ProcId) -> MessageEnvelope {
    let stranger = ProcId::direct("unix:@stranger".parse().unwrap(), "stranger").unwrap();
    let dest = PortId::new(ActorId::root(proc_id, "parrot"), 1);
    MessageEnvelope::typed(ActorId::root(stranger, "stranger"), dest, 7u64)
}

#[tokio::test]
async fn names_are_checked_and_free_after_the_exit() {
    let host = host(ChannelTransport::Local).await;
    let refused = |error: HostError| error.code();
    assert_eq!(
        host.spawn("", ProcConfig::new())
            .await
            .map_err(refused)
            .unwrap_err(),
        "name"
    );
    assert_eq!(
        host.spawn("service", ProcConfig::new())
            .await
            .map_err(refused)
            .unwrap_err(),
        "reserved"
    );
    let first = host.spawn("a", ProcConfig::new()).await.unwrap();
    assert_eq!(
        host.spawn("a", ProcConfig::new())
            .await
            .map_err(refused)
            .unwrap_err(),
        "name-in-use"
    );
    assert_eq!(first.end(DRAIN).await, ProcExit::InProcess);
    assert_eq!(first.ended_by(), EndedBy::Caller);
    assert!(host.proc("a").is_none());
    let second = host.spawn("a", ProcConfig::new()).await.unwrap();
    assert_ne!(first.info().incarnation, second.info().incarnation);
    let report = host.stop(Duration::from_secs(5)).await;
    assert_eq!(second.ended_by(), EndedBy::Host);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(
        host.spawn("b", ProcConfig::new())
            .await
            .map_err(refused)
            .unwrap_err(),
        "stopping"
    );
    assert!(host.stop(Duration::from_secs(5)).await.procs.is_empty());
}

#[tokio::test]
async fn a_message_to_a_proc_that_has_ended_comes_back() {
    let host = host(ChannelTransport::Unix).await;
    let client = host.service_proc().client("test").unwrap();
    let proc = host.spawn("a", ProcConfig::new()).await.unwrap();
    let parrot = proc.spawn::<Parrot>(&client, "parrot", ()).await.unwrap();
    proc.end(DRAIN).await;
    let error = parrot
        .ask(&client, |reply| Ask {
            then: vec![],
            reply,
        })
        .await
        .unwrap_err();
    assert!(error.to_string().contains("has ended"), "{error}");
    // A post comes back with what is known of the end.
    let (reply, _answer) = client.mailbox().open_once_port::<Vec<String>>();
    let then = vec![];
    let reply = reply.bind();
    parrot.post(&client, Ask { then, reply });
    let report = client.try_next_undeliverable().unwrap();
    let certificate = report.certificate.unwrap();
    assert_eq!(certificate.exit, ProcExit::InProcess);
    assert!(certificate.wanted);
    assert_eq!(Some(certificate), proc.certificate());
    // In its next life it is reached again.
    let proc = host.spawn("a", ProcConfig::new()).await.unwrap();
    let parrot = proc.spawn::<Parrot>(&client, "parrot", ()).await.unwrap();
    let ask = |reply| Ask {
        then: vec![],
        reply,
    };
    assert_eq!(parrot.ask(&client, ask).await.unwrap(), ["a"]);
    host.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn dropping_a_host_ends_its_procs() {
    let host = host(ChannelTransport::Local).await;
    let proc = host.spawn("a", ProcConfig::new()).await.unwrap();
    drop(host);
    assert_eq!(proc.join().await, ProcExit::InProcess);
    assert_eq!(proc.ended_by(), EndedBy::Host);
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let first = host(ChannelTransport::Unix).await;
    let manager = LocalProcManager::new(Registry::new());
    let error = Host::new(manager, first.addr().clone()).await.unwrap_err();
    assert_eq!(error.code(), "frontend");
    assert!(
        error.to_string().contains(&first.addr().to_string()),
        "{error}"
    );
    first.stop(Duration::from_secs(1)).await;
}

/// A manager whose procs get ready, or end, when the test says so.
#[derive(Clone, Default)]
struct Puppets(Arc<PuppetState>);

struct PuppetState {
    ready: Semaphore,
    exits: Mutex<Vec<watch::Sender<Option<ProcExit>>>>,
}

impl Default for PuppetState {
    fn default() -> Self {
        Self {
            ready: Semaphore::new(0),
            exits: Mutex::default(),
        }
    }
}

struct Puppet {
    info: ProcInfo,
    exited: watch::Receiver<Option<ProcExit>>,
}

impl ProcManager for Puppets {
    fn backend(&self) -> BindSpec {
        BindSpec::Any(ChannelTransport::Local)
    }

    fn spawn(&self, spec: ProcSpec) -> BoxFuture<'_, Result<Box<dyn ProcHandle>, ProcSpawnError>> {
        Box::pin(async move {
            self.0.ready.acquire().await.unwrap().forget();
            let exit = watch::Sender::new(None);
            let exited = exit.subscribe();
            self.0.exits.lock().push(exit);
            let addr = ChannelAddr::local(u64::MAX - 7).unwrap();
            let ProcSpec {
                proc_id,
                incarnation,
                ..
            } = spec;
            let info = ProcInfo {
                proc_id,
                incarnation,
                addr,
                pid: None,
            };
            Ok(Box::new(Puppet { info, exited }) as Box<dyn ProcHandle>)
        })
    }
}

impl ProcHandle for Puppet {
    fn info(&self) -> &ProcInfo {
        &self.info
    }

    fn end(&self, _: End) -> BoxFuture<'_, ProcExit> {
        Box::pin(std::future::pending())
    }

    fn exited(&self) -> watch::Receiver<Option<ProcExit>> {
        self.exited.clone()
    }
}

#[tokio::test]
async fn a_slow_start_delays_nobody_and_a_dropped_one_frees_its_name() {
    let puppets = Puppets::default();
    let host = Host::new(puppets.clone(), ChannelTransport::Local)
        .await
        .unwrap();
    let mut slow = Box::pin(host.spawn("slow", ProcConfig::new()));
    assert!(futures_util::poll!(slow.as_mut()).is_pending());
    let error = host.spawn("slow", ProcConfig::new()).await.unwrap_err();
    assert_eq!(error.code(), "name-in-use");
    drop(slow);
    puppets.0.ready.add_permits(2);
    let slow = host.spawn("slow", ProcConfig::new()).await.unwrap();
    host.spawn("other", ProcConfig::new()).await.unwrap();
    let exit = puppets.0.exits.lock().remove(0);
    exit.send_replace(Some(ProcExit::Signalled(11)));
    assert_eq!(slow.join().await, ProcExit::Signalled(11));
    assert_eq!(slow.ended_by(), EndedBy::Itself);
    let names: Vec<_> = host
        .procs()
        .iter()
        .map(|hosted| hosted.name().to_owned())
        .collect();
    assert_eq!(names, ["other"]);
    assert_eq!(
        host.router().bound().len(),
        2,
        "the service proc and `other`"
    );
}
