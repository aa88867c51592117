//! Streaming replies, in one proc and across two: order, waiting for a slow receiver, and each way to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{Wire, soon};
use hyperactor_proc::{
    Actor, ActorHandle, ActorRef, ActorResult, Client, Context, Handler, Message, Proc,
    StreamError, StreamRef, limits,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum End {
    Finish,
    Fail,
    Drop,
    /// Keeps the writer, and goes on with other messages.
    Keep,
    Error,
}

/// Asks for the numbers below `count`.
#[derive(Message, Serialize, Deserialize)]
struct Count {
    count: u64,
    end: End,
    out: StreamRef<u64>,
}

#[derive(Actor)]
#[actor(messages(Count))]
struct Numbers {
    sent: Arc<AtomicU64>,
    kept: Vec<hyperactor_proc::StreamWriter<u64>>,
}

impl Handler<Count> for Numbers {
    async fn handle(&mut self, cx: &Context<Self>, request: Count) -> ActorResult {
        if request.end == End::Error {
            return Err("no numbers today".into());
        }
        let mut out = request.out.open(cx)?;
        for number in 0..request.count {
            if out.send(number).await.is_err() {
                return Ok(());
            }
            self.sent.fetch_add(1, Ordering::SeqCst);
        }
        match request.end {
            End::Finish => out.finish(),
            End::Fail => out.fail("out of numbers"),
            End::Drop | End::Error => drop(out),
            End::Keep => self.kept.push(out),
        }
        Ok(())
    }
}

struct Pair {
    client: Client,
    numbers: ActorRef<Numbers>,
    handle: ActorHandle<Numbers>,
    sent: Arc<AtomicU64>,
    _procs: [Proc; 2],
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
        let sent = Arc::new(AtomicU64::new(0));
        let numbers = Numbers {
            sent: Arc::clone(&sent),
            kept: Vec::new(),
        };
        let handle = far.spawn("numbers", numbers).unwrap();
        Self {
            client: near.client("main").unwrap(),
            numbers: handle.bind(),
            handle,
            sent,
            _procs: [near, far],
        }
    }

    async fn stream(&self, count: u64, end: End) -> hyperactor_proc::Stream<u64> {
        let request = |out| Count { count, end, out };
        soon(self.numbers.ask_stream(&self.client, request))
            .await
            .unwrap()
    }

    /// Waits until the sender can send no more.
    async fn until_it_waits(&self) -> u64 {
        let mut before = u64::MAX;
        loop {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            let now = self.sent.load(Ordering::SeqCst);
            if now == before {
                return now;
            }
            before = now;
        }
    }
}

macro_rules! near_and_far {
    ($(async fn $name:ident($pair:ident: Pair) $body:block)*) => {$(
        mod $name {
            use super::*;
            async fn test($pair: Pair) $body
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
    async fn all_items_come_in_order_and_then_the_end(pair: Pair) {
        let stream = pair.stream(10_000, End::Finish).await;
        assert_eq!(stream.collect().await.unwrap(), (0..10_000).collect::<Vec<_>>());
    }

    //
    async fn a_sender_waits_for_its_receiver(pair: Pair) {
        let mut stream = pair.stream(10_000, End::Finish).await;
        let window = u64::from(limits::STREAM_WINDOW);
        assert_eq!(pair.until_it_waits().await, window);
        for number in 0..window / 2 {
            assert_eq!(stream.next().await, Ok(Some(number)));
        }
        assert_eq!(pair.until_it_waits().await, window + window / 2);
    }

    //
    async fn a_failure_is_told_with_its_reason_and_is_no_end(pair: Pair) {
        let mut stream = pair.stream(2, End::Fail).await;
        assert_eq!(stream.next().await, Ok(Some(0)));
        assert_eq!(stream.next().await, Ok(Some(1)));
        let from = pair.numbers.actor_id().clone();
        let reason = "out of numbers".to_owned();
        assert_eq!(stream.next().await, Err(StreamError::Failed { from, reason }));
        assert_eq!(stream.next().await, Ok(None));
    }

    async fn a_writer_that_is_dropped_breaks_the_stream_off(pair: Pair) {
        let mut stream = pair.stream(1, End::Drop).await;
        assert_eq!(stream.next().await, Ok(Some(0)));
        let from = pair.numbers.actor_id().clone();
        assert_eq!(stream.next().await, Err(StreamError::BrokenOff { from }));
    }

    async fn the_end_of_the_actor_breaks_off_a_stream_that_it_kept(pair: Pair) {
        let start = Instant::now();
        let mut stream = pair.stream(1, End::Keep).await;
        assert_eq!(stream.next().await, Ok(Some(0)));
        pair.handle.stop();
        let from = pair.numbers.actor_id().clone();
        assert_eq!(stream.next().await, Err(StreamError::BrokenOff { from }));
        assert!(start.elapsed().is_zero());
    }

    async fn a_request_that_fails_opens_no_stream_and_says_why(pair: Pair) {
        let request = |out| Count { count: 1, end: End::Error, out };
        let error = pair.numbers.ask_stream(&pair.client, request).await.unwrap_err();
        assert_eq!(error.code(), "target-ended");
        assert!(error.to_string().contains("no numbers today"), "{error}");
    }

    async fn a_stream_that_is_dropped_stops_its_sender(pair: Pair) {
        let start = Instant::now();
        let mut stream = pair.stream(1_000_000, End::Finish).await;
        assert_eq!(stream.next().await, Ok(Some(0)));
        drop(stream);
        // The actor is free for the next one.
        let stream = pair.stream(3, End::Finish).await;
        assert_eq!(stream.collect().await, Ok(vec![0, 1, 2]));
        assert!(pair.sent.load(Ordering::SeqCst) < 1_000);
        assert!(start.elapsed().is_zero());
        // And nothing of it came back to anybody.
        assert!(pair.client.try_next_undeliverable().is_none());
    }

    async fn a_silence_is_told_and_can_be_waited_out(pair: Pair) {
        let mut stream = pair.stream(1, End::Keep).await;
        assert_eq!(stream.next().await, Ok(Some(0)));
        let deadline = Duration::from_millis(10);
        let from = pair.numbers.actor_id().clone();
        let silent = StreamError::TimedOut { from, deadline };
        assert_eq!(stream.next_within(deadline).await, Err(silent.clone()));
        assert_eq!(stream.next_within(deadline).await, Err(silent));
    }
}
