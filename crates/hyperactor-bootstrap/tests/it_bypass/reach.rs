//! Which addresses are this host, in whatever spelling, and what becomes of messages to those that are not.

use std::path::Path;

use hyperactor_bootstrap::ProcessManager;
use hyperactor_host::{Host, HostedProc, RoutePolicy};
use hyperactor_proc::ActorRef;
use hyperactor_refs::{ActorId, BindSpec, ChannelAddr, ChannelTransport, ProcId};
use hyperactor_testkit::Outcome;
use libtest_mimic::Trial;

use crate::keeper::Keeper;
use crate::live::has_heard_of;
use crate::rig::Rig;
use crate::trial;
use crate::world::{LONG, TestResult, World};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "twelve_spellings_of_the_hosts_address_are_the_host",
            spellings,
        ),
        trial(
            "a_sibling_under_another_frontend_or_an_alias_of_its_host_is_a_sibling",
            several_frontends,
        ),
        trial(
            "what_only_looks_like_the_hosts_address_is_another_host",
            lookalikes,
        ),
        trial(
            "a_message_to_another_host_reaches_the_backend_byte_for_byte",
            another_host,
        ),
    ]
}

/// The keeper of a child, named under another address than the host says.
fn keeper_at(addr: &str, name: &str) -> TestResult<ActorRef<Keeper>> {
    let addr: ChannelAddr = addr.parse()?;
    let proc_id = ProcId::Direct(addr, name.to_owned());
    Ok(ActorRef::attest(ActorId::root(proc_id, "keeper")))
}

struct Served {
    rig: Rig,
    _b: HostedProc,
    keeper: ActorRef<Keeper>,
}

impl Served {
    async fn at(frontend: impl Into<BindSpec>) -> TestResult<Self> {
        let rig = Rig::with(World::at(frontend).await?, |dialer| dialer)?;
        let (_b, keeper) = rig.keeper("b").await?;
        rig.announce(&_b);
        Ok(Self { rig, _b, keeper })
    }

    fn port(&self) -> TestResult<u16> {
        let host_port = self.rig.world.host.addr().host_port();
        Ok(host_port.ok_or("no TCP address")?.port())
    }

    /// Messages under these spellings of the host's address go straight to its child, which takes them for its own.
    async fn takes(self, spellings: &[String]) -> TestResult {
        for (count, spelling) in (1..).zip(spellings) {
            let keeper = keeper_at(spelling, "b")?;
            self.rig.post(&keeper, 1);
            self.rig.posts.all_told(LONG).await;
            let counts = (self.rig.counts("b"), self.rig.backend.count());
            assert_eq!(counts, ((count, 0), count - 1), "{spelling}");
            // The host knows it, too.
            self.rig.posts.post(&self.rig.backend, &keeper);
            self.rig.posts.all_told(LONG).await;
        }
        for fate in self.rig.posts.fates(0) {
            assert_eq!(fate.outcome, Outcome::Delivered, "{}", fate.text);
        }
        let arrived = self.rig.read(&self.keeper, 1).await?;
        assert_eq!(arrived, 2 * spellings.len());
        assert_eq!(self.rig.dialer.remote_count(), 0);
        self.rig.end().await
    }
}

async fn spellings() -> TestResult {
    let tcp = Served::at(ChannelTransport::Tcp).await?;
    let port = tcp.port()?;
    let by_tcp = [
        format!("tcp:127.0.0.1:{port}"),
        format!("tcp://127.0.0.1:{port}"),
        format!("TCP:127.1:0{port}"),
        format!("tcp:[::ffff:127.0.0.1]:{port}"),
        format!("tcp:[0:0:0:0:0:FFFF:7F00:1]:{port}"),
        format!("tcp:0x7f000001:{port}"),
        format!("tcp:localhost:{port}"),
    ];

    let folder = tempfile::tempdir()?;
    let path = folder.path().join("front.sock");
    let (dir, file) = (folder.path().display(), "front.sock");
    let unix = Served::at(ChannelAddr::unix_path(&path)?).await?;
    let by_path = [
        format!("unix:{dir}/{file}"),
        format!("unix://{dir}/{file}"),
        format!("unix:{dir}/.//{file}"),
    ];

    let hidden = Served::at(ChannelTransport::Unix).await?;
    let name = hidden.rig.world.host.addr().to_string();
    let name = name
        .strip_prefix("unix:@hyperactor-")
        .ok_or("another name")?;
    let by_name = [
        format!("unix:@hyperactor-{name}"),
        format!("UNIX:@%68yperactor-{name}"),
    ];

    assert_eq!(by_tcp.len() + by_path.len() + by_name.len(), 12);
    tcp.takes(&by_tcp).await?;
    unix.takes(&by_path).await?;
    hidden.takes(&by_name).await
}

