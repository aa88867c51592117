//! Nothing waits for ever that could go on: large messages in a flood of small ones, senders behind others' stuck
//! destinations, names that change faster than they are told, peers that start anew before anything was sent.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use hyperactor_protocol::{
    Accept, Config, Event, Frame, Incarnation, Label, Outgoing, PushError, Session, Verdict, limits,
};

use crate::common::{Pair, at, events, push, written};
use crate::labels::{backward, forward, label, push_to, settle_all, try_push};

fn push_size(session: &mut Session, to: Label, size: usize) {
    let outgoing = Outgoing {
        to,
        shared: Bytes::from(vec![7; size]),
        ..Outgoing::default()
    };
    session
        .push(outgoing, |_| Ok::<(), Infallible>(()))
        .expect("there is room");
}

/// S-34: the connection is the narrow place, and a destination keeps its share of the window full all the time.
#[test]
fn a_large_message_gets_through_a_flood_of_small_ones() {
    let mut pair = Pair::connected(&Config::default());
    let (flood, large) = (
        label(&mut pair.dialer, "flood"),
        label(&mut pair.dialer, "large"),
    );
    let small = vec![1; 8 * 1024];
    let mut has_come = false;
    let mut is_posted = false;
    for round in 0..2_000 {
        while try_push(&mut pair.dialer, flood, &small).is_ok() {}
        if round == 20 {
            push_size(&mut pair.dialer, large, 1 << 20);
            is_posted = true;
        }
        // One write of the connection, after which as much fits into the log again.
        let epoch = pair.epoch();
        let part = pair.dialer.transmit(epoch, pair.now, 64 * 1024);
        let Some(part) = part else {
            backward(&mut pair);
            continue;
        };
        let mut decoder = hyperactor_protocol::FrameDecoder::new(u32::MAX);
        let mut bytes = bytes::BytesMut::from(&part.bytes[..]);
        while pair.dialer.has_output() {
            // A part's body is handed out behind its head.
            decoder.buffer().extend_from_slice(&bytes.split());
            while let Some(frame) = decoder.next_frame().expect("well formed") {
                let accepted = pair.hand_acceptor(frame).expect("lawful");
                if let Accept::Deliver { seq, to, size, .. } = accepted {
                    has_come |= to == large;
                    let _ = pair.acceptor.settle(seq, Verdict::Delivered);
                    let _ = pair.acceptor.release(to, size);
                }
            }
            if decoder.pending_bytes() == 0 {
                break;
            }
            let part = pair.dialer.transmit(epoch, pair.now, 1).expect("the rest");
            bytes.extend_from_slice(&part.bytes);
        }
        backward(&mut pair);
        if has_come {
            return;
        }
    }
    assert!(is_posted);
    panic!("a large message never came: {}", pair.dialer.dump());
}

/// S-31: destinations that are stuck keep what waits for them, and the session has as much room as they leave.
#[test]
fn a_sender_that_found_the_session_full_is_told_of_the_room_that_the_stuck_leave() {
    let config = Config {
        window_messages: 1024,
        outbox_messages: 1024,
        ..Config::default()
    };
    let mut pair = Pair::connected(&config);
    let mut stuck = Vec::new();
    // Each takes its share of the window, then of the outbox.
    for number in 0..16 {
        let to = label(&mut pair.dialer, &format!("stuck {number}"));
        while try_push(&mut pair.dialer, to, b"x").is_ok() {
            let messages = forward(&mut pair);
            settle_all(&mut pair, &messages);
            backward(&mut pair);
            stuck.extend(messages);
        }
    }
    events(&mut pair.dialer);
    // Messages without a label know no share: they fill what is left.
    let healthy = Label::NONE;
    let mut refused = 0;
    for _ in 0..2_000 {
        if try_push(&mut pair.dialer, healthy, b"x") == Err(PushError::Full) {
            refused += 1;
            // Whoever was refused waits for the event.
            let mut told = Vec::new();
            for _ in 0..40 {
                let messages = forward(&mut pair);
                settle_all(&mut pair, &messages);
                for (to, _, body) in &messages {
                    assert_eq!(*to, healthy);
                    let _ = pair.acceptor.release(*to, body.len() as u32);
                }
                told.extend(backward(&mut pair));
            }
            let is_told = told
                .iter()
                .any(|event| matches!(event, Event::Room { label } if label.is_none()));
            assert!(
                is_told,
                "room for it: {}; {}",
                pair.dialer.has_room_for(healthy),
                pair.dialer.dump()
            );
        }
    }
    assert!(refused > 3, "it was never full");
}

