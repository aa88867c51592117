//! Messages in parts: cut, mixed with others, put together, withdrawn, and interrupted at any place.

use std::time::Duration;

use bytes::Bytes;
use hyperactor_protocol::{
    Accept, Cause, Config, DataFlags, Event, Failure, Frame, Label, Outgoing, PostId, PushError,
    Seq, Session, Time, Timeout, Verdict, limits,
};

use crate::common::{Pair, at, events, frames, push, written};

/// Parts of at most 64 bytes.
fn small_parts() -> Config {
    Config {
        fragment_bytes: limits::FRAGMENT_FLOOR_BYTES,
        part_bytes: limits::FRAGMENT_FLOOR_BYTES,
        ..Config::default()
    }
}

fn pattern(size: usize) -> Bytes {
    (0..size).map(|at| (at % 251) as u8).collect()
}

pub(crate) fn push_large(session: &mut Session, to: Label, head: &[u8], shared: Bytes) -> PostId {
    let outgoing = Outgoing {
        to,
        shared,
        ..Outgoing::default()
    };
    session
        .push(outgoing, |out| {
            out.extend_from_slice(head);
            Ok::<(), ()>(())
        })
        .expect("there is room")
}

fn label(session: &mut Session, name: &'static str) -> Label {
    session.add_label(Bytes::from(name)).expect("there is room")
}

/// Everything arrives, is settled and leaves its queue; labels and bodies in the order in which they came.
fn run(pair: &mut Pair, rounds: usize) -> (Vec<(Label, Bytes)>, Vec<Event>) {
    let (mut arrived, mut told) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for frame in written(&mut pair.dialer, pair.now) {
            if let Accept::Deliver {
                seq,
                to,
                body,
                size,
                ..
            } = pair.hand_acceptor(frame).expect("lawful")
            {
                assert_eq!(size as usize, body.len());
                let _ = pair.acceptor.settle(seq, Verdict::Delivered);
                let _ = pair.acceptor.release(to, size);
                arrived.push((to, body));
            }
        }
        pair.now = pair.now + Duration::from_millis(6);
        let _ = pair.acceptor.run_timeouts(pair.now);
        told.extend(pair.backward());
        pair.dialer.check();
        pair.acceptor.check();
        if pair.dialer.unresolved() == 0 && !pair.dialer.has_output() {
            break;
        }
    }
    (arrived, told)
}

fn data(frames: &[Frame]) -> Vec<(DataFlags, usize)> {
    let each = |frame: &Frame| match frame {
        Frame::Data { flags, body, .. } => Some((*flags, body.len())),
        _ => None,
    };
    frames.iter().filter_map(each).collect()
}

/// S-33, W-10.
#[test]
fn a_large_message_goes_in_parts_and_comes_as_one() {
    for (head, shared) in [
        (0, 200),
        (200, 0),
        (10, 190),
        (64, 64),
        (65, 0),
        (100, 20_000),
        (20_000, 70_000),
    ] {
        let mut pair = Pair::connected(&small_parts());
        let whole = pattern(head + shared);
        let flags = DataFlags::ACK_NOW;
        let outgoing = Outgoing {
            flags,
            shared: whole.slice(head..),
            ..Outgoing::default()
        };
        let pushed = pair.dialer.push(outgoing, |out| {
            out.extend_from_slice(&whole[..head]);
            Ok::<(), ()>(())
        });
        assert_eq!(pushed, Ok(PostId(0)));
        assert_eq!(pair.dialer.unresolved(), 1);
        assert_eq!(pair.dialer.message(PostId(0)).as_ref(), Some(&whole));
        let (arrived, told) = run(&mut pair, 3000);
        assert_eq!(arrived, [(Label::NONE, whole)], "{head} and {shared}");
        let (first, count) = (PostId(0), 1);
        assert_eq!(told, [Event::Resolved { first, count }]);
        let dump = pair.dialer.dump();
        assert_eq!((dump.held_bytes, dump.waiting), (0, 0));
        assert_eq!(pair.acceptor.dump().assemblies, 0);
    }
}

