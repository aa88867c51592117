//! Procs that outlive their host: they talk on, are taken back by the next, and end when none comes. The hosts here are this
//! test binary in processes of its own, which are told what to do by lines.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use hyperactor_bootstrap::ProcessManager;
use hyperactor_host::{
    End, Host, OnHostLoss, OutputPolicy, ProcConfig, ProcEvent, ProcExit, RestartPolicy,
    RoutePolicy,
};
use hyperactor_proc::{ActorRef, Client};
use hyperactor_refs::{ActorId, BindSpec};
use hyperactor_testkit::{TempSocketDir, eventually_blocking, is_alive};
use libtest_mimic::Trial;
use rustix::process::Signal;
use tokio::sync::broadcast;

use crate::actors::{Arrived, Sink};
use crate::stream::{Begin, Count, Counts, Finish, Stream};
use crate::world::{LONG, ROLE, TestResult, send_signal, trial};

/// The variables that tell a keeping host where it is, and how long its procs live without one.
const PLACE: &str = "HYPERACTOR_TEST_PLACE";
const GRACE: &str = "HYPERACTOR_TEST_GRACE_MS";

/// How many hosts are killed in a row.
const KILLS: u64 = 20;

/// How soon what went by the host goes again once there is another.
const RELAYS_WITHIN: Duration = Duration::from_secs(5);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "procs_talk_on_while_twenty_hosts_are_killed_and_each_next_one_takes_them_back",
            twenty_hosts,
        ),
        trial(
            "procs_to_which_no_host_comes_end_when_their_grace_is_over",
            no_host_comes,
        ),
        trial(
            "hosts_killed_while_they_take_procs_back_lose_none_of_them",
            killed_while_taking_back,
        ),
        trial(
            "hosts_killed_while_they_start_procs_leave_nothing_after_the_grace",
            killed_while_starting,
        ),
        trial(
            "a_proc_that_dies_without_a_host_is_started_again_by_the_next",
            died_meanwhile,
        ),
        trial(
            "procs_that_end_with_their_host_are_out_of_the_way_of_the_next",
            by_default,
        ),
        trial(
            "a_host_at_another_address_does_not_start_and_ends_nobody",
            wrong_address,
        ),
        trial(
            "a_dropped_host_leaves_its_procs_to_the_next_in_the_same_process",
            dropped,
        ),
        trial(
            "a_proc_that_cannot_outlive_its_host_is_not_made",
            nowhere_to_stay,
        ),
    ]
}

/// Where hosts follow each other.
struct Place {
    base: TempSocketDir,
    grace: Duration,
}

impl Place {
    fn new(grace: Duration) -> TestResult<Self> {
        let base = TempSocketDir::new()?;
        Ok(Self { base, grace })
    }

    /// The directory that the hosts share.
    fn dir(&self) -> PathBuf {
        self.base.path().join("keep")
    }

    fn host(&self) -> TestResult<Keeper> {
        Keeper::start(self.base.path(), self.grace)
    }

    /// A host in this process.
    async fn own_host(&self) -> TestResult<Host> {
        start_host(self.base.path(), self.grace).await
    }

    /// Fails if processes or files are left; what is on its way to its end gets `within`.
    fn assert_gone(&self, pids: &[u32], within: Duration) {
        let start = Instant::now();
        eventually_blocking(within, || {
            !pids.iter().any(|pid| is_alive(*pid)) && !self.dir().exists()
        });
        eprintln!("everything was gone after {:?}", start.elapsed());
    }
}

async fn start_host(base: &Path, grace: Duration) -> TestResult<Host> {
    let manager = ProcessManager::surviving(base.join("keep"), grace)?;
    let frontend: BindSpec = format!("unix:{}", base.join("front").display()).parse()?;
    Ok(Host::new(manager, frontend).await?)
}

fn stays() -> ProcConfig {
    ProcConfig::new()
        .with_on_host_loss(OnHostLoss::Stay)
        .with_output(OutputPolicy::Kept)
}

/// A host in a process of its own.
struct Keeper {
    process: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    orders: ChildStdin,
}

impl Keeper {
    fn start(base: &Path, grace: Duration) -> TestResult<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .env(ROLE, "keeper")
            .env(PLACE, base)
            .env(GRACE, grace.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = process.stdout.take().ok_or("no standard output")?;
        let orders = process.stdin.take().ok_or("no standard input")?;
        Ok(Self {
            process,
            lines: BufReader::new(stdout).lines(),
            orders,
        })
    }

