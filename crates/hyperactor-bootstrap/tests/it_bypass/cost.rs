//! What a message on the straight way costs its sender: system calls, allocations, and nobody else's time.

use std::collections::BTreeMap;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyperactor_bootstrap::mailbox::LocalProcDialer;
use hyperactor_bootstrap::{LaunchOrder, Launcher, ProcessManager, socket_name};
use hyperactor_channel::DialOptions;
use hyperactor_host::RoutePolicy;
use hyperactor_mailbox::{
    MailboxSender, MessageEnvelope, ReturnHandle, ReturnSink, Token, Undeliverable,
};
use hyperactor_proc::{
    Actor, ActorError, ActorRef, ActorResult, Context, Handler, Message, OncePortRef, RemoteSpawn,
};
use hyperactor_refs::{ActorId, ChannelTransport};
use hyperactor_router::MailboxClient;
use hyperactor_testkit::{Outcome, eventually};
use libtest_mimic::Trial;
use serde::{Deserialize, Serialize};

use crate::actors::{self, Arrived, Inspector, Item, Sink, Touch};
use crate::live::has_heard_of;
use crate::needs;
use crate::rig::Rig;
use crate::trial;
use crate::world::{LONG, TestResult, World};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        needs::strace(trial(
            "a_hundred_thousand_messages_straight_do_not_touch_the_file_system",
            no_file_calls,
        )),
        needs::strace(trial(
            "a_stream_straight_makes_few_system_calls_and_a_question_one_write_each_way",
            system_calls,
        )),
        trial(
            "a_message_straight_costs_its_process_two_allocations_at_most",
            allocations,
        ),
        trial(
            "a_dial_that_hangs_delays_no_post_and_no_other_sibling",
            hanging_dials,
        ),
    ]
}

/// Starts some children under `strace`, which writes down what system calls they make. A child stays the host's own: with
/// `-D` it is the tracer that is the grandchild.
struct Traced {
    names: &'static [&'static str],
    /// Which calls, as `strace` is told.
    calls: &'static [&'static str],
    /// Where the log of each is, under its name.
    folder: PathBuf,
}

impl Launcher for Traced {
    fn launch(&self, order: LaunchOrder) -> std::io::Result<Child> {
        let program = order.program();
        if !self.names.contains(&order.name()) {
            return order.into_command(program).spawn();
        }
        let log = self.folder.join(order.name());
        let mut command = order.into_command("strace");
        command.args(["-D", "-f", "-qq"]).args(self.calls);
        command.arg("-o").arg(log).arg("--").arg(program);
        command.spawn()
    }
}

/// Has an inspector look for a file of a name, so that its process's log shows when.
async fn touch(
    world: &World,
    inspector: &ActorRef<Inspector>,
    folder: &Path,
    name: &str,
) -> TestResult {
    let path = folder.join(name).display().to_string();
    let touch = |reply| Touch { path, reply };
    inspector.ask_within(&world.client, LONG, touch).await?;
    Ok(())
}

/// Where a file was looked for, in a log.
fn touched(calls: &[&str], folder: &Path, name: &str) -> TestResult<usize> {
    let path = format!("\"{}\"", folder.join(name).display());
    let at = calls.iter().position(|call| call.contains(&path));
    Ok(at.ok_or_else(|| format!("{name} is not in the log"))?)
}

