//! 256 procs that all talk to each other: how many descriptors that takes, and that links which nobody uses are closed and opened
//! again without loss. The procs live in a few processes, each with its socket and its dialer: what a connection costs and when
//! it is closed does not depend on how many of its procs a process has.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hyperactor_bootstrap::SocketDir;
use hyperactor_bootstrap::mailbox::LocalProcDialer;
use hyperactor_host::RoutePolicy;
use hyperactor_mailbox::{
    Mailbox, MailboxMuxer, MailboxSender, MessageEnvelope, OutcomeReceiver, PortReceiver,
    ReturnHandle, UnroutableMailboxSender,
};
use hyperactor_refs::{ActorId, BindSpec, ChannelAddr, Incarnation, PortId, ProcId};
use hyperactor_router::{MailboxServer, MailboxServerHandle, ServeOptions};
use hyperactor_testkit::eventually;
use libtest_mimic::Trial;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::timeout;

use crate::world::{ROLE, TestResult, trial};

/// The role of a process with a part of the procs.
pub(crate) const PART: &str = "pairs";

/// Which part, and where the sockets are.
const WHICH: &str = "HYPERACTOR_TEST_PAIRS";
const DIR: &str = "HYPERACTOR_TEST_PAIRS_DIR";

const PROCS: usize = 256;
const PARTS: usize = 4;
/// Each proc talks with one other in each round, and with all others in one sweep.
const ROUNDS: usize = PROCS - 1;
/// Rounds of the sweep after everything was closed.
const AGAIN: usize = 16;
/// After it a link that nobody uses is closed, so that the first are while others are opened.
const IDLE: Duration = Duration::from_secs(2);
/// Descriptors of a process beyond those that it had before, and one for each pair that a proc of it is of: connections that two
/// dialled at once, of which one goes, and those that are just accepted.
const CONSTANT: usize = 2 * (PROCS / PARTS);
/// Beyond so many a process waits for links to be closed before it goes on.
const BUDGET: usize = 6_000;
/// Much longer than it takes on an idle machine.
const VERY_LONG: Duration = Duration::from_secs(240);

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "two_hundred_and_fifty_six_procs_in_all_pairs_take_a_descriptor_for_each_pair",
        all_pairs,
    )]
}

async fn all_pairs() -> TestResult {
    let dir = SocketDir::create()?;
    let parts: Vec<Child> = (0..PARTS)
        .map(|part| {
            Command::new(std::env::current_exe()?)
                .env(ROLE, PART)
                .env(WHICH, part.to_string())
                .env(DIR, dir.path())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
        })
        .collect::<Result<_, _>>()?;
    let mut outputs = Vec::new();
    let mut parts: Vec<Child> = parts;
    for part in &mut parts {
        let mut output = BufReader::new(part.stdout.take().ok_or("no output")?);
        // Each goes on answering until all of them have said what they have to say.
        let mut line = String::new();
        output.read_line(&mut line)?;
        println!("{}", line.trim_end());
        outputs.push((line, output));
    }
    for part in &mut parts {
        drop(part.stdin.take());
    }
    for (part, (line, mut output)) in parts.iter_mut().zip(outputs) {
        let mut rest = String::new();
        output.read_to_string(&mut rest)?;
        let status = part.wait()?;
        assert!(status.success() && line.starts_with("DONE"), "{line}{rest}");
    }
    Ok(())
}

struct Node {
    index: usize,
    dialer: LocalProcDialer,
    port: PortId,
    receiver: PortReceiver<u64>,
    _server: MailboxServerHandle,
}

fn proc_id(index: usize) -> ProcId {
    let addr: ChannelAddr = "unix:@hyperactor-pairs-nobody-serves-this"
        .parse()
        .expect("an address");
    ProcId::Direct(addr, format!("p{index}"))
}

fn actor(index: usize) -> (Mailbox, PortId, PortReceiver<u64>) {
    let mailbox = Mailbox::new(ActorId::root(proc_id(index), "actor"));
    let (port, receiver) = mailbox.open_port::<u64>();
    let port = port.bind().into_port_id();
    (mailbox, port, receiver)
}

fn life(index: usize) -> Incarnation {
    Incarnation::new(index as u64 + 1)
}

