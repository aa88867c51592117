//! Delayed and periodic messages, piped futures, delegates, and asking many, on paused time.

use std::time::Duration;

use crate::common::{Add, Counter, Gated, Total, Wire, soon};
use hyperactor_proc::{
    Actor, ActorResult, AskError, Collect, Context, Handler, Proc, Scheduled, SpawnOptions, limits,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Schedules as it is told, and tells what comes and when.
#[derive(Actor)]
struct Clock {
    start: Instant,
    heard: mpsc::UnboundedSender<(u64, &'static str)>,
    timers: mpsc::UnboundedSender<Scheduled>,
}

#[derive(Clone)]
enum Set {
    After(u64, &'static str),
    Every(u64, &'static str),
    Pipe(u64, &'static str),
    Panic,
    Block(u64),
    Many(usize),
}

#[derive(Clone)]
struct Tick(&'static str);

impl Handler<Set> for Clock {
    async fn handle(&mut self, cx: &Context<Self>, set: Set) -> ActorResult {
        let timer = match set {
            Set::After(after, name) => cx.post_after(Duration::from_secs(after), Tick(name))?,
            Set::Every(every, name) => cx.post_every(Duration::from_secs(every), Tick(name))?,
            Set::Pipe(after, name) => cx.pipe(async move {
                tokio::time::sleep(Duration::from_secs(after)).await;
                Tick(name)
            })?,
            Set::Panic => cx.pipe(async { panic!("a planned panic") as Tick })?,
            Set::Block(seconds) => {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                return Ok(());
            }
            Set::Many(count) => {
                for _ in 0..count {
                    cx.post_after(Duration::from_secs(1), Tick("many"))?;
                }
                return Ok(());
            }
        };
        self.timers.send(timer)?;
        Ok(())
    }
}

impl Handler<Tick> for Clock {
    async fn handle(&mut self, _cx: &Context<Self>, Tick(name): Tick) -> ActorResult {
        self.heard.send((self.start.elapsed().as_secs(), name))?;
        Ok(())
    }
}

struct Bench {
    main: hyperactor_proc::Client,
    clock: hyperactor_proc::ActorHandle<Clock>,
    heard: mpsc::UnboundedReceiver<(u64, &'static str)>,
    timers: mpsc::UnboundedReceiver<Scheduled>,
    _proc: Proc,
}

impl Bench {
    fn new() -> Self {
        let proc = Proc::isolated("p");
        let (tell, heard) = mpsc::unbounded_channel();
        let (hand, timers) = mpsc::unbounded_channel();
        let clock = Clock {
            start: Instant::now(),
            heard: tell,
            timers: hand,
        };
        Self {
            main: proc.client("main").unwrap(),
            clock: proc.spawn("clock", clock).unwrap(),
            heard,
            timers,
            _proc: proc,
        }
    }

    async fn set(&mut self, set: Set) -> Scheduled {
        self.clock.post(&self.main, set).unwrap();
        self.timers.recv().await.unwrap()
    }

    async fn hears(&mut self) -> (u64, &'static str) {
        self.heard.recv().await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_delayed_message_comes_when_its_time_has_come() {
    let mut bench = Bench::new();
    bench.set(Set::After(5, "five")).await;
    let two = bench.set(Set::After(2, "two")).await;
    assert_eq!(bench.hears().await, (2, "two"));
    assert!(two.is_over());
    assert_eq!(bench.hears().await, (5, "five"));
}

#[tokio::test(start_paused = true)]
async fn a_delayed_message_that_is_cancelled_never_comes() {
    let mut bench = Bench::new();
    let two = bench.set(Set::After(2, "two")).await;
    bench.set(Set::After(5, "five")).await;
    two.cancel();
    assert_eq!(bench.hears().await, (5, "five"));
}

#[tokio::test(start_paused = true)]
async fn a_periodic_message_comes_until_it_is_cancelled() {
    let mut bench = Bench::new();
    let every = bench.set(Set::Every(10, "tick")).await;
    for second in [10, 20, 30] {
        assert_eq!(bench.hears().await, (second, "tick"));
    }
    every.cancel();
    bench.set(Set::After(100, "after")).await;
    assert_eq!(bench.hears().await, (130, "after"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_actor_finds_one_periodic_message_and_not_a_heap() {
    let mut bench = Bench::new();
    bench.set(Set::Every(1, "tick")).await;
    assert_eq!(bench.hears().await, (1, "tick"));
    bench.clock.post(&bench.main, Set::Block(100)).unwrap();
    // The one that waited, and the one that came due just then; after that as before.
    assert_eq!(bench.hears().await, (101, "tick"));
    while bench.hears().await.0 == 101 {}
    assert_eq!(bench.hears().await, (103, "tick"));
}

#[tokio::test(start_paused = true)]
async fn timers_and_pipes_end_with_their_actor() {
    let mut bench = Bench::new();
    let every = bench.set(Set::Every(1, "tick")).await;
    let pipe = bench.set(Set::Pipe(1_000, "pipe")).await;
    bench.clock.stop();
    bench.clock.join().await;
    while !every.is_over() || !pipe.is_over() {
        tokio::task::yield_now().await;
    }
    assert!(Instant::now().elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_piped_future_runs_beside_the_actor_and_its_result_comes_as_a_message() {
    let mut bench = Bench::new();
    bench.set(Set::Pipe(7, "result")).await;
    // The actor goes on meanwhile.
    bench.set(Set::After(1, "meanwhile")).await;
    assert_eq!(bench.hears().await, (1, "meanwhile"));
    assert_eq!(bench.hears().await, (7, "result"));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_piped_future_fails_its_actor() {
    let mut bench = Bench::new();
    bench.set(Set::Panic).await;
    let exit = bench.clock.join().await.to_string();
    assert!(exit.contains("a planned panic"), "{exit}");
}

#[tokio::test(start_paused = true)]
async fn an_actor_has_a_bounded_number_of_timers() {
    let bench = Bench::new();
    let most = limits::TASKS_PER_ACTOR_MAX;
    bench.clock.post(&bench.main, Set::Many(most)).unwrap();
    // They are over, so as many can be set again; one more fails the handler, which passes the error on.
    bench.clock.post(&bench.main, Set::Block(2)).unwrap();
    bench.clock.post(&bench.main, Set::Many(most + 1)).unwrap();
    let exit = bench.clock.join().await.to_string();
    assert!(exit.contains("which is the limit"), "{exit}");
}

#[tokio::test(start_paused = true)]
async fn of_many_that_are_asked_those_who_do_not_reply_are_named() {
    let wire = Wire::default();
    let (near, far) = (wire.proc("near"), wire.proc("far"));
    let main = near.client("main").unwrap();
    let here = near.spawn("here", Counter { total: 1 }).unwrap().bind();
    let there = far.spawn("there", Counter { total: 2 }).unwrap().bind();
    let nobody = hyperactor_proc::ActorRef::attest(near.actor_id("nobody"));
    let deadline = Duration::from_secs(3);
    let all = [here.clone(), there.clone(), nobody.clone()];
    let start = Instant::now();
    let collected = Collect::all()
        .within(deadline)
        .ask(&main, &all, Total)
        .await;
    assert!(!collected.is_complete());
    assert_eq!(
        collected.replied,
        [(here.actor_id().clone(), 1), (there.actor_id().clone(), 2)]
    );
    assert_eq!(collected.failed.len(), 1);
    assert_eq!(collected.failed[0].0, *nobody.actor_id());
    assert!(matches!(
        collected.failed[0].1,
        AskError::NotDelivered { .. }
    ));
    // Once it is known that one will never reply, nobody waits for the deadline.
    assert!(start.elapsed().is_zero());
    let error = collected.complete().unwrap_err().to_string();
    assert!(
        error.starts_with("2 of 3 replied; ") && error.contains("nobody"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_first_replies_are_enough_and_the_other_questions_are_taken_back() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let quick = |name: &str| {
        let counter = proc.spawn(name, Counter::default()).unwrap();
        counter.bind()
    };
    let (one, two) = (quick("one"), quick("two"));
    let (gated, _gate, _events) = Gated::new();
    let options = SpawnOptions::default().queue_capacity(1);
    let stuck = proc.spawn_with("stuck", gated, &options).unwrap();
    let collected = Collect::first(1).ask(&main, &[one, two], Total).await;
    assert!(collected.is_complete());
    assert_eq!(collected.replied.len(), 1);
    let none = Collect::first(1)
        .within(Duration::from_secs(1))
        .ask(&main, &[stuck.bind()], Total)
        .await;
    assert_eq!(none.missing, [stuck.actor_id().clone()]);
    assert!(none.replied.is_empty() && !none.is_complete());
    let nobody: [hyperactor_proc::ActorRef<Counter>; 0] = [];
    let all = Collect::all().ask(&main, &nobody, Total).await;
    assert_eq!(all.complete().unwrap(), []);
}

/// Asks through a delegate while it handles nothing.
#[derive(Actor)]
#[actor(messages(Total))]
struct Aside(
    hyperactor_proc::ActorRef<Counter>,
    mpsc::UnboundedSender<u64>,
);

impl Handler<Total> for Aside {
    async fn handle(&mut self, cx: &Context<Self>, Total(reply): Total) -> ActorResult {
        let (me, counter, tell) = (cx.delegate(), self.0.clone(), self.1.clone());
        tokio::spawn(async move {
            counter.post(&me, Add(1));
            let total = counter.ask(&me, Total).await.unwrap();
            reply.post(&me, total);
            tell.send(total).unwrap();
        });
        Ok(())
    }
}

#[tokio::test]
async fn a_delegate_asks_and_replies_for_its_actor_from_a_task() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let counter = proc.spawn("counter", Counter::default()).unwrap().bind();
    let (tell, mut told) = mpsc::unbounded_channel();
    let aside = proc.spawn("aside", Aside(counter, tell)).unwrap().bind();
    assert_eq!(soon(aside.ask(&main, Total)).await, Ok(1));
    assert_eq!(soon(told.recv()).await, Some(1));
}
