//! The outgoing log: limits, encoders that misbehave, bodies that are not copied.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{Bytes, BytesMut};
use hyperactor_protocol::{
    Accept, Cause, Config, DataFlags, Event, Failure, Frame, Label, PostId, PushError, Refusal,
    Seq, Session, Verdict,
};

use crate::common::{ACCEPTOR, DIALER, ID, Pair, at, events, large_frames, push, written};

fn try_push(session: &mut Session, body: &[u8]) -> Result<PostId, PushError<()>> {
    session.push_with(DataFlags::NONE, |out| {
        out.extend_from_slice(body);
        Ok(())
    })
}

#[test]
fn a_full_log_refuses_and_tells_when_there_is_room() {
    let config = Config {
        outbox_messages: 16,
        ..Config::default()
    };
    let mut pair = Pair::connected(&config);
    for _ in 0..16 {
        assert!(try_push(&mut pair.dialer, b"x").is_ok());
    }
    assert_eq!(try_push(&mut pair.dialer, b"x"), Err(PushError::Full));
    assert!(!pair.dialer.has_room());
    let told = pair.exchange(|_, _| Verdict::Delivered);
    assert_eq!(
        told,
        [
            Event::Resolved {
                first: PostId(0),
                count: 16
            },
            Event::Room { label: Label::NONE }
        ]
    );
    assert!(try_push(&mut pair.dialer, b"x").is_ok());
}

#[test]
fn bytes_are_limited_and_one_message_may_reach_over() {
    let config = Config {
        outbox_bytes: 1000,
        ..Config::default()
    };
    let mut dialer = Session::dialer(config, ID, DIALER, at(0));
    assert!(try_push(&mut dialer, &[0; 900]).is_ok());
    assert!(try_push(&mut dialer, &[0; 5000]).is_ok());
    assert_eq!(try_push(&mut dialer, &[]), Err(PushError::Full));
}

#[test]
fn an_oversized_message_fails_alone() {
    let config = Config {
        max_message: 4084,
        ..Config::default()
    };
    let mut pair = Pair::connected(&config);
    push(&mut pair.dialer, b"before");
    let large = try_push(&mut pair.dialer, &[0; 4085]);
    assert_eq!(
        large,
        Err(PushError::TooLarge {
            size: 4085,
            max: 4084
        })
    );
    push(&mut pair.dialer, &[1; 4084]);
    let told = pair.exchange(|_, _| Verdict::Delivered);
    assert_eq!(
        told,
        [Event::Resolved {
            first: PostId(0),
            count: 2
        }]
    );
}

/// S-21.
#[test]
fn a_message_too_large_for_a_peer_found_later_fails_alone() {
    let small = Config {
        max_message: 4084,
        ..Config::default()
    };
    let mut dialer = Session::dialer(Config::default(), ID, DIALER, at(0));
    let large = Bytes::from(vec![9; 100_000]);
    push(&mut dialer, b"first");
    push(&mut dialer, &[8; 6000]);
    push(&mut dialer, b"second");
    dialer
        .push_parts(DataFlags::NONE, 0, large.clone(), |_| Ok::<(), ()>(()))
        .expect("fits our own limit");
    push(&mut dialer, b"third");
    let hello = dialer.hello(at(0));
    let mut acceptor = Session::acceptor(small, ACCEPTOR, &hello, at(0));
    acceptor.on_hello(&hello, at(0)).expect("accepted");
    dialer
        .on_hello(&acceptor.hello(at(0)), at(0))
        .expect("accepted");
    dialer.check();
    let failed = |seq, size, body: Bytes| Event::Failed {
        post: PostId(seq),
        failure: Failure::NotDelivered(Cause::TooLarge { size, max: 4084 }),
        body: Some(body),
    };
    assert_eq!(
        events(&mut dialer),
        [
            failed(1, 6000, vec![8; 6000].into()),
            failed(3, 100_000, large),
        ]
    );
    assert_eq!(dialer.unresolved(), 3);
    let mut pair = Pair {
        dialer,
        acceptor,
        now: at(0),
    };
    // The connection breaks in the middle: both sides count the same bytes there, and it is resumed.
    let mut bodies = Vec::new();
    let frames = written(&mut pair.dialer, pair.now);
    let data = frames.into_iter().filter(|frame| frame.name() == "data");
    for frame in data.take(4) {
        if let Accept::Deliver { seq, body, .. } = pair.hand_acceptor(frame).expect("lawful") {
            bodies.push(body);
            let _ = pair.acceptor.settle(seq, Verdict::Delivered);
        }
    }
    pair.reconnect();
    let told = pair.exchange(|_, body| {
        bodies.push(body.clone());
        Verdict::Delivered
    });
    assert_eq!(bodies, ["first", "second", "third"]);
    let delivered: u64 = told
        .iter()
        .map(|event| {
            if let Event::Resolved { count, .. } = event {
                *count
            } else {
                panic!("{event:?}")
            }
        })
        .sum();
    assert_eq!(delivered, 3, "{told:?}");
    let again = try_push(&mut pair.dialer, &[0; 4085]);
    assert_eq!(
        again,
        Err(PushError::TooLarge {
            size: 4085,
            max: 4084
        })
    );
}

