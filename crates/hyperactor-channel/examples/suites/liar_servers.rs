//! Servers that lie to their dialer: a message that was sent ends as unknown, one that was not comes back, and the dialer
//! says what was wrong.

use hyperactor_channel::{DialOptions, Outcome, Reason, dial_tx};
use hyperactor_protocol::{
    Config, ConnectionEpoch, DataFlags, Frame, Hello, HelloKind, Refusal, Seq, Session, SessionId,
    Time, Verdict,
};
use hyperactor_refs::Incarnation;
use hyperactor_testkit::{Key, Stamped, SuiteReport};

use crate::liar::{ack, data, settle};
use crate::support::net::{Kind, Listener, Raw};
use crate::support::traffic::codec;

/// What is done to a true answer, and its name.
type Change = (&'static str, fn(&mut Hello));

/// What a server says behind a true hello when one message has come.
fn lies_of_servers() -> Vec<(&'static str, Frame)> {
    vec![
        ("received what was not sent", ack(2, 0)),
        ("settled what was not sent", ack(9, 9)),
        ("more settled than received", ack(0, 1)),
        ("the outcome of what was not sent", settle(1, 1)),
        ("a range beyond what was sent", settle(0, 2)),
        (
            "credit that shrinks",
            Frame::Credit {
                messages: 0,
                bytes: 0,
                large: u64::MAX,
            },
        ),
        (
            "outcomes known that were not given",
            Frame::Resolved { below: Seq(1) },
        ),
        (
            "a message before one that precedes it",
            data(7, DataFlags::NONE, b"x"),
        ),
        (
            "a refusal of what was not sent",
            Frame::Settle {
                first: Seq(3),
                count: 1,
                verdict: Verdict::NotDelivered(Refusal::new(9)),
            },
        ),
    ]
}

pub(crate) async fn servers(kind: Kind, report: &mut SuiteReport) {
    let mut right = 0;
    let lies = lies_of_servers();
    for (name, lie) in &lies {
        let (listener, addr) = Listener::new(kind, "liar").await;
        let lie = lie.clone();
        let server = tokio::spawn(async move {
            let mut raw = Raw::new(listener.accept().await.unwrap());
            let theirs = raw.hello().await.unwrap();
            let mut session =
                Session::acceptor(Config::default(), Incarnation::new(7), &theirs, Time::ZERO);
            session.on_hello(&theirs, Time::ZERO).unwrap();
            raw.write(&session.hello(Time::ZERO).to_bytes())
                .await
                .unwrap();
            while !matches!(raw.next().await.unwrap(), Frame::Data { .. }) {}
            raw.frame(&lie).await.unwrap();
            let last = raw.until_closed().await.unwrap();
            last.iter().any(|frame| matches!(frame, Frame::Goodbye(goodbye) if (257..=280).contains(&goodbye.code)))
        });
        let outcome = one_message(addr).await;
        // Sent, and who lies about one thing is believed in nothing.
        let is_right = matches!(outcome, Outcome::Unknown(Reason::Violation(_)));
        right += u64::from(is_right);
        if !is_right {
            report.check(name, false, format!("{outcome:?}"));
        }
        report.check(
            &format!("{name}: the dialer says what was wrong"),
            server.await.unwrap(),
            "no such goodbye",
        );
    }
    report.at_least(
        "lies of servers judged as the table says",
        right,
        lies.len() as u64,
    );

    let changes: [Change; 5] = [
        ("an answer of another session", |answer| {
            answer.session = SessionId(1);
        }),
        ("an answer to another epoch", |answer| {
            answer.epoch = ConnectionEpoch(9);
        }),
        ("an answer that received what was not sent", |answer| {
            answer.next_expected = Seq(5);
        }),
        ("an answer that is no answer", |answer| {
            answer.kind = HelloKind::Open;
        }),
        ("an answer with credit beyond counting", |answer| {
            answer.credit_bytes = u64::MAX;
        }),
    ];
    for (name, change) in changes {
        let (listener, addr) = Listener::new(kind, "liar").await;
        let server = tokio::spawn(async move {
            let mut raw = Raw::new(listener.accept().await.unwrap());
            let theirs = raw.hello().await.unwrap();
            let mut session =
                Session::acceptor(Config::default(), Incarnation::new(7), &theirs, Time::ZERO);
            session.on_hello(&theirs, Time::ZERO).unwrap();
            let mut answer = session.hello(Time::ZERO);
            change(&mut answer);
            raw.write(&answer.to_bytes()).await.unwrap();
            raw.until_closed().await.is_some()
        });
        let outcome = one_message(addr).await;
        report.check(
            name,
            matches!(outcome, Outcome::NotDelivered(_)),
            format!("{outcome:?}"),
        );
        report.check(
            &format!("{name}: the dialer closes"),
            server.await.unwrap(),
            "it does not",
        );
    }
}

async fn one_message(addr: hyperactor_refs::ChannelAddr) -> Outcome {
    let options = DialOptions {
        delivery_timeout: std::time::Duration::from_secs(5),
        ..DialOptions::default()
    };
    let tx = dial_tx::<Stamped>(addr, options, codec());
    let key = Key {
        sender: 0,
        stream: 0,
        number: 0,
    };
    tx.send(Stamped::new(key, b"one".to_vec())).await
}
