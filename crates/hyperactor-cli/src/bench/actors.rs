//! The benchmark's actors: a driver that times what it sends, and a sink that counts and answers.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hyperactor::prelude::*;
use serde::{Deserialize, Serialize};

use crate::bench::report::percentile;
use crate::limits;
use crate::routes::{self, Lost, Tally};

/// One message of the throughput measurement.
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct Item {
    payload: Bytes,
}

/// To a sink: how many items came since the last time this was asked?
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct Confirm {
    reply: OncePortRef<u64>,
}

/// To a sink: send this back.
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct Echo {
    payload: Bytes,
    reply: OncePortRef<Bytes>,
}

/// To a driver: send so many items to the sink and tell the nanoseconds until the sink confirmed them all.
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct Push {
    pub(crate) sink: ActorRef<Sink>,
    pub(crate) messages: u64,
    pub(crate) size: u64,
    pub(crate) reply: OncePortRef<Result<u64, String>>,
}

/// To a driver: time so many round trips to the sink, one after the other.
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct PingPong {
    pub(crate) sink: ActorRef<Sink>,
    pub(crate) round_trips: u32,
    pub(crate) size: u64,
    pub(crate) reply: OncePortRef<Result<RoundTrips, String>>,
}

/// What [`PingPong`] measured, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Message)]
pub(crate) struct RoundTrips {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
}

/// To a driver: which routes were taken?
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct TellRoutes {
    pub(crate) reply: OncePortRef<Tally>,
}

/// Counts items and sends echoes.
#[derive(Default, Actor)]
#[actor(messages(Item, Confirm, Echo))]
pub(crate) struct Sink {
    items: u64,
}

/// Sends and keeps time.
#[derive(Default, Actor)]
#[actor(hooks, messages(Push, PingPong, TellRoutes))]
pub(crate) struct Driver {
    lost: Lost,
    first_loss: Option<String>,
}

impl RemoteSpawn for Sink {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self::default())
    }
}

impl RemoteSpawn for Driver {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self::default())
    }
}

impl Handler<Item> for Sink {
    async fn handle(&mut self, _cx: &Context<Self>, item: Item) -> ActorResult {
        std::hint::black_box(&item.payload);
        self.items += 1;
        Ok(())
    }
}

impl Handler<Confirm> for Sink {
    async fn handle(&mut self, cx: &Context<Self>, Confirm { reply }: Confirm) -> ActorResult {
        reply.post(cx, std::mem::take(&mut self.items));
        Ok(())
    }
}

impl Handler<Echo> for Sink {
    async fn handle(&mut self, cx: &Context<Self>, Echo { payload, reply }: Echo) -> ActorResult {
        reply.post(cx, payload);
        Ok(())
    }
}

impl Actor for Driver {
    async fn on_undeliverable(
        &mut self,
        _cx: &Context<Self>,
        report: Undeliverable,
    ) -> ActorResult {
        if let Some(first) = self.lost.note(&report) {
            self.first_loss = Some(first);
        }
        Ok(())
    }
}

impl Handler<Push> for Driver {
    async fn handle(&mut self, cx: &Context<Self>, message: Push) -> ActorResult {
        let Push {
            sink,
            messages,
            size,
            reply,
        } = message;
        let payload = payload(size);
        let started = Instant::now();
        for _ in 0..messages {
            let payload = payload.clone();
            sink.feed(cx, Item { payload }).await;
        }
        // Asked behind the last item, so the answer counts them all.
        let confirmed = sink
            .ask_within(cx, limits::STALL, |reply| Confirm { reply })
            .await;
        let nanos = nanos(started.elapsed());
        let result = match confirmed {
            Ok(count) if count == messages => Ok(nanos),
            Ok(count) => Err(self.explain(format!("{messages} were sent and {count} arrived"))),
            Err(error) => Err(self.explain(format!("the sink did not confirm: {error}"))),
        };
        reply.post(cx, result);
        Ok(())
    }
}

impl Handler<PingPong> for Driver {
    async fn handle(&mut self, cx: &Context<Self>, message: PingPong) -> ActorResult {
        let result = self.ping_pong(cx, &message).await;
        message.reply.post(cx, result);
        Ok(())
    }
}

impl Handler<TellRoutes> for Driver {
    async fn handle(&mut self, cx: &Context<Self>, message: TellRoutes) -> ActorResult {
        message
            .reply
            .post(cx, routes::tally(&cx.proc()?, &self.lost));
        Ok(())
    }
}

impl Driver {
    async fn ping_pong(
        &self,
        cx: &Context<Self>,
        message: &PingPong,
    ) -> Result<RoundTrips, String> {
        let mut times = Vec::with_capacity(message.round_trips as usize);
        let payload = payload(message.size);
        for _ in 0..message.round_trips {
            let payload = payload.clone();
            let started = Instant::now();
            let answer = message.sink.ask(cx, |reply| Echo { payload, reply }).await;
            times.push(started.elapsed());
            let length = answer.map_err(|error| error.to_string())?.len();
            if length as u64 != message.size {
                return Err(format!(
                    "{length} bytes came back instead of {}",
                    message.size
                ));
            }
        }
        times.sort_unstable();
        Ok(RoundTrips {
            p50: nanos(percentile(&times, 50)),
            p99: nanos(percentile(&times, 99)),
        })
    }

    fn explain(&self, what: String) -> String {
        match &self.first_loss {
            Some(loss) => format!("{what}; the first that came back: {loss}"),
            None => what,
        }
    }
}

fn payload(size: u64) -> Bytes {
    Bytes::from(vec![0xa5; usize::try_from(size).unwrap_or(0)])
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