/// S-36: of what is in the log nothing was sent, and the peer that comes instead has other limits.
#[test]
fn parts_that_were_never_sent_are_cut_anew_for_another_peer() {
    for (first, second) in [(4096, 1 << 20), (1 << 20, 4096)] {
        let dialer_config = Config {
            fragment_bytes: 600_000,
            ..Config::default()
        };
        let with_frames = |max_frame| Config {
            max_frame,
            ..dialer_config.clone()
        };
        let mut pair = Pair::connected(&dialer_config);
        let now = pair.now;
        pair.dialer = Session::dialer(
            dialer_config.clone(),
            crate::common::ID,
            crate::common::DIALER,
            now,
        );
        let hello = pair.dialer.hello(now);
        let mut acceptor = Session::acceptor(with_frames(first), Incarnation::new(1), &hello, now);
        acceptor.on_hello(&hello, now).expect("the first hello");
        let answer = acceptor.hello(now);
        pair.dialer.on_hello(&answer, now).expect("the answer");
        let to = label(&mut pair.dialer, "to");
        push_size(&mut pair.dialer, to, 500_000);
        push_size(&mut pair.dialer, to, 10_000);
        push(&mut pair.dialer, b"unlabelled");
        pair.dialer.check();
        pair.dialer.disconnected(pair.dialer.epoch(), now);
        let hello = pair.dialer.hello(now);
        pair.acceptor = Session::acceptor(with_frames(second), Incarnation::new(2), &hello, now);
        pair.acceptor
            .on_hello(&hello, now)
            .expect("the first hello");
        let answer = pair.acceptor.hello(now);
        pair.dialer.on_hello(&answer, now).expect("the answer");
        pair.dialer.check();
        let mut sizes = Vec::new();
        for _ in 0..20 {
            let messages = forward(&mut pair);
            settle_all(&mut pair, &messages);
            for (to, _, body) in &messages {
                sizes.push(body.len());
                let _ = pair.acceptor.release(*to, body.len() as u32);
            }
            backward(&mut pair);
        }
        sizes.sort_unstable();
        assert_eq!(sizes, [10, 10_000, 500_000]);
        assert_eq!(pair.dialer.unresolved(), 0);
    }
}

/// S-21: one that a new peer does not take fails alone, also when it was cut already.
#[test]
fn a_message_that_was_cut_and_never_sent_fails_where_the_new_peer_does_not_take_it() {
    let mut pair = Pair::connected(&Config::default());
    let now = pair.now;
    pair.dialer = Session::dialer(
        Config::default(),
        crate::common::ID,
        crate::common::DIALER,
        now,
    );
    for (life, max_message) in [(1, 1 << 20), (2, 100_000)] {
        let hello = pair.dialer.hello(now);
        let config = Config {
            max_message,
            ..Config::default()
        };
        pair.acceptor = Session::acceptor(config, Incarnation::new(life), &hello, now);
        pair.acceptor.on_hello(&hello, now).expect("the hello");
        let answer = pair.acceptor.hello(now);
        pair.dialer.on_hello(&answer, now).expect("the answer");
        if life == 1 {
            let to = label(&mut pair.dialer, "to");
            for size in [700_000, 90_000, 150_000] {
                push_size(&mut pair.dialer, to, size);
            }
            pair.dialer.disconnected(pair.dialer.epoch(), now);
        }
        pair.dialer.check();
    }
    let failed = events(&mut pair.dialer);
    assert_eq!(failed.len(), 2, "{failed:?}");
    let messages = forward(&mut pair);
    settle_all(&mut pair, &messages);
    backward(&mut pair);
    assert_eq!(messages.len(), 1);
    assert_eq!(pair.dialer.unresolved(), 0);
}

