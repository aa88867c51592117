//! Two procs of this process that stream to each other over real sockets, while the sockets at which they are reached straight
//! come and go, refuse, and lead to another life.

use std::sync::Arc;
use std::time::Duration;

use hyperactor_bootstrap::RouteRung;
use hyperactor_bootstrap::mailbox::LinkOrigin;
use hyperactor_mailbox::MailboxSender;
use hyperactor_refs::Incarnation;
use hyperactor_testkit::{Ledger, Rng};
use tokio::time::{Instant, timeout};

use crate::context::{Context, Result, another};
use crate::found::Found;
use crate::oracle::{Oracle, Oracles, Tally, Way};
use crate::place::{Birth, Ending, Life, Place};
use crate::traffic::{Books, SENDERS, Traffic};

/// Pairs of procs, all at once. Of the last ones one connection serves both directions.
const LANES: u64 = 6;
const SIMPLEX_LANES: u64 = 4;
/// What is done to sockets and lives, in all lanes together.
const ACTIONS: u64 = 640;
/// More for each lane, so that a small share of that has its share of the changes, too.
const ACTIONS_MORE: u64 = 3;
/// Messages posted for each, on average, in both directions together.
const MESSAGES: u64 = 172;
/// How long a link is idle before it is closed, in the lanes where that is tried.
const LINK_IDLE: Duration = Duration::from_millis(15);
/// A way that works again is taken within this time, however many actions came before.
const HEALED_WITHIN: Duration = Duration::from_secs(5);
/// The longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The two procs: the first one lives as long as its lane, the second has many lives.
const NAMES: [&str; 2] = ["a", "b"];

/// What happens to a socket, or to whom it leads to.
#[derive(Clone, Copy, Debug)]
enum Disturbance {
    Vanish(Ending),
    Stale,
    Refuse,
    Replace,
    Rest,
    Flap,
}

/// Shuffled, and dealt until none is left: each has its share of every run.
const DISTURBANCES: [Disturbance; 12] = [
    Disturbance::Vanish(Ending::Orderly),
    Disturbance::Vanish(Ending::Orderly),
    Disturbance::Vanish(Ending::Orderly),
    Disturbance::Vanish(Ending::Sudden),
    Disturbance::Stale,
    Disturbance::Stale,
    Disturbance::Refuse,
    Disturbance::Refuse,
    Disturbance::Replace,
    Disturbance::Replace,
    Disturbance::Rest,
    Disturbance::Flap,
];

pub(crate) async fn run(context: &Context) -> Result<Found> {
    let actions = context.scaled(ACTIONS).div_ceil(LANES) + ACTIONS_MORE;
    let lanes = (0..LANES).map(|number| async move {
        let lane = Lane::begin(context, number).await?;
        lane.run(actions).await
    });
    let mut all = Found::default();
    for found in futures_util::future::try_join_all(lanes).await? {
        all.add(&found);
    }
    Ok(all)
}

/// One direction: from one of the procs to the other.
#[derive(Default)]
struct Flow {
    tally: Arc<Tally>,
    oracles: Oracles,
}

struct Lane {
    number: u64,
    rng: Rng,
    place: Place,
    ledger: Ledger,
    /// Whether the procs are told of each other's lives, as a host does, or have to look for them.
    is_announced: bool,
    /// Whether one connection serves both directions: then the sockets of both come and go together, because a message goes
    /// straight as long as one of them is there.
    is_duplex: bool,
    link_idle: Option<Duration>,
    flows: [Flow; 2],
    /// The first proc's incarnation, lower or higher than those of the second: of two dials at once the lower one's stands.
    first: Incarnation,
    /// How many lives each of the procs had.
    begun: [u64; 2],
    lives: Vec<Life>,
    traffic: Vec<Traffic>,
    deck: Vec<Disturbance>,
    found: Found,
}

impl Lane {
    async fn begin(context: &Context, number: u64) -> Result<Self> {
        let mut rng = context.seed.fork(&format!("lane {number}")).rng();
        let place = Place::new(another(&mut rng)).await?;
        let is_lower = rng.chance(1, 2);
        let mut lane = Self {
            number,
            rng,
            place,
            ledger: Ledger::new(),
            is_announced: number.is_multiple_of(2) || number >= SIMPLEX_LANES,
            is_duplex: number >= SIMPLEX_LANES,
            link_idle: matches!(number, 0 | 1 | SIMPLEX_LANES).then_some(LINK_IDLE),
            first: Incarnation::new(if is_lower { 1 } else { u64::MAX - 1 }),
            flows: Default::default(),
            begun: [0; 2],
            lives: Vec::new(),
            traffic: Vec::new(),
            deck: Vec::new(),
            found: Found::default(),
        };
        for side in 0..NAMES.len() {
            let (life, traffic) = lane.next_life(side).await?;
            lane.lives.push(life);
            lane.traffic.push(traffic);
        }
        if lane.is_announced {
            let born = lane.lives[1].incarnation;
            lane.lives[0].dialer.announce(NAMES[1], born);
        }
        Ok(lane)
    }

