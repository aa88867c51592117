//! Requests between procs over real Unix sockets: given up, dropped, failed, lost, streamed, collected, and waited for in
//! circles. The same in one proc is in the tests of `hyperactor-proc`.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers too: a test's panic is its report"
)]

mod sockets;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyperactor::Message;
use hyperactor::mailbox::Never;
use hyperactor::prelude::*;
use hyperactor::proc::{Collect, Stream, StreamError, StreamRef};
use serde::{Deserialize, Serialize};
use sockets::{AT_ONCE, Joined, PATIENCE, soon};
use tokio::sync::{Notify, mpsc};

/// What the actor under test shall do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum How {
    Answer,
    Watch,
    Drop,
    Fail,
    Keep,
}

#[derive(Message, Serialize, Deserialize)]
struct Do(How, OncePortRef<u64>);

#[derive(Message, Serialize, Deserialize)]
struct Count {
    count: u64,
    fails: bool,
    out: StreamRef<u64>,
}

/// Refers to a counter that lives somewhere.
#[derive(Message, Serialize, Deserialize)]
struct PassOn {
    to: Vec<ActorRef<Worker>>,
    last: PortRef<u64>,
    reply: OncePortRef<u64>,
}

#[derive(Actor)]
#[actor(messages(Do, Count, PassOn))]
struct Worker {
    seen: mpsc::UnboundedSender<How>,
    unwanted: mpsc::UnboundedSender<()>,
    kept: Vec<OncePortRef<u64>>,
}

impl Handler<Do> for Worker {
    async fn handle(&mut self, cx: &Context<Self>, Do(how, reply): Do) -> ActorResult {
        self.seen.send(how)?;
        match how {
            How::Answer => reply.post(cx, 42),
            How::Watch => {
                reply.closed().await;
                self.unwanted.send(())?;
            }
            How::Drop => drop(reply),
            How::Fail => return Err("disk is full".into()),
            How::Keep => self.kept.push(reply),
        }
        Ok(())
    }
}

impl Handler<Count> for Worker {
    async fn handle(&mut self, cx: &Context<Self>, request: Count) -> ActorResult {
        let mut out = request.out.open(cx)?;
        for number in 0..request.count {
            if out.send(number).await.is_err() {
                return Ok(());
            }
        }
        match request.fails {
            true => out.fail("out of numbers"),
            false => out.finish(),
        }
        Ok(())
    }
}

impl Handler<PassOn> for Worker {
    async fn handle(&mut self, cx: &Context<Self>, mut message: PassOn) -> ActorResult {
        match message.to.pop() {
            Some(next) => next.post(cx, message),
            None => {
                message.last.post(cx, 7);
                message.reply.post(cx, 8);
            }
        }
        Ok(())
    }
}

/// A worker in a proc of its own, and a client elsewhere.
struct Pair {
    near: Joined,
    far: Joined,
    client: Client,
    worker: ActorRef<Worker>,
    seen: mpsc::UnboundedReceiver<How>,
    unwanted: mpsc::UnboundedReceiver<()>,
}

fn worker() -> (
    Worker,
    mpsc::UnboundedReceiver<How>,
    mpsc::UnboundedReceiver<()>,
) {
    let (tell, seen) = mpsc::unbounded_channel();
    let (say, unwanted) = mpsc::unbounded_channel();
    let worker = Worker {
        seen: tell,
        unwanted: say,
        kept: Vec::new(),
    };
    (worker, seen, unwanted)
}

impl Pair {
    async fn new() -> Self {
        let (near, far) = (Joined::new("near").await, Joined::new("far").await);
        let (worker, seen, unwanted) = worker();
        let worker = far.proc.spawn("worker", worker).unwrap();
        Self {
            client: near.proc.client("main").unwrap(),
            worker: worker.bind(),
            near,
            far,
            seen,
            unwanted,
        }
    }

    /// Asks with a deadline that no test waits for.
    async fn ask(&self, how: How) -> Result<u64, AskError> {
        let request = |reply| Do(how, reply);
        self.worker
            .ask_within(&self.client, PATIENCE, request)
            .await
    }

