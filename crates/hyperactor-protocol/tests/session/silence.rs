//! Deadlines: they measure silence.

use std::time::Duration;

use bytes::Bytes;
use hyperactor_protocol::{
    Accept, Cause, Config, Event, Failure, Frame, Life, PostId, Seq, Session, Timeout, Verdict,
};

use crate::common::{ACCEPTOR, DIALER, ID, Pair, at, events, large_frames, push, written};

#[test]
fn a_first_message_without_any_connection_fails_in_time_and_for_certain() {
    let mut dialer = Session::dialer(Config::default(), ID, DIALER, at(0));
    assert_eq!(dialer.next_timeout(), None, "nothing waits");
    push(&mut dialer, b"a");
    let due = dialer.next_timeout().expect("a message waits");
    assert_eq!(due, at(0), "the session asks for the time");
    assert_eq!(dialer.on_timeout(at(10)), None, "the call brings the time");
    assert_eq!(dialer.next_timeout(), Some(at(30_010)));
    assert_eq!(dialer.on_timeout(at(30_010)), Some(Timeout::Expired));
    assert_eq!(dialer.on_timeout(at(30_010)), None);
    let body = Some(Bytes::from_static(b"a"));
    let failure = Failure::NotDelivered(Cause::TimedOut);
    assert_eq!(
        events(&mut dialer),
        [
            Event::Failed {
                post: PostId(0),
                failure,
                body
            },
            Event::Closed(Cause::TimedOut),
        ]
    );
}

#[test]
fn a_first_message_after_a_long_rest_has_its_full_time() {
    let mut pair = Pair::connected(&Config::default());
    let epoch = pair.epoch();
    pair.now = pair.now + Duration::from_secs(3600);
    pair.dialer.disconnected(epoch, pair.now);
    push(&mut pair.dialer, b"a");
    assert_eq!(
        pair.dialer.next_timeout(),
        Some(pair.now),
        "the session asks for the time"
    );
    pair.now = pair.now + Duration::from_secs(60);
    assert_eq!(pair.dialer.on_timeout(pair.now), None);
    assert_eq!(
        pair.dialer.next_timeout(),
        Some(pair.now + Duration::from_secs(30))
    );
}

/// S-27.
#[test]
fn messages_sent_into_silence_end_as_unknown() {
    let config = Config {
        silence_timeout: Duration::from_secs(1000),
        ..Config::default()
    };
    let mut pair = Pair::connected(&config);
    push(&mut pair.dialer, b"a");
    written(&mut pair.dialer, pair.now);
    let since = pair.now;
    let mut last = None;
    for second in 0..60 {
        let now = since + Duration::from_secs(second);
        while let Some(timeout) = pair.dialer.on_timeout(now) {
            last = Some((second, timeout));
        }
        // Pings are written all the time; the buffer of a dead connection takes them.
        written(&mut pair.dialer, now);
    }
    assert_eq!(last, Some((30, Timeout::Expired)));
    let told = events(&mut pair.dialer);
    let failure = Failure::Unknown(Cause::TimedOut);
    let body = Some(Bytes::from_static(b"a"));
    assert_eq!(
        told[0],
        Event::Failed {
            post: PostId(0),
            failure,
            body
        }
    );
}

/// S-25.
#[test]
fn a_large_message_that_moves_does_not_time_out() {
    let mut pair = Pair::connected(&large_frames());
    push(&mut pair.dialer, &vec![0; 1 << 20]);
    let epoch = pair.epoch();
    pair.dialer
        .transmit(epoch, pair.now, usize::MAX)
        .expect("the message");
    // Five minutes for a megabyte, of which the transport takes a little each second, and not a byte comes back.
    for _ in 0..300 {
        pair.now = pair.now + Duration::from_secs(1);
        pair.dialer.drained(epoch, pair.now);
        while let Some(timeout) = pair.dialer.on_timeout(pair.now) {
            assert_eq!(timeout, Timeout::Ping);
        }
    }
    assert_eq!(pair.dialer.life(), Life::Connected);
}