/// W-10, W-12.
#[test]
fn one_byte_more_than_a_part_makes_two_frames() {
    let mut pair = Pair::connected(&small_parts());
    push(&mut pair.dialer, &pattern(64));
    push(&mut pair.dialer, &pattern(65));
    push(&mut pair.dialer, &pattern(64));
    let sent = written(&mut pair.dialer, pair.now);
    let expected = [
        (DataFlags::NONE, 64),
        (DataFlags::FIRST, 64),
        (DataFlags::LAST, 9),
        (DataFlags::NONE, 64),
    ];
    assert_eq!(data(&sent), expected);
}

#[test]
fn a_part_is_a_slice_of_the_message_and_never_copied() {
    let mut pair = Pair::connected(&Config::default());
    let body = Bytes::from(vec![7; 1 << 20]);
    push_large(&mut pair.dialer, Label::NONE, b"head", body.clone());
    let range = body.as_ptr_range();
    let epoch = pair.epoch();
    let mut shared = 0;
    while let Some(part) = pair.dialer.transmit(epoch, pair.now, 1 << 20) {
        if range.contains(&part.bytes.as_ptr()) {
            shared += part.bytes.len();
        }
    }
    assert_eq!(shared, body.len());
    // What the log counts is the message once, and the headers.
    let held = pair.dialer.dump().held_bytes;
    assert!(held >= body.len() && held < body.len() + 2000, "{held}");
}

/// S-34.
#[test]
fn a_small_message_and_control_pass_a_large_one_within_bounded_bytes() {
    let config = Config {
        max_message: 1 << 30,
        outbox_bytes: 2 << 30,
        ..Config::default()
    };
    let mut pair = Pair::connected(&config);
    let large = label(&mut pair.dialer, "large");
    let small = label(&mut pair.dialer, "small");
    let body = Bytes::from(vec![0; 1 << 30]);
    push_large(&mut pair.dialer, large, b"", body);
    let epoch = pair.epoch();
    let mut written = 0_u64;
    let mut small_written_at = Vec::new();
    let mut pushed_at = None;
    let mut pinged_at = None;
    let mut turn = 0_u32;
    let mut rest = bytes::BytesMut::new();
    let mut decoder = hyperactor_protocol::FrameDecoder::new(1 << 20);
    while small_written_at.len() < 20 {
        let part = pair
            .dialer
            .transmit(epoch, pair.now, 64 * 1024)
            .expect("more to write");
        written += part.bytes.len() as u64;
        rest.extend_from_slice(&part.bytes);
        decoder.buffer().extend_from_slice(&rest.split());
        while let Some(frame) = decoder.next_frame().expect("own frames") {
            if let Frame::Data { to, .. } = &frame
                && *to == small
            {
                let waited = written - pushed_at.take().expect("one at a time");
                small_written_at.push(waited);
            }
            if let Frame::Pong { .. } = frame {
                let waited = written - pinged_at.take().expect("one at a time");
                let bound = u64::from(limits::PART_BYTES) + 1024;
                assert!(waited <= bound, "control waited for {waited} bytes");
            }
            if let Accept::Deliver { seq, to, size, .. } =
                pair.hand_acceptor(frame).expect("lawful")
            {
                let _ = pair.acceptor.settle(seq, Verdict::Delivered);
                let _ = pair.acceptor.release(to, size);
            }
        }
        if pushed_at.is_none() {
            pushed_at = Some(written);
            push_large(&mut pair.dialer, small, b"small", Bytes::new());
        }
        // Seldom, because control goes first.
        turn += 1;
        if pinged_at.is_none() && turn.is_multiple_of(8) {
            pinged_at = Some(written);
            assert!(pair.hand_dialer(Frame::Ping { nonce: 1 }).is_ok());
        }
        pair.backward();
    }
    let most = *small_written_at.iter().max().expect("some");
    let bound = limits::FRAGMENTS_AHEAD_BYTES + 3 * 64 * 1024;
    assert!(most <= bound, "a small message waited for {most} bytes");
    let assembled = pair.acceptor.dump().assembly_bytes;
    assert!(
        assembled <= 2 * written + 64 * 1024,
        "memory runs ahead of what came"
    );
}