    async fn stream(&self, count: u64, fails: bool) -> Stream<u64> {
        let request = |out| Count { count, fails, out };
        soon(self.worker.ask_stream(&self.client, request))
            .await
            .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_is_given_up_is_withdrawn_from_the_other_process() {
    let mut pair = Pair::new().await;
    // By dropping it, while it is handled and while it waits in the queue.
    {
        let mut first = Box::pin(pair.worker.ask(&pair.client, |reply| Do(How::Watch, reply)));
        let seen = tokio::select! {
            result = &mut first => panic!("{result:?}"),
            seen = soon(pair.seen.recv()) => seen,
        };
        assert_eq!(seen, Some(How::Watch));
        let queued = tokio::time::timeout(
            Duration::from_millis(200),
            pair.worker.ask(&pair.client, |reply| Do(How::Fail, reply)),
        );
        assert!(queued.await.is_err());
    }
    soon(pair.unwanted.recv()).await.unwrap();
    // The one in the queue would have failed the actor.
    assert_eq!(soon(pair.ask(How::Answer)).await, Ok(42));
    // By its deadline.
    let deadline = Duration::from_millis(50);
    let request = |reply| Do(How::Watch, reply);
    let late = pair.worker.ask_within(&pair.client, deadline, request);
    assert_eq!(soon(late).await.unwrap_err().code(), "no-reply");
    soon(pair.unwanted.recv()).await.unwrap();
    pair.seen.close();
    let mut seen = Vec::new();
    while let Some(how) = pair.seen.recv().await {
        seen.push(how);
    }
    assert_eq!(seen, [How::Answer, How::Watch]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_will_not_come_from_another_process_ends_the_wait_at_once_with_the_cause() {
    let pair = Pair::new().await;
    let start = Instant::now();
    let target = pair.worker.actor_id().clone();
    let why = Never::Dropped;
    let dropped = soon(pair.ask(How::Drop)).await;
    assert_eq!(dropped, Err(AskError::Unanswered { target, why }));
    // One is kept, one fails the actor; both are told how it ended.
    let (kept, failed) = tokio::join!(soon(pair.ask(How::Keep)), soon(pair.ask(How::Fail)));
    for error in [kept.unwrap_err(), failed.unwrap_err()] {
        assert_eq!(error.code(), "target-ended");
        assert!(error.to_string().contains("disk is full"), "{error}");
    }
    let gone = soon(pair.ask(How::Answer)).await.unwrap_err();
    assert_eq!(gone.code(), "actor-stopped");
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_of_the_other_process_ends_the_wait_long_before_its_deadline() {
    let pair = Pair::new().await;
    assert_eq!(soon(pair.ask(How::Answer)).await, Ok(42));
    let Pair {
        far,
        worker,
        client,
        mut seen,
        near: _near,
        ..
    } = pair;
    assert_eq!(soon(seen.recv()).await, Some(How::Answer));
    let start = Instant::now();
    let asked = tokio::spawn(async move {
        worker
            .ask_within(&client, PATIENCE, |reply| Do(How::Watch, reply))
            .await
    });
    assert_eq!(soon(seen.recv()).await, Some(How::Watch));
    far.vanish().await;
    let error = soon(asked).await.unwrap().unwrap_err();
    assert_eq!(error.code(), "proc-lost", "{error}");
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_crosses_in_order_waits_for_its_receiver_and_ends_as_it_was_ended() {
    let pair = Pair::new().await;
    let all = soon(pair.stream(20_000, false).await.collect()).await;
    assert_eq!(all.unwrap(), (0..20_000).collect::<Vec<_>>());

    let mut failing = pair.stream(3, true).await;
    for number in 0..3 {
        assert_eq!(soon(failing.next()).await, Ok(Some(number)));
    }
    let Err(StreamError::Failed { reason, .. }) = soon(failing.next()).await else {
        panic!("the failure is not told");
    };
    assert_eq!(reason, "out of numbers");

    // One that nobody takes from stops its sender, and keeps nobody else from the actor's proc.
    let stuck = pair.stream(1_000_000, false).await;
    let (other, _seen, _unwanted) = worker();
    let other = pair.far.proc.spawn("other", other).unwrap().bind();
    let neighbour = other.ask(&pair.client, |reply| Do(How::Answer, reply));
    assert_eq!(soon(neighbour).await, Ok(42));
    drop(stuck);
    assert_eq!(soon(pair.ask(How::Answer)).await, Ok(42));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_in_three_processes_are_asked_and_those_who_cannot_reply_are_named() {
    let procs = Joined::many(3).await;
    let client = procs[0].proc.client("main").unwrap();
    let mut kept = Vec::new();
    let mut workers = Vec::new();
    for (at, joined) in procs.iter().enumerate() {
        let (worker, seen, unwanted) = worker();
        kept.push((seen, unwanted));
        let name = format!("worker{at}");
        workers.push(joined.proc.spawn(&name, worker).unwrap().bind());
    }
    let nobody = ActorRef::attest(procs[2].proc.actor_id("nobody"));
    workers.push(nobody.clone());
    let collected = soon(
        Collect::all()
            .within(PATIENCE)
            .ask(&client, &workers, |reply| Do(How::Answer, reply)),
    )
    .await;
    assert_eq!(collected.replied.len(), 3);
    assert_eq!(collected.failed[0].0, *nobody.actor_id());
    let first = soon(
        Collect::first(2)
            .within(PATIENCE)
            .ask(&client, &workers, |reply| Do(How::Answer, reply)),
    )
    .await;
    assert_eq!(first.complete().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn references_to_actors_and_ports_travel_through_three_procs_and_are_used_there() {
    let procs = Joined::many(3).await;
    let client = procs[0].proc.client("main").unwrap();
    let mut kept = Vec::new();
    let workers: Vec<_> = procs
        .iter()
        .map(|joined| {
            let (worker, seen, unwanted) = worker();
            kept.push((seen, unwanted));
            joined.proc.spawn("worker", worker).unwrap().bind()
        })
        .collect();
    let (port, mut received) = client.mailbox().open_port();
    let last = port.bind();
    // They print, and parse back to themselves.
    assert_eq!(
        workers[2].to_string().parse::<ActorRef<Worker>>().unwrap(),
        workers[2]
    );
    let to = vec![workers[0].clone(), workers[2].clone(), workers[1].clone()];
    let request = |reply| PassOn { to, last, reply };
    assert_eq!(soon(workers[0].ask(&client, request)).await, Ok(8));
    assert_eq!(soon(received.recv()).await, Some(7));
}

/// Whom to ask next, and so on; the last one replies.
#[derive(Message, Serialize, Deserialize)]
struct Visit {
    path: Vec<(usize, u64)>,
    reply: OncePortRef<Result<u32, String>>,
}

/// Asks on with each step's deadline in milliseconds.
#[derive(Actor)]
#[actor(messages(Visit))]
struct Node(Vec<ActorRef<Node>>);

impl Handler<Visit> for Node {
    async fn handle(&mut self, cx: &Context<Self>, visit: Visit) -> ActorResult {
        let Visit { mut path, reply } = visit;
        if path.is_empty() {
            reply.post(cx, Ok(0));
            return Ok(());
        }
        let (next, millis) = path.remove(0);
        let deadline = Duration::from_millis(millis);
        let asked = self.0[next].ask_within(cx, deadline, |reply| Visit { path, reply });
        let told = match asked.await {
            Ok(Ok(depth)) => Ok(depth + 1),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(format!("{}: {error}", error.code())),
        };
        reply.post(cx, told);
        Ok(())
    }
}

async fn nodes(count: usize, procs: usize) -> (Vec<Joined>, Vec<ActorRef<Node>>) {
    let procs = Joined::many(procs).await;
    let home = |at: usize| &procs[at % procs.len()].proc;
    let all: Vec<_> = (0..count)
        .map(|at| ActorRef::attest(home(at).actor_id(&format!("node{at}"))))
        .collect();
    for at in 0..count {
        let node = Node(all.clone());
        home(at).spawn(&format!("node{at}"), node).unwrap().bind();
    }
    (procs, all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circle_of_two_to_six_actors_over_one_to_three_procs_is_named_at_once() {
    const NO_DEADLINE: u64 = 600_000;
    for procs in 1..=3 {
        for length in 2..=6 {
            let (joined, nodes) = nodes(length, procs).await;
            let client = joined[0].proc.client("main").unwrap();
            let start = Instant::now();
            let path = (1..length).chain([0]).map(|at| (at, NO_DEADLINE)).collect();
            let request = |reply| Visit { path, reply };
            let asked = nodes[0].ask_within(&client, PATIENCE, request);
            let error = soon(asked).await.unwrap().unwrap_err();
            let circle: Vec<_> = nodes
                .iter()
                .chain([&nodes[0]])
                .map(|node| format!("`{}`", node.actor_id()))
                .collect();
            assert!(error.starts_with("deadlock: "), "{error}");
            assert!(error.contains(&circle.join(" -> ")), "{error}");
            assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        }
    }
}

/// Every path goes up in one order of the nodes, so there is no circle; deadlines of a millisecond or few end waits at
/// every point of their way, and their withdrawals overtake nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlines_that_end_waits_at_any_point_raise_no_false_alarm() {
    const NODES: usize = 6;
    const ROUNDS: u64 = 300;
    let (joined, nodes) = nodes(NODES, 3).await;
    let seed = hyperactor_testkit::Seed::from_env();
    println!("{seed}");
    let mut random = seed.rng();
    let (mut replied, mut late) = (0, 0);
    let mut asked = Vec::new();
    for round in 0..ROUNDS {
        let client = joined[(round % 3) as usize]
            .proc
            .client(&format!("client{round}"))
            .unwrap();
        let first = random.below(NODES as u64) as usize;
        let path: Vec<_> = (first + 1..NODES)
            .map(|at| (at, 1 + random.below(20)))
            .collect();
        let node = nodes[first].clone();
        asked.push(tokio::spawn(async move {
            let request = |reply| Visit { path, reply };
            let result = node.ask_within(&client, PATIENCE, request).await;
            match result {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(error),
                Err(error) => Some(error.to_string()),
            }
        }));
    }
    for asked in asked {
        match soon(asked).await.unwrap() {
            None => replied += 1,
            Some(error) => {
                assert!(
                    !error.contains("wait for each other"),
                    "a false alarm: {error}"
                );
                late += 1;
            }
        }
    }
    println!("{replied} replied, {late} were late");
    assert_eq!(replied + late, ROUNDS);
}

/// Asked by somebody who gives up; only then asks back.
#[derive(Message, Serialize, Deserialize)]
struct AskBack(OncePortRef<u64>);

#[derive(Message, Serialize, Deserialize)]
struct Start(OncePortRef<u64>);

/// One of two that ask each other.
#[derive(Actor)]
#[actor(messages(Start, AskBack, Do))]
struct Twin {
    other: ActorRef<Twin>,
    /// One of them was asked back.
    is_asked: Arc<Notify>,
    told: mpsc::UnboundedSender<Result<u64, AskError>>,
}

impl Handler<Start> for Twin {
    async fn handle(&mut self, cx: &Context<Self>, Start(reply): Start) -> ActorResult {
        // Not by a deadline: a question that is given up before it is handled is not handled at all.
        tokio::select! {
            asked = self.other.ask_within(cx, PATIENCE, AskBack) => panic!("nobody answers: {asked:?}"),
            () = self.is_asked.notified() => {}
        }
        reply.post(cx, 1);
        Ok(())
    }
}

impl Handler<AskBack> for Twin {
    async fn handle(&mut self, cx: &Context<Self>, AskBack(reply): AskBack) -> ActorResult {
        self.is_asked.notify_one();
        reply.closed().await;
        // The chain of this question still names the one who has given up.
        let request = |reply| Do(How::Answer, reply);
        self.told
            .send(self.other.ask_within(cx, PATIENCE, request).await)?;
        Ok(())
    }
}

impl Handler<Do> for Twin {
    async fn handle(&mut self, cx: &Context<Self>, Do(_, reply): Do) -> ActorResult {
        reply.post(cx, 42);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_was_given_up_in_another_process_is_no_part_of_a_circle() {
    for _ in 0..20 {
        let procs = Joined::many(2).await;
        let (told, mut answers) = mpsc::unbounded_channel();
        let is_asked = Arc::new(Notify::new());
        let twin = |at: usize| ActorRef::attest(procs[at].proc.actor_id("twin"));
        for (at, joined) in procs.iter().enumerate() {
            let other = twin(1 - at);
            let (is_asked, told) = (Arc::clone(&is_asked), told.clone());
            let actor = Twin {
                other,
                is_asked,
                told,
            };
            let handle = joined.proc.spawn("twin", actor).unwrap();
            assert_eq!(handle.bind(), twin(at));
        }
        let client = procs[0].proc.client("main").unwrap();
        let first = twin(0);
        let started = first.ask_within(&client, PATIENCE, Start);
        assert_eq!(soon(started).await, Ok(1));
        assert_eq!(soon(answers.recv()).await, Some(Ok(42)));
    }
}
