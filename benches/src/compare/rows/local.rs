//! Rows within a proc: one way and there and back, by handle and by reference, beside tokio's own queues doing the same. Each
//! on a runtime of one thread, which stays on one core, and on one with a thread for each core, which the system places.
//!
//! Senders are tasks; tokio's yield as often as a full actor's queue would make them, so that both keep as much in memory.

use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};
use hyperactor::prelude::*;
use hyperactor::proc::limits::QUEUE_MESSAGES_MAX;
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};

use crate::compare::machine::on_core;
use crate::compare::row::{Arm, Figures, Line, Metric, Row, nanos_since};
use crate::compare::rows::Setting;

/// Messages after which a sender of tokio's lets others run.
const TURN: u64 = QUEUE_MESSAGES_MAX as u64;

const PLACEMENT: &str = "one thread: one core; threads: free";

/// 64 bytes.
#[derive(Message, Serialize, Deserialize)]
struct Item([u64; 8]);

impl Item {
    const fn new(number: u64) -> Self {
        Self([number; 8])
    }
}

#[derive(Message, Serialize, Deserialize)]
struct Count(OncePortRef<u64>);

#[derive(Default, Actor)]
#[actor(messages(Item, Count))]
struct Counter(u64);

impl Handler<Item> for Counter {
    async fn handle(&mut self, _cx: &Context<Self>, item: Item) -> ActorResult {
        black_box(&item);
        self.0 += 1;
        Ok(())
    }
}

impl Handler<Count> for Counter {
    async fn handle(&mut self, cx: &Context<Self>, Count(reply): Count) -> ActorResult {
        cx.reply(reply, std::mem::take(&mut self.0));
        Ok(())
    }
}

/// A runtime and a proc on it.
struct Place {
    runtime: Runtime,
    proc: Proc,
    clients: Vec<Arc<Client>>,
    counter: ActorHandle<Counter>,
    /// The core of a runtime of one thread.
    core: Option<usize>,
}

impl Place {
    fn new(core: Option<usize>) -> Result<Rc<Self>> {
        let mut builder = match core {
            Some(_) => Builder::new_current_thread(),
            None => Builder::new_multi_thread(),
        };
        let runtime = builder.enable_all().build()?;
        let proc = Proc::isolated("compare");
        let client = |number: usize| proc.client(&format!("client-{number}")).map(Arc::new);
        let clients = (0..4).map(client).collect::<Result<_, _>>()?;
        let entered = runtime.enter();
        let counter = proc.spawn("counter", Counter::default())?;
        drop(entered);
        Ok(Rc::new(Self {
            runtime,
            proc,
            clients,
            counter,
            core,
        }))
    }

    /// Runs `work` where this place is.
    fn run<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.core {
            Some(core) => on_core(core, || self.runtime.block_on(work)),
            None => self.runtime.block_on(work),
        }
    }

    async fn by_handle(&self, senders: u64, count: u64) -> Result<Figures> {
        let share = count / senders;
        let started = Instant::now();
        let tasks = self.clients[..usize::try_from(senders)?]
            .iter()
            .map(|client| {
                let (client, counter) = (Arc::clone(client), self.counter.clone());
                tokio::spawn(async move {
                    for number in 0..share {
                        let fed = counter.feed(&*client, Item::new(number)).await;
                        fed.map_err(|error| anyhow!("{error}"))?;
                    }
                    anyhow::Ok(())
                })
            });
        for task in tasks.collect::<Vec<_>>() {
            task.await??;
        }
        self.counted(senders * share, started).await
    }

    async fn by_reference(&self, senders: u64, count: u64) -> Result<Figures> {
        let share = count / senders;
        let started = Instant::now();
        let tasks = self.clients[..usize::try_from(senders)?]
            .iter()
            .map(|client| {
                let (client, counter) = (Arc::clone(client), self.counter.bind());
                tokio::spawn(async move {
                    for number in 0..share {
                        counter.feed(&*client, Item::new(number)).await;
                    }
                })
            });
        for task in tasks.collect::<Vec<_>>() {
            task.await?;
        }
        self.counted(senders * share, started).await
    }

    async fn counted(&self, sent: u64, started: Instant) -> Result<Figures> {
        let got = self.counter.bind().ask(&*self.clients[0], Count).await?;
        let elapsed = started.elapsed();
        ensure!(got == sent, "{sent} were sent and {got} arrived");
        Ok(Figures::throughput(sent, elapsed))
    }

    async fn asks(&self, count: u64) -> Result<Figures> {
        let (client, counter) = (Arc::clone(&self.clients[0]), self.counter.bind());
        let asking = tokio::spawn(async move {
            let mut times = Vec::with_capacity(usize::try_from(count)?);
            let began = Instant::now();
            for _ in 0..count {
                let started = Instant::now();
                counter.ask(&*client, Count).await?;
                times.push(nanos_since(started));
            }
            anyhow::Ok(Figures::round_trips(times, began.elapsed()))
        });
        asking.await?
    }
}