async fn several_frontends() -> TestResult {
    let manager = ProcessManager::new()?;
    let dir = manager.socket_dir().to_path_buf();
    let alias: ChannelAddr = "tcp:a-name-that-only-its-owner-knows:4000".parse()?;
    let host = Host::builder()
        .also_serve(ChannelTransport::Tcp)
        .alias(alias.clone())
        .start(manager, ChannelTransport::Unix)
        .await?;
    let client = host.service_proc().client("test")?;
    let world = World { host, client, dir };
    let pair = world.pair(RoutePolicy::Auto).await?;
    has_heard_of(&world, &pair.a, &pair.b).await?;
    let own = world.host.addr().clone();
    let mut others = world.host.addrs().others().to_vec();
    assert!(others.len() >= 2 && others.contains(&alias), "{others:?}");
    others.insert(0, own);
    for (number, addr) in (0..).zip(&others) {
        let proc_id = ProcId::Direct(addr.clone(), "b".to_owned());
        let sink = ActorRef::attest(ActorId::root(proc_id, "sink"));
        let tally = world.flood(&pair.source, &sink, 100 * number, 100).await?;
        assert_eq!(tally.delivered, 100, "{addr}: {tally:?}");
        let expected = (100 * (number + 1), 0);
        assert_eq!(world.routes(&pair.source, "b").await?, expected, "{addr}");
    }
    assert_eq!(world.arrived(&pair.sink).await?, 100 * others.len() as u64);
    world.end().await
}

async fn lookalikes() -> TestResult {
    let served = Served::at(ChannelTransport::Tcp).await?;
    let port = served.port()?;
    let path = Path::new("/nonexistent").join("b.sock");
    let others = [
        format!("tcp:127.0.0.1:{}", port ^ 1),
        format!("tcp:127.0.0.2:{port}"),
        format!("tcp:[::1]:{port}"),
        format!("tls:127.0.0.1:{port}"),
        format!("unix:{}", path.display()),
        "unix:@b".to_owned(),
    ];
    let rig = served.rig;
    // Nobody is asked: it is the backend's to say what there is.
    rig.backend.shut();
    for (count, other) in (1..).zip(&others) {
        rig.post(&keeper_at(other, "b")?, 1);
        let counts = (rig.counts("b"), rig.backend.count());
        assert_eq!(counts, ((0, 0), count), "{other}");
    }
    assert_eq!(rig.dialer.remote_count(), others.len() as u64);
    drop(rig.backend.take());
    rig.posts.all_told(LONG).await;
    rig.world.end().await
}

async fn another_host() -> TestResult {
    let rig = Rig::new().await?;
    let there = Rig::new().await?;
    // A child of this host has the same name: it is the address that tells them apart.
    let (b, here) = rig.keeper("b").await?;
    rig.announce(&b);
    let (_b, keeper) = there.keeper("b").await?;
    rig.backend.record();
    let posted: Vec<_> = (0..100)
        .map(|_| rig.posts.post_recorded(&rig.dialer, &keeper))
        .collect::<Result<_, _>>()?;
    rig.posts.all_told(LONG).await;
    assert_eq!(rig.backend.recorded(), posted);
    assert_eq!(rig.dialer.remote_count(), 100);
    assert_eq!(rig.counts("b"), (0, 0));
    assert_eq!(rig.read(&here, 1).await?, 0);
    let notes = there.read(&keeper, 1).await?;
    assert_eq!(notes, 100);
    there.world.end().await?;
    rig.world.end().await
}
