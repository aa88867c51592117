//! A peer that lies: each lie has its name, ends the session, and changes no outcome.

mod common;

use bytes::Bytes;
use common::{ACCEPTOR, DIALER, ID, Pair, at, check, events, push, written};
use hyperactor_protocol::{
    Accept, Cause, Config, ConnectionEpoch, DataFlags, Event, Failure, Frame, FrameDecoder,
    Goodbye, Hello, HelloCode, HelloError, Incarnation, Label, PostId, Refusal, Seq, Session,
    SessionId, Verdict, Violation, limits,
};

/// A dialer with `sent` messages on the wire and nothing acknowledged.
fn with_sent(sent: usize) -> Pair {
    let mut pair = Pair::connected(&Config::default());
    for at in 0..sent {
        push(&mut pair.dialer, &[at as u8]);
    }
    written(&mut pair.dialer, pair.now);
    pair
}

/// S-18.
#[test]
fn an_ack_of_a_message_never_sent_is_a_violation() {
    let lie = Frame::Ack {
        received: Seq(4),
        settled: Seq(0),
    };
    check(
        with_sent(3),
        lie,
        Violation::AckOfUnsent {
            seq: Seq(4),
            sent: Seq(3),
        },
    );
}

#[test]
fn an_ack_of_a_queued_message_is_a_violation() {
    let mut pair = with_sent(3);
    push(&mut pair.dialer, b"queued, not handed out");
    let lie = Frame::Ack {
        received: Seq(4),
        settled: Seq(4),
    };
    let violation = Violation::AckOfUnsent {
        seq: Seq(4),
        sent: Seq(3),
    };
    assert_eq!(pair.hand_dialer(lie), Err(violation));
    let told = events(&mut pair.dialer);
    let certain = told.iter().any(
        |event| matches!(event, Event::Failed { post: PostId(3), failure, .. } if failure.is_certain()),
    );
    assert!(
        certain,
        "what was never sent is not delivered for certain: {told:?}"
    );
}

/// S-18.
#[test]
fn an_ack_that_goes_back_is_a_violation() {
    let mut pair = with_sent(3);
    assert!(
        pair.hand_dialer(Frame::Ack {
            received: Seq(2),
            settled: Seq(1)
        })
        .is_ok()
    );
    events(&mut pair.dialer);
    let lie = Frame::Ack {
        received: Seq(1),
        settled: Seq(1),
    };
    check(
        pair,
        lie,
        Violation::AckWentBack {
            from: Seq(2),
            to: Seq(1),
        },
    );
}

#[test]
fn settlement_that_goes_back_is_a_violation() {
    let mut pair = with_sent(3);
    assert!(
        pair.hand_dialer(Frame::Ack {
            received: Seq(2),
            settled: Seq(2)
        })
        .is_ok()
    );
    events(&mut pair.dialer);
    let lie = Frame::Ack {
        received: Seq(3),
        settled: Seq(1),
    };
    check(
        pair,
        lie,
        Violation::AckWentBack {
            from: Seq(2),
            to: Seq(1),
        },
    );
}

#[test]
fn what_is_settled_was_received_and_stays_so() {
    let settled = Frame::Settle {
        first: Seq(1),
        count: 1,
        verdict: Verdict::Delivered,
    };
    let mut pair = with_sent(3);
    assert!(pair.hand_dialer(settled).is_ok());
    events(&mut pair.dialer);
    let lie = Frame::Ack {
        received: Seq(1),
        settled: Seq(0),
    };
    check(
        pair,
        lie,
        Violation::AckWentBack {
            from: Seq(2),
            to: Seq(1),
        },
    );
}

/// S-18.
#[test]
fn more_settled_than_received_is_a_violation() {
    let lie = Frame::Ack {
        received: Seq(1),
        settled: Seq(2),
    };
    let violation = Violation::SettledBeyondReceived {
        settled: Seq(2),
        received: Seq(1),
    };
    check(with_sent(3), lie, violation);
}

#[test]
fn a_settlement_of_a_message_never_sent_is_a_violation() {
    for (first, count) in [(2, 2), (3, 1), (u64::MAX - 1, 1), (0, u32::MAX)] {
        let lie = Frame::Settle {
            first: Seq(first),
            count,
            verdict: Verdict::Delivered,
        };
        let seq = Seq(first + u64::from(count));
        check(
            with_sent(3),
            lie,
            Violation::AckOfUnsent { seq, sent: Seq(3) },
        );
    }
}

