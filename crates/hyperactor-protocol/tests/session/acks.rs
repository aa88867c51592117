//! Acknowledgements: what they say, and when.

use std::time::Duration;

use bytes::Bytes;
use hyperactor_protocol::{
    Accept, Cause, Config, DataFlags, Event, Failure, Frame, Label, PostId, Refusal, Seq, Timeout,
    Verdict, Wake,
};

use crate::common::{Pair, events, push, push_flags, written};

fn ack(received: u64, settled: u64) -> Frame {
    Frame::Ack {
        received: Seq(received),
        settled: Seq(settled),
    }
}

fn refused(code: u16) -> Verdict {
    Verdict::NotDelivered(Refusal::new(code))
}

/// S-03.
#[test]
fn received_is_not_delivered() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.dialer, b"a");
    assert_eq!(pair.forward().len(), 1);
    pair.now = pair.now + Duration::from_secs(1);
    let told = pair.backward();
    assert_eq!(told, [], "nobody placed it yet");
    let _ = pair.acceptor.settle(Seq(0), Verdict::Delivered);
    pair.now = pair.now + Duration::from_secs(1);
    while pair.acceptor.on_timeout(pair.now).is_some() {}
    assert_eq!(
        pair.backward(),
        [Event::Resolved {
            first: PostId(0),
            count: 1
        }]
    );
}

#[test]
fn an_acknowledgement_never_covers_what_is_not_settled() {
    let mut pair = Pair::connected(&Config {
        ack_every: 1,
        ..Config::default()
    });
    for at in 0..10 {
        push(&mut pair.dialer, &[at]);
    }
    pair.forward();
    for seq in [3, 1, 2, 9] {
        let _ = pair.acceptor.settle(Seq(seq), Verdict::Delivered);
    }
    let frames = written(&mut pair.acceptor, pair.now);
    assert_eq!(frames.last(), Some(&ack(10, 0)), "0 is open: {frames:?}");
    let _ = pair.acceptor.settle(Seq(0), Verdict::Delivered);
    let frames = written(&mut pair.acceptor, pair.now);
    assert_eq!(frames, [ack(10, 4)]);
}

#[test]
fn one_stuck_message_does_not_hold_the_outcomes_of_others() {
    let mut pair = Pair::connected(&Config::default());
    for at in 0..5 {
        push_flags(&mut pair.dialer, DataFlags::ACK_NOW, &[at]);
    }
    pair.forward();
    for seq in [1, 2, 4] {
        let _ = pair.acceptor.settle(Seq(seq), Verdict::Delivered);
    }
    let told = pair.backward();
    assert_eq!(
        told,
        [
            Event::Resolved {
                first: PostId(1),
                count: 2
            },
            Event::Resolved {
                first: PostId(4),
                count: 1
            },
        ]
    );
    for seq in [3, 0] {
        let _ = pair.acceptor.settle(Seq(seq), Verdict::Delivered);
    }
    let told: u64 = pair
        .backward()
        .iter()
        .map(|event| {
            if let Event::Resolved { count, .. } = event {
                *count
            } else {
                panic!()
            }
        })
        .sum();
    assert_eq!(told, 2, "each once");
}

#[test]
fn a_range_that_the_acknowledgement_covers_needs_no_frame() {
    let mut pair = Pair::connected(&Config {
        ack_every: 3,
        ..Config::default()
    });
    for at in 0..3 {
        push(&mut pair.dialer, &[at]);
    }
    pair.forward();
    for seq in [1, 2, 0] {
        let _ = pair.acceptor.settle(Seq(seq), Verdict::Delivered);
    }
    assert_eq!(written(&mut pair.acceptor, pair.now), [ack(3, 3)]);
}

/// S-20.
#[test]
fn a_refusal_is_written_before_the_acknowledgement_that_covers_it() {
    let mut pair = Pair::connected(&Config {
        ack_every: 3,
        ..Config::default()
    });
    for at in 0..3 {
        push(&mut pair.dialer, &[at]);
    }
    pair.forward();
    let _ = pair.acceptor.settle(Seq(0), Verdict::Delivered);
    let _ = pair.acceptor.settle(Seq(1), refused(9));
    assert_eq!(pair.acceptor.settle(Seq(2), Verdict::Delivered), Wake::Now);
    let frames = written(&mut pair.acceptor, pair.now);
    let settle = Frame::Settle {
        first: Seq(1),
        count: 1,
        verdict: refused(9),
    };
    assert_eq!(frames, [settle, ack(3, 3)]);
    for frame in frames {
        assert!(pair.hand_dialer(frame).is_ok());
    }
    let failure = Failure::NotDelivered(Cause::Refused(Refusal::new(9)));
    assert_eq!(
        events(&mut pair.dialer),
        [
            Event::Failed {
                post: PostId(1),
                failure,
                body: Some(Bytes::from_static(&[1]))
            },
            Event::Resolved {
                first: PostId(0),
                count: 1
            },
            Event::Resolved {
                first: PostId(2),
                count: 1
            },
        ]
    );
}

