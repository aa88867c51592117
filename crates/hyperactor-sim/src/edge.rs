//! Numbers at the edges of their ranges: what a peer may say of messages near 0, near 2^32 and near the highest count that
//! a hello may name, and what happens when it says anything else.
//!
//! A small table of what is lawful stands here, written from `docs/spec/session.md` and not from the code. Every case runs
//! on a session of its own and goes through the bytes.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use hyperactor_protocol::{
    Accept, Config, DataFlags, Event, Frame, FrameDecoder, Goodbye, Hello, HelloError, Incarnation,
    Label, Life, Seq, Session, SessionId, Time, Verdict, limits,
};

use crate::ledger::{Flaw, FlawKind};

/// Where the numbers of a session may begin at most.
const TOP: u64 = limits::COUNT_MAX;
/// Messages sent and received before anything is said of them.
const SENT: u64 = 3;
/// Of them, what the peer has acknowledged as received and as settled.
const ACKED: (u64, u64) = (2, 1);
/// Of those that came, how many the application has settled.
const SETTLED: u64 = 2;
/// Messages that the peer grants, from the first number on.
const GRANTED: u64 = 3;
/// Bytes of each body.
const BODY: u64 = 5;

const LOCAL: Incarnation = Incarnation::new(2);
const PEER: Incarnation = Incarnation::new(1);
const ID: SessionId = SessionId(0xed6e);

/// What came of all cases.
#[derive(Debug, Default)]
pub struct Edge {
    /// Cases run.
    pub cases: u64,
    /// Things said that are lawful, and were taken.
    pub lawful: u64,
    /// Violations by their code: each ended its session.
    pub violations: BTreeMap<u16, u64>,
    /// Hellos refused, by the number of the refusal.
    pub refusals: BTreeMap<u16, u64>,
    /// What was not as it should be.
    pub flaws: Vec<Flaw>,
}

/// What should come of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Lawful,
    /// The violation with this code.
    Code(u16),
}

/// Runs every case.
pub fn edge() -> Edge {
    let mut edge = Edge::default();
    for base in [
        0,
        1,
        u64::from(u32::MAX) - 2,
        u64::from(u32::MAX),
        1 << 32,
        (1 << 53) - 1,
        TOP - 8,
        TOP - 1,
        TOP,
    ] {
        edge.frames(base);
        edge.resumes(base);
    }
    edge.births();
    edge
}

/// The numbers worth trying around a base.
fn numbers(base: u64) -> Vec<u64> {
    let mut all = vec![0, 1, u64::from(u32::MAX), 1 << 32, TOP, TOP + 1, 1 << 63];
    all.extend([u64::MAX - 1, u64::MAX]);
    all.extend((0..6).map(|more| base + more));
    all.extend([base.saturating_sub(1), base.saturating_sub(2)]);
    all.sort_unstable();
    all.dedup();
    all
}

/// A session whose numbers begin at `base` both ways, with a few messages sent, received and acknowledged.
struct Victim {
    session: Session,
    base: u64,
    pushed: u64,
    /// Messages told, and those told delivered.
    told: u64,
    delivered: u64,
    closed: bool,
    last: Vec<Frame>,
}

fn open(base: u64) -> Hello {
    let mut hello = Session::dialer(Config::default(), ID, PEER, Time::ZERO).hello(Time::ZERO);
    hello.next_expected = Seq(base);
    hello.oldest_unresolved = Seq(base);
    hello.next_unsent = Seq(base);
    hello.credit_messages = base.saturating_add(GRANTED).min(TOP);
    hello
}

impl Victim {
    fn new(base: u64) -> Result<Self, HelloError> {
        let hello = open(base);
        let mut session = Session::acceptor(Config::default(), LOCAL, &hello, Time::ZERO);
        session.on_hello(&hello, Time::ZERO)?;
        let _the_peer_is_this_file = session.hello(Time::ZERO);
        let mut this = Self {
            session,
            base,
            pushed: 0,
            told: 0,
            delivered: 0,
            closed: false,
            last: Vec::new(),
        };
        for _ in 0..SENT + 1 {
            this.push();
        }
        this.look();
        Ok(this)
    }

    /// The numbers that the peer has seen are below this one.
    fn sent(&self) -> u64 {
        // At the top the hello can grant no more than its highest count.
        self.base + GRANTED.min(TOP - self.base)
    }

