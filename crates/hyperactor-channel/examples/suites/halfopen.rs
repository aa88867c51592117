//! Half-open connections: the old stream goes silent without an end while a new one is dialled. The new one takes over at
//! once, and what comes late on the old one has no effect. Once with a peer by hand, once with real dialers whose
//! connections freeze at a seeded byte.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hyperactor_channel::{DialOptions, ServeOptions, dial_with, serve_queue};
use hyperactor_protocol::{ConnectionEpoch, DataFlags, Frame, Hello, HelloKind, Label, Seq};
use hyperactor_refs::ChannelAddr;
use hyperactor_testkit::{
    Act, ChaosProxy, Class, Direction, Key, Outcome, Plan, Rng, Script, Seed, Stamped, SuiteReport,
};

use crate::support::net::{Kind, Place, Raw, hello};
use crate::support::tap::Tap;
use crate::support::traffic::{Books, Receiver, Sender, body, codec};
use crate::support::{BUSY, Context, HELLO_BYTES, runtime};

/// By hand, and as many with real dialers, all transports together.
const CASES: usize = 200;
/// Messages of each dialer.
const MESSAGES: u64 = 200;
const TAKEOVER: Duration = Duration::from_millis(200);
/// Of dialers that all come back at the same time.
const TAKEOVER_AT_ONCE: Duration = Duration::from_secs(1);
/// After so much silence a dialer takes its connection for dead.
const SILENCE: Duration = Duration::from_millis(300);

pub(crate) fn run(context: &Context, report: &mut SuiteReport) {
    runtime().block_on(async {
        by_hand(context, report).await;
        with_dialers(context, report).await;
    });
}

struct Served {
    _place: Place,
    addr: ChannelAddr,
    receiver: Receiver,
}

/// One server on each transport.
async fn serve(books: &Books) -> Vec<Served> {
    let mut served = Vec::new();
    for kind in Kind::ALL {
        let place = Place::new(kind);
        let options = ServeOptions::default();
        let rx = serve_queue(place.bind.clone(), options, codec())
            .await
            .unwrap();
        let addr = rx.addr().clone();
        let receiver = Receiver::start(rx, books.clone(), 1);
        served.push(Served {
            _place: place,
            addr,
            receiver,
        });
    }
    served
}

async fn by_hand(context: &Context, report: &mut SuiteReport) {
    let cases = context.count(CASES);
    let books = Books::new(cases);
    let served = serve(&books).await;
    let mut takeovers = Vec::new();
    let (mut late, mut closed) = (0, 0);
    for case in 0..cases {
        let addr = &served[case % served.len()].addr;
        let hand = Hand {
            books: &books,
            case,
            rng: context.seed.fork(&format!("by hand/{case}")).rng(),
        };
        let done = hand.run(addr).await;
        takeovers.push(done.takeover);
        late += u64::from(done.is_late);
        closed += u64::from(done.is_closed);
    }
    for served in served {
        served.receiver.stop().await;
    }
    books.judge("by hand", report);
    report.check(
        "by hand: everything was delivered",
        books.count(Class::Delivered) == books.posted(),
        format!("{} posted", books.posted()),
    );
    report.at_least(
        "by hand: old streams that spoke again",
        late,
        cases as u64 / 3,
    );
    report.at_least(
        "by hand: old streams closed by the server",
        closed,
        cases as u64,
    );
    report.times("by hand: takeover", &takeovers, TAKEOVER, BUSY);
}

/// One session by hand: its first connection falls silent in the middle of a frame.
struct Hand<'a> {
    books: &'a Books,
    case: usize,
    rng: Rng,
}

struct Done {
    takeover: Duration,
    is_late: bool,
    is_closed: bool,
}