#[test]
fn a_large_message_that_arrives_slowly_keeps_the_connection_alive() {
    let mut pair = Pair::connected(&Config::default());
    let epoch = pair.epoch();
    for _ in 0..100 {
        pair.now = pair.now + Duration::from_secs(3);
        pair.acceptor.heard(epoch, pair.now);
        assert_eq!(pair.acceptor.on_timeout(pair.now), None);
    }
}

/// S-26: its sender may have given it up since, and told it to be unknown.
#[test]
fn a_message_that_comes_when_the_connection_is_dead_is_taken_from_the_next_one() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.dialer, b"a");
    let (late, epoch) = (written(&mut pair.dialer, pair.now), pair.epoch());
    pair.now = pair.now + pair.acceptor.config().silence_timeout;
    // In pieces, too: what was heard in between does not revive it.
    pair.acceptor.heard(epoch, pair.now);
    for frame in late {
        let taken = pair.acceptor.on_frame(epoch, frame, pair.now);
        assert_eq!(taken, Ok(Accept::Fenced));
    }
    let dead = pair.acceptor.run_timeouts(pair.now);
    assert!(matches!(dead, Some(Timeout::Dead { .. })), "{dead:?}");
    pair.reconnect();
    let again = pair.forward();
    assert_eq!(again, [(Seq(0), Bytes::from_static(b"a"))]);
}

#[test]
fn what_was_heard_just_in_time_is_taken() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.dialer, b"a");
    pair.now = pair.now + pair.acceptor.config().silence_timeout * 9 / 10;
    assert_eq!(pair.forward(), [(Seq(0), Bytes::from_static(b"a"))]);
}

/// S-26.
#[test]
fn an_outcome_that_comes_when_the_connection_is_dead_is_believed() {
    let mut pair = Pair::connected(&Config::default());
    let post = push(&mut pair.dialer, b"a");
    let ended = push(&mut pair.dialer, b"b");
    for (seq, _) in pair.forward() {
        let _transmitted_below = pair.acceptor.settle(seq, Verdict::Delivered);
    }
    pair.acceptor.close();
    let (told, epoch) = (written(&mut pair.acceptor, pair.now), pair.epoch());
    pair.now = pair.now + pair.dialer.config().silence_timeout * 2;
    pair.dialer.heard(epoch, pair.now);
    for frame in told {
        pair.dialer
            .on_frame(epoch, frame, pair.now)
            .expect("lawful");
    }
    let events = events(&mut pair.dialer);
    let resolved = Event::Resolved {
        first: post,
        count: ended.0 - post.0 + 1,
    };
    assert_eq!(events[0], resolved, "{events:?}");
}

/// S-26, W-15.
#[test]
fn the_shorter_silence_of_both_ends_holds_at_both_and_not_below_the_floor() {
    for (said, agreed) in [(2_000, 2_000), (60_000, 10_000), (0, 100)] {
        let millis = Duration::from_millis;
        let dialing = Config {
            silence_timeout: millis(said),
            ..Config::default()
        };
        let mut dialer = Session::dialer(dialing, ID, DIALER, at(0));
        let hello = dialer.hello(at(0));
        let mut acceptor = Session::acceptor(Config::default(), ACCEPTOR, &hello, at(0));
        acceptor.on_hello(&hello, at(0)).expect("a hello");
        dialer
            .on_hello(&acceptor.hello(at(0)), at(0))
            .expect("its answer");
        let dead = |session: &mut Session, now| {
            matches!(session.run_timeouts(now), Some(Timeout::Dead { .. }))
        };
        assert!(!dead(&mut acceptor, at(agreed - 1)), "{said} ms");
        assert!(dead(&mut acceptor, at(agreed)), "{said} ms");
        // Who asks for less than the floor lives by what it asked for.
        let own = agreed.min(said);
        assert!(own == 0 || !dead(&mut dialer, at(own - 1)), "{said} ms");
        assert!(dead(&mut dialer, at(own)), "{said} ms");
    }
}

