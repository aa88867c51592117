//! Requests whose wait ends without a reply: given up by the asker, dropped or failed by whoever was asked, in one proc
//! and across two. The clock stands still: a wait that ended only at its deadline would show in the time.

use std::time::Duration;

use crate::common::{Wire, polled_once};
use hyperactor_mailbox::Never;
use hyperactor_proc::{
    Actor, ActorError, ActorRef, ActorResult, AskError, Client, Context, Handler, Message,
    OncePortRef, Proc,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What the actor under test shall do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum How {
    Answer,
    /// Wait until nobody wants the reply, and tell.
    Watch,
    Drop,
    Fail,
    Panic,
    Keep,
    /// Hold the actor for ever.
    Hang,
}

#[derive(Message, Serialize, Deserialize)]
struct Do(How, OncePortRef<u64>);

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Began(How),
    Unwanted,
}

/// Does as each request says.
#[derive(Actor)]
#[actor(messages(Do))]
struct Worker {
    seen: mpsc::UnboundedSender<Seen>,
    kept: Vec<OncePortRef<u64>>,
}

impl Handler<Do> for Worker {
    async fn handle(&mut self, cx: &Context<Self>, Do(how, reply): Do) -> ActorResult {
        self.seen.send(Seen::Began(how))?;
        match how {
            How::Answer => cx.reply(reply, 42),
            How::Watch => {
                assert!(reply.is_wanted());
                reply.closed().await;
                assert!(!reply.is_wanted());
                self.seen.send(Seen::Unwanted)?;
            }
            How::Drop => drop(reply),
            How::Fail => return Err(ActorError::from("disk is full").context("save")),
            How::Panic => panic!("a planned panic"),
            How::Keep => self.kept.push(reply),
            How::Hang => std::future::pending().await,
        }
        Ok(())
    }
}

/// A worker, and a client that asks it: in its own proc, or in another one behind a wire that encodes.
struct Pair {
    client: Client,
    worker: ActorRef<Worker>,
    handle: hyperactor_proc::ActorHandle<Worker>,
    seen: mpsc::UnboundedReceiver<Seen>,
    _procs: [Proc; 2],
    start: Instant,
}

impl Pair {
    fn new(are_apart: bool) -> Self {
        let wire = Wire::default();
        let near = wire.proc("near");
        let far = if are_apart {
            wire.proc("far")
        } else {
            near.clone()
        };
        let (tell, seen) = mpsc::unbounded_channel();
        let worker = Worker {
            seen: tell,
            kept: Vec::new(),
        };
        let handle = far.spawn("worker", worker).unwrap();
        Self {
            client: near.client("main").unwrap(),
            worker: handle.bind(),
            handle,
            seen,
            _procs: [near, far],
            start: Instant::now(),
        }
    }

    async fn ask(&self, how: How) -> Result<u64, AskError> {
        self.worker.ask(&self.client, |reply| Do(how, reply)).await
    }

    async fn began(&mut self, how: How) {
        assert_eq!(self.seen.recv().await, Some(Seen::Began(how)));
    }

    /// Nobody has waited for a deadline.
    fn at_once(&self) {
        assert_eq!(self.start.elapsed(), Duration::ZERO);
    }
}

