//! What is known of children after their end, and what they print before it.

use std::sync::Arc;
use std::time::Duration;

use hyperactor_host::{
    DeathCertificate, End, HostedProc, OutOfMemory, OutputPolicy, OutputStream, ProcConfig,
    ProcEvent, ProcExit, ProcLimits, RestartPolicy, RoutePolicy,
};
use hyperactor_proc::ActorRef;
use hyperactor_testkit::eventually;
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::actors::Sleep;
use crate::trial;
use crate::worker::{Eat, Say, Worker};
use crate::world::{Actor, LONG, TestResult, World, send_signal};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_killed_child_has_a_certificate", killed),
        trial(
            "an_orderly_end_that_was_asked_for_is_certified_as_such",
            asked_for,
        ),
        trial(
            "a_failed_allocation_is_certified_as_lack_of_memory",
            out_of_memory,
        ),
        trial("a_certificate_names_what_was_in_hand", in_hand),
        trial("senders_are_told_how_a_sibling_ended", told),
        trial("what_a_child_prints_is_kept_within_bounds", printed),
        trial("what_a_child_prints_is_passed_on_with_its_name", prefixed),
        trial("inherited_output_is_not_kept", inherited),
        trial(
            "a_child_that_dies_comes_back_under_its_name_in_another_life",
            restarted,
        ),
    ]
}

async fn worker(world: &World, config: ProcConfig) -> TestResult<(HostedProc, ActorRef<Worker>)> {
    let proc = world.host.spawn("a", config).await?;
    let worker = proc.spawn::<Worker>(&world.client, "worker", ()).await?;
    Ok((proc, worker))
}

/// Has a worker print, and waits until it did.
async fn say(
    world: &World,
    worker: &ActorRef<Worker>,
    stdout: &[&str],
    stderr: &[&str],
) -> TestResult {
    let lines = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let say = |reply| Say {
        stdout: lines(stdout),
        stderr: lines(stderr),
        reply,
    };
    Ok(worker.ask_within(&world.client, LONG, say).await?)
}

async fn certificate(proc: &HostedProc) -> TestResult<Arc<DeathCertificate>> {
    proc.join().await;
    Ok(proc.certificate().ok_or("no certificate")?)
}

async fn killed() -> TestResult {
    let world = World::new().await?;
    let (proc, worker) = worker(&world, ProcConfig::new()).await?;
    say(&world, &worker, &["not this"], &["first", "last"]).await?;
    send_signal(proc.info().pid.ok_or("no process")?, Signal::KILL)?;
    let certificate = certificate(&proc).await?;
    assert_eq!(certificate.proc_id, proc.info().proc_id);
    assert_eq!(certificate.incarnation, proc.info().incarnation);
    assert_eq!(certificate.exit, ProcExit::Signalled(9));
    assert!(!certificate.wanted && certificate.is_failure());
    assert_ne!(certificate.out_of_memory, OutOfMemory::Yes);
    assert_eq!(certificate.last_words, ["first", "last"]);
    let usage = certificate.usage.ok_or("no resource use")?;
    assert!(usage.max_resident > 1 << 20, "{usage:?}");
    assert!(usage.user + usage.system > Duration::ZERO, "{usage:?}");
    assert!(certificate.lived > Duration::ZERO);
    let text = certificate.to_string();
    assert!(
        text.ends_with("was ended by signal 9; its last words: last"),
        "{text}"
    );
    world.end().await
}

async fn asked_for() -> TestResult {
    let world = World::new().await?;
    let (proc, _) = worker(&world, ProcConfig::new()).await?;
    let deadline = Duration::from_secs(5);
    assert_eq!(proc.end(End::Drain { deadline }).await, ProcExit::Exited(0));
    let certificate = certificate(&proc).await?;
    assert!(certificate.wanted && !certificate.is_failure());
    assert_eq!(certificate.out_of_memory, OutOfMemory::No);
    world.end().await
}

async fn out_of_memory() -> TestResult {
    let world = World::new().await?;
    let limits = ProcLimits::new().with_memory(4 << 30);
    let (proc, worker) = worker(&world, ProcConfig::new().with_limits(limits)).await?;
    worker.post(&world.client, Eat(8 << 30));
    let certificate = certificate(&proc).await?;
    assert_eq!(certificate.exit, ProcExit::Signalled(6));
    assert_eq!(certificate.out_of_memory, OutOfMemory::Yes);
    let text = certificate.to_string();
    assert!(text.contains("for lack of memory"), "{text}");
    world.end().await
}

