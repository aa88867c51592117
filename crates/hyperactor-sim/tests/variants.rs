//! Everything that a session can say of a peer or of a message is brought about once: every violation, every cause of a
//! failure, every reason to refuse a hello. The lists are read from the pages and the sources, so that a new one without a
//! case here fails.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyperactor_protocol::{
    Accept, Cause, Config, ConnectionEpoch, DataFlags, Event, Frame, FrameDecoder, Goodbye, Hello,
    HelloCode, HelloError, Incarnation, Label, Outgoing, PushError, Refusal, Released, Seq,
    Session, SessionId, Time, Verdict, Violation,
};

const PEER: Incarnation = Incarnation::new(1);
const LOCAL: Incarnation = Incarnation::new(2);
const ID: SessionId = SessionId(0xa11);

fn source(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(path)).expect("the file exists")
}

fn config(window: u32) -> Config {
    Config {
        window_messages: window,
        max_frame: 4096,
        max_message: 8192,
        ..Config::default()
    }
}

/// An accepting end with two messages sent, one of them to a label, and the hello that it accepted.
struct Victim {
    session: Session,
    hello: Hello,
}

impl Victim {
    fn new(window: u32) -> Self {
        let mut hello = Session::dialer(config(window), ID, PEER, Time::ZERO).hello(Time::ZERO);
        hello.born = ConnectionEpoch(0);
        let mut session = Session::acceptor(config(window), LOCAL, &hello, Time::ZERO);
        session
            .on_hello(&hello, Time::ZERO)
            .expect("a lawful hello");
        let _the_peer_is_this_file = session.hello(Time::ZERO);
        let to = session
            .add_label(Bytes::from_static(b"there"))
            .expect("room");
        for to in [Label::NONE, to] {
            let outgoing = Outgoing {
                to,
                ..Outgoing::default()
            };
            let encode = |out: &mut BytesMut| {
                out.extend_from_slice(b"hello");
                Ok::<(), ()>(())
            };
            session.push(outgoing, encode).expect("there is room");
        }
        write(&mut session);
        Self { session, hello }
    }

    /// Takes bytes as its peer's; returns the violation that ended it.
    fn hear(&mut self, bytes: &[u8]) -> Option<Violation> {
        let epoch = self.session.epoch();
        let mut decoder = FrameDecoder::new(4096);
        decoder.buffer().extend_from_slice(bytes);
        loop {
            let said = match decoder.next_frame() {
                Ok(Some(frame)) => self.session.on_frame(epoch, frame, Time::ZERO).err(),
                Ok(None) => return None,
                Err(violation) => {
                    self.session.violated(epoch, violation, Time::ZERO);
                    Some(violation)
                }
            };
            if said.is_some() {
                return said;
            }
        }
    }

    fn say(&mut self, frames: &[Frame]) -> Option<Violation> {
        let mut bytes = BytesMut::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        self.hear(&bytes)
    }

    /// A second connection whose hello is changed.
    fn resume(&mut self, change: impl FnOnce(&mut Hello)) -> Option<Violation> {
        let mut hello = self.hello.clone();
        hello.epoch.0 += 1;
        hello.born = ConnectionEpoch(1);
        change(&mut hello);
        match self.session.on_hello(&hello, Time::ZERO) {
            Err(HelloError::Violation(violation)) => Some(violation),
            _ => None,
        }
    }
}

fn write(session: &mut Session) -> BytesMut {
    let epoch = session.epoch();
    let mut all = BytesMut::new();
    while let Some(part) = session.transmit(epoch, Time::ZERO, 1 << 16) {
        all.extend_from_slice(&part.bytes);
    }
    all
}

fn data(seq: u64, to: u32, flags: DataFlags, body: &[u8]) -> Frame {
    Frame::Data {
        seq: Seq(seq),
        flags,
        to: Label::new(to),
        from: Label::NONE,
        body: Bytes::copy_from_slice(body),
    }
}

fn message(seq: u64) -> Frame {
    data(seq, 0, DataFlags::NONE, b"a message")
}

/// The first part of a message of so many bytes.
fn first(seq: u64, to: u32, total: u64) -> Frame {
    let mut body = total.to_le_bytes().to_vec();
    body.extend_from_slice(b"part");
    data(seq, to, DataFlags::FIRST, &body)
}

fn ack(received: u64, settled: u64) -> Frame {
    Frame::Ack {
        received: Seq(received),
        settled: Seq(settled),
    }
}

fn name(label: u32, length: usize) -> Frame {
    Frame::Name {
        label: Label::new(label),
        name: vec![b'n'; length].into(),
    }
}

