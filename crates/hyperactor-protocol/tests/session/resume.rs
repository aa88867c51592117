//! New connections, new lives.

use std::time::Duration;

use bytes::Bytes;
use hyperactor_protocol::{
    Accept, Cause, Config, ConnectionEpoch, DataFlags, Event, Failure, Frame, Hello, HelloError,
    HelloKind, PostId, Refusal, Seq, Session, Verdict,
};

use crate::common::{ACCEPTOR, DIALER, ID, Pair, at, events, push, written, written_bytes};

fn unknown(seq: u64, cause: Cause, body: &'static [u8]) -> Event {
    let failure = Failure::Unknown(cause);
    Event::Failed {
        post: PostId(seq),
        failure,
        body: Some(Bytes::from_static(body)),
    }
}

/// S-06.
#[test]
fn what_the_lost_connection_swallowed_is_sent_again_and_only_that() {
    let mut pair = Pair::connected(&Config::default());
    for body in [b"a", b"b", b"c", b"d"] {
        push(&mut pair.dialer, body);
    }
    let frames = written(&mut pair.dialer, pair.now);
    for frame in frames.into_iter().take(2) {
        assert!(pair.hand_acceptor(frame).is_ok());
    }
    pair.reconnect();
    let messages = pair.forward();
    let bodies: Vec<&[u8]> = messages.iter().map(|(_, body)| &body[..]).collect();
    assert_eq!(bodies, [b"c", b"d"]);
    assert_eq!(pair.dialer.dump().resent, 2);
}

/// S-12.
#[test]
fn lost_settlements_are_said_again_before_the_acknowledgement() {
    let mut pair = Pair::connected(&Config::default());
    for at in 0..6 {
        push(&mut pair.dialer, &[at]);
    }
    pair.forward();
    let refused = Verdict::NotDelivered(Refusal::new(4));
    for (seq, verdict) in [
        (0, Verdict::Delivered),
        (1, refused.clone()),
        (3, Verdict::Delivered),
        (4, refused.clone()),
        (5, Verdict::Delivered),
    ] {
        let _ = pair.acceptor.settle(Seq(seq), verdict);
    }
    // All of it is written, and none of it arrives.
    pair.now = pair.now + Duration::from_millis(5);
    while pair.acceptor.on_timeout(pair.now).is_some() {}
    assert!(!written(&mut pair.acceptor, pair.now).is_empty());
    pair.reconnect();
    let frames = written(&mut pair.acceptor, pair.now);
    let settle = |first, verdict| Frame::Settle {
        first: Seq(first),
        count: 1,
        verdict,
    };
    assert_eq!(
        frames[..5],
        [
            settle(1, refused.clone()),
            settle(4, refused),
            settle(3, Verdict::Delivered),
            settle(5, Verdict::Delivered),
            Frame::Ack {
                received: Seq(6),
                settled: Seq(2)
            },
        ]
    );
    for frame in frames {
        assert!(pair.hand_dialer(frame).is_ok());
    }
    let told = events(&mut pair.dialer);
    assert_eq!(pair.dialer.unresolved(), 1, "{told:?}");
}

/// S-11.
#[test]
fn a_restarted_peer_leaves_sent_messages_unknown_and_takes_the_rest_at_once() {
    let config = Config {
        window_messages: 2,
        ..Config::default()
    };
    let mut pair = Pair::connected(&config);
    for body in [b"a", b"b", b"c"] {
        push(&mut pair.dialer, body);
    }
    assert_eq!(pair.forward().len(), 2);
    let answer = pair.restart(0xAD);
    assert_eq!(answer.kind, HelloKind::AcceptedFresh);
    let established = pair.dialer.on_hello(&answer, pair.now).expect("accepted");
    assert!(!established.resumed);
    let told = events(&mut pair.dialer);
    let cause = Cause::PeerRestarted;
    assert_eq!(
        told,
        [unknown(0, cause.clone(), b"a"), unknown(1, cause, b"b")]
    );
    let messages = pair.forward();
    assert_eq!(messages, [(Seq(2), Bytes::from_static(b"c"))]);
}

#[test]
fn a_peer_that_forgot_the_session_leaves_sent_messages_unknown() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.dialer, b"a");
    pair.forward();
    let answer = pair.restart(ACCEPTOR.get());
    pair.dialer.on_hello(&answer, pair.now).expect("accepted");
    assert_eq!(
        events(&mut pair.dialer),
        [unknown(0, Cause::SessionLost, b"a")]
    );
}