    /// Everything before the case: messages both ways, an acknowledgement, two settlements.
    fn prepare(&mut self) -> Result<(), String> {
        for at in 0..SENT {
            let taken = self.hear(&data(self.base + at))?;
            if !matches!(taken, Accept::Deliver { .. }) {
                return Err(format!("message {} was not taken", self.base + at));
            }
        }
        for at in 0..SETTLED {
            let _written_below = self.session.settle(Seq(self.base + at), Verdict::Delivered);
        }
        let sent = self.sent();
        self.hear(&Frame::Ack {
            received: Seq((self.base + ACKED.0).min(sent)),
            settled: Seq((self.base + ACKED.1).min(sent)),
        })?;
        Ok(())
    }

    fn push(&mut self) {
        let pushed = self.session.push_with(DataFlags::NONE, |out| {
            out.extend_from_slice(&[7; BODY as usize]);
            Ok::<(), ()>(())
        });
        self.pushed += u64::from(pushed.is_ok());
    }

    /// Takes a frame through its bytes; an error is the text of what the session said.
    fn hear(&mut self, frame: &Frame) -> Result<Accept, String> {
        self.say(frame).map_err(|code| format!("violation {code}"))
    }

    /// The same; an error is the code of the violation.
    fn say(&mut self, frame: &Frame) -> Result<Accept, u16> {
        let epoch = self.session.epoch();
        let mut decoder = FrameDecoder::new(limits::FRAME_MAX_CEILING);
        frame.encode(decoder.buffer());
        let taken = match decoder.next_frame() {
            Ok(Some(frame)) => self.session.on_frame(epoch, frame, Time::ZERO),
            Ok(None) => return Err(0),
            Err(violation) => {
                self.session.violated(epoch, violation, Time::ZERO);
                Err(violation)
            }
        };
        self.look();
        taken.map_err(|violation| violation.code())
    }

    /// Takes events and output.
    fn look(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Resolved { count, .. } => {
                    self.told += count;
                    self.delivered += count;
                }
                Event::Failed { .. } => self.told += 1,
                Event::Closed(_) | Event::PeerGoodbye(_) | Event::Drained => self.closed = true,
                _ => {}
            }
        }
        let epoch = self.session.epoch();
        let mut bytes = BytesMut::new();
        while let Some(part) = self.session.transmit(epoch, Time::ZERO, 1 << 16) {
            bytes.extend_from_slice(&part.bytes);
        }
        let mut decoder = FrameDecoder::new(limits::FRAME_MAX_CEILING);
        decoder.buffer().unsplit(bytes);
        while let Ok(Some(frame)) = decoder.next_frame() {
            self.last.push(frame);
        }
        self.session.check();
    }

    /// After a violation: the session is over, said why, and every message has one outcome.
    fn is_punished(&self, code: u16) -> bool {
        let said =
            matches!(self.last.last(), Some(Frame::Goodbye(goodbye)) if goodbye.code == code);
        self.closed && self.session.is_closed() && said && self.told == self.pushed
    }
}

fn data(seq: u64) -> Frame {
    Frame::Data {
        seq: Seq(seq),
        flags: DataFlags::NONE,
        to: Label::NONE,
        from: Label::NONE,
        body: Bytes::from_static(&[9; BODY as usize]),
    }
}

fn violation(code: u16) -> Expected {
    Expected::Code(code)
}

impl Edge {
    fn flaw(&mut self, kind: FlawKind, detail: String) {
        self.flaws.push(Flaw { kind, detail });
    }