#[test]
fn equal_refusals_in_a_row_share_a_frame() {
    let mut pair = Pair::connected(&Config::default());
    for at in 0..100 {
        push(&mut pair.dialer, &[at]);
    }
    pair.forward();
    for seq in 0..100 {
        let _ = pair
            .acceptor
            .settle(Seq(seq), refused(if seq == 50 { 2 } else { 1 }));
    }
    let frames = written(&mut pair.acceptor, pair.now);
    let settles = frames
        .iter()
        .filter(|frame| frame.name() == "settle")
        .count();
    assert_eq!(settles, 3, "{frames:?}");
}

#[test]
fn many_refusals_with_details_all_precede_the_acknowledgement() {
    let mut pair = Pair::connected(&Config::default());
    for at in 0..1000_u64 {
        push(&mut pair.dialer, &at.to_le_bytes());
    }
    pair.forward();
    for seq in 0..1000_u64 {
        let detail = vec![seq as u8; 1000];
        let verdict = Verdict::NotDelivered(Refusal::new(1).with_detail(detail));
        let _ = pair.acceptor.settle(Seq(seq), verdict);
    }
    let frames = written(&mut pair.acceptor, pair.now);
    let acks: Vec<_> = frames
        .iter()
        .enumerate()
        .filter(|(_, frame)| frame.name() == "ack")
        .collect();
    assert_eq!(acks.len(), 1, "more than one part, and one acknowledgement");
    assert!(acks[0].0 >= 1000, "behind all refusals");
    for frame in frames {
        assert!(pair.hand_dialer(frame).is_ok());
    }
    assert_eq!(events(&mut pair.dialer).len(), 1000);
}

/// W-04.
#[test]
fn a_detail_that_is_too_long_is_left_out_and_its_code_arrives() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.dialer, b"a");
    let told = pair.exchange(|_, _| Verdict::Unknown(Refusal::new(3).with_detail(vec![1; 1025])));
    let failure = Failure::Unknown(Cause::Refused(Refusal::new(3)));
    let body = Some(Bytes::from_static(b"a"));
    assert_eq!(
        told,
        [Event::Failed {
            post: PostId(0),
            failure,
            body
        }]
    );
}

/// S-17.
#[test]
fn someone_who_waits_is_answered_at_once() {
    let mut pair = Pair::connected(&Config::default());
    push_flags(&mut pair.dialer, DataFlags::ACK_NOW, b"a");
    pair.forward();
    assert!(!pair.acceptor.has_output(), "not before it is settled");
    assert_eq!(pair.acceptor.settle(Seq(0), Verdict::Delivered), Wake::Now);
    assert_eq!(written(&mut pair.acceptor, pair.now), [ack(1, 1)]);
}

/// S-17.
#[test]
fn without_anyone_waiting_an_acknowledgement_takes_its_delay_and_no_longer() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.dialer, b"a");
    pair.forward();
    assert_eq!(
        pair.acceptor.settle(Seq(0), Verdict::Delivered),
        Wake::Timer
    );
    assert_eq!(written(&mut pair.acceptor, pair.now), []);
    let due = pair.now + pair.acceptor.config().ack_delay;
    assert_eq!(pair.acceptor.next_timeout(), Some(due));
    assert_eq!(pair.acceptor.on_timeout(due), Some(Timeout::AckDue));
    assert_eq!(pair.acceptor.on_timeout(due), None);
    assert_eq!(written(&mut pair.acceptor, due), [ack(1, 1)]);
}

/// S-17.
#[test]
fn sixty_four_settled_messages_are_acknowledged_at_once() {
    let mut pair = Pair::connected(&Config::default());
    for at in 0..64 {
        push(&mut pair.dialer, &[at]);
    }
    pair.forward();
    let wakes: Vec<Wake> = (0..64)
        .map(|seq| pair.acceptor.settle(Seq(seq), Verdict::Delivered))
        .collect();
    assert_eq!(wakes[0], Wake::Timer);
    assert!(wakes[1..63].iter().all(|wake| *wake == Wake::No));
    assert_eq!(wakes[63], Wake::Now);
    assert_eq!(written(&mut pair.acceptor, pair.now), [ack(64, 64)]);
}

