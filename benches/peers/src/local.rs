//! Actors within a process: 64-byte messages to one that counts, and a question for the count. Senders are tasks; where the
//! queue is unbounded they let others run after as many messages as a bounded one would hold.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use hyperactor_peers_orders::round_trips;

use crate::{Found, Peer, TURN, obey};

/// 64 bytes.
struct Item([u64; 8]);

/// How many came since this was last asked?
struct Count;

pub struct Ractor(ractor::ActorRef<RactorMessage>);

pub struct RactorCounter;

pub enum RactorMessage {
    Item(Box<[u64; 8]>),
    Count(ractor::RpcReplyPort<u64>),
}

impl ractor::Actor for RactorCounter {
    type Msg = RactorMessage;
    type State = u64;
    type Arguments = ();

    async fn pre_start(
        &self,
        _myself: ractor::ActorRef<RactorMessage>,
        (): (),
    ) -> Result<u64, ractor::ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        _myself: ractor::ActorRef<RactorMessage>,
        message: RactorMessage,
        state: &mut u64,
    ) -> Result<(), ractor::ActorProcessingErr> {
        match message {
            RactorMessage::Item(item) => {
                black_box(&item);
                *state += 1;
            }
            RactorMessage::Count(reply) => reply.send(std::mem::take(state))?,
        }
        Ok(())
    }
}

impl Peer for Ractor {
    async fn start() -> Result<Self> {
        let (counter, _task) = ractor::Actor::spawn(None, RactorCounter, ()).await?;
        Ok(Self(counter))
    }

    async fn push(&mut self, count: u64) -> Result<Found> {
        let counter = self.0.clone();
        let began = Instant::now();
        tokio::spawn(async move {
            for number in 0..count {
                // Boxed, as its own documentation advises for what is not small.
                let item = RactorMessage::Item(Box::new([number; 8]));
                ractor::cast!(counter, item).map_err(|error| anyhow!("{error}"))?;
                if number % TURN == TURN - 1 {
                    tokio::task::yield_now().await;
                }
            }
            anyhow::Ok(())
        })
        .await??;
        let got =
            ractor::call!(self.0, RactorMessage::Count).map_err(|error| anyhow!("{error}"))?;
        Found::arrived(count, got, began)
    }

    async fn ask(&mut self, count: u64) -> Result<Found> {
        let counter = self.0.clone();
        tokio::spawn(async move {
            round_trips!(count, |_| ractor::call!(counter, RactorMessage::Count)
                .map_err(|error| anyhow!("{error}"))?)
        })
        .await?
    }
}

pub struct Kameo(kameo::actor::ActorRef<KameoCounter>);

#[derive(Default, kameo::Actor)]
pub struct KameoCounter(u64);

impl kameo::message::Message<Item> for KameoCounter {
    type Reply = ();

    async fn handle(&mut self, item: Item, _cx: &mut kameo::message::Context<Self, ()>) {
        black_box(&item.0);
        self.0 += 1;
    }
}

impl kameo::message::Message<Count> for KameoCounter {
    type Reply = u64;

    async fn handle(&mut self, _: Count, _cx: &mut kameo::message::Context<Self, u64>) -> u64 {
        std::mem::take(&mut self.0)
    }
}

impl Peer for Kameo {
    async fn start() -> Result<Self> {
        use kameo::actor::Spawn;
        Ok(Self(KameoCounter::spawn(KameoCounter::default())))
    }

    async fn push(&mut self, count: u64) -> Result<Found> {
        let counter = self.0.clone();
        let began = Instant::now();
        tokio::spawn(async move {
            for number in 0..count {
                let told = counter.tell(Item([number; 8])).await;
                told.map_err(|error| anyhow!("{error}"))?;
            }
            anyhow::Ok(())
        })
        .await??;
        let got = self
            .0
            .ask(Count)
            .await
            .map_err(|error| anyhow!("{error}"))?;
        Found::arrived(count, got, began)
    }

    async fn ask(&mut self, count: u64) -> Result<Found> {
        let counter = self.0.clone();
        tokio::spawn(async move {
            round_trips!(count, |_| counter
                .ask(Count)
                .await
                .map_err(|error| anyhow!("{error}"))?)
        })
        .await?
    }
}

pub struct Xtra(xtra::Address<XtraCounter>);

#[derive(Default, xtra::Actor)]
pub struct XtraCounter(u64);

impl xtra::Handler<Item> for XtraCounter {
    type Return = ();

    async fn handle(&mut self, item: Item, _cx: &mut xtra::Context<Self>) {
        black_box(&item.0);
        self.0 += 1;
    }
}

impl xtra::Handler<Count> for XtraCounter {
    type Return = u64;

    async fn handle(&mut self, _: Count, _cx: &mut xtra::Context<Self>) -> u64 {
        std::mem::take(&mut self.0)
    }
}

impl Peer for Xtra {
    async fn start() -> Result<Self> {
        let counter = xtra::spawn_tokio(XtraCounter::default(), xtra::Mailbox::unbounded());
        Ok(Self(counter))
    }

    async fn push(&mut self, count: u64) -> Result<Found> {
        let counter = self.0.clone();
        let began = Instant::now();
        tokio::spawn(async move {
            for number in 0..count {
                let sent = counter.send(Item([number; 8])).detach().await;
                drop(sent.map_err(|error| anyhow!("{error}"))?);
                if number % TURN == TURN - 1 {
                    tokio::task::yield_now().await;
                }
            }
            anyhow::Ok(())
        })
        .await??;
        // Detached messages may be overtaken, also by this one.
        let mut got = 0;
        while got < count {
            got += self.0.send(Count).await.context("the actor is gone")?;
        }
        Found::arrived(count, got, began)
    }

    async fn ask(&mut self, count: u64) -> Result<Found> {
        let counter = self.0.clone();
        tokio::spawn(async move {
            round_trips!(count, |_| counter
                .send(Count)
                .await
                .context("the actor is gone")?)
        })
        .await?
    }
}

#[derive(Default)]
struct ActixCounter(u64);

impl actix::Actor for ActixCounter {
    type Context = actix::Context<Self>;
}

impl actix::Message for Item {
    type Result = ();
}

impl actix::Message for Count {
    type Result = u64;
}

impl actix::Handler<Item> for ActixCounter {
    type Result = ();

    fn handle(&mut self, item: Item, _cx: &mut actix::Context<Self>) {
        black_box(&item.0);
        self.0 += 1;
    }
}

impl actix::Handler<Count> for ActixCounter {
    type Result = u64;

    fn handle(&mut self, _: Count, _cx: &mut actix::Context<Self>) -> u64 {
        std::mem::take(&mut self.0)
    }
}

/// Actix brings its own runtime, of one thread.
pub fn actix() -> Result<()> {
    use actix::Actor;
    let system = actix::System::new();
    let counter = system.block_on(async { ActixCounter::default().start() });
    obey(|order, count| {
        system.block_on(async {
            match order {
                "push" => {
                    let began = Instant::now();
                    for number in 0..count {
                        counter.do_send(Item([number; 8]));
                        if number % TURN == TURN - 1 {
                            tokio::task::yield_now().await;
                        }
                    }
                    Found::arrived(count, counter.send(Count).await?, began)
                }
                "ask" => round_trips!(count, |_| counter.send(Count).await?),
                other => bail!("`{other}` is no order"),
            }
        })
    })
}
