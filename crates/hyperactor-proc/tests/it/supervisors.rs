//! What a supervisor does beyond its table of cases: failed starts, slow starts, waits before restarts, its children at run
//! time, and its own end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hyperactor_proc::{
    Actor, ActorHandle, ActorResult, Backoff, ChildInfo, ChildSpec, Context, ExitReason,
    ListChildren, Proc, StartChild, StopChild, Strategy, Supervisor, limits,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::common::soon;

/// A child that tells what happens to it.
#[derive(Actor)]
#[actor(hooks)]
struct Child {
    name: &'static str,
    log: mpsc::UnboundedSender<String>,
    /// How often `init` still fails, over all lives.
    failures: Arc<AtomicU32>,
    /// How long `init` and `cleanup` take.
    slowness: Duration,
}

impl Child {
    fn tell(&self, what: &str) {
        // A test that looks no longer has dropped its end.
        self.log.send(format!("{what} {}", self.name)).ok();
    }
}

impl Actor for Child {
    async fn init(&mut self, _cx: &Context<Self>) -> ActorResult {
        tokio::time::sleep(self.slowness).await;
        let left = self.failures.load(Ordering::SeqCst);
        if left > 0 {
            self.failures.store(left - 1, Ordering::SeqCst);
            return Err("no disk".into());
        }
        self.tell("start");
        Ok(())
    }

    async fn cleanup(&mut self, _cx: &Context<Self>, reason: &ExitReason) -> ActorResult {
        if matches!(reason, ExitReason::Stopped) {
            tokio::time::sleep(self.slowness).await;
            self.tell("stop");
        }
        Ok(())
    }
}

/// Makes children that share a log.
struct Nursery {
    log: mpsc::UnboundedSender<String>,
    seen: mpsc::UnboundedReceiver<String>,
    failures: Arc<AtomicU32>,
    slowness: Duration,
}

impl Nursery {
    fn new() -> Self {
        let (log, seen) = mpsc::unbounded_channel();
        Self {
            log,
            seen,
            failures: Arc::default(),
            slowness: Duration::ZERO,
        }
    }

    fn child(&self, name: &'static str) -> ChildSpec {
        let (log, failures, slowness) =
            (self.log.clone(), Arc::clone(&self.failures), self.slowness);
        ChildSpec::new(name, move || Child {
            name,
            log: log.clone(),
            failures: Arc::clone(&failures),
            slowness,
        })
    }

    async fn expect(&mut self, lines: &[&str]) {
        for line in lines {
            assert_eq!(soon(self.seen.recv()).await.as_deref(), Some(*line));
        }
    }
}

/// Kills a child by its name.
async fn kill(proc: &Proc, name: &str) {
    let ended = proc.monitor(&proc.actor_id(name));
    let agent = hyperactor_proc::ProcAgent::at(proc.proc_id());
    let client = proc.client("aborter").unwrap();
    let (reply, _gone) = client.mailbox().open_once_port::<bool>();
    agent.post(
        &client,
        hyperactor_proc::EndActor {
            actor_id: proc.actor_id(name),
            how: hyperactor_proc::EndMode::Abort,
            reply: reply.bind(),
        },
    );
    assert_eq!(soon(ended.ended()).await.cause.code(), "killed");
}

fn proc_with_agent() -> Proc {
    let proc = Proc::isolated("p");
    hyperactor_proc::ProcAgent::spawn_in(&proc, hyperactor_proc::Registry::new()).unwrap();
    proc
}

async fn children(proc: &Proc, supervisor: &ActorHandle<Supervisor>) -> Vec<ChildInfo> {
    let client = proc.client("asker").unwrap();
    let list = supervisor.bind();
    soon(list.ask(&client, |reply| ListChildren { reply }))
        .await
        .unwrap()
}