#[test]
fn an_acknowledgement_goes_along_with_anything_else_that_is_written() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.dialer, b"a");
    pair.forward();
    let _ = pair.acceptor.settle(Seq(0), Verdict::Delivered);
    push(&mut pair.acceptor, b"the other way");
    let names: Vec<_> = written(&mut pair.acceptor, pair.now)
        .iter()
        .map(Frame::name)
        .collect();
    assert_eq!(names, ["ack", "data"]);
}

#[test]
fn acknowledgements_flow_while_the_queues_are_full() {
    let config = Config {
        window_messages: 8,
        ..Config::default()
    };
    let mut pair = Pair::connected(&config);
    for at in 0..20 {
        push(&mut pair.dialer, &[at]);
    }
    // Placed, and nobody takes anything out: no credit goes back, outcomes do.
    let placed = pair.forward();
    assert_eq!(placed.len(), 8);
    for (seq, _) in placed {
        let _ = pair.acceptor.settle(seq, Verdict::Delivered);
    }
    pair.now = pair.now + Duration::from_millis(5);
    while pair.acceptor.on_timeout(pair.now).is_some() {}
    assert_eq!(
        pair.backward(),
        [Event::Resolved {
            first: PostId(0),
            count: 8
        }]
    );
    assert_eq!(pair.forward().len(), 0, "blocked by credit");
    assert_eq!(pair.dialer.unresolved(), 12);
}

/// S-16.
#[test]
fn a_message_that_comes_twice_is_dropped_and_acknowledged_again() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.dialer, b"a");
    pair.exchange(|_, _| Verdict::Delivered);
    let again = Frame::Data {
        seq: Seq(0),
        flags: DataFlags::NONE,
        to: Label::NONE,
        from: Label::NONE,
        body: Bytes::from_static(b"z"),
    };
    assert_eq!(pair.hand_acceptor(again), Ok(Accept::Duplicate));
    assert_eq!(pair.acceptor.dump().duplicates, 1);
    pair.now = pair.now + Duration::from_millis(5);
    assert_eq!(pair.acceptor.on_timeout(pair.now), Some(Timeout::AckDue));
    assert_eq!(written(&mut pair.acceptor, pair.now), [ack(1, 1)]);
}

/// S-19.
#[test]
fn the_first_verdict_counts() {
    let mut pair = Pair::connected(&Config::default());
    push(&mut pair.dialer, b"a");
    pair.forward();
    let _ = pair.acceptor.settle(Seq(0), Verdict::Delivered);
    assert_eq!(pair.acceptor.settle(Seq(0), refused(1)), Wake::No);
    assert_eq!(
        pair.acceptor.settle(Seq(7), refused(1)),
        Wake::No,
        "never came"
    );
    assert_eq!(pair.acceptor.dump().strays, 2);
    let told = pair.exchange(|_, _| Verdict::Delivered);
    assert_eq!(
        told,
        [Event::Resolved {
            first: PostId(0),
            count: 1
        }]
    );
}

/// S-17.
#[test]
fn a_run_is_settled_as_its_messages_would_be_one_by_one() {
    let config = Config {
        ack_every: 8,
        ..Config::default()
    };
    // Which are settled before, from where the run goes, how many it has, and whether somebody waits.
    for before in [&[][..], &[0, 1], &[5], &[0, 2, 19]] {
        for (first, count) in [(0, 3), (0, 8), (0, 20), (2, 5), (2, 30), (18, 2), (30, 2)] {
            for flags in [DataFlags::NONE, DataFlags::ACK_NOW] {
                let [one_by_one, at_once] = [false, true].map(|is_run| {
                    let mut pair = Pair::connected(&config);
                    for at in 0..20 {
                        push_flags(&mut pair.dialer, flags, &[at]);
                    }
                    pair.forward();
                    let acceptor = &mut pair.acceptor;
                    for seq in before {
                        let _ = acceptor.settle(Seq(*seq), Verdict::Delivered);
                    }
                    let wake = if is_run {
                        acceptor.settle_run(Seq(first), count)
                    } else {
                        let run = (first..first + count).map(Seq);
                        let wakes = run.map(|seq| acceptor.settle(seq, Verdict::Delivered));
                        wakes.max().unwrap_or(Wake::No)
                    };
                    acceptor.check();
                    let next = acceptor.next_timeout();
                    (
                        wake,
                        next,
                        written(acceptor, pair.now),
                        acceptor.dump().to_string(),
                    )
                });
                assert_eq!(one_by_one, at_once, "{count} from {first} after {before:?}");
            }
        }
    }
}
