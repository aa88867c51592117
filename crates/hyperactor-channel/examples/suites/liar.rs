//! Peers that speak the protocol and lie in it: each lie ends its session with the code of what was wrong, claims nothing
//! about messages that is not so, and disturbs nobody else. Here dialers lie to a server; servers that lie are in `liar_servers`.

use bytes::{BufMut, Bytes, BytesMut};
use hyperactor_protocol::{
    ConnectionEpoch, DataFlags, Frame, Hello, HelloCode, HelloKind, Label, Seq, Verdict,
};
use hyperactor_refs::Incarnation;

use crate::liar_labels::labels;
use crate::support::net::{Kind, Raw, hello};
use crate::support::victim::Victim;
use crate::support::{Context, runtime};
use hyperactor_testkit::SuiteReport;

pub(crate) fn run(kind: Kind, _context: &Context, report: &mut SuiteReport) {
    runtime().block_on(async {
        let mut victim = Victim::start(kind).await;
        frames(&mut victim, report).await;
        hellos(&mut victim, report).await;
        victim.judge(report).await;
        crate::liar_servers::servers(kind, report).await;
    });
}

pub(crate) fn data(seq: u64, flags: DataFlags, body: &'static [u8]) -> Frame {
    let (seq, body) = (Seq(seq), Bytes::from_static(body));
    Frame::Data {
        seq,
        flags,
        to: Label::NONE,
        from: Label::NONE,
        body,
    }
}

pub(crate) fn settle(first: u64, count: u32) -> Frame {
    let (first, verdict) = (Seq(first), Verdict::Delivered);
    Frame::Settle {
        first,
        count,
        verdict,
    }
}

pub(crate) fn ack(received: u64, settled: u64) -> Frame {
    let (received, settled) = (Seq(received), Seq(settled));
    Frame::Ack { received, settled }
}

/// A frame as it stands on the wire.
pub(crate) fn bytes(frame: &Frame) -> BytesMut {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    bytes
}

/// A frame of this kind with these flags and so many bytes of zeros.
fn shaped(kind: u8, flags: u8, reserved: u16, zeros: usize) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_u32_le(u32::try_from(zeros).unwrap() + 4);
    bytes.put_slice(&[kind, flags]);
    bytes.put_u16_le(reserved);
    bytes.put_bytes(0, zeros);
    bytes
}