async fn node(dir: &SocketDir, index: usize) -> TestResult<Node> {
    let (mailbox, port, receiver) = actor(index);
    let muxer = MailboxMuxer::new();
    muxer.bind(mailbox)?;
    // There is no other way than the straight one.
    let nowhere = UnroutableMailboxSender::new("there is no host in this test");
    let frontend = proc_id(index).addr().clone();
    let dialer = LocalProcDialer::new(frontend, dir.path(), nowhere)
        .with_policy(RoutePolicy::Direct)
        .with_link_idle(IDLE);
    let sessions = dialer.sessions_of(life(index), muxer);
    let addr = ChannelAddr::unix_path(dir.socket_path(&format!("p{index}")))?;
    let options = ServeOptions {
        incarnation: life(index),
        ..ServeOptions::default()
    };
    let server = MailboxServer::serve_duplex(BindSpec::from(addr), options, sessions).await?;
    Ok(Node {
        index,
        dialer,
        port,
        receiver,
        _server: server,
    })
}

impl Node {
    fn post(&self, to: usize, number: u64) -> OutcomeReceiver {
        // The number of a port is the same in each of them: each has one.
        let dest = PortId::new(ActorId::root(proc_id(to), "actor"), self.port.index());
        let (handle, outcome) = ReturnHandle::oneshot();
        let sender = self.port.actor_id().clone();
        self.dialer
            .post(MessageEnvelope::typed(sender, dest, number), handle);
        outcome
    }
}

/// Whether a proc sends in a round: in some rounds both of a pair do, at the same time, in the others one.
fn sends(index: usize, bits: usize) -> bool {
    let is_lower = index < index ^ bits;
    bits.is_multiple_of(8) || is_lower == (bits % 2 == 1)
}

/// Each of these procs talks with the one whose index differs from its own by these bits.
async fn round(nodes: &[Node], bits: usize) -> TestResult {
    let number = bits as u64;
    let outcomes: Vec<_> = nodes
        .iter()
        .filter(|node| sends(node.index, bits))
        .map(|node| (node.index, node.post(node.index ^ bits, number)))
        .collect();
    for (index, outcome) in outcomes {
        timeout(VERY_LONG, outcome)
            .await?
            .map_err(|failure| format!("p{index} to p{}: {failure}", index ^ bits))?;
    }
    Ok(())
}

/// What a process with a part of the procs does.
pub(crate) async fn part() -> TestResult {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum;
    setrlimit(Resource::Nofile, Rlimit { current, ..limit })?;
    let which: usize = std::env::var(WHICH)?.parse()?;
    let dir = SocketDir::open(Path::new(&std::env::var(DIR)?))?;
    let size = PROCS / PARTS;
    let mut nodes = Vec::new();
    for index in which * size..(which + 1) * size {
        nodes.push(node(&dir, index).await?);
    }
    for node in &nodes {
        for other in (0..PROCS).filter(|other| *other != node.index) {
            node.dialer.announce(&format!("p{other}"), life(other));
        }
    }
    let sockets: Vec<_> = (0..PROCS)
        .map(|index| dir.socket_path(&format!("p{index}")))
        .collect();
    eventually(VERY_LONG, || sockets.iter().all(|path| path.exists())).await;

    let before = descriptors();
    let mut most = 0;
    for bits in 1..=ROUNDS {
        round(&nodes, bits).await?;
        let used = size * bits;
        let open = descriptors();
        most = most.max(open);
        // Of two that crossed, one goes in a moment: before any of them could have gone because nobody used it.
        eventually(IDLE, || descriptors() <= before + used + CONSTANT).await;
        eventually(VERY_LONG, || descriptors() <= BUDGET).await;
    }
    assert!(most > before + size, "nothing was opened");
    // Everybody is done sooner or later, and nobody's links stay.
    eventually(VERY_LONG, || descriptors() <= before).await;
    for bits in 1..=AGAIN {
        round(&nodes, bits).await?;
    }
    println!("DONE {which}: {before} descriptors before, {most} at most");
    let mut end = Vec::new();
    std::io::stdin().read_to_end(&mut end)?;
    for node in &mut nodes {
        let mut came: Vec<u64> = std::iter::from_fn(|| node.receiver.try_recv()).collect();
        came.sort_unstable();
        let rounds = (1..=ROUNDS).chain(1..=AGAIN);
        let mut sent: Vec<u64> = rounds
            .filter(|bits| sends(node.index ^ bits, *bits))
            .map(|bits| bits as u64)
            .collect();
        sent.sort_unstable();
        assert_eq!(came, sent, "p{}", node.index);
    }
    Ok(())
}

/// How many descriptors this process has open.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count())
}