/// S-10.
#[test]
fn a_fresh_answer_that_is_lost_does_not_turn_unknown_into_delivered() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.dialer, b"a");
    pair.forward();
    // The same life forgot the session; its first answer is lost, and the second says "resumed".
    pair.restart(ACCEPTOR.get());
    let hello = pair.dialer.hello(pair.now);
    pair.acceptor
        .on_hello(&hello, pair.now)
        .expect("known by now");
    let answer = pair.acceptor.hello(pair.now);
    assert_eq!(answer.kind, HelloKind::AcceptedResumed);
    let established = pair.dialer.on_hello(&answer, pair.now).expect("accepted");
    assert!(!established.resumed, "its birth tells");
    assert_eq!(
        events(&mut pair.dialer),
        [unknown(0, Cause::SessionLost, b"a")]
    );
    push(&mut pair.dialer, b"b");
    let told = pair.exchange(|_, _| Verdict::Delivered);
    assert_eq!(
        told,
        [Event::Resolved {
            first: PostId(1),
            count: 1
        }]
    );
}

#[test]
fn a_first_answer_that_is_lost_costs_nothing() {
    let mut dialer = Session::dialer(Config::default(), ID, DIALER, at(0));
    push(&mut dialer, b"a");
    let hello = dialer.hello(at(0));
    let mut acceptor = Session::acceptor(Config::default(), ACCEPTOR, &hello, at(0));
    acceptor.on_hello(&hello, at(0)).expect("accepted");
    push(&mut acceptor, b"other way");
    written(&mut acceptor, at(0));
    dialer.disconnected(ConnectionEpoch(1), at(1));
    let hello = dialer.hello(at(1));
    acceptor.on_hello(&hello, at(1)).expect("resumed");
    dialer
        .on_hello(&acceptor.hello(at(1)), at(1))
        .expect("accepted");
    let mut pair = Pair {
        dialer,
        acceptor,
        now: at(1),
    };
    let told = pair.exchange(|_, _| Verdict::Delivered);
    assert_eq!(
        told,
        [Event::Resolved {
            first: PostId(0),
            count: 1
        }]
    );
    assert_eq!(pair.acceptor.unresolved(), 0);
}

/// S-07 and S-08.
#[test]
fn a_new_connection_replaces_a_half_open_one_at_once() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.dialer, b"a");
    let late = written_bytes(&mut pair.dialer, pair.now);
    let old = pair.epoch();
    // The acceptor has seen no end of the old connection.
    pair.dialer.disconnected(old, pair.now);
    let hello = pair.dialer.hello(pair.now);
    let established = pair.acceptor.on_hello(&hello, pair.now).expect("replaces");
    assert!(established.resumed && established.epoch > old);
    pair.dialer
        .on_hello(&pair.acceptor.hello(pair.now), pair.now)
        .expect("accepted");

    // What still comes over the old one has no effect, nor has its end; and it gets nothing to write.
    for frame in crate::common::frames(&late) {
        assert_eq!(
            pair.acceptor.on_frame(old, frame, pair.now),
            Ok(Accept::Fenced)
        );
    }
    assert_eq!(pair.acceptor.transmit(old, pair.now, 1000), None);
    pair.acceptor.disconnected(old, pair.now);
    assert_eq!(pair.acceptor.dump().fenced, 1);
    assert_eq!(pair.forward(), [(Seq(0), Bytes::from_static(b"a"))]);
}

/// S-08.
#[test]
fn a_late_hello_of_an_older_connection_is_refused() {
    let mut pair = Pair::connected(&Config::default());
    let first = pair.dialer.hello(pair.now);
    let second = pair.dialer.hello(pair.now);
    pair.acceptor
        .on_hello(&second, pair.now)
        .expect("the newer");
    let error = pair
        .acceptor
        .on_hello(&first, pair.now)
        .expect_err("the older, late");
    assert!(matches!(error, HelloError::StaleEpoch { .. }));
    assert_eq!(
        pair.acceptor.epoch(),
        second.epoch,
        "and the newer connection goes on"
    );
}

/// S-09.
#[test]
fn an_unexpected_life_ends_the_session_of_a_dialer_that_insists() {
    let config = Config::default();
    let mut dialer = Session::dialer(config.clone(), ID, DIALER, at(0)).expecting(Some(ACCEPTOR));
    push(&mut dialer, b"for that life only");
    let hello = dialer.hello(at(0));
    let other = hyperactor_protocol::Incarnation::new(0xAD);
    let mut acceptor = Session::acceptor(config, other, &hello, at(0));
    let error = acceptor.on_hello(&hello, at(0)).expect_err("not me");
    assert_eq!(
        error,
        HelloError::WrongIncarnation {
            expected: ACCEPTOR,
            found: other
        }
    );
    let refusal = Hello::refusal(&hello, other, error.code());
    assert!(dialer.on_hello(&refusal, at(0)).is_err());
    let told = events(&mut dialer);
    assert!(
        matches!(
            &told[0],
            Event::Failed {
                failure: Failure::NotDelivered(_),
                ..
            }
        ),
        "never sent, so certain: {told:?}"
    );
}