/// What a dialer says behind its hello, and the code that ends its session; none where nothing is wrong with it.
pub(crate) type Lie = (&'static str, BytesMut, Option<u16>);

fn lies() -> Vec<Lie> {
    let bent = |frame: &Frame, at: usize, byte: u8| {
        let mut bytes = bytes(frame);
        bytes[at] = byte;
        bytes
    };
    let refused = settle(0, 1);
    vec![
        (
            "a message before one that precedes it",
            bytes(&data(3, DataFlags::NONE, b"x")),
            Some(263),
        ),
        (
            "the last number there is",
            bytes(&data(u64::MAX, DataFlags::NONE, b"x")),
            Some(263),
        ),
        ("received what was not sent", bytes(&ack(1, 0)), Some(265)),
        ("settled what was not sent", bytes(&ack(9, 9)), Some(265)),
        (
            "the last number received",
            bytes(&ack(u64::MAX, u64::MAX)),
            Some(265),
        ),
        ("more settled than received", bytes(&ack(0, 1)), Some(267)),
        (
            "the outcome of what was not sent",
            bytes(&settle(2, 3)),
            Some(265),
        ),
        (
            "the outcome of the last number",
            bytes(&settle(u64::MAX, u32::MAX)),
            Some(261),
        ),
        ("the outcome of nothing", bytes(&settle(0, 0)), Some(261)),
        (
            "a verdict that there is not",
            bent(&refused, 20, 3),
            Some(261),
        ),
        ("delivered, with a code", bent(&refused, 22, 1), Some(261)),
        (
            "outcomes known that were not given",
            bytes(&Frame::Resolved { below: Seq(5) }),
            Some(269),
        ),
        (
            "the last outcome known",
            bytes(&Frame::Resolved {
                below: Seq(u64::MAX),
            }),
            Some(269),
        ),
        (
            "credit that shrinks",
            bytes(&Frame::Credit {
                messages: 0,
                bytes: 0,
                large: u64::MAX,
            }),
            Some(268),
        ),
        (
            "a second hello",
            BytesMut::from(&hello(77).to_bytes()[..]),
            Some(262),
        ),
        ("kind 0", shaped(0, 0, 0, 8), Some(259)),
        ("kind 11", shaped(11, 0, 0, 8), Some(259)),
        ("kind 255", shaped(255, 0, 0, 8), Some(259)),
        ("reserved bits of a message", shaped(1, 0, 1, 20), Some(260)),
        (
            "unknown flags of a message",
            shaped(1, 0x40, 0, 20),
            Some(260),
        ),
        (
            "flags of an acknowledgement",
            shaped(2, 1, 0, 16),
            Some(260),
        ),
        (
            "reserved bits of a ping",
            shaped(6, 0, 0x8000, 8),
            Some(260),
        ),
        (
            "a withdrawn message with a body",
            shaped(1, 0x80, 0, 21),
            Some(258),
        ),
        (
            "an acknowledgement that is too long",
            shaped(2, 0, 0, 17),
            Some(258),
        ),
        ("credit that is too short", shaped(4, 0, 0, 15), Some(258)),
        ("a ping that is too short", shaped(6, 0, 0, 7), Some(258)),
        (
            "a goodbye that is too short",
            shaped(8, 0, 0, 11),
            Some(258),
        ),
        (
            "a detail that is too long",
            shaped(3, 0, 0, 16 + 1025),
            Some(258),
        ),
        ("a ping", bytes(&Frame::Ping { nonce: 1 }), None),
        (
            "an answer to no ping",
            bytes(&Frame::Pong { nonce: 1 }),
            None,
        ),
        ("an acknowledgement of nothing", bytes(&ack(0, 0)), None),
        (
            "a message that is none",
            bytes(&data(0, DataFlags::ACK_NOW, b"\xff\xff")),
            None,
        ),
        (
            "a withdrawn message",
            bytes(&data(0, DataFlags::VOID, b"")),
            None,
        ),
    ]
}

async fn frames(victim: &mut Victim, report: &mut SuiteReport) {
    let lies: Vec<_> = lies().into_iter().chain(labels()).collect();
    let mut right = 0;
    for (number, (name, said, expected)) in lies.iter().enumerate() {
        let (mut raw, answer) = Raw::greet(&victim.addr, &hello(200 + number as u128))
            .await
            .unwrap();
        assert_eq!(answer.kind, HelloKind::AcceptedFresh);
        raw.write(said).await.unwrap();
        // A question behind it is answered where nothing was wrong.
        raw.frame(&Frame::Ping { nonce: 4711 }).await.ok();
        let heard = loop {
            match raw.next().await {
                Ok(Frame::Pong { nonce: 4711 }) => break None,
                Ok(Frame::Goodbye(goodbye)) => break Some(goodbye.code),
                Ok(_) => {}
                Err(error) => {
                    report.check(name, false, format!("no last word: {error}"));
                    break Some(0);
                }
            }
        };
        right += u64::from(heard == *expected);
        if heard != *expected {
            report.check(name, false, format!("{heard:?} instead of {expected:?}"));
        }
        if heard.is_some() && raw.until_closed().await.is_none() {
            report.check(name, false, "the connection was left open");
        }
        if number % 8 == 0 {
            victim.honest().await;
        }
    }
    report.at_least(
        "lies of dialers judged as the table says",
        right,
        lies.len() as u64,
    );
}

async fn hellos(victim: &mut Victim, report: &mut SuiteReport) {
    // The session that others want: it has one message, and stays connected.
    let own = Hello {
        epoch: ConnectionEpoch(5),
        ..hello(1)
    };
    let (mut owner, answer) = Raw::greet(&victim.addr, &own).await.unwrap();
    assert_eq!(answer.kind, HelloKind::AcceptedFresh);
    let far = 1 << 62;
    let wrong = HelloCode::WrongIncarnation;
    let higher = Hello {
        epoch: ConnectionEpoch(6),
        ..hello(1)
    };
    let tries: Vec<(&str, Hello, HelloCode)> = vec![
        ("an epoch again", own.clone(), HelloCode::StaleEpoch),
        (
            "an older epoch",
            Hello {
                epoch: ConnectionEpoch(4),
                ..hello(1)
            },
            HelloCode::StaleEpoch,
        ),
        (
            "a session of another life",
            Hello {
                incarnation: Incarnation::new(6),
                ..higher.clone()
            },
            wrong,
        ),
        (
            "a life that is not here",
            Hello {
                expected: Some(Incarnation::new(12345)),
                ..hello(3)
            },
            wrong,
        ),
        (
            "outcomes beyond what was sent",
            Hello {
                oldest_unresolved: Seq(9),
                ..hello(4)
            },
            HelloCode::Malformed,
        ),
        (
            "a count that is too high",
            Hello {
                next_unsent: Seq(far + 1),
                ..hello(5)
            },
            HelloCode::Malformed,
        ),
        (
            "the highest count",
            Hello {
                next_expected: Seq(u64::MAX),
                ..hello(6)
            },
            HelloCode::Malformed,
        ),
        (
            "received bytes beyond counting",
            Hello {
                received_bytes: u64::MAX,
                ..hello(7)
            },
            HelloCode::Malformed,
        ),
        (
            "credit beyond counting",
            Hello {
                credit_messages: u64::MAX,
                ..hello(8)
            },
            HelloCode::Malformed,
        ),
    ];
    let mut right = 0;
    for (name, said, expected) in &tries {
        let found = match Raw::greet(&victim.addr, said).await {
            Ok((_, answer)) => format!("{:?}", answer.kind),
            Err(error) => format!("{error}"),
        };
        let is_right = found == format!("{:?}", HelloKind::Refused(*expected));
        right += u64::from(is_right);
        if !is_right {
            report.check(name, false, format!("{found} instead of {expected:?}"));
        }
    }
    report.at_least(
        "lying hellos refused as the table says",
        right,
        tries.len() as u64,
    );
    owner.frame(&Frame::Ping { nonce: 9 }).await.unwrap();
    let lives = loop {
        match owner.next().await {
            Ok(Frame::Pong { nonce: 9 }) => break true,
            Ok(_) => {}
            Err(_) => break false,
        }
    };
    report.check(
        "the owner of the session that others wanted goes on",
        lives,
        "it was closed",
    );
    victim.honest().await;
}