/// S-25.
#[test]
fn pings_into_a_dead_connection_do_not_keep_it_alive() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.dialer, b"a");
    written(&mut pair.dialer, pair.now);
    let start = pair.now;
    let mut told = Vec::new();
    while pair.dialer.life() == Life::Connected {
        pair.now = pair
            .dialer
            .next_timeout()
            .expect("a deadline")
            .max(pair.now);
        while let Some(timeout) = pair.dialer.on_timeout(pair.now) {
            told.push(timeout);
        }
        written(&mut pair.dialer, pair.now);
        assert!(told.len() < 10, "{told:?}");
    }
    let silence = pair.now.since(start);
    assert!(
        silence > Duration::from_secs(9) && silence < Duration::from_secs(11),
        "{silence:?}"
    );
    assert_eq!(
        told.iter()
            .filter(|timeout| **timeout == Timeout::Ping)
            .count(),
        3
    );
    assert!(matches!(told.last(), Some(Timeout::Dead { .. })));
    assert_eq!(
        pair.dialer.life(),
        Life::Detached,
        "the session waits for another connection"
    );
    assert_eq!(events(&mut pair.dialer), []);
}

/// S-25: a stream so thin that the buffer of a dead connection has room for all of it.
#[test]
fn a_thin_stream_into_a_dead_connection_does_not_keep_it_alive() {
    let mut pair = Pair::connected(&Config::default());
    let start = pair.now;
    while pair.dialer.life() == Life::Connected {
        push(&mut pair.dialer, b"a");
        written(&mut pair.dialer, pair.now);
        pair.now = pair.now + Duration::from_millis(100);
        while pair.dialer.on_timeout(pair.now).is_some() {}
        assert!(pair.now.since(start) < Duration::from_secs(11));
    }
    assert_eq!(pair.dialer.life(), Life::Detached);
    // S-27: nor does it give the messages more time than they have.
    while pair.dialer.life() != Life::Closed {
        push(&mut pair.dialer, b"a");
        pair.now = pair.now + Duration::from_millis(100);
        while pair.dialer.on_timeout(pair.now).is_some() {}
        assert!(pair.now.since(start) < Duration::from_secs(31));
    }
}

#[test]
fn a_ping_is_answered_and_the_answer_is_life() {
    let mut pair = Pair::connected(&Config::default());
    let quiet = pair.now + Duration::from_secs(4);
    assert_eq!(pair.dialer.on_timeout(quiet), Some(Timeout::Ping));
    let ping = written(&mut pair.dialer, quiet);
    pair.now = quiet;
    for frame in ping {
        assert!(pair.hand_acceptor(frame).is_ok());
    }
    let pong = written(&mut pair.acceptor, quiet);
    assert!(
        pong.iter().any(|frame| matches!(frame, Frame::Pong { .. })),
        "{pong:?}"
    );
    for frame in pong {
        assert!(pair.hand_dialer(frame).is_ok());
    }
    assert_eq!(
        pair.dialer.next_timeout(),
        Some(quiet + pair.dialer.config().keepalive_idle)
    );
}

/// S-26.
#[test]
fn two_idle_ends_wake_up_for_keepalive_only() {
    let mut pair = Pair::connected(&Config::default());
    let mut wakes = 0;
    let end = pair.now + Duration::from_secs(60);
    while pair.now < end {
        let next = [pair.dialer.next_timeout(), pair.acceptor.next_timeout()];
        pair.now = next.into_iter().flatten().min().expect("keepalive");
        wakes += 1;
        while pair.dialer.on_timeout(pair.now).is_some() {}
        while pair.acceptor.on_timeout(pair.now).is_some() {}
        pair.forward();
        pair.backward();
        pair.forward();
    }
    assert!(wakes <= 40, "{wakes} wake-ups in a minute");
    assert_eq!(pair.dialer.life(), Life::Connected);
}

/// S-26.
#[test]
fn a_handshake_that_hangs_ends() {
    let mut dialer = Session::dialer(Config::default(), ID, DIALER, at(0));
    dialer.hello(at(100));
    assert_eq!(dialer.next_timeout(), Some(at(5_100)));
    let silence = Duration::from_secs(5);
    assert_eq!(
        dialer.on_timeout(at(5_100)),
        Some(Timeout::Dead { silence })
    );
    assert_eq!(dialer.life(), Life::Detached);
}

