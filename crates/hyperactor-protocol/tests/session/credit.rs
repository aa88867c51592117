//! Credit: bounded, never stuck, not chatty.

use std::time::Duration;

use hyperactor_protocol::{Config, Frame, Label, Refusal, Seq, Timeout, Verdict, Wake};

use crate::common::{Pair, push, written};

fn window(messages: u32, bytes: u64) -> Config {
    Config {
        window_messages: messages,
        window_bytes: bytes,
        ..Config::default()
    }
}

fn credits(frames: &[Frame]) -> Vec<(u64, u64)> {
    frames
        .iter()
        .filter_map(|frame| match frame {
            Frame::Credit {
                messages, bytes, ..
            } => Some((*messages, *bytes)),
            _ => None,
        })
        .collect()
}

/// S-13.
#[test]
fn messages_stop_where_the_credit_ends() {
    let mut pair = Pair::connected(&window(10, 1 << 20));
    for at in 0..25 {
        push(&mut pair.dialer, &[at]);
    }
    assert_eq!(pair.forward().len(), 10);
    assert!(!pair.dialer.has_output());
}

#[test]
fn bytes_stop_where_the_credit_ends_and_one_message_may_reach_over() {
    let mut pair = Pair::connected(&window(1000, 100));
    for _ in 0..5 {
        push(&mut pair.dialer, &[0; 60]);
    }
    assert_eq!(
        pair.forward().len(),
        2,
        "the second begins below 100 and ends above"
    );
}

/// S-13.
#[test]
fn a_message_larger_than_the_window_passes() {
    let mut pair = Pair::connected(&window(4, 1000));
    for _ in 0..6 {
        push(&mut pair.dialer, &[7; 5000]);
    }
    let told = pair.exchange(|_, body| {
        assert_eq!(body.len(), 5000);
        Verdict::Delivered
    });
    assert!(!told.is_empty());
    assert_eq!(pair.dialer.unresolved(), 0);
}

/// S-15.
#[test]
fn credit_is_told_when_a_quarter_is_free_and_not_for_every_message() {
    let mut pair = Pair::connected(&window(100, 1 << 20));
    for _ in 0..60 {
        push(&mut pair.dialer, b"x");
    }
    assert_eq!(pair.forward().len(), 60);
    let wakes: Vec<Wake> = (0..25)
        .map(|_| pair.acceptor.release(Label::NONE, 1))
        .collect();
    assert_eq!(wakes.iter().filter(|wake| wake.is_now()).count(), 1);
    assert_eq!(wakes[24], Wake::Now);
    let frames = written(&mut pair.acceptor, pair.now);
    assert_eq!(credits(&frames), [(125, (1 << 20) + 25)]);
}

/// S-15.
#[test]
fn a_blocked_sender_gets_little_credit_after_the_delay() {
    let mut pair = Pair::connected(&window(100, 1 << 20));
    for _ in 0..200 {
        push(&mut pair.dialer, b"x");
    }
    assert_eq!(pair.forward().len(), 100);
    // One actor is stuck with its messages; another has taken one out and is hungry.
    assert_eq!(pair.acceptor.release(Label::NONE, 1), Wake::Timer);
    assert_eq!(
        pair.acceptor.release(Label::NONE, 1),
        Wake::No,
        "one timer for both"
    );
    let due = pair.now + Duration::from_millis(5);
    assert_eq!(pair.acceptor.on_timeout(due), Some(Timeout::AckDue));
    pair.now = due;
    pair.backward();
    assert_eq!(pair.forward().len(), 2);
}

#[test]
fn more_is_never_released_than_came() {
    let mut pair = Pair::connected(&window(4, 100));
    push(&mut pair.dialer, b"x");
    pair.forward();
    for _ in 0..50 {
        let _ = pair.acceptor.release(Label::NONE, u32::MAX);
    }
    pair.acceptor.check();
    let frames = written(&mut pair.acceptor, pair.now);
    assert_eq!(credits(&frames), [(5, 101)]);
}

