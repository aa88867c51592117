//! Messages that come alone: an actor that takes one is asleep already, and is woken by the next one whatever it does meanwhile.
//! And the timer that is kept from one question to the next.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyperactor_proc::{
    Actor, ActorExit, ActorResult, AskError, Context, Handler, Message, OncePortRef, Proc,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};
use tokio::task::coop;
use tokio::time::Instant;

use crate::common::soon;

/// What to do while the message is handled.
enum Step {
    /// Nothing.
    Plain,
    /// Waits for the gate.
    Gated,
    /// Posts so many messages to itself, one from within the other.
    Again(u32),
}

/// Tells of each message that it has handled.
#[derive(Actor)]
struct Alone {
    gate: Arc<Notify>,
    handled: mpsc::UnboundedSender<&'static str>,
}

impl Handler<Step> for Alone {
    async fn handle(&mut self, cx: &Context<Self>, step: Step) -> ActorResult {
        let what = match step {
            Step::Plain => "plain",
            Step::Gated => {
                self.handled.send("begun")?;
                self.gate.notified().await;
                "gated"
            }
            Step::Again(0) => "again",
            Step::Again(left) => {
                cx.handle().post(cx, Step::Again(left - 1))?;
                "again"
            }
        };
        self.handled.send(what)?;
        Ok(())
    }
}

struct Scene {
    main: hyperactor_proc::Client,
    alone: hyperactor_proc::ActorHandle<Alone>,
    gate: Arc<Notify>,
    handled: mpsc::UnboundedReceiver<&'static str>,
    _proc: Proc,
}

impl Scene {
    async fn new() -> Self {
        let proc = Proc::isolated("p");
        let gate = Arc::new(Notify::new());
        let (tell, handled) = mpsc::unbounded_channel();
        let alone = Alone {
            gate: Arc::clone(&gate),
            handled: tell,
        };
        let mut scene = Self {
            main: proc.client("main").unwrap(),
            alone: proc.spawn("alone", alone).unwrap(),
            gate,
            handled,
            _proc: proc,
        };
        // From the second message on the actor's loop for the type is there, which is what goes to sleep.
        for _ in 0..3 {
            scene.post(Step::Plain);
            assert_eq!(scene.next().await, "plain");
        }
        scene
    }

    fn post(&self, step: Step) {
        self.alone.post(&self.main, step).unwrap();
    }

    async fn next(&mut self) -> &'static str {
        soon(self.handled.recv()).await.unwrap()
    }
}

#[tokio::test]
async fn a_message_that_comes_while_a_lone_one_waits_in_its_handler_is_handled_after_it() {
    let mut scene = Scene::new().await;
    for _ in 0..100 {
        scene.post(Step::Gated);
        assert_eq!(scene.next().await, "begun");
        scene.post(Step::Plain);
        // The post may have woken the actor, which can do nothing yet.
        tokio::task::yield_now().await;
        scene.gate.notify_one();
        assert_eq!(scene.next().await, "gated");
        assert_eq!(scene.next().await, "plain");
    }
}

#[tokio::test]
async fn a_message_that_a_lone_one_sends_its_own_actor_is_handled_after_it() {
    let mut scene = Scene::new().await;
    scene.post(Step::Again(1_000));
    for _ in 0..=1_000 {
        assert_eq!(scene.next().await, "again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_come_one_by_one_from_another_thread_are_all_handled() {
    let mut scene = Scene::new().await;
    for number in 0..20_000 {
        scene.post(Step::Plain);
        // In every phase of handling and going to rest: sometimes the next one comes after the answer, sometimes before.
        if number % 3 != 0 {
            assert_eq!(scene.next().await, "plain");
        }
        if number % 3 == 1 {
            assert_eq!(scene.next().await, "plain");
        }
    }
}

#[tokio::test]
async fn an_actor_that_rests_after_a_lone_message_stops_when_it_is_asked_to() {
    let scene = Scene::new().await;
    scene.alone.stop();
    assert!(matches!(soon(scene.alone.join()).await, ActorExit::Stopped));
    let mut scene = Scene::new().await;
    // While the lone message is in its handler.
    scene.post(Step::Gated);
    assert_eq!(scene.next().await, "begun");
    scene.alone.drain();
    scene.gate.notify_one();
    assert!(matches!(soon(scene.alone.join()).await, ActorExit::Stopped));
}

#[derive(Message, Serialize, Deserialize)]
struct Quick(OncePortRef<u64>);

#[derive(Message, Serialize, Deserialize)]
struct Never(OncePortRef<u64>);

#[derive(Actor)]
#[actor(messages(Quick, Never))]
struct Asked;

impl Handler<Quick> for Asked {
    async fn handle(&mut self, cx: &Context<Self>, Quick(reply): Quick) -> ActorResult {
        cx.reply(reply, 1);
        Ok(())
    }
}

impl Handler<Never> for Asked {
    async fn handle(&mut self, _: &Context<Self>, _reply: Never) -> ActorResult {
        pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_later_question_counts_from_that_question() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let asked = proc.spawn("asked", Asked).unwrap().bind();
    // In a task, which keeps its timer from question to question.
    let asking = tokio::spawn(async move {
        // The last pause leaves a timer that fires within the next wait, and long before its end.
        for pause in [0, 700, 900, 1_500, 700] {
            let reply = asked.ask_within(&main, Duration::from_secs(1), Quick).await;
            assert_eq!(reply, Ok(1));
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        for deadline in [Duration::from_secs(1), Duration::from_millis(300)] {
            let began = Instant::now();
            let reply = asked.ask_within(&main, deadline, Never).await;
            assert!(matches!(reply, Err(AskError::TimedOut { .. })), "{reply:?}");
            let late = began.elapsed() - deadline;
            assert!(late <= Duration::from_millis(1), "{late:?}");
        }
    });
    soon(asking).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_question_at_the_end_of_a_turn_ends_at_its_deadline() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let asked = proc.spawn("asked", Asked).unwrap().bind();
    let asking = tokio::spawn(async move {
        let deadline = Duration::from_secs(1);
        // The second one finds the timer of the first.
        for _ in 0..2 {
            let began = Instant::now();
            let mut question = Box::pin(asked.ask_within(&main, deadline, Never));
            let polled = poll_fn(|task| {
                while coop::has_budget_remaining() {
                    if let Poll::Ready(part) = coop::poll_proceed(task) {
                        part.made_progress();
                    }
                }
                Poll::Ready(question.as_mut().poll(task))
            });
            assert!(polled.await.is_pending());
            let reply = question.await;
            assert!(matches!(reply, Err(AskError::TimedOut { .. })), "{reply:?}");
            let late = began.elapsed() - deadline;
            assert!(late <= Duration::from_millis(1), "{late:?}");
        }
    });
    soon(asking).await.unwrap();
}