    /// Gives an order and returns the rest of the line that answers it.
    fn told(&mut self, order: &str) -> TestResult<String> {
        writeln!(self.orders, "{order}")?;
        self.says(order.split(' ').next().unwrap_or_default())
    }

    /// The rest of the first line that begins with `word`.
    fn says(&mut self, word: &str) -> TestResult<String> {
        for line in self.lines.by_ref() {
            let line = line?;
            if let Some(rest) = line.strip_prefix(word) {
                return Ok(rest.trim().to_owned());
            }
        }
        Err(format!("the host ended without saying {word}").into())
    }

    fn kill(&mut self) -> TestResult {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Waits until all procs of earlier hosts are back, and returns their processes, by name.
    fn takes_back(&mut self) -> TestResult<Vec<u32>> {
        numbers(&self.told("back")?)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Ended already, in most tests.
        drop(self.kill());
    }
}

fn numbers(text: &str) -> TestResult<Vec<u32>> {
    Ok(text
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?)
}

/// The role of a keeping host: does what it is told, a line for each order, until it is killed.
pub(crate) async fn keep() -> TestResult {
    let base = PathBuf::from(std::env::var(PLACE)?);
    let grace = Duration::from_millis(std::env::var(GRACE)?.parse()?);
    let host = start_host(&base, grace).await?;
    let events = host.events();
    let client = host.service_proc().client("keeper")?;
    let mut keeping = Keeping {
        found: host.procs().len(),
        host,
        events,
        client,
    };
    let (send, mut orders) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            if !line.is_ok_and(|line| send.send(line).is_ok()) {
                break;
            }
        }
        // The test is over.
        std::process::exit(1);
    });
    println!("UP");
    while let Some(order) = orders.recv().await {
        let (word, name) = order.split_once(' ').unwrap_or((&order, ""));
        let answer = keeping.obey(word, name).await?;
        println!("{word} {answer}");
        if word == "end" {
            break;
        }
    }
    // Not by returning, which would wait for the thread.
    std::process::exit(0);
}

struct Keeping {
    host: Host,
    events: broadcast::Receiver<ProcEvent>,
    client: Client,
    /// How many procs there were before any was made.
    found: usize,
}

impl Keeping {
    async fn obey(&mut self, word: &str, name: &str) -> TestResult<String> {
        Ok(match word {
            "back" => {
                let mut back = 0;
                while back < self.found {
                    if let ProcEvent::Ready { taken_back, .. } = self.events.recv().await? {
                        back += usize::from(taken_back);
                    }
                }
                self.pids()
            }
            "spawn" => self.spawn(name, stays()).await?,
            "spawn-again" => {
                let policy = RestartPolicy::on_failure();
                let pauses = (Duration::from_millis(1), Duration::from_millis(10));
                let policy = policy.with_backoff(pauses.0, pauses.1);
                self.spawn(name, stays().with_restart(policy)).await?
            }
            "spawn-relay" => {
                self.spawn(name, stays().with_route(RoutePolicy::Relay))
                    .await?
            }
            "spawn-default" => self.spawn(name, ProcConfig::new()).await?,
            "stream" => self.stream(name).await?,
            "relays" => self.relays(name).await?,
            "finish" => self.finish(name).await?,
            "ended" => loop {
                if let ProcEvent::Ended {
                    certificate,
                    restart_in,
                } = self.events.recv().await?
                    && certificate.proc_id.name() == name
                {
                    break format!("{:?} {}", certificate.exit, restart_in.is_some());
                }
            },
            "ready" => loop {
                if let ProcEvent::Ready { info, restarts, .. } = self.events.recv().await?
                    && info.proc_id.name() == name
                {
                    break format!("{} {restarts}", info.pid.unwrap_or_default());
                }
            },
            "drain" => {
                let deadline = Duration::from_secs(5);
                let proc = self.host.proc(name).ok_or("no such proc")?;
                format!("{:?}", proc.end(End::Drain { deadline }).await)
            }
            "lines" => {
                let proc = self.host.proc(name).ok_or("no such proc")?;
                proc.logs().lines.len().to_string()
            }
            "end" => {
                let report = self.host.stop(Duration::from_secs(5)).await;
                format!("{} {:?}", report.is_clean(), report)
            }
            other => return Err(format!("no such order: {other}").into()),
        })
    }

