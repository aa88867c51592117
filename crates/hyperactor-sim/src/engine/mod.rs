//! One run: virtual time, a queue of what happens next, and the real session state machines in the middle.
//!
//! Streams stand in `stream`, what drives a session in `drive`, hellos and frames in `input`, the applications in
//! `app`, the faults in `inject`. Single-threaded; nothing here asks the machine for time or chance.

mod app;
mod drive;
mod inject;
mod input;
mod state;
mod stream;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use hyperactor_protocol::{Incarnation, Label, Time};

use self::state::{Half, Link, Node};
use self::stream::Conn;
use crate::fault::{Nanos, SECOND};
use crate::ledger::{Flaw, FlawKind, Ledger};
use crate::log::Log;
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::seen::Seen;
use crate::shelf::Shelf;

/// After the faults end, everything has its outcome within this time.
const LIVENESS_BOUND: Nanos = 60 * SECOND;
/// The same, where nothing had fallen silent: no deadline has to pass before traffic flows again.
const LIVE_BOUND: Nanos = 5 * SECOND;
/// Events after which a run counts as one that never ends.
const EVENTS_MAX: u64 = 3_000_000;
/// Own invariants are asserted at every so many events.
const CHECK_EVERY: u64 = 8;
/// How long bytes take once the network is healed.
const HEALED_LATENCY: Nanos = 50_000;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// The broken promises, first ones first.
    pub flaws: Vec<Flaw>,
    /// What was seen.
    pub seen: Seen,
    /// The hash of the log.
    pub hash: u64,
    /// The log, if it was kept.
    pub text: Option<String>,
    /// Virtual time at the end.
    pub ended: Nanos,
    /// Virtual time from the end of the faults until the last outcome.
    pub healed_in: Nanos,
    /// How many events it took.
    pub events: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ev {
    Post(usize),
    Fault(usize),
    /// Bytes or the end of the stream reach this side.
    Read(usize, usize),
    /// A session may have something to write.
    Pump(usize),
    Timer(usize),
    Settle {
        half: usize,
        seq: u64,
        to: Label,
        id: u64,
        size: u32,
    },
    Release {
        half: usize,
        to: Label,
        size: u32,
    },
    Dial(usize),
    Linger(usize),
    Up(usize),
    Heal,
}

struct Sim<'s> {
    scenario: &'s Scenario,
    now: Nanos,
    queue: BinaryHeap<Reverse<(Nanos, u64, Ev)>>,
    order: u64,
    events: u64,
    nodes: Vec<Node>,
    links: Vec<Link>,
    halves: Vec<Half>,
    conns: Vec<Conn>,
    lives: u64,
    rng: Rng,
    healed: bool,
    /// No place is frozen any more.
    thawed: bool,
    /// The last outcome since then, and the longest time without one.
    told_at: Nanos,
    quiet: Nanos,
    /// The last phase: the senders are gone for good.
    over: bool,
    reasons: Reasons,
    ledger: Ledger,
    log: Log,
    seen: Seen,
    memory: Arc<Shelf>,
}

/// What happened that gives reason for outcomes that are not "delivered".
#[derive(Clone, Copy, Debug, Default)]
struct Reasons {
    silenced: bool,
    restarted: bool,
    forgotten: bool,
    ended: bool,
    lied: bool,
}

/// Runs a scenario to its end. Panics of the code under test pass through.
pub fn run(scenario: &Scenario, keep_text: bool) -> Outcome {
    let mut sim = Sim::new(scenario, keep_text);
    let healed_in = sim.run();
    Outcome {
        seen: sim.seen,
        hash: sim.log.hash(),
        text: sim.log.into_text(),
        ended: sim.now,
        healed_in,
        events: sim.events,
        flaws: sim.ledger.judge(),
    }
}

impl<'s> Sim<'s> {
    fn new(scenario: &'s Scenario, keep_text: bool) -> Self {
        let world = &scenario.world;
        let nodes = (0..world.nodes())
            .map(|at| Node::new(Incarnation::new(at as u64 + 1), world.drift_ppm[at]))
            .collect();
        let links = world
            .links()
            .into_iter()
            .enumerate()
            .map(|(at, ends)| Link::new(ends, Rng::new(scenario.seed, 100 + at as u64)))
            .collect();
        let mut sim = Self {
            scenario,
            now: 0,
            queue: BinaryHeap::new(),
            order: 0,
            events: 0,
            nodes,
            links,
            halves: Vec::new(),
            conns: Vec::new(),
            lives: world.nodes() as u64,
            rng: Rng::new(scenario.seed, 1),
            healed: false,
            thawed: world.frozen.is_empty(),
            told_at: world.horizon,
            quiet: 0,
            over: false,
            reasons: Reasons::default(),
            ledger: Ledger::default(),
            log: Log::new(keep_text),
            seen: Seen::default(),
            memory: Arc::default(),
        };
        for (at, post) in scenario.posts.iter().enumerate() {
            sim.push(post.at, Ev::Post(at));
        }
        for (at, fault) in scenario.faults.iter().enumerate() {
            sim.push(fault.at, Ev::Fault(at));
        }
        let mut apart = world.frozen.clone();
        if !apart.is_empty() {
            apart.extend(world.bulk);
        }
        sim.ledger.set_apart(apart);
        sim.push(world.horizon, Ev::Heal);
        sim
    }

    fn push(&mut self, at: Nanos, event: Ev) {
        self.order += 1;
        self.queue
            .push(Reverse((at.max(self.now), self.order, event)));
    }