/// S-33: the window is given back as parts come, so a message larger than the window passes.
#[test]
fn a_message_larger_than_the_window_passes_and_holds_no_small_one_up() {
    let config = Config {
        window_messages: 4,
        window_bytes: 1000,
        max_message: 100_000,
        fragment_bytes: 100,
        part_bytes: 100,
        ..Config::default()
    };
    let mut pair = Pair::connected(&config);
    let (stuck, well) = (
        label(&mut pair.dialer, "stuck"),
        label(&mut pair.dialer, "well"),
    );
    push_large(&mut pair.dialer, stuck, b"", pattern(100_000));
    // It is delivered, and never taken out of its queue: 100 windows.
    let mut got = None;
    for _ in 0..3000 {
        for frame in written(&mut pair.dialer, pair.now) {
            if let Accept::Deliver { seq, body, .. } = pair.hand_acceptor(frame).expect("lawful") {
                let _ = pair.acceptor.settle(seq, Verdict::Delivered);
                got = Some(body);
            }
        }
        pair.now = pair.now + Duration::from_millis(6);
        let _ = pair.acceptor.run_timeouts(pair.now);
        pair.backward();
        if got.is_some() {
            break;
        }
    }
    assert_eq!(got, Some(pattern(100_000)));
    for round in 0..50 {
        push_large(&mut pair.dialer, well, b"small", Bytes::new());
        let (arrived, _) = run(&mut pair, 3);
        assert_eq!(arrived.len(), 1, "round {round}");
    }
    // S-33: another of the largest size must wait for it, one that fits beside it need not.
    push_large(&mut pair.dialer, well, b"", pattern(900));
    assert_eq!(run(&mut pair, 50).0.len(), 1);
    let other = label(&mut pair.dialer, "other");
    push_large(&mut pair.dialer, other, b"", pattern(100_000));
    assert_eq!(run(&mut pair, 20).0, []);
    push_large(&mut pair.dialer, well, b"small", Bytes::new());
    push_large(&mut pair.dialer, well, b"", pattern(500));
    assert_eq!(run(&mut pair, 20).0.len(), 2);
    let _ = pair.acceptor.release(stuck, 100_000);
    assert_eq!(run(&mut pair, 3000).0.len(), 1);
    assert_eq!(pair.dialer.unresolved(), 0);
}

/// S-02, S-33.
#[test]
fn what_is_posted_behind_a_large_message_of_its_label_stays_behind_it() {
    let mut pair = Pair::connected(&Config {
        fragment_bytes: 1024,
        part_bytes: 1024,
        ..Config::default()
    });
    let (a, b) = (label(&mut pair.dialer, "a"), label(&mut pair.dialer, "b"));
    for to in [a, b, Label::NONE] {
        push_large(&mut pair.dialer, to, b"1", Bytes::new());
        push_large(&mut pair.dialer, to, b"2", pattern(400_000));
        push_large(&mut pair.dialer, to, b"3", Bytes::new());
        push_large(&mut pair.dialer, to, b"4", pattern(5000));
        push_large(&mut pair.dialer, to, b"5", Bytes::new());
    }
    let (arrived, _) = run(&mut pair, 5000);
    for lane in [a, b, Label::NONE] {
        let order: Vec<u8> = arrived
            .iter()
            .filter(|(to, _)| *to == lane)
            .map(|(_, body)| body[0])
            .collect();
        assert_eq!(order, b"12345");
    }
    assert_eq!(arrived.len(), 15);
    // Those of different labels are mixed: nobody's small one came behind all of another's large one.
    let firsts: Vec<usize> = (0..15).filter(|at| arrived[*at].1[0] == b'1').collect();
    assert!(firsts.iter().all(|at| *at < 5), "{firsts:?}");
}

/// S-06, S-12.
#[test]
fn a_connection_that_breaks_between_any_two_parts_loses_nothing() {
    let whole = pattern(1000);
    for cut in 0..22 {
        let mut pair = Pair::connected(&small_parts());
        let to = label(&mut pair.dialer, "a");
        push_large(&mut pair.dialer, to, b"", whole.clone());
        push_large(&mut pair.dialer, to, b"next", Bytes::new());
        let sent = written(&mut pair.dialer, pair.now);
        let mut bodies = Vec::new();
        for frame in sent.into_iter().take(cut) {
            if let Accept::Deliver {
                seq,
                to,
                body,
                size,
                ..
            } = pair.hand_acceptor(frame).expect("lawful")
            {
                let _ = pair.acceptor.settle(seq, Verdict::Delivered);
                let _ = pair.acceptor.release(to, size);
                bodies.push((to, body));
            }
        }
        pair.reconnect();
        bodies.extend(run(&mut pair, 100).0);
        let expected = [(to, whole.clone()), (to, Bytes::from("next"))];
        assert_eq!(bodies, expected, "cut behind frame {cut}");
        assert_eq!(pair.dialer.unresolved(), 0);
    }
}