    fn pids(&self) -> String {
        let procs = self.host.procs();
        let pids = procs.iter().filter_map(|proc| proc.info().pid);
        let pids: Vec<_> = pids.map(|pid| pid.to_string()).collect();
        pids.join(" ")
    }

    async fn spawn(&self, name: &str, config: ProcConfig) -> TestResult<String> {
        let proc = self.host.spawn(name, config).await?;
        Ok(proc.info().pid.unwrap_or_default().to_string())
    }

    /// A stream from a proc to a sink of its own in another: `from to`.
    async fn stream(&self, ends: &str) -> TestResult<String> {
        let (from, to) = ends.split_once(' ').ok_or("from where to where?")?;
        let sink = self.host.proc(to).ok_or("no such proc")?;
        let name = format!("from-{from}");
        let sink = sink.spawn::<Sink>(&self.client, name, ()).await?;
        let proc = self.host.proc(from).ok_or("no such proc")?;
        let stream = proc.spawn::<Stream>(&self.client, "stream", ()).await?;
        let begin = Begin {
            to: sink,
            source: 1,
        };
        let sent = stream.send(&self.client, begin).await;
        assert!(sent.is_delivered(), "{sent}");
        Ok(String::new())
    }

    fn stream_in(&self, name: &str) -> TestResult<ActorRef<Stream>> {
        let proc_id = self.host.proc_id(name)?;
        Ok(ActorRef::attest(ActorId::root(proc_id, "stream")))
    }