    /// Safety phase, liveness phase, then the end of all senders. Returns how long healing took.
    fn run(&mut self) -> Nanos {
        let horizon = self.scenario.world.horizon;
        if !self.thawed {
            // A place that takes nothing stops nobody else.
            self.until(horizon + LIVENESS_BOUND, |sim| {
                sim.healed && sim.ledger.open_elsewhere() == 0
            });
            let behind = self.ledger.open_elsewhere();
            if behind != 0 {
                let dumps = self.halves.iter().filter(|half| !half.gone);
                let dumps: Vec<_> = dumps.map(|half| half.session.dump().to_string()).collect();
                self.ledger.flaw(FlawKind::Unresolved, || {
                    format!(
                        "{behind} messages wait behind frozen places: {}",
                        dumps.join(" / ")
                    )
                });
                return self.show_open();
            }
            self.seen.isolated += 1;
            self.seen.isolated_open += self.ledger.open();
            self.thaw();
        }
        let bound = self.now.max(horizon) + LIVENESS_BOUND;
        self.until(bound, |sim| sim.healed && sim.ledger.open() == 0);
        let healed_in = self.now.saturating_sub(horizon);
        if self.ledger.open() != 0 {
            return self.show_open();
        }
        let reasons = self.reasons;
        let silent = reasons.silenced || reasons.ended || reasons.lied;
        if !silent {
            self.seen.live_healed += 1;
            // How long it takes to send what waited is a matter of windows; that nothing moves is not.
            let quiet = self.quiet;
            if quiet > LIVE_BOUND {
                self.ledger.flaw(FlawKind::Unresolved, || {
                    format!("live pairs had no outcome for {} ms", quiet / 1_000_000)
                });
            }
        }
        // What is still on its way arrives; then states that nobody resumes have to go.
        self.until(self.now + SECOND, |_| false);
        self.end_senders();
        let config = &self.scenario.world.config;
        // A hello that was delayed for long may still come; then the connection has to fall silent first.
        let patience = config.session_ttl + config.silence_timeout * 4;
        self.until(self.now + patience.as_nanos() as Nanos, |_| false);
        for at in 0..self.halves.len() {
            let half = &self.halves[at];
            if !half.gone && !self.ledger.is_flawed() {
                let dump = half.session.dump().to_string();
                self.ledger.flaw(FlawKind::Leftover, || dump);
            }
        }
        healed_in
    }

    /// What keeps a message waiting shows in the state of its session.
    fn show_open(&mut self) -> Nanos {
        for half in self.halves.iter().filter(|half| !half.gone) {
            let (node, armed) = (half.node, half.armed);
            let dump = half.session.dump();
            self.log.line(
                self.now,
                node,
                "open",
                [half.link as u64, dump.unresolved, armed],
            );
        }
        self.now.saturating_sub(self.scenario.world.horizon)
    }

    fn until(&mut self, end: Nanos, done: impl Fn(&Self) -> bool) {
        while !done(self) && !self.ledger.is_flawed() {
            match self.queue.peek() {
                Some(Reverse((at, _, _))) if *at <= end => {}
                _ => {
                    self.now = self.now.max(end);
                    return;
                }
            }
            let Some(Reverse((at, _, event))) = self.queue.pop() else {
                return;
            };
            self.now = at;
            self.events += 1;
            if self.events > EVENTS_MAX {
                self.ledger
                    .flaw(FlawKind::Livelock, || format!("last event: {event:?}"));
                return;
            }
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Ev) {
        // A frozen process does nothing; what was to happen in it happens when it goes on.
        if let Some(node) = self.node_of(event) {
            let thaw = self.nodes[node].frozen_until;
            if thaw > self.now {
                self.push(thaw, event);
                return;
            }
        }
        match event {
            Ev::Post(at) => self.post(at),
            Ev::Fault(at) => self.inject(at),
            Ev::Read(conn, side) => self.read(conn, side),
            Ev::Pump(half) => self.wake(half),
            Ev::Timer(half) => self.timer(half),
            Ev::Settle {
                half,
                seq,
                to,
                id,
                size,
            } => self.settle(half, (seq, to, size), id),
            Ev::Release { half, to, size } => {
                if !self.halves[half].gone {
                    let _written_below = self.halves[half].session.release(to, size);
                    self.wake(half);
                }
            }
            Ev::Dial(link) => self.dial(link),
            Ev::Linger(half) => self.linger(half),
            Ev::Up(node) => self.up(node),
            Ev::Heal => self.heal(),
        }
    }

    fn node_of(&self, event: Ev) -> Option<usize> {
        match event {
            Ev::Read(conn, side) => Some(self.links[self.conns[conn].link].ends[side]),
            Ev::Pump(half) | Ev::Timer(half) | Ev::Linger(half) => Some(self.halves[half].node),
            Ev::Settle { half, .. } | Ev::Release { half, .. } => Some(self.halves[half].node),
            Ev::Dial(link) => Some(self.links[link].ends[0]),
            Ev::Post(at) => {
                let post = &self.scenario.posts[at];
                Some(self.links[post.link].ends[usize::from(post.back)])
            }
            Ev::Fault(_) | Ev::Up(_) | Ev::Heal => None,
        }
    }

    /// The time that a node's clock shows.
    fn local(&self, node: usize) -> Time {
        self.nodes[node].local(self.now)
    }

    fn latency(&mut self, link: usize) -> Nanos {
        let base = if self.healed {
            HEALED_LATENCY
        } else {
            self.scenario.world.latency
        };
        base / 2 + self.links[link].rng.below(base)
    }
}