impl Hand<'_> {
    async fn run(mut self, addr: &ChannelAddr) -> Done {
        let first = hello(u128::from(self.rng.next_u64()) << 64 | self.case as u128);
        let (mut old, answer) = Raw::greet(addr, &first).await.unwrap();
        assert_eq!(answer.kind, HelloKind::AcceptedFresh);
        let whole = self.rng.below(20);
        let messages: Vec<Stamped> = (0..whole + 6).map(|_| self.message()).collect();
        let frames: Vec<Bytes> = (0..)
            .zip(&messages)
            .map(|(seq, message)| data(seq, message))
            .collect();
        // So many whole frames, and a part of the next.
        let whole = usize::try_from(whole).unwrap();
        let part = usize::try_from(self.rng.below(frames[whole].len() as u64)).unwrap();
        for frame in &frames[..whole] {
            old.write(frame).await.unwrap();
        }
        old.write(&frames[whole][..part]).await.unwrap();

        // The old stream wakes again, either while the hello of the new one is under way, or once it has been answered.
        let races = self.case.is_multiple_of(2);
        let sent = if races { frames.len() } else { whole + 1 };
        let second = Hello {
            epoch: ConnectionEpoch(2),
            // A dialer says which state of the server it knows.
            born: answer.born,
            next_unsent: Seq(sent as u64),
            ..first
        };
        let mut late = BytesMut::from(&frames[whole][part..]);
        for (seq, frame) in frames.iter().enumerate().skip(whole + 1) {
            if races {
                late.extend_from_slice(frame);
            } else {
                // Numbers that the new stream uses for other messages.
                let (sender, stream, number) = (0, 9, seq as u64);
                let foreign = Stamped::new(
                    Key {
                        sender,
                        stream,
                        number,
                    },
                    b"late".to_vec(),
                );
                late.extend_from_slice(&data(number, &foreign));
            }
        }
        let started = Instant::now();
        let mut new = Raw::connect(addr).await.unwrap();
        new.write(&second.to_bytes()).await.unwrap();
        let mut is_late = races && old.write(&late).await.is_ok();
        let answer = new.hello().await.unwrap();
        let takeover = started.elapsed();
        assert_eq!(answer.kind, HelloKind::AcceptedResumed);
        let resumed = usize::try_from(answer.next_expected.0).unwrap();
        assert!(resumed <= sent, "{resumed} frames received of {sent}");
        if !races {
            // The server may have closed it by now: then nothing comes late, which is as good.
            is_late = old.write(&late).await.is_ok();
        }
        for frame in &frames[resumed..] {
            new.write(frame).await.unwrap();
        }
        loop {
            match new.next().await.unwrap() {
                Frame::Ack { settled, .. } if settled.0 == frames.len() as u64 => break,
                Frame::Ack { .. } | Frame::Credit { .. } => {}
                frame => panic!("{frame:?} instead of an acknowledgement"),
            }
        }
        for message in &messages {
            self.books
                .of(self.case)
                .outcome(message.key(), Outcome::Delivered);
        }
        let is_closed = old.until_closed().await.is_some();
        Done {
            takeover,
            is_late,
            is_closed,
        }
    }

    fn message(&mut self) -> Stamped {
        let body = body(&mut self.rng);
        self.books
            .of(self.case)
            .post(u32::try_from(self.case).unwrap(), 0, body)
    }
}

fn data(seq: u64, message: &Stamped) -> Bytes {
    let mut bytes = BytesMut::new();
    let frame = Frame::Data {
        seq: Seq(seq),
        flags: DataFlags::ACK_NOW,
        to: Label::NONE,
        from: Label::NONE,
        body: postcard::to_stdvec(message).unwrap().into(),
    };
    frame.encode(&mut bytes);
    bytes.freeze()
}

async fn with_dialers(context: &Context, report: &mut SuiteReport) {
    let cases = context.count(CASES);
    let books = Books::new(cases);
    let served = serve(&books).await;
    let mut taps = Vec::new();
    for (kind, served) in Kind::ALL.into_iter().zip(&served) {
        taps.push(Tap::start(kind, served.addr.clone(), "halfopen").await);
    }
    let mut dialers = Vec::new();
    for case in 0..cases {
        let addr = taps[case % taps.len()].addr.clone();
        let seed = context.seed.fork(&format!("dialer/{case}"));
        dialers.push(tokio::spawn(dialer(books.clone(), case, addr, seed)));
    }
    let mut freezes = 0;
    for dialer in dialers {
        freezes += dialer.await.unwrap();
    }
    let mut takeovers = Vec::new();
    let mut unacked = 0;
    for tap in taps {
        let seen = tap.stop().await;
        takeovers.extend(seen.takeovers);
        unacked += seen.hellos_with_unacked;
    }
    for served in served {
        served.receiver.stop().await;
    }
    books.judge("dialers", report);
    report.check(
        "dialers: everything was delivered",
        books.count(Class::Delivered) == books.posted(),
        format!("{} posted", books.posted()),
    );
    report.at_least("dialers: frozen connections", freezes, cases as u64);
    report.at_least(
        "dialers: takeovers with messages without an outcome",
        unacked,
        cases as u64 / 2,
    );
    report.times("dialers: takeover", &takeovers, TAKEOVER_AT_ONCE, BUSY);
}

/// One dialer whose first connection freezes; gives how many froze.
async fn dialer(books: Books, case: usize, addr: ChannelAddr, seed: Seed) -> u64 {
    let mut rng = seed.rng();
    let direction = if rng.chance(1, 2) {
        Direction::Up
    } else {
        Direction::Down
    };
    let at = if rng.chance(1, 10) {
        rng.below(HELLO_BYTES as u64)
    } else {
        HELLO_BYTES as u64 + rng.below(20)
    };
    let script = Script::pass().then(Plan::pass().step(direction, at, Act::Freeze));
    let proxy = ChaosProxy::start(addr, script).await.unwrap();
    let options = DialOptions {
        silence_timeout: SILENCE,
        ..DialOptions::default()
    };
    let tx = dial_with(
        proxy.endpoint().to_string().parse().unwrap(),
        options,
        codec(),
    );
    let mut sender = Sender::new(&books, case);
    for _ in 0..MESSAGES {
        sender.post(&tx, body(&mut rng)).await;
    }
    tx.flush().await.unwrap();
    tx.close();
    tx.closed().await;
    proxy.stop().await.freezes
}