async fn no_file_calls() -> TestResult {
    const MESSAGES: u64 = 100_000;
    let folder = tempfile::tempdir()?;
    let traced = Traced {
        names: &["a"],
        calls: &["--seccomp-bpf", "-e", "trace=%file"],
        folder: folder.path().to_path_buf(),
    };
    let manager = ProcessManager::new()?.with_launcher(traced);
    let world = World::of(manager, ChannelTransport::Unix).await?;
    let pair = world.pair(RoutePolicy::Auto).await?;
    let inspector = pair
        .a
        .spawn::<Inspector>(&world.client, "inspector", ())
        .await?;
    has_heard_of(&world, &pair.a, &pair.b).await?;
    // The connection is there; what follows is the posting alone.
    let tally = world.flood(&pair.source, &pair.sink, 0, 100).await?;
    assert_eq!(tally.delivered, 100, "{tally:?}");
    touch(&world, &inspector, folder.path(), "begin").await?;
    let tally = world.flood(&pair.source, &pair.sink, 100, MESSAGES).await?;
    touch(&world, &inspector, folder.path(), "end").await?;
    assert_eq!(tally.delivered, MESSAGES, "{tally:?}");
    let (direct, relay) = world.routes(&pair.source, "b").await?;
    assert!(direct >= MESSAGES && relay == 0, "{direct} and {relay}");
    world.end().await?;

    let trace = std::fs::read_to_string(folder.path().join("a"))?;
    let calls: Vec<&str> = trace.lines().filter(|line| line.contains('(')).collect();
    let begin = touched(&calls, folder.path(), "begin")?;
    let end = touched(&calls, folder.path(), "end")?;
    assert!(begin > 10, "the start alone makes more calls: {begin}");
    // What is in hand for long is written down by a thread of its own, by descriptor once the file is open.
    let (hands, others): (Vec<&str>, _) = calls[begin + 1..end]
        .iter()
        .partition(|call| call.contains(".hand\""));
    assert!(hands.len() <= 1, "{hands:?}");
    // The C library's allocator looks at this once in the life of a process, when it first gives memory back.
    let (allocator, others): (Vec<&str>, _) = others
        .iter()
        .partition(|call| call.contains("\"/proc/sys/vm/overcommit_memory\""));
    assert!(allocator.len() <= 1, "{allocator:?}");
    // Where a turn takes long, as it may under `strace`, the kernel is asked what the thread did, before and after the next eight.
    let (asked, others): (Vec<&str>, _) = others.iter().partition(|call| {
        call.contains("\"/proc/thread-self/schedstat\"") || call.contains("\"/proc/self/task/")
    });
    assert!((asked.len() as u64) < MESSAGES / 100, "{}", asked.len());
    assert_eq!(others, Vec::<&str>::new());
    Ok(())
}

/// Asks a sink again and again.
#[derive(Actor, Default)]
#[actor(messages(AskOften))]
pub(crate) struct Asker;

/// To ask so many questions, one after the other.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct AskOften {
    of: ActorRef<Sink>,
    count: u64,
    done: OncePortRef<()>,
}

impl RemoteSpawn for Asker {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self)
    }
}

impl Handler<AskOften> for Asker {
    async fn handle(&mut self, cx: &Context<Self>, often: AskOften) -> ActorResult {
        for _ in 0..often.count {
            often.of.ask(cx, Arrived).await?;
        }
        cx.reply(often.done, ());
        Ok(())
    }
}

/// System calls by name, of a part of a log.
fn tally(calls: &[&str]) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for call in calls {
        // The number of the thread, then the call. What was interrupted by another thread's is there once more, "resumed".
        let name = call.split_whitespace().nth(1).unwrap_or_default();
        if let Some((name, _)) = name.split_once('(') {
            *found.entry(name.to_owned()).or_default() += 1;
        }
    }
    found
}