    /// Everything that can be said in one frame.
    fn frames(&mut self, base: u64) {
        let numbers = numbers(base);
        let sent = match Victim::new(base) {
            Ok(victim) => victim.sent(),
            Err(error) => {
                return self.flaw(FlawKind::Unwarranted, format!("base {base}: {error}"));
            }
        };
        let acked = ((base + ACKED.0).min(sent), (base + ACKED.1).min(sent));
        for one in &numbers {
            let one = *one;
            for two in &numbers {
                self.frame(
                    base,
                    &ack(one, *two),
                    expected_ack((one, *two), acked, sent),
                );
            }
            for count in [1, 2, u32::MAX] {
                self.frame(base, &settle(one, count), expected_settle(one, count, sent));
            }
            // S-18: outcomes claimed that were not given.
            let expected = if one > base + SETTLED {
                violation(269)
            } else {
                Expected::Lawful
            };
            self.frame(base, &Frame::Resolved { below: Seq(one) }, expected);
            // S-02 and S-16: the next one, or one that came before.
            let expected = if one > base + SENT {
                violation(263)
            } else {
                Expected::Lawful
            };
            self.frame(base, &data(one), expected);
            let expected = if one > sent {
                violation(265)
            } else if one < acked.0 {
                violation(266)
            } else {
                Expected::Lawful
            };
            self.frame(base, &goodbye(one), expected);
            let granted = base.saturating_add(GRANTED).min(TOP);
            for bytes in [0, u64::MAX] {
                let shrinks = one < granted || bytes < limits::WINDOW_BYTES;
                let expected = if shrinks {
                    violation(268)
                } else {
                    Expected::Lawful
                };
                self.frame(base, &credit(one, bytes), expected);
            }
        }
    }

    fn frame(&mut self, base: u64, frame: &Frame, expected: Expected) {
        self.cases += 1;
        let text = format!("base {base}: {frame:?}");
        let mut victim = match Victim::new(base) {
            Ok(victim) => victim,
            Err(error) => return self.flaw(FlawKind::Unwarranted, format!("{text}: {error}")),
        };
        if let Err(error) = victim.prepare() {
            return self.flaw(FlawKind::Unwarranted, format!("{text}: {error}"));
        }
        let ends = matches!(frame, Frame::Goodbye(_));
        match (victim.say(frame), expected) {
            (Ok(_), Expected::Lawful) => {
                self.lawful += 1;
                if victim.closed != ends || (ends && victim.told != victim.pushed) {
                    self.flaw(
                        FlawKind::Unwarranted,
                        format!("{text}: ended as it should not"),
                    );
                }
            }
            (Err(code), Expected::Code(right)) if code == right => {
                *self.violations.entry(code).or_default() += 1;
                if !victim.is_punished(code) {
                    self.flaw(
                        FlawKind::Unpunished,
                        format!("{text}: {code} without an end"),
                    );
                }
            }
            (said, right) => {
                let text = format!("{text}: {said:?} instead of {right:?}");
                self.flaw(FlawKind::Unpunished, text);
            }
        }
        if victim.delivered > SENT {
            self.flaw(
                FlawKind::FalseOutcome,
                format!("{text}: too many delivered"),
            );
        }
    }

    /// A second connection whose hello has one number changed.
    fn resumes(&mut self, base: u64) {
        for number in numbers(base) {
            for field in 0..FIELDS.len() {
                self.resume(base, field, number);
            }
        }
    }

    fn resume(&mut self, base: u64, field: usize, number: u64) {
        self.cases += 1;
        let (name, put) = FIELDS[field];
        let text = format!("base {base}: resume with {name} {number}");
        let Ok(mut victim) = Victim::new(base) else {
            return self.flaw(FlawKind::Unwarranted, text);
        };
        if victim.prepare().is_err() {
            return self.flaw(FlawKind::Unwarranted, text);
        }
        let sent = victim.sent();
        let mut hello = open(base);
        hello.epoch.0 = 2;
        hello.born.0 = 1;
        hello.next_unsent = Seq(base + SENT);
        hello.oldest_unresolved = Seq((base + SETTLED).min(base + SENT));
        hello.next_expected = Seq((base + ACKED.0).min(sent));
        hello.received_bytes = (hello.next_expected.0 - base) * BODY;
        put(&mut hello, number);
        let before = victim.session.dump();
        let lawful = is_lawful_resume(&hello, base, sent);
        match victim.session.on_hello(&hello, Time::ZERO) {
            Ok(_) if lawful => self.lawful += 1,
            Err(error) if !lawful => {
                *self.refusals.entry(error.code().number()).or_default() += 1;
                let after = victim.session.dump();
                let same = (before.life, before.epoch, before.settled, before.unresolved)
                    == (after.life, after.epoch, after.settled, after.unresolved);
                if !same || victim.session.life() != Life::Connected {
                    let text = format!("{text}: {error} left traces: {before} and {after}");
                    self.flaw(FlawKind::Unwarranted, text);
                }
            }
            Ok(_) => self.flaw(FlawKind::Unpunished, format!("{text}: was accepted")),
            Err(error) => self.flaw(FlawKind::Unwarranted, format!("{text}: {error}")),
        }
        victim.look();
    }