/// How tokio's queue is emptied.
#[derive(Clone, Copy)]
enum Taking {
    One,
    Many,
}

async fn tokio_one_way(taking: Taking, senders: u64, count: u64) -> Result<Figures> {
    let share = count / senders;
    let (tx, mut rx) = mpsc::unbounded_channel::<Box<Item>>();
    let started = Instant::now();
    let taker = tokio::spawn(async move {
        let mut got = 0;
        match taking {
            Taking::One => {
                while let Some(item) = rx.recv().await {
                    black_box(&item);
                    got += 1;
                }
            }
            Taking::Many => {
                let mut items = Vec::with_capacity(256);
                while rx.recv_many(&mut items, 256).await > 0 {
                    for item in items.drain(..) {
                        black_box(&item);
                        got += 1;
                    }
                }
            }
        }
        got
    });
    for _ in 0..senders {
        let tx = tx.clone();
        tokio::spawn(async move {
            for number in 0..share {
                if tx.send(Box::new(Item::new(number))).is_err() {
                    return;
                }
                if number % TURN == TURN - 1 {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    drop(tx);
    let got = taker.await?;
    let elapsed = started.elapsed();
    ensure!(got == senders * share, "{got} arrived");
    Ok(Figures::throughput(got, elapsed))
}

async fn tokio_ping_pong(count: u64) -> Result<Figures> {
    let (there, mut from_here) = mpsc::unbounded_channel::<u64>();
    let (back, mut from_there) = mpsc::unbounded_channel::<u64>();
    tokio::spawn(async move {
        while let Some(ball) = from_here.recv().await {
            if back.send(ball).is_err() {
                return;
            }
        }
    });
    let game = tokio::spawn(async move {
        let mut times = Vec::with_capacity(usize::try_from(count)?);
        let began = Instant::now();
        for number in 0..count {
            let started = Instant::now();
            there.send(number)?;
            from_there.recv().await.context("the other task is gone")?;
            times.push(nanos_since(started));
        }
        anyhow::Ok(Figures::round_trips(times, began.elapsed()))
    });
    game.await?
}

#[derive(Message, Serialize, Deserialize)]
struct Ball(u64);

/// Whom to throw to; for what stays in the process.
enum Toward {
    Handle(ActorHandle<Player>),
    Reference(ActorRef<Player>),
}

/// Play so many rounds, and tell how long each took.
struct Play {
    rounds: u64,
    over: oneshot::Sender<Vec<u64>>,
}

/// A game that this player began.
struct Game {
    left: u64,
    thrown: Instant,
    times: Vec<u64>,
    over: oneshot::Sender<Vec<u64>>,
}

#[derive(Default, Actor)]
#[actor(messages(Ball))]
struct Player {
    toward: Option<Toward>,
    game: Option<Game>,
}

impl Player {
    fn throw(&self, cx: &Context<Self>) -> ActorResult {
        match &self.toward {
            Some(Toward::Handle(other)) => other.post(cx, Ball(1))?,
            Some(Toward::Reference(other)) => other.post(cx, Ball(1)),
            None => return Err("nobody to throw to".into()),
        }
        Ok(())
    }
}

impl Handler<Toward> for Player {
    async fn handle(&mut self, _cx: &Context<Self>, toward: Toward) -> ActorResult {
        self.toward = Some(toward);
        Ok(())
    }
}

impl Handler<Play> for Player {
    async fn handle(&mut self, cx: &Context<Self>, Play { rounds, over }: Play) -> ActorResult {
        self.game = Some(Game {
            left: rounds,
            times: Vec::with_capacity(rounds as usize),
            thrown: Instant::now(),
            over,
        });
        self.throw(cx)
    }
}

impl Handler<Ball> for Player {
    async fn handle(&mut self, cx: &Context<Self>, ball: Ball) -> ActorResult {
        black_box(&ball);
        if let Some(game) = &mut self.game {
            game.times.push(nanos_since(game.thrown));
            game.left -= 1;
            if game.left == 0 {
                if let Some(game) = self.game.take() {
                    game.over
                        .send(game.times)
                        .map_err(|_| "nobody watches the game")?;
                }
                return Ok(());
            }
            game.thrown = Instant::now();
        }
        self.throw(cx)
    }
}

/// Two players who know each other, by handle or by reference.
fn players(place: &Place, by: &str) -> Result<ActorHandle<Player>> {
    let _entered = place.runtime.enter();
    let [one, other] =
        ["one", "other"].map(|name| place.proc.spawn(&format!("{name}-{by}"), Player::default()));
    let (one, other) = (one?, other?);
    for (from, to) in [(&one, &other), (&other, &one)] {
        let toward = match by {
            "handle" => Toward::Handle(to.clone()),
            _ => Toward::Reference(to.bind()),
        };
        from.post(&*place.clients[0], toward)
            .map_err(|error| anyhow!("{error}"))?;
    }
    Ok(one)
}

async fn play(place: &Place, player: &ActorHandle<Player>, count: u64) -> Result<Figures> {
    let (over, times) = oneshot::channel();
    let play = Play {
        rounds: count,
        over,
    };
    let began = Instant::now();
    player
        .post(&*place.clients[0], play)
        .map_err(|error| anyhow!("{error}"))?;
    Ok(Figures::round_trips(times.await?, began.elapsed()))
}

/// Bounds of what is measured in one go.
const ONE_WAY: (u64, u64) = (4_000, 20_000_000);
const TRIPS: (u64, u64) = (1_000, 2_000_000);

fn one_way(setting: &Setting, senders: u64) -> Result<Row> {
    let mut arms = Vec::new();
    for (core, names) in [
        (
            Some(setting.cores.0),
            [
                "tokio, one thread",
                "tokio many, one thread",
                "handle, one thread",
                "reference, one thread",
            ],
        ),
        (
            None,
            [
                "tokio, threads",
                "tokio many, threads",
                "handle, threads",
                "reference, threads",
            ],
        ),
    ] {
        let place = Place::new(core)?;
        let here = Rc::clone(&place);
        arms.push(Arm::new(names[0], ONE_WAY, move |count| {
            here.run(tokio_one_way(Taking::One, senders, count))
        }));
        let here = Rc::clone(&place);
        arms.push(Arm::new(names[1], ONE_WAY, move |count| {
            here.run(tokio_one_way(Taking::Many, senders, count))
        }));
        let here = Rc::clone(&place);
        arms.push(Arm::new(names[2], ONE_WAY, move |count| {
            here.run(here.by_handle(senders, count))
        }));
        arms.push(Arm::new(names[3], ONE_WAY, move |count| {
            place.run(place.by_reference(senders, count))
        }));
    }
    let rate = |what, subject, baseline| Line::ratio(what, Metric::Rate, subject, baseline);
    Ok(Row {
        arms,
        lines: vec![
            rate(
                "handle to tokio's `recv`, one thread",
                "handle, one thread",
                "tokio, one thread",
            )
            .at_least(1.5),
            rate(
                "reference to tokio's `recv`, one thread",
                "reference, one thread",
                "tokio, one thread",
            )
            .at_least(1.5),
            rate(
                "handle to tokio's `recv`, threads",
                "handle, threads",
                "tokio, threads",
            )
            .at_least(1.25),
            rate(
                "reference to tokio's `recv`, threads",
                "reference, threads",
                "tokio, threads",
            )
            .at_least(1.25),
            rate(
                "tokio's `recv_many` to its `recv`, one thread",
                "tokio many, one thread",
                "tokio, one thread",
            ),
            rate(
                "tokio's `recv_many` to its `recv`, threads",
                "tokio many, threads",
                "tokio, threads",
            ),
        ],
        placement: PLACEMENT,
        is_counted: false,
    })
}

pub(crate) fn one_to_one(setting: &Setting) -> Result<Row> {
    one_way(setting, 1)
}

pub(crate) fn four_to_one(setting: &Setting) -> Result<Row> {
    one_way(setting, 4)
}

pub(crate) fn ping_pong(setting: &Setting) -> Result<Row> {
    let mut arms = Vec::new();
    for (core, names) in [
        (
            Some(setting.cores.0),
            [
                "tokio, one thread",
                "handle, one thread",
                "reference, one thread",
            ],
        ),
        (
            None,
            ["tokio, threads", "handle, threads", "reference, threads"],
        ),
    ] {
        let place = Place::new(core)?;
        let here = Rc::clone(&place);
        arms.push(Arm::new(names[0], TRIPS, move |count| {
            here.run(tokio_ping_pong(count))
        }));
        for (name, by) in [(names[1], "handle"), (names[2], "reference")] {
            let player = players(&place, by)?;
            let here = Rc::clone(&place);
            arms.push(Arm::new(name, TRIPS, move |count| {
                here.run(play(&here, &player, count))
            }));
        }
    }
    let line = |what, metric, subject, baseline| Line::ratio(what, metric, subject, baseline);
    Ok(Row {
        arms,
        lines: vec![
            line(
                "handle to tokio, one thread",
                Metric::P50,
                "handle, one thread",
                "tokio, one thread",
            )
            .at_most(1.3),
            line(
                "reference to tokio, one thread",
                Metric::P50,
                "reference, one thread",
                "tokio, one thread",
            )
            .at_most(1.3),
            line(
                "handle to tokio, threads",
                Metric::P50,
                "handle, threads",
                "tokio, threads",
            )
            .at_most(1.3),
            line(
                "reference to tokio, threads",
                Metric::P50,
                "reference, threads",
                "tokio, threads",
            )
            .at_most(1.3),
            line(
                "handle to tokio, one thread",
                Metric::P99,
                "handle, one thread",
                "tokio, one thread",
            ),
            line(
                "handle to tokio, threads",
                Metric::P99,
                "handle, threads",
                "tokio, threads",
            ),
        ],
        placement: PLACEMENT,
        is_counted: false,
    })
}

pub(crate) fn ask(setting: &Setting) -> Result<Row> {
    let mut arms = Vec::new();
    for (core, names) in [
        (
            Some(setting.cores.0),
            ["tokio, one thread", "ask, one thread"],
        ),
        (None, ["tokio, threads", "ask, threads"]),
    ] {
        let place = Place::new(core)?;
        let here = Rc::clone(&place);
        arms.push(Arm::new(names[0], TRIPS, move |count| {
            here.run(tokio_ping_pong(count))
        }));
        arms.push(Arm::new(names[1], TRIPS, move |count| {
            place.run(place.asks(count))
        }));
    }
    let line = |what, metric, subject, baseline| Line::ratio(what, metric, subject, baseline);
    Ok(Row {
        arms,
        lines: vec![
            line(
                "ask to tokio's ping-pong, one thread",
                Metric::P50,
                "ask, one thread",
                "tokio, one thread",
            )
            .at_most(1.5),
            line(
                "ask to tokio's ping-pong, threads",
                Metric::P50,
                "ask, threads",
                "tokio, threads",
            )
            .at_most(1.5),
            line(
                "ask to tokio's ping-pong, one thread",
                Metric::P99,
                "ask, one thread",
                "tokio, one thread",
            ),
            line(
                "ask to tokio's ping-pong, threads",
                Metric::P99,
                "ask, threads",
                "tokio, threads",
            ),
        ],
        placement: PLACEMENT,
        is_counted: false,
    })
}
