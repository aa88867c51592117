//! What the tests of sessions share: a seeded generator, and a pair of endpoints joined by bytes.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(unreachable_pub, reason = "test module")]

pub mod ledger;
pub mod sim;

use std::convert::Infallible;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyperactor_protocol::{
    Accept, Cause, Config, ConnectionEpoch, Cut, DataFlags, Event, Failure, Frame, FrameDecoder,
    Hello, Incarnation, Label, PostId, PushError, Seq, Session, SessionId, Time, Verdict,
    Violation,
};

/// Marsaglia's xorshift64 with a multiplied output: small, fast, and the same everywhere.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        // Zero is the one state it never leaves.
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

pub const DIALER: Incarnation = Incarnation::new(0xD1);
pub const ACCEPTOR: Incarnation = Incarnation::new(0xAC);
pub const ID: SessionId = SessionId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);

/// A session that sends messages of a megabyte in one frame.
pub fn large_frames() -> Config {
    Config {
        max_frame: 4 << 20,
        fragment_bytes: 2 << 20,
        ..Config::default()
    }
}

pub fn at(millis: u64) -> Time {
    Time::ZERO + Duration::from_millis(millis)
}

pub fn push(session: &mut Session, body: &[u8]) -> PostId {
    push_flags(session, DataFlags::NONE, body)
}

pub fn push_flags(session: &mut Session, flags: DataFlags, body: &[u8]) -> PostId {
    session
        .push_with(flags, |out| {
            out.extend_from_slice(body);
            Ok::<(), Infallible>(())
        })
        .expect("there is room")
}

pub fn events(session: &mut Session) -> Vec<Event> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

/// Everything that a session would write now, as frames.
pub fn written(session: &mut Session, now: Time) -> Vec<Frame> {
    frames(&written_bytes(session, now))
}

pub fn written_bytes(session: &mut Session, now: Time) -> Bytes {
    let mut all = BytesMut::new();
    let epoch = session.epoch();
    while let Some(part) = session.transmit(epoch, now, 64 * 1024) {
        all.extend_from_slice(&part.bytes);
    }
    all.freeze()
}

pub fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut decoder = FrameDecoder::new(u32::MAX);
    decoder.buffer().extend_from_slice(bytes);
    let mut frames = Vec::new();
    while let Some(frame) = decoder.next_frame().expect("own frames are well formed") {
        frames.push(frame);
    }
    assert_eq!(
        decoder.pending_bytes(),
        0,
        "own output ends at a frame border"
    );
    frames
}

/// Two endpoints whose hellos and frames are handed over whole.
pub struct Pair {
    pub dialer: Session,
    pub acceptor: Session,
    pub now: Time,
}

impl Pair {
    pub fn connected(config: &Config) -> Self {
        Self::connected_with(config, |acceptor| acceptor)
    }

    /// With an acceptor that is changed before it is used.
    pub fn connected_with(config: &Config, change: impl FnOnce(Session) -> Session) -> Self {
        let mut dialer = Session::dialer(config.clone(), ID, DIALER, at(0));
        let hello = dialer.hello(at(0));
        let mut acceptor = change(Session::acceptor(config.clone(), ACCEPTOR, &hello, at(0)));
        let established = acceptor.on_hello(&hello, at(0)).expect("the first hello");
        assert!(!established.resumed);
        let answer = acceptor.hello(at(0));
        dialer.on_hello(&answer, at(0)).expect("the answer");
        let mut pair = Self {
            dialer,
            acceptor,
            now: at(0),
        };
        pair.exchange(|_, _| Verdict::Delivered);
        pair
    }

    pub fn epoch(&self) -> ConnectionEpoch {
        self.dialer.epoch()
    }

    /// A new connection; both sessions know each other still.
    pub fn reconnect(&mut self) {
        let epoch = self.epoch();
        self.dialer.disconnected(epoch, self.now);
        self.acceptor.disconnected(epoch, self.now);
        let hello = self.dialer.hello(self.now);
        self.acceptor.on_hello(&hello, self.now).expect("the hello");
        let answer = self.acceptor.hello(self.now);
        let established = self.dialer.on_hello(&answer, self.now).expect("the answer");
        assert!(established.resumed);
    }

    /// The acceptor starts again with nothing.
    pub fn restart(&mut self, life: u64) -> Hello {
        let epoch = self.epoch();
        self.dialer.disconnected(epoch, self.now);
        let config = self.acceptor.config().clone();
        let hello = self.dialer.hello(self.now);
        self.acceptor = Session::acceptor(config, Incarnation::new(life), &hello, self.now);
        self.acceptor.on_hello(&hello, self.now).expect("the hello");
        self.acceptor.hello(self.now)
    }

    pub fn hand_acceptor(&mut self, frame: Frame) -> Result<Accept, Violation> {
        let epoch = self.acceptor.epoch();
        self.acceptor.on_frame(epoch, frame, self.now)
    }