    /// First hellos beyond what counts may be.
    fn births(&mut self) {
        for base in [TOP + 1, 1 << 63, u64::MAX - 1, u64::MAX] {
            self.cases += 1;
            match Victim::new(base) {
                Err(error @ HelloError::Malformed { .. }) => {
                    *self.refusals.entry(error.code().number()).or_default() += 1;
                }
                Err(error) => self.flaw(FlawKind::Unwarranted, format!("{base}: {error}")),
                Ok(_) => self.flaw(FlawKind::Unpunished, format!("a birth at {base}")),
            }
        }
    }
}

fn ack(received: u64, settled: u64) -> Frame {
    Frame::Ack {
        received: Seq(received),
        settled: Seq(settled),
    }
}

fn settle(first: u64, count: u32) -> Frame {
    Frame::Settle {
        first: Seq(first),
        count,
        verdict: Verdict::Delivered,
    }
}

fn credit(messages: u64, bytes: u64) -> Frame {
    Frame::Credit {
        messages,
        bytes,
        large: u64::MAX,
    }
}

fn goodbye(received: u64) -> Frame {
    Frame::Goodbye(Goodbye {
        received: Seq(received),
        code: Goodbye::DONE,
        detail: Bytes::new(),
    })
}

/// S-18: within what was sent, settled within received, neither of them back.
fn expected_ack(said: (u64, u64), acked: (u64, u64), sent: u64) -> Expected {
    if said.0 > sent {
        violation(265)
    } else if said.1 > said.0 {
        violation(267)
    } else if said.0 < acked.0 || said.1 < acked.1 {
        violation(266)
    } else {
        Expected::Lawful
    }
}

/// S-18 and S-19: within what was sent; of what is resolved it may be said again.
fn expected_settle(first: u64, count: u32, sent: u64) -> Expected {
    match first.checked_add(count.into()) {
        // No range ends beyond the numbers that there are.
        None => violation(261),
        Some(end) if end > sent => violation(265),
        Some(_) => Expected::Lawful,
    }
}

type Put = fn(&mut Hello, u64);

/// The numbers of a hello.
const FIELDS: [(&str, Put); 8] = [
    ("next_expected", |hello, number| {
        hello.next_expected.0 = number;
    }),
    ("received_bytes", |hello, number| {
        hello.received_bytes = number;
    }),
    ("oldest_unresolved", |hello, number| {
        hello.oldest_unresolved.0 = number;
    }),
    ("next_unsent", |hello, number| {
        hello.next_unsent.0 = number;
    }),
    ("credit_messages", |hello, number| {
        hello.credit_messages = number;
    }),
    ("credit_bytes", |hello, number| {
        hello.credit_bytes = number;
    }),
    ("epoch", |hello, number| {
        hello.epoch.0 = number;
    }),
    ("born", |hello, number| {
        hello.born.0 = number;
    }),
];

/// S-04, S-06, S-08, S-10 and S-18.
fn is_lawful_resume(hello: &Hello, base: u64, sent: u64) -> bool {
    let counts = [
        hello.next_expected.0,
        hello.received_bytes,
        hello.oldest_unresolved.0,
        hello.next_unsent.0,
        hello.credit_messages,
        hello.credit_bytes,
        hello.epoch.0,
    ];
    let low = (base + ACKED.0).min(sent);
    counts.iter().all(|count| *count <= TOP)
        && hello.oldest_unresolved <= hello.next_unsent
        // S-10: which birth the dialer knows matters only where its numbers are not those of the state.
        && hello.born <= hello.epoch
        && hello.epoch.0 > 1
        && hello.next_unsent.0 >= base + SENT
        && hello.oldest_unresolved.0 <= base + SETTLED
        && (low..=sent).contains(&hello.next_expected.0)
        && hello.received_bytes == (hello.next_expected.0 - base) * BODY
        && hello.credit_messages >= open(base).credit_messages
        && hello.credit_bytes >= open(base).credit_bytes
}
