//! One message never arrives where it should, and a hundred thousand follow: they flow, and nobody gathers them.

use std::fmt;
use std::time::Duration;

use hyperactor_protocol::{Config, Refusal, Verdict, limits};

use super::{ACCEPTOR, Cut, DIALER, Duo, Letter};
use crate::ledger::{Flaw, FlawKind};

/// Messages behind the one that is lost.
pub const FOLLOWERS: u64 = 100_000;
/// The most messages that either end may have on account of the hole.
pub const HELD_MAX: u64 = 1024;
/// The longest time without an outcome.
pub const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long a frame is under way, and how long an application rests.
const ROUND: Duration = Duration::from_millis(1);
/// When a receiver says that it does not know, of a message that it lost.
const NOTICE_AFTER: Duration = Duration::from_millis(500);
/// Rounds after which it counts as standing still.
const ROUNDS_MAX: u64 = 100_000;

/// How the first message is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hole {
    /// The receiver refuses it.
    Refused,
    /// The receiver passed it on and does not know what became of it.
    Unknown,
    /// The receiver mislays it, and says so only after a while.
    Mislaid,
    /// It is in the log before the peer's frame limit is known, and too large for it.
    TooLarge,
    /// It is lost with the connection, and the sender has it still.
    Cut,
    /// It is in the queue of a destination that takes nothing out any more; the others go elsewhere.
    Stuck,
}

/// Every way to lose a message.
pub const HOLES: [Hole; 6] = [
    Hole::Refused,
    Hole::Unknown,
    Hole::Mislaid,
    Hole::TooLarge,
    Hole::Cut,
    Hole::Stuck,
];

/// What became of those behind the hole.
#[derive(Debug)]
pub struct Passed {
    /// How the first was lost.
    pub hole: Hole,
    /// Messages with an outcome, the lost one too.
    pub told: u64,
    /// Virtual time for all of them.
    pub took: Duration,
    /// The longest time without an outcome.
    pub pause: Duration,
    /// The most messages that one end had on account of the others.
    pub held: u64,
    /// What broke.
    pub flaws: Vec<Flaw>,
}

/// Loses one message, and sends so many behind it.
pub fn pass(hole: Hole, followers: u64) -> Passed {
    let config = Config {
        window_messages: HELD_MAX as u32,
        outbox_messages: HELD_MAX as u32,
        ..Config::default()
    };
    let narrow = Config {
        max_frame: limits::FRAME_MAX_FLOOR,
        ..config.clone()
    };
    let mut duo = match hole {
        Hole::TooLarge => Duo::new([config, narrow]),
        _ => Duo::new([config.clone(), config]),
    };
    let size = if hole == Hole::TooLarge { 8192 } else { 16 };
    let (first, others) = match hole {
        // As many to the stuck destination as it has room for, and more.
        Hole::Stuck => (1, 2),
        _ => (0, 0),
    };
    let letter = |size, to| Letter {
        size,
        to,
        ..Letter::default()
    };
    while duo.post(DIALER, letter(size, first)) && hole == Hole::Stuck {}
    let all = followers + duo.ledger.next();
    duo.dial();
    let mut passed = Passed {
        hole,
        told: 0,
        took: Duration::ZERO,
        pause: Duration::ZERO,
        held: 0,
        flaws: Vec::new(),
    };
    let mut told_at = Duration::ZERO;
    let mut is_stuck = hole == Hole::Stuck;
    for _ in 0..ROUNDS_MAX {
        while duo.ledger.next() < all && duo.post(DIALER, letter(16, others)) {}
        round(&mut duo, hole, is_stuck);
        let now = duo.clock(DIALER).since_start();
        let told = duo.ledger.next() - duo.ledger.open();
        if told != passed.told {
            told_at = now;
        }
        passed.told = told;
        passed.pause = passed.pause.max(now - told_at);
        passed.held = passed.held.max(held(&duo));
        passed.took = now;
        if told == all || duo.ledger.is_flawed() {
            break;
        }
        if is_stuck && duo.ledger.next() == all && duo.ledger.waiting(others) == 0 {
            // Everyone else's messages passed those that wait, and these go on when their destination does.
            is_stuck = false;
            while duo.release(ACCEPTOR) {}
        }
    }
    if is_stuck && passed.told == all {
        duo.ledger
            .flaw(FlawKind::Unwarranted, || "nothing was stuck".into());
    }
    let (held, pause) = (passed.held, passed.pause);
    if held > HELD_MAX {
        duo.ledger.flaw(FlawKind::Unbounded, || {
            format!("{held} messages were kept, {HELD_MAX} are allowed")
        });
    }
    if pause > PAUSE_MAX {
        duo.ledger.flaw(FlawKind::Unresolved, || {
            format!("no outcome for {} ms", pause.as_millis())
        });
    }
    passed.flaws = duo.ledger.judge();
    passed
}

/// Everything under way arrives, the receiver answers, and time passes.
fn round(duo: &mut Duo, hole: Hole, is_stuck: bool) {
    let now = duo.clock(ACCEPTOR).since_start();
    if hole == Hole::Cut && duo.wires.len() == 1 && duo.session(ACCEPTOR).is_some() {
        duo.cut(Cut::Both);
        duo.dial();
    }
    let newest = duo.wires.len() - 1;
    while duo.deliver(newest, ACCEPTOR) {}
    let mut at = 0;
    while let Some(id) = duo.held_id(ACCEPTOR, at) {
        let verdict = match hole {
            Hole::Refused if id == 0 => Verdict::NotDelivered(Refusal::new(7)),
            Hole::Unknown if id == 0 => Verdict::Unknown(Refusal::new(7)),
            Hole::Mislaid if id == 0 && now < NOTICE_AFTER => {
                at += 1;
                continue;
            }
            Hole::Mislaid if id == 0 => Verdict::Unknown(Refusal::new(7)),
            _ => Verdict::Delivered,
        };
        let lingers = is_stuck && duo.held_lane(ACCEPTOR, at) == Some(1);
        duo.settle(ACCEPTOR, at, verdict, lingers);
    }
    while duo.deliver(newest, DIALER) {}
    for side in [DIALER, ACCEPTOR] {
        duo.wait(side, ROUND);
    }
}

/// The most that an end keeps on account of messages.
fn held(duo: &Duo) -> u64 {
    let of = |side| {
        duo.session(side).map_or(0, |session| {
            let dump = session.dump();
            (dump.unsettled + dump.records as u64).max(dump.unresolved)
        })
    };
    of(DIALER).max(of(ACCEPTOR))
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<10} {:>7} told in {:>6} ms, longest pause {:>4} ms, at most {:>4} kept",
            format!("{:?}", self.hole),
            self.told,
            self.took.as_millis(),
            self.pause.as_millis(),
            self.held
        )
    }
}