async fn in_hand() -> TestResult {
    let world = World::new().await?;
    let pair = world.pair(RoutePolicy::Auto).await?;
    let sleep = Sleep(Duration::from_secs(600));
    assert!(pair.sink.send(&world.client, sleep).await.is_delivered());
    let file = hyperactor_bootstrap::socket_name("b").replace(".sock", ".hand");
    let file = world.dir.join(file);
    // It is made before it holds anything.
    let is_written = || std::fs::metadata(&file).is_ok_and(|file| file.len() > 0);
    eventually(LONG, is_written).await;
    send_signal(pair.b.info().pid.ok_or("no process")?, Signal::KILL)?;
    let certificate = certificate(&pair.b).await?;
    let [handling] = &certificate.handling[..] else {
        return Err(format!("{certificate:?}").into());
    };
    assert_eq!(handling.actor, "sink[0]");
    assert!(handling.message.ends_with("Sleep"), "{handling}");
    assert!(!file.exists(), "the record stays behind");
    // The other one had nothing in hand.
    send_signal(pair.a.info().pid.ok_or("no process")?, Signal::KILL)?;
    pair.a.join().await;
    let other = pair.a.certificate().ok_or("no certificate")?;
    assert!(other.handling.is_empty(), "{other}");
    world.end().await
}

async fn told() -> TestResult {
    let world = World::new().await?;
    let pair = world.pair(RoutePolicy::Auto).await?;
    let worker = pair.b.spawn::<Worker>(&world.client, "worker", ()).await?;
    say(&world, &worker, &[], &["it was the cat"]).await?;
    world.flood(&pair.source, &pair.sink, 0, 10).await?;
    send_signal(pair.b.info().pid.ok_or("no process")?, Signal::KILL)?;
    pair.b.join().await;
    // The news and the question travel by different ways, and a host that is asked before the news has come says no more than
    // that it has ended.
    let mut first = 10;
    let mut said = String::new();
    let deadline = tokio::time::Instant::now() + LONG;
    while !said.contains("was ended by signal 9; its last words: it was the cat") {
        assert!(tokio::time::Instant::now() < deadline, "{said}");
        let tally = world.flood(&pair.source, &pair.sink, first, 1).await?;
        first += 1;
        assert_eq!(tally.delivered, 0, "{tally:?}");
        said = tally.first_failure.ok_or("no failure")?;
    }
    world.end().await
}

async fn printed() -> TestResult {
    let world = World::new().await?;
    let config = ProcConfig::new().with_output(OutputPolicy::Kept);
    let (proc, worker) = worker(&world, config).await?;
    say(&world, &worker, &["out 1", "out 2"], &["err 1"]).await?;
    eventually(LONG, || proc.logs().lines.len() == 3).await;
    let logs = proc.logs();
    let out: Vec<_> = logs.of(OutputStream::Stdout).collect();
    let err: Vec<_> = logs.of(OutputStream::Stderr).collect();
    assert_eq!((out, err), (vec!["out 1", "out 2"], vec!["err 1"]));
    let long = "x".repeat(1_000);
    for _ in 0..10 {
        say(&world, &worker, &[long.as_str(); 100], &[]).await?;
    }
    say(&world, &worker, &["the end"], &[]).await?;
    proc.end(End::Kill).await;
    let logs = proc.logs();
    assert_eq!(logs.of(OutputStream::Stdout).next_back(), Some("the end"));
    assert!(
        logs.lines.len() < 100 && logs.dropped > 900,
        "{}",
        logs.dropped
    );
    world.end().await
}

async fn prefixed() -> TestResult {
    let mut host = Actor::play("printing-host")?;
    assert_eq!(host.says("[speaker] ")?, "hello");
    host.says("ENDED")?;
    assert!(host.process.wait()?.success());
    Ok(())
}

/// The role of a host whose child prints.
pub(crate) async fn printing_host(world: World) -> TestResult {
    let proc = world.host.spawn("speaker", ProcConfig::new()).await?;
    let worker = proc.spawn::<Worker>(&world.client, "worker", ()).await?;
    say(&world, &worker, &["hello"], &[]).await?;
    world.end().await?;
    println!("ENDED");
    Ok(())
}

async fn inherited() -> TestResult {
    let world = World::new().await?;
    let config = ProcConfig::new().with_output(OutputPolicy::Inherited);
    let (proc, worker) = worker(&world, config).await?;
    say(&world, &worker, &[], &["a line of a child"]).await?;
    proc.end(End::Kill).await;
    assert!(proc.logs().lines.is_empty());
    assert!(certificate(&proc).await?.last_words.is_empty());
    world.end().await
}

async fn restarted() -> TestResult {
    let world = World::new().await?;
    let mut events = world.host.events();
    let restart = RestartPolicy::on_failure()
        .with_backoff(Duration::from_millis(1), Duration::from_millis(10));
    let (first, _) = worker(&world, ProcConfig::new().with_restart(restart)).await?;
    send_signal(first.info().pid.ok_or("no process")?, Signal::KILL)?;
    let second = loop {
        match events.recv().await? {
            ProcEvent::Ready {
                info, restarts: 1, ..
            } => break info,
            ProcEvent::Ended { certificate, .. } => {
                assert_eq!(certificate.exit, ProcExit::Signalled(9));
            }
            _ => {}
        }
    };
    assert_ne!(second.incarnation, first.info().incarnation);
    let proc = world.host.proc("a").ok_or("it is not there")?;
    let worker = proc.spawn::<Worker>(&world.client, "worker", ()).await?;
    say(&world, &worker, &[], &["here again"]).await?;
    world.end().await
}