/// S-18.
#[test]
fn shrinking_credit_is_a_violation() {
    let lie = Frame::Credit {
        messages: 1,
        bytes: u64::MAX,
        large: u64::MAX,
    };
    check(with_sent(3), lie, Violation::CreditShrank);
    let lie = Frame::Credit {
        messages: u64::MAX,
        bytes: 1,
        large: u64::MAX,
    };
    check(with_sent(3), lie, Violation::CreditShrank);
}

#[test]
fn a_goodbye_about_messages_never_sent_is_a_violation() {
    let goodbye = |received| {
        Frame::Goodbye(Goodbye {
            received: Seq(received),
            code: 0,
            detail: Bytes::new(),
        })
    };
    check(
        with_sent(3),
        goodbye(4),
        Violation::AckOfUnsent {
            seq: Seq(4),
            sent: Seq(3),
        },
    );
    let mut pair = with_sent(3);
    assert!(
        pair.hand_dialer(Frame::Ack {
            received: Seq(2),
            settled: Seq(0)
        })
        .is_ok()
    );
    check(
        pair,
        goodbye(1),
        Violation::AckWentBack {
            from: Seq(2),
            to: Seq(1),
        },
    );
}

/// S-18.
#[test]
fn outcomes_claimed_before_they_were_given_are_a_violation() {
    let mut pair = with_sent(0);
    let lie = Frame::Resolved { below: Seq(1) };
    let violation = Violation::ResolvedUnsettled {
        below: Seq(1),
        settled: Seq(0),
    };
    assert_eq!(pair.hand_acceptor(lie), Err(violation));
}

/// S-02.
#[test]
fn a_message_before_one_that_precedes_it_is_a_violation() {
    let mut pair = with_sent(0);
    let lie = Frame::Data {
        seq: Seq(1),
        flags: DataFlags::NONE,
        to: Label::NONE,
        from: Label::NONE,
        body: Bytes::new(),
    };
    let violation = Violation::Gap {
        expected: Seq(0),
        got: Seq(1),
    };
    assert_eq!(pair.hand_acceptor(lie), Err(violation));
    assert!(pair.acceptor.is_closed());
}

#[test]
fn messages_and_bytes_beyond_the_credit_are_violations() {
    let data = |seq, size: usize| Frame::Data {
        seq: Seq(seq),
        flags: DataFlags::NONE,
        to: Label::NONE,
        from: Label::NONE,
        body: vec![0; size].into(),
    };
    let config = Config {
        window_messages: 2,
        window_bytes: 100,
        ..Config::default()
    };
    let mut pair = Pair::connected(&config);
    assert!(pair.hand_acceptor(data(0, 1)).is_ok());
    assert!(pair.hand_acceptor(data(1, 1)).is_ok());
    assert_eq!(
        pair.hand_acceptor(data(2, 1)),
        Err(Violation::BeyondCredit { seq: Seq(2) })
    );

    let config = Config {
        window_messages: 20,
        window_bytes: 100,
        ..Config::default()
    };
    let mut pair = Pair::connected(&config);
    assert!(pair.hand_acceptor(data(0, 99)).is_ok());
    // S-13: it begins within the credit.
    assert!(pair.hand_acceptor(data(1, 5000)).is_ok());
    assert_eq!(
        pair.hand_acceptor(data(2, 0)),
        Err(Violation::BeyondCredit { seq: Seq(2) })
    );
}

/// W-05.
#[test]
fn a_frame_longer_than_the_limit_is_a_violation_before_its_body_comes() {
    let mut decoder = FrameDecoder::new(limits::FRAME_MAX_FLOOR);
    let head = [0x01, 0x10, 0, 0, 1, 0, 0, 0];
    decoder.buffer().extend_from_slice(&head);
    let violation = Violation::FrameTooLong {
        claimed: 0x1001,
        max: 0x1000,
    };
    assert_eq!(decoder.next_frame(), Err(violation));
    assert_eq!(decoder.next_frame(), Err(violation), "it stays broken");
}