    pub fn hand_dialer(&mut self, frame: Frame) -> Result<Accept, Violation> {
        let epoch = self.dialer.epoch();
        self.dialer.on_frame(epoch, frame, self.now)
    }

    /// What the dialer writes now arrives; returns the messages.
    pub fn forward(&mut self) -> Vec<(Seq, Bytes)> {
        let mut messages = Vec::new();
        for frame in written(&mut self.dialer, self.now) {
            if let Accept::Deliver { seq, body, .. } = self.hand_acceptor(frame).expect("lawful") {
                messages.push((seq, body));
            }
        }
        messages
    }

    /// What the acceptor writes now arrives.
    pub fn backward(&mut self) -> Vec<Event> {
        for frame in written(&mut self.acceptor, self.now) {
            if let Accept::Deliver { seq, body, .. } = self.hand_dialer(frame).expect("lawful") {
                let _ = self.dialer.settle(seq, Verdict::Delivered);
                let _ = self.dialer.release(Label::NONE, body.len() as u32);
            }
        }
        events(&mut self.dialer)
    }

    /// Carries frames both ways until nothing moves; the acceptor's application answers with `verdict`.
    pub fn exchange(&mut self, mut verdict: impl FnMut(Seq, &Bytes) -> Verdict) -> Vec<Event> {
        let mut all = Vec::new();
        for _round in 0..1000 {
            let messages = self.forward();
            for (seq, body) in &messages {
                let answer = verdict(*seq, body);
                let _ = self.acceptor.settle(*seq, answer);
                let _ = self.acceptor.release(Label::NONE, body.len() as u32);
            }
            self.now = self.now + Duration::from_millis(6);
            while self.acceptor.on_timeout(self.now).is_some() {}
            while self.dialer.on_timeout(self.now).is_some() {}
            let idle = !self.acceptor.has_output() && !self.dialer.has_output();
            all.extend(self.backward());
            self.dialer.check();
            self.acceptor.check();
            if idle && messages.is_empty() && !self.dialer.has_output() {
                return all;
            }
        }
        panic!(
            "the pair does not come to rest: {} / {}",
            self.dialer.dump(),
            self.acceptor.dump()
        );
    }
}

/// The dialer answers `lie` with `violation`, fails its messages as unknown, and says goodbye with the code.
#[track_caller]
pub fn check(mut pair: Pair, lie: Frame, violation: Violation) {
    let unresolved = pair.dialer.unresolved();
    assert_eq!(pair.hand_dialer(lie), Err(violation));
    assert!(pair.dialer.is_closed());
    pair.dialer.check();
    let told = events(&mut pair.dialer);
    let unknown = Failure::Unknown(Cause::Violation(violation));
    let failed = told
        .iter()
        .filter(|event| matches!(event, Event::Failed { failure, .. } if *failure == unknown))
        .count();
    assert_eq!(
        failed as u64, unresolved,
        "every sent message ends as unknown: {told:?}"
    );
    assert_eq!(
        told.last(),
        Some(&Event::Closed(Cause::Violation(violation)))
    );
    let last = written(&mut pair.dialer, pair.now).pop();
    let code = violation.code();
    assert!(
        matches!(&last, Some(Frame::Goodbye(goodbye)) if goodbye.code == code),
        "S-28: goodbye names the violation: {last:?}"
    );
    let push = pair.dialer.push_with(DataFlags::NONE, |_| Ok::<(), ()>(()));
    assert_eq!(push, Err(PushError::Closed));
}

/// Gives a frame to a session: alone, or, with every other seed, where it lies among others.
pub fn hand(
    seed: u64,
    session: &mut Session,
    epoch: ConnectionEpoch,
    frame: Frame,
    now: Time,
) -> Result<Accept, Violation> {
    if seed.is_multiple_of(2) {
        return session.on_frame(epoch, frame, now);
    }
    // Another before it, so that what is to be acted on is found in another place than it was.
    let mut cuts = vec![Cut::Frame(Frame::Pong { nonce: 0 }), Cut::Frame(frame)];
    session.on_frames(epoch, &mut cuts, now)?;
    assert!(cuts.len() <= 1, "a pong is nothing to act on");
    Ok(match cuts.pop() {
        Some(Cut::Frame(Frame::Data {
            seq,
            flags,
            to,
            from,
            body,
        })) => Accept::Deliver {
            seq,
            to,
            from,
            size: body.len() as u32,
            body,
            ack_now: flags.contains(DataFlags::ACK_NOW),
        },
        Some(Cut::Frame(Frame::Name { label, name })) => Accept::Named { label, name },
        Some(Cut::Frame(other)) => panic!("{} is nothing to act on", other.name()),
        Some(Cut::Run(_)) => panic!("one is no run"),
        None => Accept::Handled,
    })
}
