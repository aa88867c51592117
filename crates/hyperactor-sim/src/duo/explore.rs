//! Every order of a few events in the smallest world, none left out.
//!
//! Sessions cannot be copied, so each order is run from the beginning. Orders that differ only in events of which
//! neither can notice the other (one at each end) are the same run: of such, one is taken, by the sleep sets of Patrice
//! Godefroid ("Partial-Order Methods for the Verification of Concurrent Systems", 1996).

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyperactor_protocol::limits::{FRAGMENT_FLOOR_BYTES, FRAGMENT_TOTAL_BYTES};
use hyperactor_protocol::{Config, Refusal, Verdict};

use super::{ACCEPTOR, Cut, DIALER, Duo, DuoSeen, Letter};
use crate::ledger::{Flaw, FlawKind};

/// Events after which an order counts as one that never ends.
const STEPS_MAX: usize = 400;
/// Bytes of a part.
const PART_BYTES: u32 = FRAGMENT_FLOOR_BYTES;

/// A small world: how much of everything an order may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmallWorld {
    /// Messages, all from the dialer.
    pub messages: u32,
    /// Times that the connection breaks, each in one of two ways.
    pub cuts: u32,
    /// Times that the acceptor restarts or forgets.
    pub restarts: u32,
    /// Messages that the acceptor grants at once.
    pub window: u32,
    /// Places that the messages go to in turn; 0 for none.
    pub lanes: u32,
    /// Parts in which each message goes.
    pub parts: u32,
}

/// The worlds that are explored: together some two million orders.
pub const SMALL_WORLDS: [SmallWorld; 12] = [
    SmallWorld::new(1, 2, 1, 2),
    SmallWorld::new(2, 1, 1, 2),
    SmallWorld::new(2, 2, 0, 1),
    SmallWorld::new(2, 1, 0, 2),
    SmallWorld::new(3, 1, 0, 1),
    SmallWorld::new(4, 1, 0, 1),
    SmallWorld::new(4, 0, 1, 2),
    SmallWorld::new(2, 1, 0, 2).to(2),
    SmallWorld::new(2, 0, 1, 2).to(2),
    SmallWorld::new(1, 1, 0, 2).of(3),
    SmallWorld::new(1, 0, 1, 2).of(3),
    SmallWorld::new(2, 0, 0, 4).to(2).of(2),
];

impl SmallWorld {
    const fn new(messages: u32, cuts: u32, restarts: u32, window: u32) -> Self {
        Self {
            messages,
            cuts,
            restarts,
            window,
            lanes: 0,
            parts: 1,
        }
    }

    const fn to(mut self, lanes: u32) -> Self {
        self.lanes = lanes;
        self
    }

    const fn of(mut self, parts: u32) -> Self {
        self.parts = parts;
        self
    }
}

/// What became of all orders of one world.
#[derive(Debug)]
pub struct Explored {
    /// The world.
    pub world: SmallWorld,
    /// Orders run to their end.
    pub orders: u64,
    /// Beginnings given up because another order with the same effect was taken.
    pub same: u64,
    /// The most events of an order.
    pub longest: usize,
    /// Orders in which frames of an older connection were fenced.
    pub fenced: u64,
    /// Orders in which a connection resumed a state.
    pub resumed: u64,
    /// Orders in which a message ended as unknown.
    pub unknown: u64,
    /// The first flaw, with the events that lead to it.
    pub flaw: Option<(Flaw, String)>,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Post,
    Dial,
    /// The next frame of this connection reaches the acceptor.
    Up(usize),
    /// The next frame of the newest connection reaches the dialer.
    Down,
    SettleFirst,
    SettleLast,
    CutDialer,
    CutBoth,
    Restart,
    Forget,
}

impl Act {
    /// Where it happens; an event without a side concerns both.
    fn side(self) -> Option<usize> {
        match self {
            Self::Post | Self::Dial | Self::Down => Some(DIALER),
            Self::Up(_) | Self::SettleFirst | Self::SettleLast => Some(ACCEPTOR),
            _ => None,
        }
    }