/// W-02 and W-03.
#[test]
fn malformed_heads_are_violations_each_by_name() {
    let cases: [(&[u8], Violation); 9] = [
        (
            &[11, 0, 0, 0, 1, 0, 0, 0],
            Violation::FrameLength {
                kind: 1,
                length: 11,
            },
        ),
        (
            &[21, 0, 0, 0, 2, 0, 0, 0],
            Violation::FrameLength {
                kind: 2,
                length: 21,
            },
        ),
        (
            &[0, 0, 0, 0, 6, 0, 0, 0],
            Violation::FrameLength { kind: 6, length: 0 },
        ),
        (
            &[255, 255, 0, 0, 3, 0, 0, 0],
            Violation::FrameLength {
                kind: 3,
                length: 65535,
            },
        ),
        (
            &[13, 0, 0, 0, 1, 0x80, 0, 0],
            Violation::FrameLength {
                kind: 1,
                length: 13,
            },
        ),
        (
            &[20, 0, 0, 0, 11, 0, 0, 0],
            Violation::UnknownKind { kind: 11 },
        ),
        (
            &[20, 0, 0, 0, 0, 0, 0, 0],
            Violation::UnknownKind { kind: 0 },
        ),
        (
            &[20, 0, 0, 0, 1, 16, 0, 0],
            Violation::ReservedBits { kind: 1 },
        ),
        (
            &[20, 0, 0, 0, 2, 0, 0, 1],
            Violation::ReservedBits { kind: 2 },
        ),
    ];
    for (head, violation) in cases {
        let mut decoder = FrameDecoder::new(limits::FRAME_MAX_DEFAULT);
        decoder.buffer().extend_from_slice(head);
        assert_eq!(decoder.next_frame(), Err(violation), "{head:?}");
    }
}