/// S-14.
#[test]
fn a_refusal_that_the_sender_may_not_know_holds_its_credit() {
    let mut pair = Pair::connected(&window(4, 1 << 20));
    // The dialer's Resolved is held back: a peer that never lets anything go.
    for round in 0..20_u64 {
        for _ in 0..4 {
            push(&mut pair.dialer, b"x");
        }
        for (seq, _) in pair.forward() {
            let _ = pair
                .acceptor
                .settle(seq, Verdict::NotDelivered(Refusal::new(1)));
            let _ = pair.acceptor.release(Label::NONE, 1);
        }
        let frames = written(&mut pair.acceptor, pair.now);
        for frame in frames {
            if !matches!(frame, Frame::Settle { .. } | Frame::Ack { .. }) {
                assert!(pair.hand_dialer(frame).is_ok());
            }
        }
        pair.acceptor.check();
        assert!(pair.acceptor.dump().records <= 4, "round {round}");
    }
    assert_eq!(
        pair.acceptor.dump().next_expected,
        Seq(4),
        "no more was let in"
    );
}

#[test]
fn a_sender_that_lets_go_of_refusals_is_never_held() {
    let mut pair = Pair::connected(&window(4, 1 << 20));
    for round in 0..50 {
        for _ in 0..8 {
            push(&mut pair.dialer, b"x");
        }
        let told = pair.exchange(|_, _| Verdict::NotDelivered(Refusal::new(1)));
        assert_eq!(told.len(), 8, "round {round}");
    }
    assert_eq!(pair.acceptor.dump().records, 0);
}

/// S-14.
#[test]
fn one_message_that_is_never_settled_stops_credit_only_after_a_long_span() {
    let mut pair = Pair::connected(&window(4, 1 << 20));
    let mut placed = 0;
    for _ in 0..60 {
        for _ in 0..4 {
            push(&mut pair.dialer, b"x");
        }
        for (seq, _) in pair.forward() {
            placed += 1;
            if seq != Seq(0) {
                let _ = pair.acceptor.settle(seq, Verdict::Delivered);
            }
            let _ = pair.acceptor.release(Label::NONE, 1);
        }
        pair.now = pair.now + Duration::from_millis(6);
        while pair.acceptor.on_timeout(pair.now).is_some() {}
        pair.backward();
    }
    assert_eq!(placed, 4 * 16, "the span is the bound");
    let _ = pair.acceptor.settle(Seq(0), Verdict::Delivered);
    pair.exchange(|_, _| Verdict::Delivered);
    assert_eq!(pair.dialer.unresolved(), 0, "and then it goes on");
}

/// Found by the simulator, seed 880 of its first version: with a window of one the sender waited for ever.
#[test]
fn a_refusal_told_ahead_of_its_turn_gives_its_credit_back() {
    let mut pair = Pair::connected(&window(2, 1024));
    push(&mut pair.dialer, b"a");
    push(&mut pair.dialer, b"b");
    let sizes = pair.forward().len();
    assert_eq!(sizes, 2);
    // The second is refused first; the dialer acknowledges that while the first has no outcome yet.
    let refused = Verdict::NotDelivered(Refusal::new(7));
    let _ = pair.acceptor.settle(Seq(1), refused);
    pair.exchange(|_, _| Verdict::Delivered);
    assert_eq!(
        (pair.acceptor.dump().records, pair.dialer.unresolved()),
        (1, 1)
    );
    let _ = pair.acceptor.settle(Seq(0), Verdict::Delivered);
    for _ in 0..2 {
        let _ = pair.acceptor.release(Label::NONE, 1);
    }
    pair.exchange(|_, _| Verdict::Delivered);
    assert_eq!(
        (pair.acceptor.dump().records, pair.dialer.unresolved()),
        (0, 0)
    );
    for body in [b"c", b"d"] {
        push(&mut pair.dialer, body);
    }
    assert_eq!(pair.forward().len(), 2, "the whole window is open again");
}

/// S-15: released while the sender had plenty, and needed by it later, when nothing more is released or settled.
#[test]
fn what_was_released_too_early_to_matter_is_told_when_it_does() {
    let mut pair = Pair::connected(&window(100, 1 << 20));
    for _ in 0..60 {
        push(&mut pair.dialer, b"x");
    }
    assert_eq!(pair.forward().len(), 60);
    for _ in 0..20 {
        assert_eq!(pair.acceptor.release(Label::NONE, 1), Wake::No);
    }
    for _ in 0..60 {
        push(&mut pair.dialer, b"x");
    }
    assert_eq!(pair.forward().len(), 40, "all that was granted");
    pair.now = pair.now + Duration::from_millis(5);
    assert_eq!(pair.acceptor.run_timeouts(pair.now), Some(Timeout::AckDue));
    pair.backward();
    assert_eq!(pair.forward().len(), 20);
}