#[tokio::test]
async fn children_start_in_order_and_stop_in_the_reverse_order() {
    let proc = proc_with_agent();
    let mut nursery = Nursery::new();
    nursery.slowness = Duration::from_millis(1);
    let supervisor = Supervisor::new(Strategy::OneForOne)
        .child(nursery.child("one"))
        .child(nursery.child("two"))
        .child(nursery.child("three"));
    let supervisor = proc.spawn("supervisor", supervisor).unwrap();
    nursery
        .expect(&["start one", "start two", "start three"])
        .await;
    supervisor.stop();
    assert!(soon(supervisor.join()).await.is_orderly());
    nursery
        .expect(&["stop three", "stop two", "stop one"])
        .await;
}

#[tokio::test]
async fn a_child_keeps_its_id_over_a_restart_and_its_supervisor_tells_of_it() {
    let proc = proc_with_agent();
    let mut nursery = Nursery::new();
    let supervisor = Supervisor::new(Strategy::OneForOne)
        .child(nursery.child("one"))
        .child(nursery.child("two").temporary());
    let supervisor = proc.spawn("supervisor", supervisor).unwrap();
    nursery.expect(&["start one", "start two"]).await;
    kill(&proc, "one").await;
    nursery.expect(&["start one"]).await;
    kill(&proc, "two").await;
    let list = children(&proc, &supervisor).await;
    assert_eq!(list[0].actor_id, Some(proc.actor_id("one")));
    assert_eq!(list[0].restarts, 1);
    assert_eq!(list[1].actor_id, None);
    assert_eq!(list[1].restarts, 0);
    assert_eq!(
        proc.snapshot()
            .actors
            .iter()
            .filter(|actor| actor.parent.is_some())
            .count(),
        1
    );
}

#[tokio::test]
async fn a_child_that_cannot_start_ends_a_supervisor_that_begins_and_the_others_with_it() {
    let proc = Proc::isolated("p");
    let mut nursery = Nursery::new();
    let healthy = nursery.child("one");
    nursery.failures = Arc::new(AtomicU32::new(1));
    let supervisor = Supervisor::new(Strategy::OneForOne)
        .child(healthy)
        .child(nursery.child("two"));
    let supervisor = proc.spawn("supervisor", supervisor).unwrap();
    let monitor = proc.monitor(supervisor.actor_id());
    let event = soon(monitor.ended()).await;
    assert_eq!(
        event.cause.to_string(),
        "failed: init: cannot start `two`: the child `".to_owned()
            + &proc.actor_id("two").to_string()
            + "` failed"
    );
    assert_eq!(event.root().1.to_string(), "failed: init: no disk");
    nursery.expect(&["start one", "stop one"]).await;
}

