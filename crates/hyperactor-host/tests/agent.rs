//! A host as tools see it: through its agent, from another proc with an address of its own.
#![allow(
    clippy::unwrap_used,
    reason = "the panic of a test, and of its helpers, is its report"
)]

use std::time::Duration;

use hyperactor_channel::ServeOptions;
use hyperactor_host::{
    DescribeHost, End, EndProc, Host, HostAgent, LocalProcManager, ProcConfig, ProcExit, ReadLogs,
    SpawnProc, StopHost,
};
use hyperactor_mailbox::MailboxSender;
use hyperactor_proc::{ActorRef, Client, Proc, Registry};
use hyperactor_refs::{ChannelTransport, ProcId};
use hyperactor_router::{DialMailboxRouter, MailboxServer, MailboxServerHandle};

/// A tool: a proc that no host made, reachable for answers.
struct Tool {
    client: Client,
    agent: ActorRef<HostAgent>,
    _proc: Proc,
    _server: MailboxServerHandle,
}

impl Tool {
    async fn of(host: &Host, transport: ChannelTransport) -> Self {
        let router = DialMailboxRouter::new();
        let inbox = router.clone();
        let server = MailboxServer::serve(transport, inbox, ServeOptions::default())
            .await
            .unwrap();
        let proc_id = ProcId::Direct(server.addr().clone(), "tool".to_owned());
        router.own(server.addr().clone());
        let proc = Proc::new(proc_id.clone(), router.boxed());
        router.bind_sender(std::sync::Arc::new(proc_id), proc.clone());
        let client = proc.client("tool").unwrap();
        Self {
            client,
            agent: HostAgent::at(host.addr()),
            _proc: proc,
            _server: server,
        }
    }
}

#[tokio::test]
async fn procs_are_started_seen_and_ended_from_another_proc() {
    for transport in [
        ChannelTransport::Local,
        ChannelTransport::Unix,
        ChannelTransport::Tcp,
    ] {
        let host = Host::new(LocalProcManager::new(Registry::new()), transport)
            .await
            .unwrap();
        let tool = Tool::of(&host, transport).await;
        let (client, agent) = (&tool.client, &tool.agent);

        let spawn = |name: &str| {
            let name = name.to_owned();
            agent.ask(client, move |reply| SpawnProc {
                name,
                config: ProcConfig::new(),
                reply,
            })
        };
        let spawned = spawn("worker").await.unwrap().unwrap();
        assert_eq!(spawned.proc_id.name(), "worker");
        let taken = spawn("worker").await.unwrap().unwrap_err();
        assert_eq!(taken.code, "name-in-use");

        let described = agent
            .ask(client, |reply| DescribeHost { reply })
            .await
            .unwrap()
            .unwrap();
        assert_eq!(described.addr, *host.addr());
        assert_eq!(described.pid, std::process::id());
        assert_eq!(described.procs, [spawned]);

        let end = |name: &str| {
            let (name, how) = (
                name.to_owned(),
                End::Drain {
                    deadline: Duration::from_secs(5),
                },
            );
            agent.ask(client, move |reply| EndProc { name, how, reply })
        };
        let ended = end("worker").await.unwrap().unwrap();
        assert_eq!(ended.certificate.exit, ProcExit::InProcess);
        let unknown = end("worker").await.unwrap().unwrap_err();
        assert_eq!(unknown.code, "no-such-proc");
        assert!(unknown.text.contains("it has none"), "{unknown}");
        assert!(host.procs().is_empty());
        assert!(host.stop(Duration::from_secs(5)).await.is_clean());
    }
}

#[tokio::test]
async fn logs_of_a_proc_that_is_not_there_name_those_that_are() {
    let host = Host::new(
        LocalProcManager::new(Registry::new()),
        ChannelTransport::Local,
    )
    .await
    .unwrap();
    host.spawn("worker", ProcConfig::new()).await.unwrap();
    let tool = Tool::of(&host, ChannelTransport::Local).await;
    let read = |name: &str| {
        let name = name.to_owned();
        tool.agent
            .ask(&tool.client, move |reply| ReadLogs { name, reply })
    };
    assert_eq!(read("worker").await.unwrap().unwrap().dropped, 0);
    let unknown = read("walker").await.unwrap().unwrap_err();
    assert!(unknown.text.contains("it has `worker`"), "{unknown}");
    host.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn the_owner_of_a_host_hears_that_its_end_is_wanted() {
    let host = Host::new(
        LocalProcManager::new(Registry::new()),
        ChannelTransport::Local,
    )
    .await
    .unwrap();
    let tool = Tool::of(&host, ChannelTransport::Local).await;
    let deadline = Duration::from_secs(3);
    tool.agent
        .ask(&tool.client, |reply| StopHost { deadline, reply })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(host.stop_wanted().await, deadline);
    assert!(host.stop(deadline).await.is_clean());
    let late = tool
        .agent
        .ask(&tool.client, |reply| DescribeHost { reply })
        .await;
    assert!(
        late.is_err(),
        "a host that has ended answers nothing: {late:?}"
    );
}