/// Messages in a stream share their system calls: those that write them, those that read them, and those that sleep and
/// wake. Of questions, one after the other, each goes by a write, and so does each answer; what acknowledges them is in
/// those. How often a process looks whether something has come, before it sleeps, is up to the machine, and is not counted.
async fn system_calls() -> TestResult {
    const STREAM: u64 = 50_000;
    const QUESTIONS: u64 = 1_000;
    /// System calls of one process for a thousand messages of a stream. 10 to 25 are usual; one for each message would be a
    /// thousand.
    const STREAM_CALLS_MAX: u64 = 100;
    /// Writes of one process for a thousand questions, or for as many answers. Beside those are acknowledgements of what no
    /// answer followed in time.
    const WRITES_MAX: u64 = 1_100;
    const WRITES: [&str; 3] = ["sendto", "sendmsg", "writev"];
    let folder = tempfile::tempdir()?;
    let traced = Traced {
        names: &["a", "b"],
        calls: &["-e", "trace=all"],
        folder: folder.path().to_path_buf(),
    };
    let manager = ProcessManager::new()?.with_launcher(traced);
    let world = World::of(manager, ChannelTransport::Unix).await?;
    let pair = world.pair(RoutePolicy::Direct).await?;
    let asker = pair.a.spawn::<Asker>(&world.client, "asker", ()).await?;
    let mut inspectors = Vec::new();
    for hosted in [&pair.a, &pair.b] {
        let inspector = hosted.spawn::<Inspector>(&world.client, "inspector", ());
        inspectors.push(inspector.await?);
    }
    let mark = async |name| {
        for inspector in &inspectors {
            touch(&world, inspector, folder.path(), name).await?;
        }
        TestResult::Ok(())
    };
    let tally_of = |sent: &actors::Tally| (sent.delivered, sent.not_delivered, sent.unknown);
    let sent = world.flood(&pair.source, &pair.sink, 0, 100).await?;
    assert_eq!(tally_of(&sent), (100, 0, 0), "{sent:?}");
    mark("stream").await?;
    let sent = world.flood(&pair.source, &pair.sink, 100, STREAM).await?;
    assert_eq!(tally_of(&sent), (STREAM, 0, 0), "{sent:?}");
    mark("questions").await?;
    let (of, count) = (pair.sink.clone(), QUESTIONS);
    let often = |done| AskOften { of, count, done };
    asker.ask_within(&world.client, LONG, often).await?;
    mark("end").await?;
    let (direct, relay) = world.routes(&pair.source, "b").await?;
    assert!(
        direct >= STREAM + QUESTIONS && relay == 0,
        "{direct} and {relay}"
    );
    world.end().await?;

    for side in ["a", "b"] {
        let trace = std::fs::read_to_string(folder.path().join(side))?;
        // What looks for handlers that take long sleeps by the clock, however many messages there are.
        let counts = |line: &&str| line.contains('(') && !line.contains("clock_nanosleep(");
        let calls: Vec<&str> = trace.lines().filter(counts).collect();
        let [stream, questions, end] = ["stream", "questions", "end"]
            .map(|name| touched(&calls, folder.path(), name).map_err(|error| error.to_string()));
        let (stream, questions, end) = (stream?, questions?, end?);
        let of_stream = tally(&calls[stream + 1..questions]);
        let of_questions = tally(&calls[questions + 1..end]);
        println!("{side}: {STREAM} messages: {of_stream:?}");
        println!("{side}: {QUESTIONS} questions: {of_questions:?}");
        let all: u64 = of_stream.values().sum();
        let most = STREAM_CALLS_MAX * STREAM / 1_000;
        assert!(
            (1..=most).contains(&all),
            "{side}: {all} system calls for {STREAM} messages, at most {most}: {of_stream:?}"
        );
        let written = |calls: &BTreeMap<String, u64>| -> u64 {
            WRITES.iter().filter_map(|name| calls.get(*name)).sum()
        };
        let writes = written(&of_questions);
        let most = WRITES_MAX * QUESTIONS / 1_000;
        assert!(
            (QUESTIONS..=most).contains(&writes),
            "{side}: {writes} writes for {QUESTIONS} questions, at most {most}: {of_questions:?}"
        );
    }
    Ok(())
}

/// Counts outcomes.
#[derive(Default)]
struct Tally {
    delivered: AtomicU64,
    failed: AtomicU64,
}

impl ReturnSink for Tally {
    fn delivered(&self, _: Token) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }

    fn undelivered(&self, _: Token, _: Undeliverable) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    fn abandoned(&self, _: Token) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}

async fn allocations() -> TestResult {
    const WARM_UP: u64 = 2_000;
    const MESSAGES: u64 = 10_000;
    /// Fewer than the channel takes before it is full.
    const BATCH: u64 = 500;
    let world = World::new().await?;
    let b = world.spawn("b", RoutePolicy::Auto).await?;
    let sink = b.spawn::<Sink>(&world.client, "sink", ()).await?;
    let (frontend, dir) = (world.host.addr().clone(), world.dir.clone());
    let (backend, life) = (world.host.backend_addr().clone(), b.info().incarnation);
    let dest = sink.port::<Item>().port_id().clone();
    let sender = ActorId::root(world.host.proc_id("tester")?, "tester");
    // All that the sending side does happens in one thread, whose allocations are counted: those of the posts, and those of
    // the tasks that write, read and settle.
    let counted = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let inside = runtime.enter();
        let dialer = LocalProcDialer::new(frontend, dir, MailboxClient::dial(backend));
        dialer.announce("b", life);
        drop(inside);
        let tally = Arc::new(Tally::default());
        let post = |number| {
            let body = Bytes::new();
            let item = Item {
                source: 1,
                number,
                body,
            };
            let envelope = MessageEnvelope::typed(sender.clone(), dest.clone(), item);
            dialer.post(envelope, ReturnHandle::new(tally.clone(), Token::default()));
        };
        let send = |numbers: std::ops::Range<u64>| {
            for number in numbers {
                post(number);
                if number % BATCH == 0 {
                    runtime.block_on(dialer.flush())?;
                }
            }
            runtime.block_on(dialer.flush())
        };
        let flushed = |error: hyperactor_mailbox::FlushError| std::io::Error::other(error);
        send(0..WARM_UP).map_err(flushed)?;
        let mut sent = Ok(());
        let cost = allocation_counter::measure(|| sent = send(WARM_UP..WARM_UP + MESSAGES));
        sent.map_err(flushed)?;
        let told = [&tally.delivered, &tally.failed].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(told, [WARM_UP + MESSAGES, 0]);
        let routes = dialer.counts();
        assert_eq!((routes[0].direct, routes[0].relay), (WARM_UP + MESSAGES, 0));
        Ok::<_, std::io::Error>(cost.count_total)
    };
    let thread = std::thread::spawn(counted);
    let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
    let count = joined.map_err(|_| "the thread panicked")??;
    println!("{count} allocations for {MESSAGES} messages");
    // One for the value; a few more for a flush and for buffers that grow.
    let most = 2 * MESSAGES;
    assert!(
        (MESSAGES..=most).contains(&count),
        "{count} allocations for {MESSAGES} messages, at most {most} are allowed"
    );
    assert_eq!(world.arrived(&sink).await?, WARM_UP + MESSAGES);
    world.end().await
}