/// Runs a test with both ends in one proc, and with a wire between them.
macro_rules! near_and_far {
    ($(async fn $name:ident($pair:ident: Pair) $body:block)*) => {$(
        mod $name {
            use super::*;
            async fn test(#[allow(unused_mut)] mut $pair: Pair) $body
            #[tokio::test(start_paused = true)]
            async fn in_one_proc() {
                test(Pair::new(false)).await;
            }
            #[tokio::test(start_paused = true)]
            async fn across_two() {
                test(Pair::new(true)).await;
            }
        }
    )*};
}

near_and_far! {
    async fn a_question_that_is_dropped_is_no_longer_wanted_by_its_handler(pair: Pair) {
        {
            let mut asked = Box::pin(pair.worker.ask(&pair.client, |reply| Do(How::Watch, reply)));
            assert!(polled_once(asked.as_mut()).await.is_pending());
            assert_eq!(pair.seen.recv().await, Some(Seen::Began(How::Watch)));
        }
        assert_eq!(pair.seen.recv().await, Some(Seen::Unwanted));
        pair.at_once();
        // The actor goes on.
        assert_eq!(pair.ask(How::Answer).await, Ok(42));
    }

    async fn a_question_past_its_deadline_is_no_longer_wanted_by_its_handler(pair: Pair) {
        let deadline = Duration::from_secs(3);
        let result = pair.worker.ask_within(&pair.client, deadline, |reply| Do(How::Watch, reply)).await;
        assert_eq!(result.unwrap_err().code(), "no-reply");
        pair.began(How::Watch).await;
        assert_eq!(pair.seen.recv().await, Some(Seen::Unwanted));
        assert_eq!(pair.start.elapsed(), deadline);
    }

    //
    async fn a_queued_request_that_was_given_up_is_not_handled_at_all(pair: Pair) {
        let mut first = Box::pin(pair.worker.ask(&pair.client, |reply| Do(How::Watch, reply)));
        assert!(polled_once(first.as_mut()).await.is_pending());
        assert_eq!(pair.seen.recv().await, Some(Seen::Began(How::Watch)));
        // These three wait in the queue; the one in the middle is given up.
        {
            let (second, given_up, third) =
                (pair.ask(How::Answer), pair.ask(How::Panic), pair.ask(How::Answer));
            let mut given_up = Box::pin(given_up);
            tokio::pin!(second, third);
            assert!(polled_once(second.as_mut()).await.is_pending());
            assert!(polled_once(given_up.as_mut()).await.is_pending());
            assert!(polled_once(third.as_mut()).await.is_pending());
            drop(given_up);
            drop(first);
            assert_eq!(second.await, Ok(42));
            assert_eq!(third.await, Ok(42));
        }
        let mut seen = Vec::new();
        while let Ok(event) = pair.seen.try_recv() {
            seen.push(event);
        }
        let answer = || Seen::Began(How::Answer);
        assert_eq!(seen, [Seen::Unwanted, answer(), answer()]);
        pair.at_once();
    }

    //
    async fn a_reply_that_is_dropped_ends_the_wait_at_once_and_the_actor_lives_on(pair: Pair) {
        let target = pair.worker.actor_id().clone();
        let why = Never::Dropped;
        assert_eq!(pair.ask(How::Drop).await, Err(AskError::Unanswered { target, why }));
        assert_eq!(pair.ask(How::Answer).await, Ok(42));
        pair.at_once();
    }

    async fn the_failure_of_the_handler_ends_the_wait_at_once_with_its_causes(pair: Pair) {
        let error = pair.ask(How::Fail).await.unwrap_err();
        assert_eq!(error.code(), "target-ended");
        assert!(error.to_string().ends_with("failed: save: disk is full"), "{error}");
        pair.at_once();
    }

    async fn a_panic_of_the_handler_ends_the_wait_at_once_with_message_and_place(pair: Pair) {
        let error = pair.ask(How::Panic).await.unwrap_err();
        assert_eq!(error.code(), "target-ended");
        let text = error.to_string();
        assert!(text.contains("a planned panic") && text.contains("asks.rs"), "{text}");
        pair.at_once();
    }

    async fn a_reply_that_was_kept_for_later_is_told_the_end_of_its_actor(pair: Pair) {
        let handle = pair.handle.clone();
        let mut kept = Box::pin(pair.worker.ask(&pair.client, |reply| Do(How::Keep, reply)));
        assert!(polled_once(kept.as_mut()).await.is_pending());
        assert_eq!(pair.seen.recv().await, Some(Seen::Began(How::Keep)));
        handle.stop();
        let target = pair.worker.actor_id().clone();
        let cause = "stopped".to_owned();
        assert_eq!(kept.await, Err(AskError::TargetEnded { target, cause }));
        pair.at_once();
    }

    async fn a_request_in_hand_and_one_in_the_queue_are_told_of_an_abort(pair: Pair) {
        let mut in_hand = Box::pin(pair.ask(How::Hang));
        assert!(polled_once(in_hand.as_mut()).await.is_pending());
        drop(in_hand);
        // The handler hangs on although nobody wants its reply; the next two wait.
        let (first, second) = (pair.ask(How::Answer), pair.ask(How::Hang));
        tokio::pin!(first, second);
        assert!(polled_once(first.as_mut()).await.is_pending());
        assert!(polled_once(second.as_mut()).await.is_pending());
        pair.handle.abort();
        let (first, second) = tokio::join!(first, second);
        for error in [first.unwrap_err(), second.unwrap_err()] {
            assert_eq!(error.code(), "target-ended");
            assert!(error.to_string().ends_with("aborted"), "{error}");
        }
        pair.at_once();
    }
}

/// A number, for whoever wants it back.
#[derive(Message, Serialize, Deserialize)]
struct Echo(u64, Option<OncePortRef<u64>>);

/// Handles nothing before it is let go on, and then notes the numbers.
#[derive(Actor)]
#[actor(messages(Echo))]
struct Noting {
    go_on: Option<tokio::sync::oneshot::Receiver<()>>,
    noted: mpsc::UnboundedSender<u64>,
}

impl Handler<Echo> for Noting {
    async fn handle(&mut self, cx: &Context<Self>, Echo(number, reply): Echo) -> ActorResult {
        if let Some(go_on) = self.go_on.take() {
            go_on.await?;
        }
        self.noted.send(number)?;
        if let Some(reply) = reply {
            cx.reply(reply, number);
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn requests_among_posts_of_their_type_are_each_answered_and_those_given_up_alone_left_out() {
    let proc = Proc::isolated("p");
    let client = proc.client("main").unwrap();
    let (go_on, gate) = tokio::sync::oneshot::channel();
    let (tell, mut noted) = mpsc::unbounded_channel();
    let noting = Noting {
        go_on: Some(gate),
        noted: tell,
    };
    let noting = proc.spawn("noting", noting).unwrap().bind();
    noting.post(&client, Echo(0, None));
    let mut asks = Vec::new();
    for number in 1..=40 {
        if number % 3 == 0 {
            noting.post(&client, Echo(number, None));
        } else {
            let ask = noting.ask(&client, move |reply| Echo(number, Some(reply)));
            let mut ask = Box::pin(ask);
            assert!(polled_once(ask.as_mut()).await.is_pending());
            asks.push((number, ask));
        }
    }
    // Every second question is given up while it is in the queue.
    let mut kept = Vec::new();
    for (at, ask) in asks.into_iter().enumerate() {
        if at % 2 == 0 {
            kept.push(ask);
        }
    }
    let expected: Vec<u64> = (0..=40)
        .filter(|number| number % 3 == 0 || kept.iter().any(|(kept, _)| kept == number))
        .collect();
    assert!(expected.len() < 41 && kept.len() > 10);
    go_on.send(()).unwrap();
    for (number, ask) in kept {
        assert_eq!(ask.await, Ok(number));
    }
    // What was posted last comes after all of them.
    let last = noting.ask(&client, |reply| Echo(41, Some(reply))).await;
    assert_eq!(last, Ok(41));
    let mut seen = Vec::new();
    while let Ok(number) = noted.try_recv() {
        seen.push(number);
    }
    assert_eq!(seen, [expected, vec![41]].concat());
}

/// Sees what becomes of a port that no question stands behind.
#[tokio::test(start_paused = true)]
async fn a_once_port_that_was_sent_in_a_plain_message_ends_when_it_is_dropped_far_away() {
    let pair = Pair::new(true);
    let (handle, mut receiver) = hyperactor_proc::Outbox::mailbox(&pair.client).open_once_port();
    pair.worker.post(&pair.client, Do(How::Drop, handle.bind()));
    let closed = receiver.recv().await.unwrap_err();
    assert_eq!(closed.never, Some(Never::Dropped));
    pair.at_once();
}

///
#[tokio::test(start_paused = true)]
async fn a_reply_port_that_is_passed_on_to_a_third_proc_can_still_be_used_there() {
    /// Passes requests on to another worker.
    #[derive(Actor)]
    #[actor(messages(Do))]
    struct PassesOn(ActorRef<Worker>);
    impl Handler<Do> for PassesOn {
        async fn handle(&mut self, cx: &Context<Self>, request: Do) -> ActorResult {
            self.0.post(cx, request);
            Ok(())
        }
    }
    let wire = Wire::default();
    let [near, middle, far] = ["near", "middle", "far"].map(|name| wire.proc(name));
    let (tell, _seen) = mpsc::unbounded_channel();
    let worker = Worker {
        seen: tell,
        kept: Vec::new(),
    };
    let worker = far.spawn("worker", worker).unwrap().bind();
    let middle = middle.spawn("middle", PassesOn(worker)).unwrap().bind();
    let client = near.client("main").unwrap();
    let start = Instant::now();
    assert_eq!(
        middle.ask(&client, |reply| Do(How::Answer, reply)).await,
        Ok(42)
    );
    // Also what the third one does with it is told to the first.
    let error = middle
        .ask(&client, |reply| Do(How::Drop, reply))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "unanswered");
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn whoever_has_ended_can_ask_nothing() {
    let pair = Pair::new(false);
    hyperactor_proc::Outbox::mailbox(&pair.client).close();
    assert_eq!(
        pair.ask(How::Answer).await.unwrap_err().code(),
        "asker-ended"
    );
    pair.at_once();
}

/// Says of itself that it cannot be encoded.
#[derive(Debug, PartialEq, Eq)]
struct Stubborn;

impl Serialize for Stubborn {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("no"))
    }
}

impl<'de> Deserialize<'de> for Stubborn {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Self)
    }
}