    /// Waits until messages of a stream arrive, counted from now.
    async fn relays(&self, name: &str) -> TestResult<String> {
        let stream = self.stream_in(name)?;
        let start = Instant::now();
        let before = stream.ask_within(&self.client, LONG, Count).await?;
        loop {
            let counts = stream.ask_within(&self.client, LONG, Count).await?;
            if counts.delivered > before.delivered {
                return Ok(start.elapsed().as_millis().to_string());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends a stream, and says what became of it: `from to`.
    async fn finish(&self, ends: &str) -> TestResult<String> {
        let (from, to) = ends.split_once(' ').ok_or("from where to where?")?;
        let stream = self.stream_in(from)?;
        let counts = stream.ask_within(&self.client, LONG, Finish).await?;
        let sink = ActorId::root(self.host.proc_id(to)?, format!("from-{from}"));
        let sink = ActorRef::<Sink>::attest(sink);
        let (arrived, disorder) = sink.ask_within(&self.client, LONG, Arrived).await?;
        if let Some(disorder) = disorder {
            return Err(format!("{from} to {to}: {disorder}").into());
        }
        let Counts {
            posted,
            delivered,
            not_delivered,
            unknown,
            doubled,
            first_failure,
        } = counts;
        eprintln!("{from} to {to}: first failure {first_failure:?}");
        Ok(format!(
            "{posted} {delivered} {not_delivered} {unknown} {doubled} {arrived}"
        ))
    }
}

async fn twenty_hosts() -> TestResult {
    let place = Place::new(Duration::from_secs(60))?;
    let mut host = place.host()?;
    let mut pids = Vec::new();
    for order in ["spawn a", "spawn-again b", "spawn-relay c"] {
        pids.extend(numbers(&host.told(order)?)?);
    }
    host.told("stream a b")?;
    host.told("stream c b")?;
    host.told("relays a")?;
    host.told("relays c")?;
    let mut slowest = Duration::ZERO;
    let mut without_host = Duration::ZERO;
    for kill in 0..KILLS {
        host.kill()?;
        let start = Instant::now();
        // The next host comes at once, or after the time in which what goes by it is given up.
        let pause = if kill == KILLS / 2 {
            1_500
        } else {
            kill % 4 * 100
        };
        std::thread::sleep(Duration::from_millis(pause));
        host = place.host()?;
        host.says("UP")?;
        without_host += start.elapsed();
        let up = Instant::now();
        assert_eq!(host.takes_back()?, pids, "after kill {kill}");
        host.told("relays c")?;
        slowest = slowest.max(up.elapsed());
    }
    eprintln!("{without_host:?} without a host, relays again after {slowest:?} at the latest");
    assert!(slowest < RELAYS_WITHIN, "{slowest:?}");
    let lines: u64 = host.told("lines a")?.parse()?;
    assert!(lines > 0, "nothing is read of what a proc prints");

    let direct = numbers(&host.told("finish a b")?)?;
    let [posted, delivered, _, _, doubled, arrived] = direct[..] else {
        return Err(format!("{direct:?}").into());
    };
    eprintln!("straight: {posted} posted");
    assert!(posted > 1_000, "{posted} are no load");
    assert_eq!((delivered, doubled, arrived), (posted, 0, posted));

    let relayed = numbers(&host.told("finish c b")?)?;
    let [posted, delivered, not_delivered, unknown, doubled, arrived] = relayed[..] else {
        return Err(format!("{relayed:?}").into());
    };
    eprintln!("by the host: {posted} posted, {not_delivered} came back, {unknown} unknown");
    assert_eq!((delivered + not_delivered + unknown, doubled), (posted, 0));
    assert!(not_delivered + unknown > 0, "no message met a killed host");
    assert!(
        (delivered..=delivered + unknown).contains(&arrived),
        "{relayed:?}"
    );

    // Supervision holds for processes that this host did not start.
    send_signal(pids[1], Signal::KILL)?;
    assert_eq!(host.told("ended b")?, "Lost true");
    let again = host.told("ready b")?;
    let again = numbers(&again)?;
    assert_eq!(again[1], 1);
    assert_ne!(again[0], pids[1]);
    assert_eq!(host.told("drain a")?, "Announced(0)");
    let end = host.told("end")?;
    assert!(end.starts_with("true"), "{end}");
    pids.push(again[0]);
    place.assert_gone(&pids, Duration::from_secs(2));
    Ok(())
}

async fn no_host_comes() -> TestResult {
    let grace = Duration::from_secs(2);
    let place = Place::new(grace)?;
    let mut host = place.host()?;
    let mut pids = Vec::new();
    for order in ["spawn a", "spawn b", "spawn-again c"] {
        pids.extend(numbers(&host.told(order)?)?);
    }
    host.told("stream a b")?;
    host.kill()?;
    let start = Instant::now();
    eventually_blocking(grace, || start.elapsed() > grace / 2);
    assert!(pids.iter().all(|pid| is_alive(*pid)), "they did not stay");
    place.assert_gone(&pids, grace / 2 + Duration::from_secs(2));
    // It may be used again.
    let mut host = place.host()?;
    assert_eq!(host.takes_back()?, Vec::<u32>::new());
    let end = host.told("end")?;
    assert!(end.starts_with("true"), "{end}");
    place.assert_gone(&[], Duration::ZERO);
    Ok(())
}

async fn killed_while_taking_back() -> TestResult {
    let place = Place::new(Duration::from_secs(20))?;
    let mut host = place.host()?;
    let mut pids = Vec::new();
    for order in ["spawn a", "spawn b"] {
        pids.extend(numbers(&host.told(order)?)?);
    }
    host.told("stream a b")?;
    host.told("relays a")?;
    for kill in 0..12u64 {
        host.kill()?;
        host = place.host()?;
        if kill % 3 > 0 {
            // Procs come back in the first moments.
            host.says("UP")?;
        }
        std::thread::sleep(Duration::from_millis(kill * 7 % 60));
    }
    host.kill()?;
    let mut host = place.host()?;
    assert_eq!(host.takes_back()?, pids);
    let counts = numbers(&host.told("finish a b")?)?;
    assert_eq!((counts[1], counts[4], counts[5]), (counts[0], 0, counts[0]));
    let end = host.told("end")?;
    assert!(end.starts_with("true"), "{end}");
    place.assert_gone(&pids, Duration::from_secs(2));
    Ok(())
}

async fn killed_while_starting() -> TestResult {
    let grace = Duration::from_secs(1);
    let place = Place::new(grace)?;
    let mut pids = Vec::new();
    for kill in 0..8u64 {
        let mut host = place.host()?;
        host.says("UP")?;
        writeln!(host.orders, "spawn proc-{kill}")?;
        std::thread::sleep(Duration::from_millis(kill * 25));
        pids.extend(hyperactor_testkit::children_of(host.process.id()));
        host.kill()?;
    }
    assert!(!pids.is_empty(), "no kill met a child");
    place.assert_gone(&pids, grace + Duration::from_secs(2));
    Ok(())
}

async fn died_meanwhile() -> TestResult {
    let place = Place::new(Duration::from_secs(20))?;
    let mut host = place.host()?;
    let a = numbers(&host.told("spawn a")?)?[0];
    let b = numbers(&host.told("spawn-again b")?)?[0];
    let c = numbers(&host.told("spawn c")?)?[0];
    host.kill()?;
    for pid in [b, c] {
        send_signal(pid, Signal::KILL)?;
        eventually_blocking(LONG, || !is_alive(pid));
    }
    let mut host = place.host()?;
    assert_eq!(host.told("ended b")?, "Lost true");
    let again = numbers(&host.told("ready b")?)?;
    assert_eq!(again[1], 1);
    // Nobody asked for another life of it, and its name is free.
    let c = numbers(&host.told("spawn c")?)?[0];
    host.told("stream a b")?;
    host.told("relays a")?;
    let end = host.told("end")?;
    assert!(end.starts_with("true"), "{end}");
    place.assert_gone(&[a, again[0], c], Duration::from_secs(2));
    Ok(())
}

async fn by_default() -> TestResult {
    let place = Place::new(Duration::from_secs(20))?;
    let mut host = place.host()?;
    let goes = numbers(&host.told("spawn-default goes")?)?;
    let stays = numbers(&host.told("spawn stays")?)?;
    host.kill()?;
    let start = Instant::now();
    // The name is free for the next host, though its process may not be gone yet.
    let mut host = place.host()?;
    let next = numbers(&host.told("spawn-default goes")?)?;
    assert!(start.elapsed() < Duration::from_secs(10));
    // It has left the directory and may still be on its way out.
    eventually_blocking(Duration::from_secs(2), || !is_alive(goes[0]));
    host.kill()?;
    eventually_blocking(Duration::from_secs(2), || !is_alive(next[0]));
    assert!(is_alive(stays[0]), "it did not stay");
    let mut host = place.host()?;
    assert_eq!(host.takes_back()?, stays);
    let end = host.told("end")?;
    assert!(end.starts_with("true"), "{end}");
    place.assert_gone(&stays, Duration::from_secs(2));
    Ok(())
}

async fn wrong_address() -> TestResult {
    let place = Place::new(Duration::from_secs(20))?;
    let mut host = place.host()?;
    let pids = numbers(&host.told("spawn a")?)?;
    // Two hosts cannot have the directory.
    let error = ProcessManager::surviving(place.dir(), place.grace).expect_err("two have it");
    assert_eq!(error.code(), "in_use");
    host.kill()?;
    let manager = ProcessManager::surviving(place.dir(), place.grace)?;
    let frontend: BindSpec = format!("unix:{}", place.base.socket("other").display()).parse()?;
    let error = Host::new(manager, frontend).await.expect_err("it started");
    assert!(
        error.to_string().contains("serve the same addresses"),
        "{error}"
    );
    let mut host = place.host()?;
    assert_eq!(host.takes_back()?, pids);
    let end = host.told("end")?;
    assert!(end.starts_with("true"), "{end}");
    place.assert_gone(&pids, Duration::from_secs(2));
    Ok(())
}

async fn dropped() -> TestResult {
    let place = Place::new(Duration::from_secs(20))?;
    let host = place.own_host().await?;
    let goes = host.spawn("goes", ProcConfig::new()).await?;
    let first = host.spawn("stays", stays()).await?;
    let (goes, pid) = (goes.info().pid.ok_or("no process")?, first.info().pid);
    let incarnation = first.info().incarnation;
    drop(host);
    eventually_blocking(Duration::from_secs(2), || !is_alive(goes));
    let next = place.own_host().await?;
    let mut events = next.events();
    let back = next.proc("stays").ok_or("it is not there")?;
    assert_eq!(
        (back.info().pid, back.info().incarnation),
        (pid, incarnation)
    );
    // Told apart: the handle of the former host does not know how it ends.
    assert_eq!(first.join().await, ProcExit::Lost);
    while !matches!(
        events.recv().await?,
        ProcEvent::Ready {
            taken_back: true,
            ..
        }
    ) {}
    let error = next
        .spawn("stays", stays())
        .await
        .expect_err("two of a name");
    assert_eq!(error.code(), "name-in-use");
    drop(first);
    let report = next.stop(Duration::from_secs(5)).await;
    assert!(report.is_clean(), "{report:?}");
    place.assert_gone(&[pid.ok_or("no process")?], Duration::from_secs(2));
    Ok(())
}

async fn nowhere_to_stay() -> TestResult {
    let world = crate::world::World::new().await?;
    let error = world
        .host
        .spawn("a", stays())
        .await
        .expect_err("it was made");
    assert!(
        error.to_string().contains("ProcessManager::surviving"),
        "{error}"
    );
    world.end().await
}