#[tokio::test(start_paused = true)]
async fn restarts_wait_longer_and_longer_and_failed_starts_count() {
    let proc = proc_with_agent();
    let mut nursery = Nursery::new();
    let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(4));
    let supervisor = Supervisor::new(Strategy::OneForOne)
        .intensity(8, Duration::from_secs(3600))
        .backoff(backoff)
        .child(nursery.child("one"));
    let supervisor = proc.spawn("supervisor", supervisor).unwrap();
    nursery.expect(&["start one"]).await;
    // The first restart does not wait and its start fails, as do the next four.
    nursery.failures.store(5, Ordering::SeqCst);
    let start = Instant::now();
    kill(&proc, "one").await;
    nursery.expect(&["start one"]).await;
    // At most 0 + 1 + 2 + 4 + 4 + 4.
    assert!(
        start.elapsed() <= Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
    assert!(start.elapsed() > Duration::ZERO);
    assert_eq!(children(&proc, &supervisor).await[0].restarts, 6);
    // The seventh and the eighth are allowed, the ninth is not.
    for _ in 0..2 {
        kill(&proc, "one").await;
        nursery.expect(&["start one"]).await;
    }
    kill(&proc, "one").await;
    let exit = soon(supervisor.join()).await;
    assert_eq!(exit.code(), "failed");
    assert!(
        exit.to_string().contains("`one` ended after 8 restarts"),
        "{exit}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_is_told_to_stop_does_not_wait_for_a_slow_start() {
    let proc = Proc::isolated("p");
    let mut nursery = Nursery::new();
    nursery.slowness = limits::CHILD_START_DEADLINE / 2;
    let supervisor = Supervisor::new(Strategy::OneForOne).child(nursery.child("one"));
    let supervisor = proc.spawn("supervisor", supervisor).unwrap();
    let start = Instant::now();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let exit = supervisor.stop_within(limits::CHILD_START_DEADLINE).await;
    assert!(exit.is_some_and(|exit| exit.is_orderly()));
    // The child has its own deadline to stop; its init is not interrupted before.
    assert!(
        start.elapsed() <= limits::CHILDREN_DEADLINE + Duration::from_millis(200),
        "{:?}",
        start.elapsed()
    );
    assert!(proc.actors().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_start_that_takes_too_long_is_a_failed_start() {
    let proc = Proc::isolated("p");
    let mut nursery = Nursery::new();
    nursery.slowness = limits::CHILD_START_DEADLINE * 2;
    let supervisor = Supervisor::new(Strategy::OneForOne).child(nursery.child("one"));
    let supervisor = proc.spawn("supervisor", supervisor).unwrap();
    let exit = supervisor.join().await;
    assert!(exit.to_string().contains("cannot start `one`"), "{exit}");
    assert!(proc.actors().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_stop_in_its_own_time_is_aborted() {
    let proc = Proc::isolated("p");
    let mut nursery = Nursery::new();
    let quick = nursery.child("one");
    nursery.slowness = Duration::from_secs(2);
    let slow = nursery
        .child("two")
        .stop_deadline(Duration::from_millis(300));
    let supervisor = Supervisor::new(Strategy::OneForOne)
        .child(quick)
        .child(slow);
    let supervisor = proc.spawn("supervisor", supervisor).unwrap();
    nursery.expect(&["start one", "start two"]).await;
    let start = Instant::now();
    supervisor.stop();
    assert!(soon(supervisor.join()).await.is_orderly());
    assert_eq!(start.elapsed(), Duration::from_millis(300));
    nursery.expect(&["stop one"]).await;
}

#[tokio::test]
async fn children_come_and_go_at_run_time() {
    let proc = proc_with_agent();
    let mut nursery = Nursery::new();
    let supervisor = Supervisor::new(Strategy::OneForAll).child(nursery.child("one"));
    let supervisor = proc.spawn("supervisor", supervisor).unwrap();
    let main = proc.client("main").unwrap();
    nursery.expect(&["start one"]).await;
    assert!(
        supervisor
            .post(&main, StartChild(nursery.child("two")))
            .is_ok()
    );
    nursery.expect(&["start two"]).await;
    kill(&proc, "two").await;
    nursery
        .expect(&["stop one", "start one", "start two"])
        .await;
    let name = "one".to_owned();
    assert!(supervisor.post(&main, StopChild { name }).is_ok());
    nursery.expect(&["stop one"]).await;
    // One that was stopped by its name stays down when the others are started again.
    kill(&proc, "two").await;
    nursery.expect(&["start two"]).await;
    assert!(
        supervisor
            .post(&main, StartChild(nursery.child("one")))
            .is_ok()
    );
    nursery.expect(&["start one"]).await;
    assert_eq!(children(&proc, &supervisor).await.len(), 3);
}

#[tokio::test]
async fn a_name_that_is_taken_is_a_failed_start() {
    let proc = Proc::isolated("p");
    let nursery = Nursery::new();
    let _taken = proc
        .spawn("one", Supervisor::new(Strategy::OneForOne))
        .unwrap();
    let supervisor = Supervisor::new(Strategy::OneForOne).child(nursery.child("one"));
    let exit = soon(proc.spawn("supervisor", supervisor).unwrap().join()).await;
    assert!(exit.to_string().contains("cannot start `one`"), "{exit}");
}
