//! A host that is killed and started again on its old address is usable at once, for those who talked to the life before.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers too: a test's panic is its report"
)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hyperactor::host::{DescribeHost, Guest, HostAgent};
use hyperactor::mailbox::{Notice, ReturnHandle};
use hyperactor::prelude::*;
use hyperactor::router::DialMailboxRouter;
use hyperactor_testkit::TempSocketDir;
use serde_json::Value;

const ROUNDS: usize = 20;

/// From the moment at which the new life says that it serves.
const WORST: Duration = Duration::from_secs(5);

/// A host in a process of its own.
struct Life {
    child: Child,
    addr: ChannelAddr,
}

impl Life {
    fn begin(sockets: &TempSocketDir, bind: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hyperactor"))
            .args(["host", "serve", bind, "--json"])
            .env("XDG_RUNTIME_DIR", sockets.path())
            .env_remove("HYPERACTOR_HOST")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let said: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{bind} was not served again: {error} in {line:?}"));
        let addr = said["addr"].as_str().unwrap().parse().unwrap();
        Self { child, addr }
    }

    /// Without a goodbye, and reaped: its address is nobody's.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Posts until a message arrives; says after how many posts, and after how long.
async fn until_it_arrives(way: &impl MailboxSender, host: &ChannelAddr) -> (u32, Duration) {
    let begun = Instant::now();
    let sender: ActorId = "unix:@client,test,test[0]".parse().unwrap();
    let service = ProcId::direct(host.clone(), "service").unwrap();
    let agent = ActorId::root(service, "host");
    for posts in 1.. {
        let (handle, outcome) = ReturnHandle::oneshot();
        way.post(Notice::Probe.envelope(sender.clone(), &agent), handle);
        // Each post has its outcome; none is waited for in vain.
        match tokio::time::timeout(WORST, outcome).await {
            Ok(Ok(())) => return (posts, begun.elapsed()),
            Ok(Err(failure)) => {
                assert!(begun.elapsed() < WORST, "after {posts} posts: {failure}");
            }
            Err(_) => panic!("post {posts} has no outcome after {:?}", begun.elapsed()),
        }
    }
    unreachable!("posts do not run out")
}

/// Asks the host until it answers: its process, and how many guests it has. A question that was asked before the asker knew of
/// the new life may end with the old one.
async fn described(client: &Client, host: &ChannelAddr) -> (u32, u64) {
    let begun = Instant::now();
    loop {
        let agent = HostAgent::at(host);
        let asked = agent.ask_within(client, WORST, |reply| DescribeHost { reply });
        match asked.await {
            Ok(described) => {
                let described = described.unwrap();
                assert!(begun.elapsed() < WORST);
                return (described.pid, described.guests);
            }
            Err(error) => assert!(begun.elapsed() < WORST, "{error}"),
        }
    }
}

fn rounds_at(bind: &str) {
    let sockets = TempSocketDir::new().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut life = Life::begin(&sockets, bind);
    let addr = life.addr.clone();
    let again = addr.to_string();
    runtime.block_on(async {
        let router = DialMailboxRouter::new();
        let guest = Guest::join(addr.clone()).await.unwrap();
        let client = guest.client("test").unwrap();
        let mut worst = Duration::ZERO;
        let mut at_first = 0;
        for round in 0..ROUNDS {
            // Both have a connection to the life that ends now.
            until_it_arrives(&router, &addr).await;
            assert_eq!(described(&client, &addr).await.0, life.child.id());
            life.kill();
            life = Life::begin(&sockets, &again);
            assert_eq!(life.addr, addr);

            let (posts, took) = until_it_arrives(&router, &addr).await;
            assert!(took < WORST, "round {round}: {took:?}");
            at_first += usize::from(posts == 1);
            worst = worst.max(took);
            // Who has just started knows no client of the life before; it is usable for a new one, too.
            let fresh = DialMailboxRouter::new();
            let (posts, took) = until_it_arrives(&fresh, &addr).await;
            assert_eq!(posts, 1, "round {round}: {took:?}");
            // And the guest is one again, over the connection that it makes by itself.
            let (pid, guests) = described(&client, &addr).await;
            assert_eq!((pid, guests), (life.child.id(), 1), "round {round}");
        }
        eprintln!("{bind}: the worst of {ROUNDS} rounds took {worst:?}; {at_first} arrived at the first post");
        // A client that did not post meanwhile may lose the post that finds the old connection dead, not more.
        assert!(at_first >= ROUNDS / 2, "{at_first} of {ROUNDS}");
    });
    life.kill();
}

#[test]
fn a_host_restarted_on_its_path_is_usable_at_once() {
    let sockets = TempSocketDir::new().unwrap();
    let path = sockets.path().join("host.sock");
    rounds_at(&format!("unix:{}", path.display()));
}

#[test]
fn a_host_restarted_on_its_abstract_name_is_usable_at_once() {
    // Any free one; the next lives have it, too.
    rounds_at("unix:");
}

#[test]
fn a_host_restarted_on_its_port_is_usable_at_once() {
    rounds_at("tcp:127.0.0.1:0");
}