/// Somebody who listens and never answers.
struct Mute {
    _listener: UnixListener,
    /// Those who fill the queue before it.
    _queue: Vec<UnixStream>,
}

impl Mute {
    fn at(path: &Path, is_full: bool) -> TestResult<Self> {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            || rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let addr = SocketAddrUnix::new(path)?;
        let listener = socket()?;
        rustix::net::bind(&listener, &addr)?;
        rustix::net::listen(&listener, if is_full { 0 } else { 100 })?;
        let mut queue = Vec::new();
        if is_full {
            loop {
                let stream = socket()?;
                match rustix::net::connect(&stream, &addr) {
                    Ok(()) => queue.push(UnixStream::from(stream)),
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(Self {
            _listener: UnixListener::from(listener),
            _queue: queue,
        })
    }
}

async fn hanging_dials() -> TestResult {
    const PATIENCE: Duration = Duration::from_secs(5);
    let world = World::new().await?;
    let rig = Rig::with(world, |dialer| {
        dialer.with_dial_options(DialOptions {
            delivery_timeout: PATIENCE,
            ..DialOptions::default()
        })
    })?;
    let mut mutes = Vec::new();
    let mut hung = Vec::new();
    for (name, is_full) in [("silent", false), ("crowded", true)] {
        let (hosted, keeper) = rig.keeper(name).await?;
        let socket = rig.world.dir.join(socket_name(name));
        std::fs::rename(&socket, socket.with_extension("aside"))?;
        mutes.push(Mute::at(&socket, is_full)?);
        rig.announce(&hosted);
        hung.push((hosted, keeper, socket));
    }
    let (other, free) = rig.keeper("free").await?;
    rig.announce(&other);

    let start = Instant::now();
    let mut longest = Duration::ZERO;
    let (waiting, passing) = (rig.posts.of(1), rig.posts.of(2));
    for _ in 0..50 {
        for (_, keeper, _) in &hung {
            let before = Instant::now();
            waiting.post(&rig.dialer, keeper);
            longest = longest.max(before.elapsed());
        }
        let (from, before) = (rig.posts.count(), Instant::now());
        passing.post(&rig.dialer, &free);
        longest = longest.max(before.elapsed());
        eventually(LONG, || !rig.posts.fates(from).is_empty()).await;
    }
    // All this within the time for which the dials hang: nothing waited for them, and they were given up by nobody.
    let took = start.elapsed();
    assert!(took < PATIENCE, "50 messages took {took:?}");
    assert!(longest < PATIENCE / 4, "a post took {longest:?}");
    assert_eq!(rig.counts("free"), (50, 0));
    assert_eq!(rig.backend.count(), 0);
    // Who asks for the host's way has it meanwhile.
    let relay = rig.dialer_with(|dialer| dialer.with_policy(RoutePolicy::Relay));
    let from = rig.posts.count();
    for (_, keeper, _) in &hung {
        rig.posts.of(3).post(&relay, keeper);
    }
    eventually(LONG, || rig.posts.fates(from).len() == 2).await;
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());

    // In the end the host's way is taken, and nothing was lost.
    rig.posts.all_told(LONG).await;
    for fate in rig.posts.fates(0) {
        assert_eq!(fate.outcome, Outcome::Delivered, "{fate:?}");
    }
    drop(mutes);
    for (_, keeper, socket) in &hung {
        std::fs::rename(socket.with_extension("aside"), socket)?;
        assert_eq!(rig.read(keeper, 1).await?, 51);
    }
    assert_eq!(rig.read(&free, 1).await?, 50);
    rig.end().await
}