/// S-32, S-33: what a large message gives back is told soon, however much of the window is free.
#[test]
fn a_large_message_that_left_its_queue_lets_the_next_one_go() {
    let config = Config {
        max_message: 1 << 20,
        ..Config::default()
    };
    let mut pair = Pair::connected(&config);
    for number in 0..15 {
        let to = label(&mut pair.dialer, &format!("stuck {number}"));
        push_size(&mut pair.dialer, to, 1 << 20);
        let messages = forward(&mut pair);
        settle_all(&mut pair, &messages);
        backward(&mut pair);
    }
    let to = label(&mut pair.dialer, "healthy");
    for round in 0..10 {
        push_size(&mut pair.dialer, to, 1 << 20);
        let messages = forward(&mut pair);
        assert_eq!(messages.len(), 1, "round {round}: {}", pair.dialer.dump());
        settle_all(&mut pair, &messages);
        backward(&mut pair);
        // It leaves its queue after its outcome was told.
        let _ = pair.acceptor.release(to, 1 << 20);
        backward(&mut pair);
    }
}

/// S-29: the peer has at no time more names than it takes, whatever changes before it is told.
#[test]
fn names_that_change_before_they_are_told_never_add_up_to_too_much() {
    let mut pair = Pair::connected(&Config::default());
    let long = |byte: u8| Bytes::from(vec![byte; limits::LABEL_NAME_MAX]);
    let mut busy = Vec::new();
    for at in 0..limits::LABEL_BYTES_MAX / limits::LABEL_NAME_MAX {
        let to = pair.dialer.add_label(long(at as u8)).expect("room");
        push_to(&mut pair.dialer, to, b"x");
        busy.push(to);
    }
    let messages = forward(&mut pair);
    settle_all(&mut pair, &messages);
    backward(&mut pair);
    // One is idle, and changes hands twice; its bytes go to another in between.
    let idle = busy[7];
    let _ = pair.acceptor.release(idle, 1);
    push(&mut pair.dialer, b"to be acknowledged");
    let more = forward(&mut pair);
    settle_all(&mut pair, &more);
    pair.now = at(100);
    backward(&mut pair);
    let mut add = |byte, length| pair.dialer.add_label(Bytes::from(vec![byte; length]));
    assert_eq!(add(1, 1), Some(idle));
    let other = add(2, limits::LABEL_NAME_MAX - 1).expect("room");
    push_to(&mut pair.dialer, other, b"y");
    let again = pair.dialer.add_label(Bytes::from(vec![3; 1]));
    assert_eq!(again, Some(idle));
    for frame in written(&mut pair.dialer, pair.now) {
        let taken = pair.hand_acceptor(frame);
        assert!(taken.is_ok(), "{taken:?}");
    }
    pair.acceptor.check();
}

/// S-19: an outcome said again, for as many messages as there are, costs next to nothing.
#[test]
fn settlements_of_what_has_its_outcome_are_cheap() {
    let config = Config {
        outbox_messages: 8192,
        window_messages: 65_536,
        ..Config::default()
    };
    let mut pair = Pair::connected(&config);
    let mut sent = 0;
    while sent < 60_000 {
        while pair.dialer.has_room() && sent < 60_000 {
            push(&mut pair.dialer, b"x");
            sent += 1;
        }
        let messages = forward(&mut pair);
        let all_but_first = messages.iter().filter(|(_, seq, _)| seq.0 != 0);
        for (_, seq, _) in all_but_first {
            let _ = pair.acceptor.settle(*seq, Verdict::Delivered);
        }
        backward(&mut pair);
    }
    let all = Frame::Settle {
        first: hyperactor_protocol::Seq(1),
        count: 59_999,
        verdict: Verdict::Delivered,
    };
    let begun = std::time::Instant::now();
    for _ in 0..2_000 {
        pair.hand_dialer(all.clone()).expect("lawful");
    }
    // Looked at one by one it is more than a hundred million.
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
}

/// Two names that each take the only idle label from the other: whoever has both of them waits for a second one.
#[test]
fn who_finds_a_label_and_not_two_is_told_when_it_is_worth_another_try() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.dialer, b"x");
    pair.dialer.expect_room();
    assert_eq!(events(&mut pair.dialer), []);
    let told = pair.exchange(|_, _| Verdict::Delivered);
    let room = Event::Room { label: Label::NONE };
    assert_eq!(told.iter().filter(|event| **event == room).count(), 1);
}