    /// Begins the next life of one of the procs, with its senders.
    async fn next_life(&mut self, side: usize) -> Result<(Life, Traffic)> {
        let (name, life) = (NAMES[side], self.begun[side]);
        self.begun[side] += 1;
        let flow = &self.flows[side];
        let text = format!("lane {}, {name}, life {life}", self.number);
        let oracle = Oracle::new(text, flow.tally.clone());
        flow.oracles.add(oracle.clone());
        let birth = Birth {
            name,
            number: life,
            incarnation: if side == 0 {
                self.first
            } else {
                Incarnation::new(life + 2)
            },
            is_duplex: self.is_duplex,
            link_idle: self.link_idle,
            oracle,
            ledger: &self.ledger,
        };
        let begun = self.place.begin(birth).await?;
        let books = Books {
            ledger: self.ledger.clone(),
            tally: flow.tally.clone(),
        };
        let ports = self.place.ports(NAMES[1 - side]);
        // Numbers of their own for each life's senders, apart from the other proc's.
        let number = (life * NAMES.len() as u64 + side as u64) * SENDERS;
        let traffic = Traffic::start(&begun.proc, life, number, &ports, &books, &mut self.rng)?;
        if self.is_announced && side == 1 {
            begun.dialer.announce(NAMES[0], self.lives[0].incarnation);
        }
        Ok((begun, traffic))
    }

    async fn run(mut self, actions: u64) -> Result<Found> {
        for _ in 0..actions {
            let from = self.rng.below(2) as usize;
            self.stream(from).await;
            if self.lives[1 - from].has_socket() {
                self.disturb(from).await?;
            } else {
                self.appear(from).await?;
            }
        }
        self.heal().await?;
        self.finish().await
    }