#[test]
fn an_encoder_that_fails_leaves_no_trace() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.dialer, b"a");
    let failed = pair.dialer.push_with(DataFlags::NONE, |out| {
        out.extend_from_slice(b"half a mess");
        Err("cannot encode")
    });
    assert_eq!(failed, Err(PushError::Encode("cannot encode")));
    push(&mut pair.dialer, b"b");
    pair.dialer.check();
    let bodies: Vec<Bytes> = pair.forward().into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies, ["a", "b"]);
}

#[test]
fn an_encoder_that_panics_leaves_no_trace() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.dialer, b"a");
    let session = AssertUnwindSafe(&mut pair.dialer);
    let panicked = catch_unwind(move || {
        let session = session;
        session
            .0
            .push_with(DataFlags::NONE, |out| -> Result<(), ()> {
                out.extend_from_slice(&[0xFF; 100]);
                panic!("in the encoder");
            })
    });
    assert!(panicked.is_err());
    pair.dialer.check();
    push(&mut pair.dialer, b"b");
    let bodies: Vec<Bytes> = pair.forward().into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies, ["a", "b"]);
}

#[test]
fn an_encoder_that_destroys_the_log_ends_the_session_and_nothing_is_lost_in_silence() {
    type Vandal = fn(&mut BytesMut);
    let vandals: [Vandal; 4] = [
        |out| out.clear(),
        |out| *out = BytesMut::new(),
        |out| drop(out.split()),
        |out| *out = BytesMut::from(&[0; 500][..]),
    ];
    for vandal in vandals {
        let mut pair = Pair::connected(&Config::default());
        push(&mut pair.dialer, b"sent");
        pair.forward();
        push(&mut pair.dialer, b"in the same buffer");
        let damaged = pair.dialer.push_with(DataFlags::NONE, |out| {
            vandal(out);
            Ok::<(), ()>(())
        });
        assert_eq!(damaged, Err(PushError::Damaged));
        pair.dialer.check();
        assert_eq!(
            events(&mut pair.dialer),
            [
                Event::Failed {
                    post: PostId(0),
                    failure: Failure::Unknown(Cause::Damaged),
                    body: Some(Bytes::from_static(b"sent")),
                },
                Event::Failed {
                    post: PostId(1),
                    failure: Failure::NotDelivered(Cause::Damaged),
                    body: None,
                },
                Event::Closed(Cause::Damaged),
            ]
        );
    }
}