/// S-27: that a peer greets shows that it is there, not that it takes anything.
#[test]
fn a_peer_that_greets_and_goes_for_ever_does_not_hold_messages_for_ever() {
    let mut pair = Pair::connected(&Config::default());
    let start = pair.now;
    push(&mut pair.dialer, b"a");
    written(&mut pair.dialer, pair.now);
    while !pair.dialer.is_closed() {
        pair.reconnect();
        written(&mut pair.dialer, pair.now);
        pair.now = pair.now + Duration::from_secs(1);
        pair.dialer.run_timeouts(pair.now);
        assert!(pair.now.since(start) <= Duration::from_secs(61));
    }
    assert!(pair.now.since(start) >= Duration::from_secs(30));
    let told = events(&mut pair.dialer);
    assert!(
        matches!(
            told[0],
            Event::Failed {
                failure: Failure::Unknown(Cause::TimedOut),
                ..
            }
        ),
        "{told:?}"
    );
}

/// S-27: a link that heals in the last moment is given the time that it needs.
#[test]
fn a_connection_made_just_before_the_deadline_still_delivers() {
    let mut pair = Pair::connected(&Config::default());
    let epoch = pair.epoch();
    let start = pair.now;
    push(&mut pair.dialer, b"a");
    written(&mut pair.dialer, pair.now);
    pair.dialer.disconnected(epoch, pair.now);
    pair.now = start + Duration::from_millis(29_900);
    assert_eq!(pair.dialer.run_timeouts(pair.now), None);
    pair.reconnect();
    pair.now = start + Duration::from_secs(35);
    assert_ne!(
        pair.dialer.run_timeouts(pair.now),
        Some(Timeout::Expired),
        "the answer is under way"
    );
    pair.exchange(|_, _| Verdict::Delivered);
    assert_eq!(pair.dialer.unresolved(), 0);
    assert!(!pair.dialer.is_closed());
}

/// S-27: what the peer received meanwhile is progress.
#[test]
fn a_peer_that_received_more_has_time_again() {
    let mut pair = Pair::connected(&Config::default());
    let start = pair.now;
    for _ in 0..10 {
        push(&mut pair.dialer, b"a");
        // They arrive, and every acknowledgement is lost with its connection.
        pair.forward();
        pair.now = pair.now + Duration::from_secs(20);
        assert_ne!(pair.dialer.run_timeouts(pair.now), Some(Timeout::Expired));
        pair.reconnect();
    }
    assert!(pair.now.since(start) > Duration::from_secs(120));
    assert!(!pair.dialer.is_closed());
}

/// S-27.
#[test]
fn a_session_that_nobody_resumes_expires() {
    let mut pair = Pair::connected(&Config::default());
    let epoch = pair.epoch();
    push(&mut pair.dialer, b"a");
    let placed = pair.forward();
    pair.acceptor.disconnected(epoch, pair.now);
    let due = pair.now + Duration::from_secs(60);
    assert_eq!(pair.acceptor.next_timeout(), Some(due));
    assert_eq!(pair.acceptor.on_timeout(due), Some(Timeout::Expired));
    assert_eq!(events(&mut pair.acceptor), [Event::Closed(Cause::TimedOut)]);
    let _ = pair.acceptor.settle(placed[0].0, Verdict::Delivered);
    let hello = pair.dialer.hello(due);
    let error = pair.acceptor.on_hello(&hello, due).expect_err("over");
    assert_eq!(error, hyperactor_protocol::HelloError::Ended);
}

#[test]
fn a_dialer_with_nothing_to_say_needs_no_connection_for_ever() {
    let mut pair = Pair::connected(&Config::default());
    let epoch = pair.epoch();
    pair.dialer.disconnected(epoch, pair.now);
    assert_eq!(pair.dialer.next_timeout(), None);
}

/// Found by the simulator, seed 5580 of its first version: the deadline came after twice the time.
#[test]
fn a_first_message_on_a_quiet_session_waits_for_one_timeout_and_not_for_two() {
    let mut session = Session::dialer(Config::default(), ID, DIALER, at(0));
    push(&mut session, b"a");
    // Nobody has told the session the time since; it asks for it.
    let asks = session.next_timeout().expect("something waits");
    assert!(asks <= at(0));
    assert_eq!(session.on_timeout(at(5_000)), None);
    assert_eq!(session.next_timeout(), Some(at(35_000)));
    assert_eq!(session.on_timeout(at(34_999)), None);
    assert_eq!(session.on_timeout(at(35_000)), Some(Timeout::Expired));
}