    /// Has both procs stream, and returns in the middle of what one of them posts.
    async fn stream(&mut self, from: usize) {
        for traffic in &self.traffic {
            traffic.grant(self.rng.below(MESSAGES));
        }
        let left = self.rng.below(MESSAGES / 2) as usize;
        let deadline = Instant::now() + PATIENCE;
        while self.traffic[from].left() > left && Instant::now() < deadline {
            self.look(from);
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        let left = self.traffic[from].left();
        self.found.report.check(
            "senders are not kept waiting",
            Instant::now() < deadline,
            left,
        );
    }

    /// Notes how many messages are held at the moment.
    fn look(&self, from: usize) -> u64 {
        let to = self.place.proc_id(NAMES[1 - from]);
        self.lives[from].dialer.explain(&to).held
    }

    /// Waits, with a little traffic, until one direction's messages take a way; `straight` is how many have to have arrived
    /// straight.
    async fn wait_for(&mut self, from: usize, way: Way, straight: u64) {
        let oracle = self.flows[from].oracles.present();
        let began = Instant::now();
        let mut held = 0;
        let is_there = || {
            oracle.last() == Some(way) && (way == Way::Relay || oracle.seen().straight > straight)
        };
        while !is_there() && began.elapsed() < PATIENCE {
            if self.traffic[from].left() == 0 {
                self.traffic[from].grant(4);
            }
            held = self.look(from).max(held);
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
        self.found.held += held;
        self.found.slowest = self.found.slowest.max(began.elapsed());
        let to = self.place.proc_id(NAMES[1 - from]);
        let found = is_there();
        let report = self.lives[from].dialer.explain(&to);
        self.found.accepted += u64::from(report.link == Some(LinkOrigin::Accepted));
        let seen = format!(
            "lane {}: {way:?} after {:?}: {report:?}",
            self.number,
            began.elapsed()
        );
        self.found
            .report
            .check("the other way is taken", found, seen);
    }

    fn straight(&self, from: usize) -> u64 {
        self.flows[from].oracles.present().seen().straight
    }

    /// The directions that have something happen to them together, with the one that was chosen first.
    fn directions(&self, from: usize) -> Vec<usize> {
        let all = if self.is_duplex { 2 } else { 1 };
        [from, 1 - from][..all].to_vec()
    }

    /// The receiver's socket appears.
    async fn appear(&mut self, from: usize) -> Result {
        let straight = [self.straight(0), self.straight(1)];
        for from in self.directions(from) {
            let receiver = &mut self.lives[1 - from];
            let incarnation = receiver.incarnation;
            let oracles = self.flows[from].oracles.clone();
            receiver
                .appear(&self.place, oracles, incarnation, &mut self.rng)
                .await?;
        }
        for from in self.directions(from) {
            self.wait_for(from, Way::Straight, straight[from]).await;
        }
        Ok(())
    }

    /// The receiver's socket vanishes; nobody waits for what comes of it.
    async fn close(&mut self, from: usize, how: Ending) {
        if how == Ending::Sudden {
            // Before any of them is gone: the other one would go on by the relay, while this one reads on.
            for from in self.directions(from) {
                self.lives[1 - from].discard().await;
            }
        }
        if how == Ending::Orderly && self.is_duplex {
            self.flushed(0).await;
            self.flushed(1).await;
        }
        for from in self.directions(from) {
            self.lives[1 - from].vanish(how).await;
        }
    }

    /// Waits until what one direction posted has its outcome: who stops a server over which it sends has stopped sending, as a
    /// process that ends does.
    async fn flushed(&self, from: usize) {
        let began = Instant::now();
        let tally = &self.flows[from].tally;
        while tally.under_way() > 0 && began.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
    }

    /// Waits until messages go by the relay.
    async fn relayed(&mut self, from: usize) {
        for from in self.directions(from) {
            self.wait_for(from, Way::Relay, 0).await;
        }
    }

    /// Something happens to the receiver's socket.
    async fn disturb(&mut self, from: usize) -> Result {
        if self.deck.is_empty() {
            self.deck.extend(DISTURBANCES);
            self.rng.shuffle(&mut self.deck);
        }
        match self.deck.pop() {
            Some(Disturbance::Vanish(how)) => self.vanish(from, how).await,
            Some(Disturbance::Stale) => self.go_stale(from).await?,
            Some(Disturbance::Refuse) if self.is_announced && !self.is_duplex => {
                self.refuse(from).await?;
            }
            Some(Disturbance::Replace) => self.replace().await?,
            Some(Disturbance::Rest) if self.link_idle.is_some() => self.rest(from).await,
            Some(Disturbance::Flap) => self.flap(from).await?,
            _ => self.vanish(from, Ending::Orderly).await,
        }
        Ok(())
    }

    async fn vanish(&mut self, from: usize, how: Ending) {
        self.found.sudden += u64::from(how == Ending::Sudden);
        self.close(from, how).await;
        self.relayed(from).await;
    }

    /// What a killed process leaves: a file that refuses connections.
    async fn go_stale(&mut self, from: usize) -> Result {
        self.close(from, Ending::Orderly).await;
        for from in self.directions(from) {
            let path = self.place.dir.socket_path(NAMES[1 - from]);
            drop(std::os::unix::net::UnixListener::bind(path)?);
        }
        self.found.refused += 1;
        self.relayed(from).await;
        Ok(())
    }

    /// Somebody answers who is not the life that the sender was told of.
    async fn refuse(&mut self, from: usize) -> Result {
        let receiver = &mut self.lives[1 - from];
        receiver.vanish(Ending::Orderly).await;
        let other = Incarnation::new(u64::MAX / 2);
        let oracles = self.flows[from].oracles.clone();
        receiver
            .appear(&self.place, oracles, other, &mut self.rng)
            .await?;
        self.found.refused += 1;
        self.wait_for(from, Way::Relay, 0).await;
        self.lives[1 - from].vanish(Ending::Orderly).await;
        Ok(())
    }

    /// The socket goes and comes back before anybody can have taken the other way.
    async fn flap(&mut self, from: usize) -> Result {
        self.found.sudden += 1;
        self.close(from, Ending::Sudden).await;
        self.appear(from).await
    }

    /// Nothing is posted until the link was closed because nothing went over it; then the traffic goes on.
    async fn rest(&mut self, from: usize) {
        let to = self.place.proc_id(NAMES[1 - from]);
        let straight = self.straight(from);
        let deadline = Instant::now() + PATIENCE;
        let is_over = || {
            let report = self.lives[from].dialer.explain(&to);
            let is_quiet = self.traffic.iter().all(|traffic| traffic.left() == 0);
            is_quiet && report.under_way == 0 && report.now == Some(RouteRung::Relay)
        };
        while !is_over() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (is_closed, report) = (is_over(), self.lives[from].dialer.explain(&to));
        self.found.idle += u64::from(is_closed);
        let report = format!("{report:?}");
        self.found
            .report
            .check("an idle link is closed", is_closed, report);
        self.stream(from).await;
        self.wait_for(from, Way::Straight, straight).await;
    }

    /// The second proc ends, and begins again under its name, with the first one's messages under way.
    async fn replace(&mut self) -> Result {
        // One that both send over cannot be cut at one end here without the other going on, as no process that dies does.
        let how = if self.is_duplex || self.rng.chance(1, 2) {
            Ending::Orderly
        } else {
            Ending::Sudden
        };
        let straight = self.straight(0);
        let first = self.lives[0].dialer.clone();
        let (Some(old), Some(senders)) = (self.lives.pop(), self.traffic.pop()) else {
            return Err("the second proc is missing".into());
        };
        let gone = old.incarnation;
        // Before its end, after it, when the next life is up already, or not at all.
        let told = self.rng.below(4);
        let tell_gone = |at| {
            if self.is_announced && told == at {
                first.announce_gone(NAMES[1], gone);
            }
        };
        tell_gone(0);
        senders.close();
        if self.is_duplex {
            self.flushed(1).await;
        }
        old.end(&self.place, how).await;
        tell_gone(1);
        let (life, traffic) = self.next_life(1).await?;
        self.lives.push(life);
        self.traffic.push(traffic);
        let born = self.lives[1].incarnation;
        let oracles = self.flows[0].oracles.clone();
        self.lives[1]
            .appear(&self.place, oracles, born, &mut self.rng)
            .await?;
        if self.is_announced {
            first.announce(NAMES[1], born);
        }
        if self.is_announced && told == 2 {
            first.announce_gone(NAMES[1], gone);
        }
        self.found.lives += 1;
        self.found.sudden += u64::from(how == Ending::Sudden);
        self.wait_for(0, Way::Straight, straight).await;
        self.end_of(senders).await
    }

    /// Waits for the outcomes of senders that post nothing more.
    async fn end_of(&mut self, senders: Traffic) -> Result {
        let under_way: Vec<_> = self
            .flows
            .iter()
            .map(|flow| flow.tally.under_way())
            .collect();
        let joined = timeout(PATIENCE, senders.join()).await;
        let seen = format!("lane {}: under way at the end: {under_way:?}", self.number);
        self.found
            .report
            .check("every message gets its outcome", joined.is_ok(), seen);
        joined.unwrap_or(Ok(()))
    }

    /// With both sockets there, both ways are straight again soon, whatever happened before.
    async fn heal(&mut self) -> Result {
        for from in 0..NAMES.len() {
            self.stream(from).await;
            let began = Instant::now();
            if self.lives[1 - from].has_socket() {
                let straight = self.straight(from);
                self.wait_for(from, Way::Straight, straight).await;
            } else {
                self.appear(from).await?;
            }
            let took = began.elapsed();
            let seen = format!("lane {}: after {took:.1?}", self.number);
            self.found.report.check(
                "the straight way is taken again soon",
                took < HEALED_WITHIN,
                seen,
            );
        }
        Ok(())
    }

    /// Everything has an outcome, and what was seen agrees with what was told.
    async fn finish(mut self) -> Result<Found> {
        for traffic in &self.traffic {
            traffic.close();
        }
        for senders in std::mem::take(&mut self.traffic) {
            self.end_of(senders).await?;
        }
        for (from, life) in self.lives.iter().enumerate() {
            let flushed = timeout(HEALED_WITHIN, life.dialer.flush()).await;
            let is_flushed = matches!(flushed, Ok(Ok(())));
            let report = &mut self.found.report;
            report.check(
                "nothing is left to be flushed",
                is_flushed,
                format!("{flushed:?}"),
            );
            let left = life.dialer.explain(&self.place.proc_id(NAMES[1 - from]));
            let is_empty = left.under_way == 0 && left.held == 0;
            report.check(
                "nothing is under way or held",
                is_empty,
                format!("{left:?}"),
            );
        }
        for flow in &self.flows {
            for oracle in flow.oracles.all() {
                self.found.see(oracle.seen());
                let open = oracle.open();
                self.found
                    .report
                    .check("no message is left on either way", open == 0, open);
            }
        }
        self.found.judge(&self.ledger);
        while let Some(life) = self.lives.pop() {
            life.end(&self.place, Ending::Orderly).await;
        }
        self.place.end().await;
        Ok(self.found)
    }
}