/// S-11.
#[test]
fn verdicts_for_messages_of_the_life_before_mean_nothing() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.acceptor, b"from the old life");
    let frames = written(&mut pair.acceptor, pair.now);
    let mut seqs = Vec::new();
    for frame in frames {
        if let Accept::Deliver { seq, .. } = pair.hand_dialer(frame).expect("lawful") {
            seqs.push(seq);
        }
    }
    let answer = pair.restart(0xAD);
    pair.dialer.on_hello(&answer, pair.now).expect("accepted");
    push(&mut pair.acceptor, b"from the new life");
    let _ = pair
        .dialer
        .settle(seqs[0], Verdict::NotDelivered(Refusal::new(1)));
    let mut new = Vec::new();
    for frame in written(&mut pair.acceptor, pair.now) {
        if let Accept::Deliver { seq, .. } = pair.hand_dialer(frame).expect("lawful") {
            new.push(seq);
        }
    }
    assert_eq!(seqs, [Seq(0)]);
    assert_eq!(new, [Seq(1)], "S-05: numbers go on");
    assert_eq!(pair.dialer.unsettled(), 1);
}

#[test]
fn a_refusal_for_now_leaves_the_session_waiting() {
    let mut dialer = Session::dialer(Config::default(), ID, DIALER, at(0));
    push_one(&mut dialer);
    let hello = dialer.hello(at(0));
    let code = hyperactor_protocol::HelloCode::TooMany;
    let refusal = Hello::refusal(&hello, ACCEPTOR, code);
    let error = dialer.on_hello(&refusal, at(0)).expect_err("refused");
    assert!(error.is_retryable());
    assert!(!dialer.is_closed());
    assert_eq!((dialer.unresolved(), events(&mut dialer)), (1, vec![]));
}

/// A network may deliver a connection's first bytes after its successor came and its state went. Found by the
/// simulator, seed 2399 of its first version.
/// S-10.
#[test]
fn a_state_born_of_a_hello_that_came_late_ends_and_the_next_attempt_succeeds() {
    let mut dialer = Session::dialer(Config::default(), ID, DIALER, at(0));
    let late = dialer.hello(at(0));
    let second = dialer.hello(at(1));
    let accept = |hello: &Hello| Session::acceptor(Config::default(), ACCEPTOR, hello, at(1));
    let mut known = accept(&second);
    known.on_hello(&second, at(1)).expect("the first to come");
    dialer
        .on_hello(&known.hello(at(1)), at(1))
        .expect("accepted");
    let mut pair = Pair {
        dialer,
        acceptor: known,
        now: at(1),
    };
    push(&mut pair.dialer, b"a");
    pair.exchange(|_, _| Verdict::Delivered);
    assert_eq!(pair.dialer.unresolved(), 0);

    // The acceptor forgets, and then the first hello comes out of the network.
    let mut stale = accept(&late);
    stale.on_hello(&late, at(50)).expect("nothing is known");
    let _lost_with_its_connection = stale.hello(at(50));
    let epoch = pair.epoch();
    pair.dialer.disconnected(epoch, at(50));
    let third = pair.dialer.hello(at(50));
    assert_eq!(
        third.born, second.epoch,
        "the dialer says which state it knows"
    );
    let error = stale.on_hello(&third, at(50)).expect_err("not that state");
    assert_eq!(
        error,
        HelloError::StaleState {
            born: late.epoch,
            known: second.epoch
        }
    );
    assert!(stale.is_closed());
    let refusal = Hello::refusal(&third, ACCEPTOR, error.code());
    let error = pair.dialer.on_hello(&refusal, at(50)).expect_err("refused");
    assert!(error.is_retryable());

    let fourth = pair.dialer.hello(at(60));
    let mut fresh = accept(&fourth);
    fresh.on_hello(&fourth, at(60)).expect("a new state");
    let established = pair.dialer.on_hello(&fresh.hello(at(60)), at(60));
    assert!(!established.expect("accepted").resumed);
}

/// The same where the state that the dialer knows is the older one. Found by the simulator, seed 190622.
#[test]
fn a_state_of_a_late_hello_ends_also_when_it_is_younger_than_the_known_one() {
    let mut pair = Pair::connected(&Config::default());
    let known = pair.epoch();
    pair.dialer.disconnected(known, at(10));
    let late = pair.dialer.hello(at(10));
    pair.reconnect();
    push(&mut pair.dialer, b"a");
    pair.exchange(|_, _| Verdict::Delivered);

    // The acceptor forgets, and then the middle one of three hellos comes out of the network.
    let mut stale = Session::acceptor(Config::default(), ACCEPTOR, &late, at(50));
    stale.on_hello(&late, at(50)).expect("nothing is known");
    let epoch = pair.epoch();
    pair.dialer.disconnected(epoch, at(50));
    let next = pair.dialer.hello(at(50));
    let error = stale.on_hello(&next, at(50)).expect_err("not that state");
    assert_eq!(
        error,
        HelloError::StaleState {
            born: late.epoch,
            known
        }
    );
    assert!(error.code().is_retryable() && stale.is_closed());
}

fn push_one(session: &mut Session) {
    let pushed = session.push_with(DataFlags::NONE, |out| {
        out.extend_from_slice(b"a");
        Ok::<(), ()>(())
    });
    assert_eq!(pushed, Ok(PostId(0)));
}