fn released(messages: u64, bytes: u64) -> Frame {
    let label = Label::new(1);
    let entries = vec![Released {
        label,
        messages,
        bytes,
    }];
    Frame::Released { entries }
}

/// Does what the violation with this code stands for.
fn violate(code: u16) -> Option<Violation> {
    let mut victim = Victim::new(if code == 279 { 256 } else { 4 });
    match code {
        257 => victim.hear(&[0, 0x20, 0, 0, 1, 0, 0, 0]),
        258 => victim.hear(&[5, 0, 0, 0, 2, 0, 0, 0]),
        259 => victim.hear(&[12, 0, 0, 0, 99, 0, 0, 0]),
        260 => victim.hear(&[20, 0, 0, 0, 2, 1, 0, 0]),
        261 => victim.say(&[Frame::Settle {
            first: Seq(0),
            count: 0,
            verdict: Verdict::Delivered,
        }]),
        262 => victim.hear(&victim.hello.clone().to_bytes()),
        263 => victim.say(&[message(1)]),
        264 => victim.say(&[0, 1, 2, 3, 4].map(message)),
        265 => victim.say(&[ack(3, 0)]),
        266 => victim.say(&[ack(2, 1), ack(1, 1)]),
        267 => victim.say(&[ack(1, 2)]),
        268 => victim.say(&[Frame::Credit {
            messages: 0,
            bytes: 0,
            large: 0,
        }]),
        269 => victim.say(&[Frame::Resolved { below: Seq(1) }]),
        270 => victim.resume(|hello| hello.next_expected = Seq(3)),
        271 => victim.resume(|hello| hello.received_bytes = 1),
        272 => victim.say(&[data(0, 9, DataFlags::NONE, b"to whom?")]),
        273 => {
            let names: Vec<_> = (1..=513).map(|label| name(label, 2048)).collect();
            victim.say(&names)
        }
        274 => victim.say(&[released(99, 5)]),
        275 => victim.say(&[released(1, 5), released(0, 0)]),
        276 => victim.say(&[data(0, 0, DataFlags::MORE, b"of what?")]),
        277 => victim.say(&[first(0, 0, 100), data(1, 0, DataFlags::LAST, b"short")]),
        278 => victim.say(&[first(0, 0, 9000)]),
        279 => {
            let names = (1..=65).map(|label| name(label, 4));
            let parts = (1..=65_u32).map(|label| first(u64::from(label) - 1, label, 20));
            victim.say(&names.chain(parts).collect::<Vec<_>>())
        }
        280 => victim.resume(|hello| hello.max_frame = 8192),
        _ => None,
    }
}

#[test]
fn every_violation_can_be_brought_about() {
    let page = source("docs/spec/session.md");
    let rows = page.lines().filter_map(|line| {
        let code = line.strip_prefix("| ")?.split_once(' ')?.0;
        code.parse::<u16>().ok().filter(|code| *code > 256)
    });
    let codes: Vec<u16> = rows.collect();
    assert!(codes.len() >= 24, "{codes:?}");
    for code in codes {
        let said = violate(code).map(|violation| violation.code());
        assert_eq!(said, Some(code));
    }
}

/// A dialing end with one message sent, and the acceptor's answer to its next hello as `change` leaves it.
fn redial(change: impl FnOnce(&mut Hello)) -> Session {
    let mut dialer = Session::dialer(Config::default(), ID, PEER, Time::ZERO);
    let mut answer = None;
    for _ in 0..2 {
        let hello = dialer.hello(Time::ZERO);
        let mut acceptor = Session::acceptor(Config::default(), LOCAL, &hello, Time::ZERO);
        acceptor
            .on_hello(&hello, Time::ZERO)
            .expect("a lawful hello");
        let said = acceptor.hello(Time::ZERO);
        if answer.is_none() {
            dialer.on_hello(&said, Time::ZERO).expect("a lawful answer");
            push(&mut dialer);
            write(&mut dialer);
            dialer.disconnected(dialer.epoch(), Time::ZERO);
        }
        answer = Some(said);
    }
    let mut answer = answer.expect("two were given");
    change(&mut answer);
    let _what_it_says_is_in_the_events = dialer.on_hello(&answer, Time::ZERO);
    dialer
}

fn push(session: &mut Session) {
    let encode = |out: &mut BytesMut| {
        out.extend_from_slice(&[7; 6000]);
        Ok::<(), ()>(())
    };
    session.push_with(DataFlags::NONE, encode).expect("room");
}