/// S-36.
#[test]
fn a_peer_that_restarts_between_parts_leaves_certainty() {
    let whole = pattern(1000);
    for (cut, all) in [(1, false), (8, false), (15, false), (16, true)] {
        let mut pair = Pair::connected(&small_parts());
        push(&mut pair.dialer, b"before");
        push_large(&mut pair.dialer, Label::NONE, b"", whole.clone());
        push_large(&mut pair.dialer, Label::NONE, b"", pattern(300));
        push(&mut pair.dialer, b"after");
        let epoch = pair.epoch();
        // Part by part, so that the rest counts as never sent: two writes a frame, and the first is not in parts.
        let mut seen = 0;
        while seen < cut + 1 {
            let part = pair.dialer.transmit(epoch, pair.now, 1).expect("more");
            seen = pair.dialer.dump().position.0;
            drop(part);
        }
        let answer = pair.restart(0xAD);
        pair.dialer.on_hello(&answer, pair.now).expect("accepted");
        pair.dialer.check();
        let told = events(&mut pair.dialer);
        let restarted = Cause::PeerRestarted;
        let failure = if all {
            Failure::Unknown(restarted.clone())
        } else {
            Failure::NotDelivered(restarted.clone())
        };
        let expected = [
            Event::Failed {
                post: PostId(0),
                failure: Failure::Unknown(restarted),
                body: Some("before".into()),
            },
            Event::Failed {
                post: PostId(1),
                failure,
                body: Some(whole.clone()),
            },
        ];
        assert_eq!(told, expected, "cut behind part {cut}");
        let (arrived, told) = run(&mut pair, 100);
        let rest = [(Label::NONE, pattern(300)), (Label::NONE, "after".into())];
        assert_eq!(arrived, rest, "cut behind part {cut}");
        let delivered: u64 = told
            .iter()
            .map(|event| match event {
                Event::Resolved { count, .. } => *count,
                _ => 0,
            })
            .sum();
        assert_eq!(delivered, 2);
        assert_eq!(pair.dialer.dump().held_bytes, 0);
    }
}

/// S-36.
#[test]
fn a_session_that_fails_between_parts_says_not_delivered_with_the_whole_body() {
    let mut pair = Pair::connected(&small_parts());
    push_large(&mut pair.dialer, Label::NONE, b"", pattern(1_000_000));
    let epoch = pair.epoch();
    for _ in 0..10 {
        assert!(pair.dialer.transmit(epoch, pair.now, 1).is_some());
    }
    pair.dialer.fail(Cause::Abandoned, pair.now);
    pair.dialer.check();
    let told = events(&mut pair.dialer);
    let expected = Event::Failed {
        post: PostId(0),
        failure: Failure::NotDelivered(Cause::Abandoned),
        body: Some(pattern(1_000_000)),
    };
    assert!(
        told[0] == expected,
        "not the whole body, or another outcome"
    );
    assert_eq!(told.len(), 2);
}

/// S-22, S-36.
#[test]
fn a_goodbye_between_parts_says_not_delivered() {
    let mut pair = Pair::connected(&small_parts());
    push_large(&mut pair.dialer, Label::NONE, b"", pattern(1000));
    let sent = written(&mut pair.dialer, pair.now);
    for frame in sent.into_iter().take(5) {
        assert!(pair.hand_acceptor(frame).is_ok());
    }
    assert_eq!(pair.acceptor.dump().assemblies, 1);
    pair.acceptor.close();
    let told = pair.backward();
    assert!(
        matches!(&told[0], Event::Failed { failure: Failure::NotDelivered(Cause::PeerClosed { .. }), body: Some(body), .. } if *body == pattern(1000)),
        "{}",
        told.len()
    );
}

