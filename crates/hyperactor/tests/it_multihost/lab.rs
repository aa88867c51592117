//! The laboratory of one scenario: machines around a bridge, and the observer at it, who reaches all of them whatever is cut
//! between them.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::pin::Pin;
use std::time::{Duration, Instant};

use hyperactor::host::{
    DescribeHost, EndProc, HostAgent, HostRefusal, LocalProcManager, ProcDescription, SpawnProc,
    StopHost,
};
use hyperactor::prelude::*;
use hyperactor::proc::{ProcWatch, spawn_remote};
use hyperactor::refs::BindSpec;
use hyperactor_testkit::TempSocketDir;

use crate::actors::{Node, Told};
use crate::machine::{READY, in_the_open};
use crate::namespace::{Namespace, Owned, ip};

/// How long is waited for what takes no time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How soon traffic flows again when what hindered it has ended.
pub(crate) const HEALED_WITHIN: Duration = Duration::from_secs(5);

/// What playing a scenario is.
pub(crate) type Played = Pin<Box<dyn Future<Output = ()>>>;

/// The network of all machines; it is known in their namespaces only.
const NETWORK: &str = "10.77.0";
const PORT: u16 = 7_000;

/// Fails a test that waits for what does not come.
#[track_caller]
pub(crate) fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        tokio::time::timeout(PATIENCE, future)
            .await
            .unwrap_or_else(|_| panic!("what {caller} waits for did not happen in time"))
    }
}

/// One machine.
pub(crate) struct Machine {
    number: usize,
    namespace: Namespace,
    pub(crate) addr: ChannelAddr,
    host: Option<Owned>,
    /// How many hosts were started on it.
    lives: u32,
}

pub(crate) struct Lab {
    folder: TempSocketDir,
    pub(crate) machines: Vec<Machine>,
    host: Host,
    pub(crate) client: Client,
    notes: PortReceiver<Told>,
    port: PortRef<Told>,
    began: Instant,
    scenario: &'static str,
}

/// Finds out whether there can be laboratories.
pub(crate) async fn probe() {
    bridge();
    let namespace = Namespace::new().unwrap();
    attach(&namespace, 1);
    cut_port(1, true);
}

/// Makes the bridge of the observer, which is a machine at it, too.
fn bridge() {
    ip("link set lo up");
    ip("link add name middle type bridge");
    ip(&format!("addr add {NETWORK}.254/24 dev middle"));
    ip("link set middle up");
}

/// Joins a machine with the bridge.
fn attach(namespace: &Namespace, number: usize) {
    let pid = namespace.pid();
    ip(&format!(
        "link add name port{number} type veth peer name wire netns {pid}"
    ));
    ip(&format!("link set port{number} master middle"));
    ip(&format!("link set port{number} up"));
    namespace.ip("link set lo up");
    namespace.ip(&format!("addr add {NETWORK}.{number}/24 dev wire"));
    namespace.ip("link set wire up");
}

/// Cuts a port of the bridge off from the others that are cut, so that no end of a link sees anything.
fn cut_port(number: usize, is_cut: bool) {
    let state = if is_cut { "on" } else { "off" };
    ip(&format!(
        "link set port{number} type bridge_slave isolated {state}"
    ));
}

impl Lab {
    /// Makes machines numbered from 1, with a host on each.
    pub(crate) async fn new(scenario: &'static str, count: usize) -> Self {
        let folder = TempSocketDir::new().unwrap();
        bridge();
        let mut machines: Vec<_> = (1..=count)
            .map(|number| {
                let namespace = Namespace::new().unwrap();
                attach(&namespace, number);
                Machine {
                    number,
                    namespace,
                    addr: format!("tcp:{NETWORK}.{number}:{PORT}").parse().unwrap(),
                    host: None,
                    lives: 0,
                }
            })
            .collect();
        for machine in &mut machines {
            machine.start(folder.path());
        }
        let frontend: BindSpec = format!("tcp:{NETWORK}.254:{PORT}").parse().unwrap();
        let host = Host::builder()
            .serve_options(in_the_open())
            .start(LocalProcManager::new(Registry::new()), frontend)
            .await
            .unwrap();
        let client = host.service_proc().client("observer").unwrap();
        let (handle, notes) = client.mailbox().open_port::<Told>();
        let port = handle.bind();
        Self {
            folder,
            machines,
            host,
            client,
            notes,
            port,
            began: Instant::now(),
            scenario,
        }
    }