#[test]
fn settlements_with_impossible_fields_are_violations() {
    // count 0; first + count beyond the numbers; verdict 3; delivered with a code; padding set.
    let fields: [(u64, u32, [u8; 4]); 5] = [
        (0, 0, [0, 0, 0, 0]),
        (u64::MAX, 1, [0, 0, 0, 0]),
        (0, 1, [3, 0, 0, 0]),
        (0, 1, [0, 0, 1, 0]),
        (0, 1, [0, 1, 0, 0]),
    ];
    for (first, count, rest) in fields {
        let mut bytes = vec![20, 0, 0, 0, 3, 0, 0, 0];
        bytes.extend(first.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(rest);
        let mut decoder = FrameDecoder::new(limits::FRAME_MAX_DEFAULT);
        decoder.buffer().extend_from_slice(&bytes);
        let kind = 3;
        let expected = if rest[1] == 0 {
            Violation::FieldRange { kind }
        } else {
            Violation::ReservedBits { kind }
        };
        assert_eq!(
            decoder.next_frame(),
            Err(expected),
            "{first} {count} {rest:?}"
        );
    }
}

/// W-08.
#[test]
fn a_second_hello_is_a_violation_with_its_own_name() {
    let mut dialer = Session::dialer(Config::default(), ID, DIALER, at(0));
    let hello = dialer.hello(at(0));
    let mut decoder = FrameDecoder::new(limits::FRAME_MAX_CEILING);
    decoder.buffer().extend_from_slice(&hello.to_bytes());
    decoder.buffer().extend_from_slice(&hello.to_bytes());
    assert_eq!(decoder.next_hello(), Ok(Some(hello.clone())));
    assert_eq!(decoder.next_frame(), Err(Violation::SecondHello));

    let mut pair = with_sent(1);
    let answer = pair.acceptor.hello(pair.now);
    assert_eq!(
        pair.dialer.on_hello(&answer, pair.now),
        Err(HelloError::Unexpected)
    );
    assert!(
        !pair.dialer.is_closed(),
        "an answer nobody waits for changes nothing"
    );
}

#[test]
fn a_violation_found_by_the_decoder_ends_the_session_too() {
    let mut pair = with_sent(2);
    let violation = Violation::UnknownKind { kind: 77 };
    pair.dialer
        .violated(ConnectionEpoch(99), violation, pair.now);
    assert!(!pair.dialer.is_closed(), "not from another connection");
    pair.dialer.violated(pair.epoch(), violation, pair.now);
    assert!(pair.dialer.is_closed());
    assert_eq!(events(&mut pair.dialer).len(), 3);
}

/// The acceptor's answer to a resuming dialer with 5 of 8 acknowledged and 3 resolved, changed by `lie`.
#[track_caller]
fn resume(lie: impl FnOnce(&mut Hello)) -> HelloError {
    let mut pair = with_sent(8);
    assert!(
        pair.hand_dialer(Frame::Ack {
            received: Seq(5),
            settled: Seq(3)
        })
        .is_ok()
    );
    let epoch = pair.epoch();
    pair.dialer.disconnected(epoch, pair.now);
    let hello = pair.dialer.hello(pair.now);
    let mut answer = pair.acceptor.hello(pair.now);
    answer.epoch = hello.epoch;
    answer.kind = hyperactor_protocol::HelloKind::AcceptedResumed;
    answer.next_expected = Seq(6);
    answer.received_bytes = 6;
    lie(&mut answer);
    let error = pair.dialer.on_hello(&answer, pair.now).expect_err("a lie");
    assert!(
        pair.dialer.is_closed(),
        "a dialer cannot go on with such a peer"
    );
    pair.dialer.check();
    assert_eq!(
        events(&mut pair.dialer).len(),
        1 + 5 + 1,
        "three in one run, five unknown, the end"
    );
    error
}

/// S-06.
#[test]
fn a_resume_point_outside_what_was_sent_is_a_violation() {
    let foreign = |at| {
        HelloError::Violation(Violation::ForeignResume {
            at: Seq(at),
            low: Seq(5),
            high: Seq(8),
        })
    };
    assert_eq!(resume(|hello| hello.next_expected = Seq(9)), foreign(9));
    assert_eq!(resume(|hello| hello.next_expected = Seq(4)), foreign(4));
    assert_eq!(
        resume(|hello| hello.next_expected = Seq(limits::COUNT_MAX)),
        foreign(limits::COUNT_MAX)
    );
}

#[test]
fn a_resume_with_other_byte_counts_or_less_credit_is_a_violation() {
    assert_eq!(
        resume(|hello| hello.received_bytes = 7),
        HelloError::Violation(Violation::ForeignBytes { theirs: 7, ours: 6 })
    );
    assert_eq!(
        resume(|hello| hello.credit_messages = 1),
        HelloError::Violation(Violation::CreditShrank)
    );
}

#[test]
fn a_resume_that_claims_outcomes_nobody_gave_is_a_violation() {
    let violation = Violation::ResolvedUnsettled {
        below: Seq(1),
        settled: Seq(0),
    };
    let lie = |hello: &mut Hello| {
        hello.next_unsent = Seq(1);
        hello.oldest_unresolved = Seq(1);
    };
    assert_eq!(resume(lie), HelloError::Violation(violation));
}

/// S-04.
#[test]
fn numbers_that_cannot_be_or_near_the_end_of_their_range_are_malformed_and_overflow_nothing() {
    for set in [
        (|hello: &mut Hello| hello.next_unsent = Seq(u64::MAX)) as fn(&mut Hello),
        |hello| hello.next_expected = Seq(u64::MAX),
        |hello| hello.received_bytes = u64::MAX,
        |hello| hello.credit_messages = u64::MAX,
        |hello| hello.credit_bytes = u64::MAX,
        |hello| hello.epoch = ConnectionEpoch(u64::MAX),
        |hello| hello.epoch = ConnectionEpoch(0),
        |hello| hello.oldest_unresolved = Seq(1),
        |hello| hello.max_frame = 4,
        |hello| hello.max_message = 0,
    ] {
        let mut dialer = Session::dialer(Config::default(), ID, DIALER, at(0));
        let mut hello = dialer.hello(at(0));
        set(&mut hello);
        let mut acceptor = Session::acceptor(Config::default(), ACCEPTOR, &hello, at(0));
        let error = acceptor.on_hello(&hello, at(0)).expect_err("malformed");
        assert!(
            matches!(
                error,
                HelloError::Malformed { .. } | HelloError::StaleEpoch { .. }
            ),
            "{error}"
        );
        acceptor.check();
    }
}

#[test]
fn a_session_that_begins_at_the_highest_number_still_works() {
    let mut dialer = Session::dialer(Config::default(), ID, DIALER, at(0));
    let mut hello = dialer.hello(at(0));
    hello.next_unsent = Seq(limits::COUNT_MAX);
    hello.next_expected = Seq(limits::COUNT_MAX);
    hello.received_bytes = limits::COUNT_MAX;
    hello.credit_bytes = limits::COUNT_MAX;
    hello.credit_messages = limits::COUNT_MAX;
    let mut acceptor = Session::acceptor(Config::default(), ACCEPTOR, &hello, at(0));
    let epoch = acceptor.on_hello(&hello, at(0)).expect("accepted").epoch;
    let data = Frame::Data {
        seq: Seq(limits::COUNT_MAX),
        flags: DataFlags::ACK_NOW,
        to: Label::NONE,
        from: Label::NONE,
        body: Bytes::from_static(b"x"),
    };
    let accept = acceptor.on_frame(epoch, data, at(0));
    assert!(matches!(accept, Ok(Accept::Deliver { .. })));
    let _ = acceptor.settle(Seq(limits::COUNT_MAX), Verdict::Delivered);
    let huge = Frame::Credit {
        messages: u64::MAX,
        bytes: u64::MAX,
        large: u64::MAX,
    };
    assert_eq!(acceptor.on_frame(epoch, huge, at(0)), Ok(Accept::Handled));
    push(&mut acceptor, b"y");
    let frames = written(&mut acceptor, at(0));
    let received = Seq(limits::COUNT_MAX + 1);
    assert!(
        frames.contains(&Frame::Ack {
            received,
            settled: received
        }),
        "{frames:?}"
    );
    acceptor.check();
}

/// S-01.
#[test]
fn a_stranger_cannot_take_a_session_over_nor_disturb_it() {
    let mut pair = with_sent(0);
    let before = pair.acceptor.dump();
    let epoch = pair.epoch();
    let mut stranger = Session::dialer(Config::default(), ID, Incarnation::new(0xBAD), at(0));
    stranger.hello(at(0));
    let hello = stranger.hello(at(0));
    let error = pair
        .acceptor
        .on_hello(&hello, pair.now)
        .expect_err("another life");
    assert_eq!(error.code(), HelloCode::WrongIncarnation);

    let mut other = Session::dialer(Config::default(), SessionId(5), DIALER, at(0));
    let hello = other.hello(at(0));
    assert!(pair.acceptor.on_hello(&hello, pair.now).is_err());
    assert_eq!(pair.acceptor.dump(), before);
    assert_eq!(pair.acceptor.epoch(), epoch);
    push(&mut pair.dialer, b"still here");
    assert_eq!(pair.forward().len(), 1);
}

#[test]
fn no_version_in_common_is_refused_with_the_range_that_would_do() {
    let mut dialer = Session::dialer(Config::default(), ID, DIALER, at(0));
    push(&mut dialer, b"never sent");
    let mut hello = dialer.hello(at(0));
    (hello.version_min, hello.version_max) = (7, 9);
    let mut acceptor = Session::acceptor(Config::default(), ACCEPTOR, &hello, at(0));
    let error = acceptor.on_hello(&hello, at(0)).expect_err("too new");
    assert_eq!(error, HelloError::Version { min: 7, max: 9 });
    let refusal = Hello::refusal(&hello, ACCEPTOR, error.code());
    assert_eq!((refusal.version_min, refusal.version_max), (1, 1));
    let error = dialer.on_hello(&refusal, at(0)).expect_err("refused");
    assert_eq!(
        error,
        HelloError::Refused {
            code: HelloCode::Version
        }
    );
    let told = events(&mut dialer);
    let failure = Failure::NotDelivered(Cause::HelloRefused(HelloCode::Version));
    let body = Some(Bytes::from_static(b"never sent"));
    assert_eq!(
        told[0],
        Event::Failed {
            post: PostId(0),
            failure,
            body
        }
    );
}

/// S-19.
#[test]
fn a_settlement_of_a_resolved_message_changes_nothing() {
    let mut pair = with_sent(3);
    assert!(
        pair.hand_dialer(Frame::Ack {
            received: Seq(3),
            settled: Seq(2)
        })
        .is_ok()
    );
    let refused = Verdict::NotDelivered(Refusal::new(5));
    let late = Frame::Settle {
        first: Seq(0),
        count: 2,
        verdict: refused,
    };
    assert_eq!(pair.hand_dialer(late), Ok(Accept::Handled));
    assert_eq!(
        events(&mut pair.dialer),
        [Event::Resolved {
            first: PostId(0),
            count: 2
        }]
    );
    assert_eq!(pair.dialer.unresolved(), 1);
}