#[test]
fn a_large_body_is_written_from_where_it_lies() {
    let mut pair = Pair::connected(&large_frames());
    let body = Bytes::from(vec![3; 1 << 20]);
    let pushed = pair
        .dialer
        .push_parts(DataFlags::NONE, 4, body.clone(), |out| {
            out.extend_from_slice(b"head");
            Ok::<(), ()>(())
        });
    assert_eq!(pushed, Ok(PostId(0)));
    push(&mut pair.dialer, b"next");
    let epoch = pair.epoch();
    // A ping is due in the middle, and waits for the end of the frame.
    let head = pair
        .dialer
        .transmit(epoch, pair.now, 1000)
        .expect("head")
        .bytes;
    assert_eq!(&head[24..], b"head");
    let later = pair.now + std::time::Duration::from_secs(4);
    assert!(pair.dialer.on_timeout(later).is_some());
    let rest = pair
        .dialer
        .transmit(epoch, later, 1000)
        .expect("rest")
        .bytes;
    assert_eq!(rest.as_ptr(), body.as_ptr(), "shared, not copied");
    assert_eq!(rest.len(), body.len());
    let mut wire = BytesMut::from(&head[..]);
    wire.extend_from_slice(&rest);
    assert_eq!(crate::common::frames(&wire).len(), 1);
}

/// W-07.
#[test]
fn a_settlement_in_the_middle_of_a_message_does_not_tear_it() {
    let mut pair = Pair::connected(&large_frames());
    push(&mut pair.dialer, b"a");
    let epoch = pair.epoch();
    assert!(pair.dialer.transmit(epoch, pair.now, 1).is_some());
    let body = Bytes::from(vec![3; 1 << 16]);
    let pushed = pair
        .dialer
        .push_parts(DataFlags::NONE, 0, body.clone(), |_| Ok::<(), ()>(()));
    assert_eq!(pushed, Ok(PostId(1)));
    assert_eq!(
        pair.dialer
            .transmit(epoch, pair.now, 1)
            .expect("head")
            .bytes
            .len(),
        24
    );
    // A peer can lie about a message whose head alone it has seen.
    let early = Frame::Settle {
        first: Seq(1),
        count: 1,
        verdict: Verdict::Delivered,
    };
    assert!(pair.hand_dialer(early).is_ok());
    pair.dialer.check();
    assert_eq!(
        pair.dialer
            .transmit(epoch, pair.now, 1)
            .expect("rest")
            .bytes,
        body
    );
}

#[test]
fn a_body_comes_back_from_the_log_without_a_copy() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.dialer, b"a");
    push(&mut pair.dialer, &[5; 300]);
    let epoch = pair.epoch();
    let part = pair
        .dialer
        .transmit(epoch, pair.now, usize::MAX)
        .expect("both")
        .bytes;
    let body = pair.dialer.message(PostId(1)).expect("unresolved");
    assert_eq!(body.as_ptr(), part[24 + 1 + 24..].as_ptr());
    assert_eq!(pair.dialer.message(PostId(2)), None);
    // One that is shared as a whole: a log that fails would need its memory twice.
    let shared = Bytes::from(vec![6; 32 * 1024]);
    let pushed = pair
        .dialer
        .push_parts(DataFlags::NONE, 0, shared.clone(), |_| Ok::<(), ()>(()));
    assert_eq!(pushed, Ok(PostId(2)));
    let body = pair.dialer.message(PostId(2)).expect("unresolved");
    assert_eq!(body.as_ptr(), shared.as_ptr());
}

#[test]
fn refused_messages_in_the_middle_give_their_memory_back() {
    let mut pair = Pair::connected(&Config::default());
    for _ in 0..400 {
        push(&mut pair.dialer, &[1; 1000]);
    }
    let held = pair.dialer.dump().held_bytes;
    for (seq, _) in pair.forward() {
        if seq != Seq(0) {
            let _ = pair
                .acceptor
                .settle(seq, Verdict::NotDelivered(Refusal::new(1)));
        }
    }
    pair.backward();
    pair.dialer.check();
    assert_eq!(pair.dialer.unresolved(), 1);
    let left = pair.dialer.dump().held_bytes;
    assert!(
        left < held / 4,
        "one open message holds {left} of {held} bytes"
    );
}

#[test]
fn an_idle_session_is_small() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.dialer, b"one small message");
    pair.exchange(|_, _| Verdict::Delivered);
    assert_eq!(pair.dialer.dump().held_bytes, 0);
    assert!(size_of::<Session>() <= 2048, "{}", size_of::<Session>());
}