    /// Tells what happens, for whoever reads the output of a test.
    pub(crate) fn say(&self, words: impl std::fmt::Display) {
        let time = self.began.elapsed().as_secs_f64();
        eprintln!("{:16} {time:7.3} s  {words}", self.scenario);
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn machine(&mut self, number: usize) -> &mut Machine {
        &mut self.machines[number - 1]
    }

    pub(crate) fn addr(&self, number: usize) -> ChannelAddr {
        self.machines[number - 1].addr.clone()
    }

    /// Cuts all machines off from each other, or joins them again. The observer reaches them all the time.
    pub(crate) fn partition(&self, is_cut: bool) {
        for machine in &self.machines {
            cut_port(machine.number, is_cut);
        }
        self.say(if is_cut { "cut" } else { "healed" });
    }

    /// Watches the present life of a machine's host from here. Who asks the next life before this one is known to be lost is told of
    /// the loss instead of an answer.
    pub(crate) async fn watch_host(&self, machine: usize) -> ProcWatch {
        let agent = HostAgent::at(&self.addr(machine));
        let watch = self
            .host
            .service_proc()
            .watch_proc(agent.actor_id().proc_id());
        // Behind the question that finds out which life this is.
        let asked = agent.ask_within(&self.client, PATIENCE, |reply| DescribeHost { reply });
        asked.await.unwrap().unwrap();
        watch
    }

    /// Starts a proc on a machine's host.
    pub(crate) async fn spawn_proc(&self, machine: usize, name: &str) -> ProcDescription {
        let agent = HostAgent::at(&self.addr(machine));
        let asked = agent.ask_within(&self.client, PATIENCE, |reply| SpawnProc {
            name: name.to_owned(),
            config: ProcConfig::new(),
            reply,
        });
        asked.await.unwrap().unwrap()
    }

    pub(crate) async fn kill_proc(&self, machine: usize, name: &str) {
        let agent = HostAgent::at(&self.addr(machine));
        let asked = agent.ask_within(&self.client, PATIENCE, |reply| EndProc {
            name: name.to_owned(),
            how: hyperactor::host::End::Kill,
            reply,
        });
        asked.await.unwrap().unwrap();
    }

    /// Spawns an actor in a proc of any machine.
    pub(crate) async fn spawn<A: RemoteSpawn>(
        &self,
        place: &ProcId,
        name: &str,
        params: A::Params,
    ) -> ActorRef<A> {
        soon(spawn_remote::<A>(&self.client, place, name, params))
            .await
            .unwrap()
    }

    /// Spawns a node that reports here.
    pub(crate) async fn node(&self, place: &ProcId, name: &str) -> ActorRef<Node> {
        self.spawn::<Node>(place, name, self.port.clone()).await
    }

    /// What a node was told next.
    pub(crate) async fn told(&mut self, within: Duration) -> Told {
        tokio::time::timeout(within, self.notes.recv())
            .await
            .expect("nobody was told anything in time")
            .unwrap()
    }

    /// What was told already.
    pub(crate) fn told_so_far(&mut self) -> Option<Told> {
        self.notes.try_recv()
    }

    /// Ends all hosts in order; nothing may be left of them.
    pub(crate) async fn end(mut self) {
        for machine in &mut self.machines {
            let agent = HostAgent::at(&machine.addr);
            let asked: Result<Result<(), HostRefusal>, _> = agent
                .ask_within(&self.client, PATIENCE, |reply| StopHost {
                    deadline: Duration::from_secs(5),
                    reply,
                })
                .await;
            asked.unwrap().unwrap();
            let host = machine.host.take().unwrap();
            let status = tokio::task::spawn_blocking(move || host.end());
            assert!(soon(status).await.unwrap().unwrap().success());
            let left: Vec<_> = std::fs::read_dir(machine.sockets(self.folder.path()))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            assert!(left.is_empty(), "left behind: {left:?}");
        }
        let report = self.host.stop(Duration::from_secs(5)).await;
        assert!(report.is_clean(), "{report:?}");
        self.say("ended");
    }
}

impl Machine {
    fn sockets(&self, folder: &Path) -> std::path::PathBuf {
        folder.join(format!("m{}", self.number))
    }

    /// Starts a host at the machine's address, and returns when it can be reached.
    pub(crate) fn start(&mut self, folder: &Path) {
        let sockets = self.sockets(folder);
        if self.lives == 0 {
            let mut private = std::fs::DirBuilder::new();
            private.mode(0o700).create(&sockets).unwrap();
        }
        self.lives += 1;
        let addr = self.addr.to_string();
        let mut host = self.namespace.start("machine", &addr, &sockets).unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(host.stdout().unwrap());
        out.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), READY, "the host at {addr} did not start");
        self.host = Some(host);
    }

    /// Kills the host, and takes the machine off the network in the same moment.
    pub(crate) fn vanish(&mut self) {
        self.link(false);
        self.host.take().unwrap().kill().unwrap();
    }

    /// Takes the machine's link down, or up.
    pub(crate) fn link(&self, is_up: bool) {
        let state = if is_up { "up" } else { "down" };
        self.namespace.ip(&format!("link set wire {state}"));
    }

    /// Has what leaves the machine lost, delayed and disordered.
    pub(crate) fn weather(&self, netem: &str) {
        self.namespace
            .tc(&format!("qdisc add dev wire root netem {netem}"));
    }
}