/// S-23.
#[test]
fn a_closing_end_refuses_a_message_in_parts_and_keeps_none_of_it() {
    let mut pair = Pair::connected(&small_parts());
    // Something open keeps the acceptor from saying goodbye.
    push(&mut pair.dialer, b"open");
    let open = pair.forward();
    push_large(&mut pair.dialer, Label::NONE, b"", pattern(1000));
    let sent = written(&mut pair.dialer, pair.now);
    let half = sent.len() / 2;
    for (at, frame) in sent.into_iter().enumerate() {
        if at == half {
            pair.acceptor.close();
        }
        assert_eq!(pair.hand_acceptor(frame), Ok(Accept::Handled));
        pair.acceptor.check();
        assert!(at < half || pair.acceptor.dump().assembly_bytes == 0);
    }
    let told = pair.exchange(|_, _| Verdict::Delivered);
    let refused = told.iter().any(|event| {
        matches!(
            event,
            Event::Failed {
                post: PostId(1),
                failure: Failure::NotDelivered(_),
                ..
            }
        )
    });
    assert!(refused, "{} events", told.len());
    let _ = pair.acceptor.settle(open[0].0, Verdict::Delivered);
    pair.exchange(|_, _| Verdict::Delivered);
}

/// S-35.
#[test]
fn a_void_withdraws_what_came_and_gives_its_room_back() {
    let config = Config {
        window_bytes: 1000,
        max_message: 5000,
        ..Config::default()
    };
    let mut pair = Pair::connected(&config);
    let to = Label::new(1);
    let name = Frame::Name {
        label: to,
        name: "a".into(),
    };
    assert!(pair.hand_acceptor(name).is_ok());
    let frame = |seq, flags, body: Bytes| Frame::Data {
        seq: Seq(seq),
        flags,
        to,
        from: Label::NONE,
        body,
    };
    for round in 0..20 {
        let mut first = 5000_u64.to_le_bytes().to_vec();
        first.extend([1; 100]);
        let first = frame(2 * round, DataFlags::FIRST, first.into());
        assert_eq!(pair.hand_acceptor(first), Ok(Accept::Handled));
        assert_eq!(pair.acceptor.dump().assemblies, 1);
        let void = frame(2 * round + 1, DataFlags::VOID, Bytes::new());
        assert_eq!(pair.hand_acceptor(void), Ok(Accept::Handled));
        assert_eq!(pair.acceptor.dump().assembly_bytes, 0);
        pair.acceptor.check();
        written(&mut pair.acceptor, pair.now);
    }
    // The next message of the label is as any.
    let next = frame(40, DataFlags::NONE, "next".into());
    assert!(matches!(
        pair.hand_acceptor(next),
        Ok(Accept::Deliver { .. })
    ));
}

/// S-33.
#[test]
fn no_more_than_64_messages_are_under_way_in_parts() {
    let mut pair = Pair::connected(&small_parts());
    let labels: Vec<Label> = (0..100)
        .map(|at: u32| pair.dialer.add_label(at.to_string().into()).expect("room"))
        .collect();
    for to in &labels {
        push_large(&mut pair.dialer, *to, b"", pattern(30_000));
    }
    let epoch = pair.epoch();
    let mut most = 0;
    let mut arrived = 0;
    for _ in 0..200_000 {
        pair.backward();
        let Some(part) = pair.dialer.transmit(epoch, pair.now, 256 * 1024) else {
            if pair.dialer.unresolved() == 0 {
                break;
            }
            pair.now = pair.now + Duration::from_millis(6);
            let _ = pair.acceptor.run_timeouts(pair.now);
            continue;
        };
        let mut bytes = part.bytes.to_vec();
        while let Some(next) = pair.dialer.transmit(epoch, pair.now, 256 * 1024) {
            bytes.extend_from_slice(&next.bytes);
        }
        for frame in frames(&bytes) {
            if let Accept::Deliver { seq, to, size, .. } =
                pair.hand_acceptor(frame).expect("lawful")
            {
                arrived += 1;
                let _ = pair.acceptor.settle(seq, Verdict::Delivered);
                let _ = pair.acceptor.release(to, size);
            }
            most = most.max(pair.acceptor.dump().assemblies);
        }
    }
    assert_eq!(arrived, 100);
    assert_eq!(most, limits::ASSEMBLIES_MAX);
}

