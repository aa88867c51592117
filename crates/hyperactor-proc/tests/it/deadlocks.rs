//! Circles of waiting actors are named, over one to three procs, and only those.

use std::time::Duration;

use crate::common::{Wire, soon};
use hyperactor_proc::{
    Actor, ActorRef, ActorResult, AskError, Context, Handler, Message, OncePortRef, Proc,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Whom to ask next, and so on; the last one replies.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
struct Visit {
    /// By their numbers; the same one may come again.
    path: Vec<Step>,
    reply: OncePortRef<Result<u32, String>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Step {
    to: usize,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum How {
    /// Wait for the reply in the handler.
    Ask,
    /// Wait in a task of its own; the handler is done.
    Task,
    /// Give up after so many milliseconds, and reply without it.
    Within(u64),
    /// Answer first, then ask.
    AnswerFirst,
}

#[derive(Actor)]
#[actor(messages(Visit))]
struct Node {
    /// All nodes, by number.
    all: Vec<ActorRef<Node>>,
}

impl Handler<Visit> for Node {
    async fn handle(&mut self, cx: &Context<Self>, visit: Visit) -> ActorResult {
        let Visit { mut path, reply } = visit;
        if path.is_empty() {
            reply.post(cx, Ok(0));
            return Ok(());
        }
        let step = path.remove(0);
        let next = self.all[step.to].clone();
        let visit = |reply| Visit { path, reply };
        let result = match step.how {
            How::Ask => next.ask(cx, visit).await,
            How::Within(millis) => {
                let deadline = Duration::from_millis(millis);
                next.ask_within(cx, deadline, visit).await
            }
            How::Task => {
                let me = cx.delegate();
                tokio::spawn(async move {
                    let result = next.ask(&me, visit).await;
                    reply.post(&me, told(result));
                });
                return Ok(());
            }
            How::AnswerFirst => {
                reply.post(cx, Ok(0));
                // Whatever becomes of it, nobody waits for this actor any more.
                let result = next.ask(cx, visit).await;
                if let Err(error @ AskError::Deadlock { .. }) = result {
                    return Err(error.into());
                }
                return Ok(());
            }
        };
        reply.post(cx, told(result));
        Ok(())
    }
}

fn told(result: Result<Result<u32, String>, AskError>) -> Result<u32, String> {
    match result {
        Ok(Ok(depth)) => Ok(depth + 1),
        Ok(Err(error)) => Err(error),
        Err(error @ AskError::TimedOut { .. }) => Err(format!("no reply: {error}")),
        Err(error) => Err(format!("{}: {error}", error.code())),
    }
}

struct Bench {
    procs: Vec<Proc>,
    nodes: Vec<ActorRef<Node>>,
}

impl Bench {
    /// Nodes that take turns in living in the procs.
    fn new(nodes: usize, procs: usize) -> Self {
        let wire = Wire::default();
        let procs: Vec<_> = (0..procs).map(|at| wire.proc(&format!("p{at}"))).collect();
        let home = |at: usize| &procs[at % procs.len()];
        let all: Vec<_> = (0..nodes)
            .map(|at| ActorRef::attest(home(at).actor_id(&format!("node{at}"))))
            .collect();
        for at in 0..nodes {
            let node = Node { all: all.clone() };
            home(at).spawn(&format!("node{at}"), node).unwrap().bind();
        }
        Self { procs, nodes: all }
    }

    async fn visit(&self, first: usize, path: Vec<Step>) -> Result<u32, String> {
        // Whoever lets one tell a name from another test's.
        let client = self.procs[0].client("main").unwrap();
        let visit = |reply| Visit { path, reply };
        let result = soon(self.nodes[first].ask(&client, visit)).await;
        result.unwrap_or_else(|error| Err(format!("outer: {error}")))
    }
}

fn ask(to: usize) -> Step {
    Step { to, how: How::Ask }
}

///
#[tokio::test(start_paused = true)]
async fn a_circle_of_two_to_six_over_one_to_three_procs_is_named_at_once_with_everybody_in_it() {
    for procs in 1..=3 {
        for length in 2..=6 {
            let bench = Bench::new(length, procs);
            let start = Instant::now();
            let path = (1..length).chain([0]).map(ask).collect();
            let error = bench.visit(0, path).await.unwrap_err();
            assert!(
                error.starts_with("deadlock: "),
                "{length} over {procs}: {error}"
            );
            let circle = (0..length)
                .chain([0])
                .map(|at| format!("`{}`", bench.nodes[at].actor_id()))
                .collect::<Vec<_>>()
                .join(" -> ");
            assert!(error.contains(&circle), "{length} over {procs}: {error}");
            assert_eq!(start.elapsed(), Duration::ZERO);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_asks_itself_is_told_so() {
    let bench = Bench::new(1, 1);
    let error = bench.visit(0, vec![ask(0)]).await.unwrap_err();
    assert!(error.starts_with("deadlock: "), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_circle_that_does_not_go_back_to_the_first_is_named_without_the_way_to_it() {
    let bench = Bench::new(4, 2);
    let path = [1, 2, 3, 1].map(ask).to_vec();
    let error = bench.visit(0, path).await.unwrap_err();
    assert!(
        error.contains("node1") && error.contains("node3"),
        "{error}"
    );
    let (_, circle) = error.split_once("for ever: ").unwrap();
    assert!(!circle.contains("node0"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_in_a_task_of_its_own_is_in_no_circle() {
    for procs in 1..=3 {
        let bench = Bench::new(3, procs);
        let task = Step {
            to: 1,
            how: How::Task,
        };
        let path = vec![task, ask(2), ask(0)];
        assert_eq!(bench.visit(0, path).await, Ok(3));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_has_answered_is_waited_for_by_nobody() {
    for procs in 1..=3 {
        let bench = Bench::new(3, procs);
        let first = Step {
            to: 2,
            how: How::AnswerFirst,
        };
        // 0 asks 1, who answers and then asks 2, who asks 0: by then, or soon, 0 is free.
        let path = vec![ask(1), first, ask(0)];
        assert_eq!(bench.visit(0, path).await, Ok(1));
        // Everybody still lives and answers.
        for at in 0..3 {
            assert_eq!(bench.visit(at, vec![]).await, Ok(0), "{at} over {procs}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_was_given_up_is_no_part_of_a_circle() {
    /// Asks the other one and gives up at once; the other one then asks back.
    #[derive(Actor)]
    #[actor(messages(Ping))]
    struct Impatient;
    #[derive(Message, Serialize, Deserialize)]
    struct Ping(OncePortRef<u64>);
    impl Handler<Ping> for Impatient {
        async fn handle(&mut self, cx: &Context<Self>, Ping(reply): Ping) -> ActorResult {
            cx.reply(reply, 1);
            Ok(())
        }
    }
    #[derive(Message, Serialize, Deserialize)]
    struct AskBack {
        whom: ActorRef<Impatient>,
        reply: OncePortRef<u64>,
    }
    #[derive(Actor)]
    #[actor(messages(AskBack))]
    struct Slow(tokio::sync::mpsc::UnboundedSender<Result<u64, AskError>>);
    impl Handler<AskBack> for Slow {
        async fn handle(&mut self, cx: &Context<Self>, request: AskBack) -> ActorResult {
            // Only when the one who asked has given up, which it tells.
            request.reply.closed().await;
            self.0.send(request.whom.ask(cx, Ping).await)?;
            Ok(())
        }
    }
    #[derive(Actor)]
    struct Asker {
        slow: ActorRef<Slow>,
    }
    impl Handler<ActorRef<Impatient>> for Asker {
        async fn handle(&mut self, cx: &Context<Self>, whom: ActorRef<Impatient>) -> ActorResult {
            let reply = |reply| AskBack { whom, reply };
            let deadline = Duration::from_millis(5);
            let result = self.slow.ask_within(cx, deadline, reply).await;
            assert!(matches!(result, Err(AskError::TimedOut { .. })));
            Ok(())
        }
    }
    for procs in 1..=2 {
        let wire = Wire::default();
        let near = wire.proc("near");
        let far = if procs == 1 {
            near.clone()
        } else {
            wire.proc("far")
        };
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let slow = far.spawn("slow", Slow(tell)).unwrap().bind();
        let impatient = near.spawn("impatient", Impatient).unwrap().bind();
        let asker = near.spawn("asker", Asker { slow }).unwrap();
        let main = near.client("main").unwrap();
        asker.post(&main, impatient).unwrap();
        assert_eq!(soon(told.recv()).await, Some(Ok(1)));
    }
}

/// What a path must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Free,
    /// A circle of handlers that wait: told at once.
    Told,
    /// A circle through a task, which carries a reply on that somebody waits for: nobody can see that, and the
    /// deadlines end it.
    Hidden,
}

/// Walks a path by its own rules, without any message.
fn fate(first: usize, path: &[Step]) -> Fate {
    // Whose handlers wait: those that the next question names, and those on the other side of a task.
    let (mut chain, mut hidden) = (vec![], vec![]);
    let mut at = first;
    for step in path {
        if step.how == How::Task {
            hidden.append(&mut chain);
        } else {
            chain.push(at);
        }
        if chain.contains(&step.to) {
            return Fate::Told;
        }
        if hidden.contains(&step.to) {
            return Fate::Hidden;
        }
        at = step.to;
    }
    Fate::Free
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_deadlock_is_told_exactly_where_handlers_wait_for_each_other(
        procs in 1_usize..=3,
        first in 0_usize..4,
        path in prop::collection::vec(
            (
                0_usize..4,
                prop_oneof![3 => Just(How::Ask), 2 => Just(How::Task), 1 => Just(How::Within(5_000))],
            ),
            0..8,
        ),
    ) {
        let path: Vec<_> = path.into_iter().map(|(to, how)| Step { to, how }).collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let fate = fate(first, &path);
        let (result, waited) = runtime.block_on(async {
            let bench = Bench::new(4, procs);
            let start = Instant::now();
            let result = bench.visit(first, path.clone()).await;
            (result, start.elapsed())
        });
        match result {
            Ok(depth) => {
                prop_assert_eq!(fate, Fate::Free, "a circle was not seen in {:?}", path);
                prop_assert_eq!(depth as usize, path.len());
            }
            Err(error) if fate == Fate::Hidden => {
                prop_assert!(!error.contains("deadlock"), "a false alarm in {path:?}: {error}");
                return Ok(());
            }
            Err(error) => {
                prop_assert_eq!(fate, Fate::Told, "a false alarm in {:?}: {}", path, error);
                prop_assert!(error.starts_with("deadlock: "), "{error}");
            }
        }
        prop_assert_eq!(waited, Duration::ZERO, "waited for a deadline");
    }
}