    /// Whether neither can notice the other.
    fn is_apart(self, other: Self) -> bool {
        matches!((self.side(), other.side()), (Some(one), Some(two)) if one != two)
    }
}

/// A choice on the way: what could have happened, and which of it is tried now.
struct Node {
    acts: Vec<Act>,
    at: usize,
    /// What need not be tried here.
    asleep: Vec<Act>,
}

impl Node {
    fn act(&self) -> Act {
        self.acts[self.at]
    }

    /// What need not be tried behind the event that is tried now.
    fn sleepers(&self) -> Vec<Act> {
        let act = self.act();
        let tried = &self.acts[..self.at];
        let all = self.asleep.iter().chain(tried).copied();
        all.filter(|other| act.is_apart(*other)).collect()
    }
}

/// Runs every order of each world, on as many threads as there are processors; the results stand in the worlds' order.
pub fn explore_all(worlds: &[SmallWorld]) -> Vec<Explored> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let mut done: Vec<(usize, Explored)> = std::thread::scope(|scope| {
        let work = || {
            let mut mine = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                match worlds.get(at) {
                    Some(world) => mine.push((at, explore(*world))),
                    None => return mine,
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| match worker.join() {
            Ok(mine) => mine,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.flatten().collect()
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, explored)| explored).collect()
}

/// Runs every order of a world; ends early at a flaw.
pub fn explore(world: SmallWorld) -> Explored {
    let mut all = Explored {
        world,
        orders: 0,
        same: 0,
        longest: 0,
        fenced: 0,
        resumed: 0,
        unknown: 0,
        flaw: None,
    };
    let mut path: Vec<Node> = Vec::new();
    loop {
        let mut run = Run::new(world);
        for node in &path {
            run.take(node.act());
        }
        let ended = run.follow(&mut path);
        all.longest = all.longest.max(path.len());
        if ended {
            all.orders += 1;
            let DuoSeen {
                fenced,
                resumed,
                unknown,
                ..
            } = run.duo.seen;
            all.fenced += u64::from(fenced != 0);
            all.resumed += u64::from(resumed != 0);
            all.unknown += u64::from(unknown != 0);
        } else {
            all.same += 1;
        }
        if let Some(flaw) = run.judge(ended) {
            let script = path.iter().map(|node| format!("{:?}", node.act()));
            all.flaw = Some((flaw, script.collect::<Vec<_>>().join(" ")));
            return all;
        }
        while let Some(node) = path.last_mut() {
            node.at += 1;
            if node.at < node.acts.len() {
                break;
            }
            path.pop();
        }
        if path.is_empty() {
            return all;
        }
    }
}

/// One order as far as it has come.
struct Run {
    duo: Duo,
    world: SmallWorld,
    posts: u32,
    cuts: u32,
    restarts: u32,
    restarted: bool,
}

impl Run {
    fn new(world: SmallWorld) -> Self {
        let config = Config {
            window_messages: world.window,
            ack_every: 1,
            ack_delay: Duration::ZERO,
            fragment_bytes: PART_BYTES,
            part_bytes: PART_BYTES,
            ..Config::default()
        };
        Self {
            duo: Duo::new([config.clone(), config]),
            world,
            posts: world.messages,
            cuts: world.cuts,
            restarts: world.restarts,
            restarted: false,
        }
    }

    /// Goes on until nothing is left to do, noting each choice; returns false where only sleepers are left.
    fn follow(&mut self, path: &mut Vec<Node>) -> bool {
        loop {
            if self.is_over() || path.len() > STEPS_MAX {
                return true;
            }
            let asleep = path.last().map(Node::sleepers).unwrap_or_default();
            let mut acts = self.possible();
            if acts.is_empty() {
                return true;
            }
            acts.retain(|act| !asleep.contains(act));
            if acts.is_empty() {
                return false;
            }
            self.take(acts[0]);
            path.push(Node {
                acts,
                at: 0,
                asleep,
            });
        }
    }

    /// Everything is said: what could still break would break nothing.
    fn is_over(&self) -> bool {
        let ledger = &self.duo.ledger;
        (self.posts == 0 && ledger.open() == 0) || ledger.is_flawed()
    }

    fn possible(&self) -> Vec<Act> {
        let mut acts = Vec::with_capacity(8);
        if self.posts != 0 {
            acts.push(Act::Post);
        }
        if self.duo.is_detached() {
            acts.push(Act::Dial);
        }
        for (at, wire) in self.duo.wires.iter().enumerate() {
            if !wire.queues[ACCEPTOR].is_empty() {
                acts.push(Act::Up(at));
            }
        }
        // What comes to a dialer over an older connection is gone with its end.
        if let Some(wire) = self.duo.wires.last()
            && !wire.queues[DIALER].is_empty()
        {
            acts.push(Act::Down);
        }
        match self.duo.held(ACCEPTOR) {
            0 => {}
            1 => acts.push(Act::SettleFirst),
            _ => acts.extend([Act::SettleFirst, Act::SettleLast]),
        }
        let is_connected = !self.duo.wires.is_empty() && !self.duo.is_detached();
        if self.cuts != 0 && is_connected {
            acts.extend([Act::CutDialer, Act::CutBoth]);
        }
        if self.restarts != 0 && self.duo.session(ACCEPTOR).is_some() {
            acts.extend([Act::Restart, Act::Forget]);
        }
        acts
    }

    fn take(&mut self, act: Act) {
        match act {
            Act::Post => {
                self.posts -= 1;
                let number = self.world.messages - self.posts;
                let to = match self.world.lanes {
                    0 => 0,
                    lanes => 1 + u64::from(number % lanes),
                };
                let size = match self.world.parts {
                    1 => 16,
                    parts => parts * PART_BYTES - FRAGMENT_TOTAL_BYTES as u32,
                };
                let letter = Letter {
                    size,
                    to,
                    ..Letter::default()
                };
                self.duo.post(DIALER, letter);
            }
            Act::Dial => self.duo.dial(),
            Act::Up(wire) => {
                self.duo.deliver(wire, ACCEPTOR);
            }
            Act::Down => {
                self.duo.deliver(self.duo.wires.len() - 1, DIALER);
            }
            Act::SettleFirst => self.settle(0),
            Act::SettleLast => self.settle(self.duo.held(ACCEPTOR) - 1),
            Act::CutDialer | Act::CutBoth => {
                self.cuts -= 1;
                self.duo.cut(if act == Act::CutDialer {
                    Cut::Dialer
                } else {
                    Cut::Both
                });
            }
            Act::Restart | Act::Forget => {
                self.restarts -= 1;
                self.restarted = true;
                if act == Act::Restart {
                    self.duo.restart(ACCEPTOR);
                } else {
                    self.duo.lose(ACCEPTOR);
                }
            }
        }
    }

    /// Every third message is refused.
    fn settle(&mut self, at: usize) {
        let Some(id) = self.duo.held_id(ACCEPTOR, at) else {
            return;
        };
        let verdict = if id % 3 == 1 {
            Verdict::NotDelivered(Refusal::new(7))
        } else {
            Verdict::Delivered
        };
        self.duo.settle(ACCEPTOR, at, verdict, false);
    }

    fn judge(self, ended: bool) -> Option<Flaw> {
        let (unknown, restarted) = (self.duo.seen.unknown, self.restarted);
        // An order that was given up is another one's beginning: only what is wrong already counts.
        if !ended && !self.duo.ledger.is_flawed() {
            return None;
        }
        let flaw = self.duo.ledger.judge().into_iter().next();
        if flaw.is_none() && unknown != 0 && !restarted {
            return Some(Flaw {
                kind: FlawKind::Unwarranted,
                detail: "a message ended as unknown though nobody forgot anything".into(),
            });
        }
        flaw
    }
}

impl fmt::Display for SmallWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            messages,
            cuts,
            restarts,
            window,
            lanes,
            parts,
        } = self;
        write!(
            f,
            "{messages} messages to {lanes} places in {parts} parts, {cuts} cuts, {restarts} restarts, window {window}"
        )
    }
}