/// S-21: the peer's frames are smaller than ours, and nothing was sent yet.
#[test]
fn messages_in_the_log_are_cut_anew_for_a_peer_with_smaller_frames() {
    let config = Config {
        max_frame: 4096,
        max_message: 50_000,
        ..Config::default()
    };
    let mut dialer = Session::dialer(
        Config::default(),
        crate::common::ID,
        crate::common::DIALER,
        at(0),
    );
    let sizes = [10, 4076, 4077, 20_000, 50_000, 50_001, 65_000, 70_000, 5];
    for size in sizes {
        push_large(&mut dialer, Label::NONE, &pattern(size), Bytes::new());
    }
    let hello = dialer.hello(at(0));
    let mut acceptor = Session::acceptor(config, crate::common::ACCEPTOR, &hello, at(0));
    acceptor.on_hello(&hello, at(0)).expect("accepted");
    dialer
        .on_hello(&acceptor.hello(at(0)), at(0))
        .expect("accepted");
    dialer.check();
    let failed: Vec<u64> = events(&mut dialer)
        .into_iter()
        .map(|event| match event {
            Event::Failed {
                post,
                failure,
                body,
            } => {
                let size = sizes[post.0 as usize] as u64;
                let max = 50_000;
                assert_eq!(
                    failure,
                    Failure::NotDelivered(Cause::TooLarge { size, max })
                );
                assert_eq!(body, Some(pattern(size as usize)));
                post.0
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(failed, [5, 6, 7]);
    let mut pair = Pair {
        dialer,
        acceptor,
        now: at(0),
    };
    let (arrived, _) = run(&mut pair, 100);
    let arrived: Vec<usize> = arrived.iter().map(|(_, body)| body.len()).collect();
    assert_eq!(arrived, [10, 4076, 4077, 20_000, 50_000, 5]);
}

/// S-18.
#[test]
fn limits_that_change_within_a_state_are_refused() {
    let mut pair = Pair::connected(&Config::default());
    let epoch = pair.epoch();
    pair.dialer.disconnected(epoch, pair.now);
    let mut hello = pair.dialer.hello(pair.now);
    hello.max_message -= 1;
    let refused = pair.acceptor.on_hello(&hello, pair.now);
    let violation = hyperactor_protocol::Violation::LimitsChanged;
    assert_eq!(refused, Err(violation.into()));
    hello.max_message += 1;
    assert!(pair.acceptor.on_hello(&hello, pair.now).is_ok());
}

#[test]
fn a_message_above_the_limit_fails_alone_wherever_it_waits() {
    let config = Config {
        max_message: 1000,
        window_messages: 1,
        ..small_parts()
    };
    let mut pair = Pair::connected(&config);
    let to = label(&mut pair.dialer, "a");
    let try_push = |session: &mut Session, size| {
        let outgoing = Outgoing {
            to,
            ..Outgoing::default()
        };
        session.push(outgoing, |out| {
            out.extend_from_slice(&pattern(size));
            Ok::<(), ()>(())
        })
    };
    let too_large = |size| PushError::TooLarge { size, max: 1000 };
    assert_eq!(try_push(&mut pair.dialer, 1001), Err(too_large(1001)));
    assert!(try_push(&mut pair.dialer, 1000).is_ok());
    // Now the lane has something that waits, and the next is encoded into a buffer of its own.
    assert_eq!(try_push(&mut pair.dialer, 1001), Err(too_large(1001)));
    assert!(try_push(&mut pair.dialer, 1000).is_ok());
    assert_eq!(run(&mut pair, 500).0.len(), 2);
}

/// S-25, S-27: parts that move keep a message alive; a peer that takes none of them does not.
#[test]
fn a_message_in_parts_times_out_by_silence_and_not_by_size() {
    let mut pair = Pair::connected(&small_parts());
    push_large(&mut pair.dialer, Label::NONE, b"", pattern(10_000));
    let epoch = pair.epoch();
    let mut moved = 0;
    while let Some(part) = pair.dialer.transmit(epoch, pair.now, 1) {
        // The transport took the part before, and then no more for a while.
        pair.now = pair.now + Duration::from_secs(2);
        pair.dialer.drained(epoch, pair.now);
        assert!(!part.bytes.is_empty());
        while let Some(timeout) = pair.dialer.on_timeout(pair.now) {
            assert_eq!(timeout, Timeout::Ping);
        }
        moved += 1;
    }
    assert!(moved > 200, "eight minutes");
    let late: Time = pair.now + Duration::from_secs(31);
    pair.dialer.disconnected(epoch, pair.now);
    assert_eq!(pair.dialer.run_timeouts(late), Some(Timeout::Expired));
    let told = events(&mut pair.dialer);
    assert!(matches!(
        &told[0],
        Event::Failed {
            failure: Failure::Unknown(Cause::TimedOut),
            ..
        }
    ));
}