/// A session of which messages failed for this cause.
fn fail(word: &str) -> Option<Session> {
    let mut victim = Victim::new(4);
    match word {
        "refused" => {
            let settle = Frame::Settle {
                first: Seq(0),
                count: 1,
                verdict: Verdict::NotDelivered(Refusal::new(7)),
            };
            assert_eq!(victim.say(&[settle]), None);
        }
        "peer_closed" => {
            let goodbye = Frame::Goodbye(Goodbye {
                received: Seq(0),
                code: Goodbye::DONE,
                detail: Bytes::new(),
            });
            assert_eq!(victim.say(&[goodbye]), None);
        }
        "timed_out" => {
            let late = Time::ZERO + Duration::from_secs(31);
            while victim.session.on_timeout(late).is_some() {}
        }
        "violation" => assert!(victim.say(&[ack(9, 9)]).is_some()),
        "abandoned" => victim.session.fail(Cause::Abandoned, Time::ZERO),
        "damaged" => {
            let destroyed = victim.session.push_with(DataFlags::NONE, |out| {
                out.clear();
                Ok::<(), ()>(())
            });
            assert_eq!(destroyed, Err(PushError::Damaged));
        }
        "peer_restarted" => {
            return Some(redial(|answer| answer.incarnation = Incarnation::new(9)));
        }
        "session_lost" => return Some(redial(|_| {})),
        "hello_refused" => {
            return Some(redial(|answer| {
                *answer = Hello::refusal(answer, LOCAL, HelloCode::NotAuthorised);
            }));
        }
        "too_large" => {
            let mut dialer = Session::dialer(Config::default(), ID, PEER, Time::ZERO);
            push(&mut dialer);
            let hello = dialer.hello(Time::ZERO);
            let narrow = Config {
                max_message: 4096,
                ..Config::default()
            };
            let mut acceptor = Session::acceptor(narrow, LOCAL, &hello, Time::ZERO);
            acceptor
                .on_hello(&hello, Time::ZERO)
                .expect("a lawful hello");
            let answer = acceptor.hello(Time::ZERO);
            dialer
                .on_hello(&answer, Time::ZERO)
                .expect("a lawful answer");
            return Some(dialer);
        }
        _ => return None,
    }
    Some(victim.session)
}

#[test]
fn every_cause_of_a_failure_can_be_brought_about() {
    let text = source("crates/hyperactor-protocol/src/verdict.rs");
    let words: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_suffix("\",")?.split_once("=> \""))
        .map(|(_, word)| word)
        .collect();
    assert!(words.len() >= 10, "{words:?}");
    for word in words {
        let mut session = fail(word).unwrap_or_else(|| panic!("nothing brings {word} about"));
        let causes: Vec<_> = std::iter::from_fn(|| session.poll_event())
            .filter_map(|event| match event {
                Event::Failed { failure, .. } => Some(failure.cause().code()),
                _ => None,
            })
            .collect();
        assert!(causes.contains(&word), "{word}: {causes:?}");
    }
}

/// What an acceptor says to a hello, as the number of its refusal.
fn refuse(change: impl FnOnce(&mut Hello, &mut Victim)) -> u16 {
    let mut victim = Victim::new(4);
    let mut hello = victim.hello.clone();
    hello.epoch.0 += 1;
    hello.born = ConnectionEpoch(1);
    change(&mut hello, &mut victim);
    let error = victim.session.on_hello(&hello, Time::ZERO);
    error
        .expect_err("something is wrong with it")
        .code()
        .number()
}

#[test]
fn every_refusal_of_a_session_can_be_brought_about() {
    let said = [
        refuse(|hello, _| (hello.version_min, hello.version_max) = (8, 9)),
        refuse(|hello, _| hello.incarnation = Incarnation::new(9)),
        refuse(|hello, _| hello.epoch.0 = 1),
        refuse(|_, victim| victim.session.fail(Cause::Abandoned, Time::ZERO)),
        refuse(|hello, _| hello.max_frame = 1),
    ];
    assert_eq!(said, [1, 2, 3, 4, 7]);
    // These two are of whoever has sessions, not of a session: what a dialer makes of them stands in versions.md.
    assert_eq!(HelloCode::TooMany.number(), 5);
    assert_eq!(HelloCode::NotAuthorised.number(), 6);
}

/// S-16: the one thing that is said twice and harmless, whatever its bytes.
#[test]
fn a_message_that_comes_again_with_other_bytes_is_dropped() {
    let mut victim = Victim::new(4);
    assert_eq!(victim.say(&[message(0)]), None);
    let epoch = victim.session.epoch();
    let again = data(0, 0, DataFlags::NONE, b"other bytes");
    let taken = victim.session.on_frame(epoch, again, Time::ZERO);
    assert_eq!(taken, Ok(Accept::Duplicate));
    assert!(!victim.session.is_closed());
}