impl Message for Stubborn {
    const TYPE_HASH: u64 = hyperactor_mailbox::type_hash("Stubborn");
    fn type_name() -> std::borrow::Cow<'static, str> {
        "Stubborn".into()
    }
}

#[derive(Message, Serialize, Deserialize)]
struct GetStubborn(OncePortRef<Stubborn>);

#[derive(Actor)]
#[actor(messages(GetStubborn))]
struct Keeper;

impl Handler<GetStubborn> for Keeper {
    async fn handle(&mut self, cx: &Context<Self>, GetStubborn(reply): GetStubborn) -> ActorResult {
        cx.reply(reply, Stubborn);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_cannot_be_sent_ends_the_wait_at_once_with_the_reason() {
    let wire = Wire::default();
    let (near, far) = (wire.proc("near"), wire.proc("far"));
    let client = near.client("main").unwrap();
    let keeper = far.spawn("keeper", Keeper).unwrap().bind();
    let start = Instant::now();
    let error = keeper.ask(&client, GetStubborn).await.unwrap_err();
    assert_eq!(error.code(), "reply-undelivered");
    assert!(error.to_string().contains("does not encode"), "{error}");
    assert_eq!(start.elapsed(), Duration::ZERO);
}

/// A task that blocks its thread may drive runtimes of its own, one after the other: each wait is timed by the one it is in.
#[tokio::test]
async fn asks_from_runtimes_that_a_blocking_task_makes_one_after_the_other_end_at_their_deadlines()
{
    let Pair {
        client,
        worker,
        seen: _seen,
        _procs,
        ..
    } = Pair::new(false);
    let asked = tokio::task::spawn_blocking(move || {
        let deadline = Duration::from_millis(10);
        let ask = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            let asked = worker.ask_within(&client, deadline, |reply| Do(How::Hang, reply));
            runtime.block_on(asked)
        };
        [ask(), ask()]
    });
    for result in asked.await.unwrap() {
        assert!(
            matches!(result, Err(AskError::TimedOut { .. })),
            "{result:?}"
        );
    }
}
