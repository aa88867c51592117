//! The end of a session, in order and otherwise.

use bytes::Bytes;
use hyperactor_protocol::{
    Cause, Config, DataFlags, Event, Failure, Frame, Goodbye, Life, PostId, PushError, Refusal,
    Seq, Verdict,
};

use crate::common::{Pair, events, push, written};

/// S-23.
#[test]
fn closing_waits_for_every_outcome_then_says_goodbye() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.dialer, b"a");
    pair.dialer.close();
    let late = pair.dialer.push_with(DataFlags::NONE, |_| Ok::<(), ()>(()));
    assert_eq!(late, Err(PushError::Closed));
    assert_eq!(pair.forward().len(), 1, "what was taken still goes out");
    assert!(!pair.dialer.is_closed());
    let _ = pair.acceptor.settle(Seq(0), Verdict::Delivered);
    let told = pair.exchange(|_, _| Verdict::Delivered);
    assert_eq!(
        told,
        [
            Event::Resolved {
                first: PostId(0),
                count: 1
            },
            Event::Drained
        ]
    );
    assert!(pair.dialer.is_closed() && pair.acceptor.is_closed());
    assert!(matches!(
        events(&mut pair.acceptor)[..],
        [Event::PeerGoodbye(_)]
    ));
}

#[test]
fn a_receiver_that_leaves_settles_first_and_what_it_never_had_is_not_delivered() {
    let config = Config {
        window_messages: 2,
        ..Config::default()
    };
    let mut pair = Pair::connected(&config);
    for body in [b"a", b"b", b"c"] {
        push(&mut pair.dialer, body);
    }
    assert_eq!(pair.forward().len(), 2);
    pair.acceptor.close();
    assert!(!pair.acceptor.is_closed(), "two are open");
    let _ = pair.acceptor.settle(Seq(0), Verdict::Delivered);
    let _ = pair
        .acceptor
        .settle(Seq(1), Verdict::NotDelivered(Refusal::new(2)));
    let told = pair.backward();
    let failed = |seq, cause, body: &'static [u8]| Event::Failed {
        post: PostId(seq),
        failure: Failure::NotDelivered(cause),
        body: Some(Bytes::from_static(body)),
    };
    assert_eq!(
        told[..3],
        [
            failed(1, Cause::Refused(Refusal::new(2)), b"b"),
            Event::Resolved {
                first: PostId(0),
                count: 1
            },
            failed(2, Cause::PeerClosed { code: 0 }, b"c"),
        ]
    );
    assert!(matches!(told[3], Event::PeerGoodbye(_)));
    assert_eq!(events(&mut pair.acceptor), [Event::Drained]);
}

/// S-23.
#[test]
fn what_comes_in_while_closing_is_refused_and_not_lost() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.dialer, b"a");
    pair.forward();
    pair.acceptor.close();
    push(&mut pair.dialer, b"too late");
    assert_eq!(pair.forward(), [], "the application does not see it");
    let _ = pair.acceptor.settle(Seq(0), Verdict::Delivered);
    let told = pair.backward();
    let failure = Failure::NotDelivered(Cause::PeerClosed { code: 0 });
    let body = Some(Bytes::from_static(b"too late"));
    assert!(
        told.contains(&Event::Failed {
            post: PostId(1),
            failure,
            body
        }),
        "{told:?}"
    );
}

#[test]
fn two_ends_that_close_at_once_both_come_to_an_end() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.dialer, b"a");
    push(&mut pair.acceptor, b"b");
    pair.dialer.close();
    pair.acceptor.close();
    pair.exchange(|_, _| Verdict::Delivered);
    assert!(pair.dialer.is_closed(), "{}", pair.dialer.dump());
    assert!(pair.acceptor.is_closed(), "{}", pair.acceptor.dump());
}

/// S-24.
#[test]
fn a_closing_end_without_a_connection_and_without_debts_is_done() {
    let mut pair = Pair::connected(&Config::default());
    let epoch = pair.epoch();
    pair.dialer.disconnected(epoch, pair.now);
    pair.dialer.close();
    assert_eq!(pair.dialer.life(), Life::Closed);
    assert_eq!(events(&mut pair.dialer), [Event::Drained]);
}

#[test]
fn a_closing_end_with_debts_reconnects_first() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.dialer, b"a");
    written(&mut pair.dialer, pair.now);
    pair.dialer.close();
    let epoch = pair.epoch();
    pair.dialer.disconnected(epoch, pair.now);
    assert!(!pair.dialer.is_closed());
    pair.reconnect();
    let told = pair.exchange(|_, _| Verdict::Delivered);
    assert_eq!(
        told,
        [
            Event::Resolved {
                first: PostId(0),
                count: 1
            },
            Event::Drained
        ]
    );
}

#[test]
fn giving_up_never_counts_as_delivery() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.dialer, b"sent");
    pair.forward();
    push(&mut pair.dialer, b"queued");
    let now = pair.now;
    pair.dialer.fail(Cause::Abandoned, now);
    let failed = |seq, failure, body: &'static [u8]| Event::Failed {
        post: PostId(seq),
        failure,
        body: Some(Bytes::from_static(body)),
    };
    assert_eq!(
        events(&mut pair.dialer),
        [
            failed(0, Failure::Unknown(Cause::Abandoned), b"sent"),
            failed(1, Failure::NotDelivered(Cause::Abandoned), b"queued"),
            Event::Closed(Cause::Abandoned),
        ]
    );
    // The peer is told, and the end is told once.
    let last = written(&mut pair.dialer, now);
    assert!(
        matches!(last.last(), Some(Frame::Goodbye(goodbye)) if goodbye.code == Goodbye::ABANDONED)
    );
    pair.dialer.fail(Cause::TimedOut, now);
    pair.dialer.close();
    assert_eq!(events(&mut pair.dialer), []);
}

/// S-22.
#[test]
fn a_peer_that_gives_up_leaves_received_messages_unknown_and_the_rest_certain() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.dialer, b"a");
    pair.forward();
    push(&mut pair.dialer, b"b");
    written(&mut pair.dialer, pair.now);
    let now = pair.now;
    pair.acceptor.fail(Cause::Abandoned, now);
    let told = pair.backward();
    let failures: Vec<_> = told
        .iter()
        .filter_map(|event| match event {
            Event::Failed {
                post: seq, failure, ..
            } => Some((seq.0, failure.is_certain())),
            _ => None,
        })
        .collect();
    assert_eq!(failures, [(0, false), (1, true)], "{told:?}");
}
