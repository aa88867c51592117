//! Labels: names told once a connection, shares of the window, and lanes that wait.

use std::time::Duration;

use bytes::Bytes;
use hyperactor_protocol::{
    Accept, Config, Event, Frame, Label, Outgoing, PostId, PushError, Refusal, Released, Seq,
    Session, Verdict, Wake, limits,
};

use crate::common::{DIALER, ID, Pair, at, events, frames, push, written, written_bytes};

pub(crate) fn window(messages: u32) -> Config {
    Config {
        window_messages: messages,
        ..Config::default()
    }
}

pub(crate) fn label(session: &mut Session, name: &str) -> Label {
    let name = Bytes::copy_from_slice(name.as_bytes());
    session.add_label(name).expect("there is room")
}

pub(crate) fn try_push(
    session: &mut Session,
    to: Label,
    body: &[u8],
) -> Result<PostId, PushError<()>> {
    let outgoing = Outgoing {
        to,
        ..Outgoing::default()
    };
    session.push(outgoing, |out| {
        out.extend_from_slice(body);
        Ok(())
    })
}

pub(crate) fn push_to(session: &mut Session, to: Label, body: &[u8]) -> PostId {
    try_push(session, to, body).expect("there is room")
}

/// What arrives: label, number and body.
pub(crate) fn forward(pair: &mut Pair) -> Vec<(Label, Seq, Bytes)> {
    let mut messages = Vec::new();
    for frame in written(&mut pair.dialer, pair.now) {
        if let Accept::Deliver { seq, to, body, .. } = pair.hand_acceptor(frame).expect("lawful") {
            messages.push((to, seq, body));
        }
    }
    pair.dialer.check();
    pair.acceptor.check();
    messages
}

pub(crate) fn settle_all(pair: &mut Pair, messages: &[(Label, Seq, Bytes)]) {
    for (_, seq, _) in messages {
        let _ = pair.acceptor.settle(*seq, Verdict::Delivered);
    }
}

/// The acceptor's control reaches the dialer, after the delays have passed.
pub(crate) fn backward(pair: &mut Pair) -> Vec<Event> {
    pair.now = pair.now + Duration::from_millis(6);
    let _ = pair.acceptor.run_timeouts(pair.now);
    let _ = pair.dialer.run_timeouts(pair.now);
    let told = pair.backward();
    pair.dialer.check();
    pair.acceptor.check();
    told
}

fn releases(frames: &[Frame]) -> Vec<Released> {
    frames
        .iter()
        .filter_map(|frame| match frame {
            Frame::Released { entries } => Some(entries.clone()),
            _ => None,
        })
        .flatten()
        .collect()
}

/// S-29.
#[test]
fn a_name_crosses_a_connection_once_and_before_what_uses_it() {
    let mut pair = Pair::connected(&Config::default());
    let (to, from) = (
        label(&mut pair.dialer, "to"),
        label(&mut pair.dialer, "from"),
    );
    let unused = label(&mut pair.dialer, "unused");
    assert!(!pair.dialer.has_output(), "nothing uses them yet");
    for round in 0..3 {
        let outgoing = Outgoing {
            to,
            from,
            ..Outgoing::default()
        };
        pair.dialer
            .push(outgoing, |out| {
                out.extend_from_slice(b"x");
                Ok::<(), ()>(())
            })
            .expect("room");
        let named: Vec<Frame> = written(&mut pair.dialer, pair.now);
        let names = named.iter().filter(|frame| frame.name() == "name").count();
        assert_eq!(names, if round == 0 { 2 } else { 0 });
        let mut told = Vec::new();
        for frame in named {
            match pair.hand_acceptor(frame).expect("lawful") {
                Accept::Named { label, name } => told.push((label, name)),
                Accept::Deliver { to: t, from: f, .. } => {
                    assert_eq!((t, f), (to, from));
                    let expected = [(to, Bytes::from("to")), (from, Bytes::from("from"))];
                    assert!(round != 0 || told == expected);
                }
                _ => {}
            }
        }
    }
    assert_eq!(pair.acceptor.dump().peer_labels, 2);
    assert_eq!(unused, Label::new(3));
    // A new connection knows none of them: those in use are told, the others when they are used again.
    let sent = pair.dialer.dump().position;
    assert_eq!(sent, Seq(3));
    pair.reconnect();
    assert_eq!(pair.acceptor.dump().peer_labels, 0);
    let names = written(&mut pair.dialer, pair.now);
    let names: Vec<&Frame> = names
        .iter()
        .filter(|frame| frame.name() == "name")
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

/// S-29.
#[test]
fn a_label_that_was_not_given_is_refused_alone() {
    let mut pair = Pair::connected(&Config::default());
    let known = label(&mut pair.dialer, "a");
    let unknown = Label::new(known.number() + 1);
    let refused = try_push(&mut pair.dialer, unknown, b"x");
    assert_eq!(refused, Err(PushError::UnknownLabel { label: unknown }));
    assert!(try_push(&mut pair.dialer, known, b"x").is_ok());
    assert!(!pair.dialer.has_room_for(unknown));
    assert_eq!(pair.dialer.add_label(Bytes::new()), None);
    let long = vec![b'x'; limits::LABEL_NAME_MAX + 1];
    assert_eq!(pair.dialer.add_label(long.into()), None);
    let longest = vec![b'x'; limits::LABEL_NAME_MAX];
    assert!(pair.dialer.add_label(longest.into()).is_some());
}

/// S-02.
#[test]
fn messages_of_one_label_keep_their_order_whatever_waits() {
    let mut pair = Pair::connected(&window(8));
    let labels: Vec<Label> = (0..4)
        .map(|at| label(&mut pair.dialer, &at.to_string()))
        .chain([Label::NONE])
        .collect();
    for at in 0..200_u8 {
        push_to(&mut pair.dialer, labels[usize::from(at) % 5], &[at]);
    }
    let mut arrived = vec![Vec::new(); 5];
    for _ in 0..400 {
        let messages = forward(&mut pair);
        settle_all(&mut pair, &messages);
        for (to, _, body) in messages {
            let lane = labels.iter().position(|each| *each == to).expect("known");
            arrived[lane].push(body[0]);
            let _ = pair.acceptor.release(to, 1);
        }
        backward(&mut pair);
    }
    for (lane, bodies) in arrived.iter().enumerate() {
        let expected: Vec<u8> = (0..200).filter(|at| at % 5 == lane as u8).collect();
        assert_eq!(*bodies, expected, "lane {lane}");
    }
    assert_eq!(pair.dialer.unresolved(), 0);
}

/// S-30: k stuck ones, one after the other, leave about 1/(k+1) of the window, and every other label goes on at full
/// speed.
#[test]
fn stuck_labels_leave_a_part_of_the_window_to_the_others() {
    for stuck in [1_u32, 2, 3, 7, 15, 20] {
        let config = Config {
            window_messages: 256,
            outbox_messages: 100_000,
            ..Config::default()
        };
        let mut pair = Pair::connected(&config);
        let all: Vec<Label> = (0..=stuck)
            .map(|at| label(&mut pair.dialer, &at.to_string()))
            .collect();
        let (well, ill) = all.split_last().expect("some");
        for to in ill {
            for _ in 0..1000 {
                push_to(&mut pair.dialer, *to, b"stuck");
            }
        }
        // What comes is settled at once (it is in the actor's mailbox) and, of the stuck, never released.
        for _ in 0..50 {
            let messages = forward(&mut pair);
            settle_all(&mut pair, &messages);
            backward(&mut pair);
        }
        let held = pair.acceptor.dump().next_expected.0;
        let left = 256 - held;
        let part = 256 / u64::from(stuck + 1);
        assert!(
            left + 2 >= part && left <= 2 * part + 10,
            "{stuck} stuck leave {left}"
        );
        let mut passed = 0;
        for round in 0..200 {
            push_to(&mut pair.dialer, *well, b"well");
            let messages = forward(&mut pair);
            settle_all(&mut pair, &messages);
            for (to, _, _) in &messages {
                if to == well {
                    passed += 1;
                    let _ = pair.acceptor.release(*to, 4);
                }
            }
            assert_eq!(passed, round + 1, "{stuck} stuck, and the other waits");
            backward(&mut pair);
        }
    }
}

/// S-30.
#[test]
fn a_label_with_nothing_outstanding_may_have_one_while_anything_is_free() {
    let mut pair = Pair::connected(&window(8));
    let labels: Vec<Label> = (0..8)
        .map(|at| label(&mut pair.dialer, &at.to_string()))
        .collect();
    for to in &labels {
        for _ in 0..8 {
            push_to(&mut pair.dialer, *to, b"x");
        }
    }
    let arrived = forward(&mut pair);
    assert_eq!(arrived.len(), 8, "the whole window, and none in vain");
    let mut first: Vec<Label> = arrived.iter().map(|(to, ..)| *to).collect();
    first.dedup();
    assert!(first.len() >= 3, "not all to one: {first:?}");
    assert_eq!(pair.dialer.dump().waiting, 56);
}

/// S-30.
#[test]
fn a_share_is_counted_in_bytes_too() {
    let config = Config {
        window_bytes: 1000,
        ..Config::default()
    };
    let mut pair = Pair::connected(&config);
    let (a, b) = (label(&mut pair.dialer, "a"), label(&mut pair.dialer, "b"));
    for _ in 0..20 {
        push_to(&mut pair.dialer, a, &[0; 100]);
    }
    let arrived = forward(&mut pair);
    assert_eq!(
        arrived.len(),
        4,
        "its share of the bytes, and not all of them"
    );
    settle_all(&mut pair, &arrived);
    backward(&mut pair);
    push_to(&mut pair.dialer, b, &[1; 100]);
    assert_eq!(forward(&mut pair).len(), 1);
}

/// S-30: before the peer has said its window.
#[test]
fn first_messages_go_into_the_log_and_later_ones_wait() {
    let mut dialer = Session::dialer(Config::default(), ID, DIALER, at(0));
    let to = label(&mut dialer, "a");
    let assumed = limits::ASSUMED_MESSAGES;
    for _ in 0..assumed {
        push_to(&mut dialer, to, b"x");
    }
    let dump = dialer.dump();
    assert_eq!((dump.next.0, dump.waiting), (98, assumed - 98));
    dialer.check();
}

/// S-31.
#[test]
fn a_full_lane_refuses_and_tells_when_there_is_room_and_others_are_taken() {
    let config = Config {
        window_messages: 4,
        outbox_messages: 32,
        ..Config::default()
    };
    let mut pair = Pair::connected(&config);
    let (a, b) = (label(&mut pair.dialer, "a"), label(&mut pair.dialer, "b"));
    let mut taken = 0;
    while try_push(&mut pair.dialer, a, b"x").is_ok() {
        taken += 1;
        assert!(taken < 32, "a stuck lane fills the outbox");
    }
    assert!(!pair.dialer.has_room_for(a));
    assert!(pair.dialer.has_room_for(b) && pair.dialer.has_room());
    assert!(try_push(&mut pair.dialer, b, b"y").is_ok());
    assert_eq!(events(&mut pair.dialer), []);
    // The lane empties, and is told once.
    let mut told = Vec::new();
    for _ in 0..100 {
        let messages = forward(&mut pair);
        settle_all(&mut pair, &messages);
        for (to, _, _) in messages {
            let _ = pair.acceptor.release(to, 1);
        }
        told.extend(backward(&mut pair));
    }
    let rooms: Vec<&Event> = told
        .iter()
        .filter(|event| matches!(event, Event::Room { .. }))
        .collect();
    assert_eq!(rooms, [&Event::Room { label: a }]);
    assert_eq!(pair.dialer.unresolved(), 0);
}

/// S-31: with many stuck lanes there is still a place for one more label.
#[test]
fn stuck_lanes_never_fill_the_outbox() {
    let config = Config {
        window_messages: 4,
        outbox_messages: 64,
        ..Config::default()
    };
    let mut pair = Pair::connected(&config);
    for at in 0..5 {
        let to = label(&mut pair.dialer, &at.to_string());
        while try_push(&mut pair.dialer, to, b"x").is_ok() {}
    }
    let other = label(&mut pair.dialer, "other");
    assert!(try_push(&mut pair.dialer, other, b"x").is_ok());
}

/// S-31.
#[test]
fn a_message_without_a_label_waits_where_lanes_wait_for_credit() {
    let mut pair = Pair::connected(&window(4));
    let to = label(&mut pair.dialer, "a");
    for _ in 0..6 {
        push(&mut pair.dialer, b"none");
    }
    // The log is beyond the credit by now; a labelled message waits, and so do those after it.
    push_to(&mut pair.dialer, to, b"a");
    for _ in 0..6 {
        push(&mut pair.dialer, b"none");
    }
    assert_eq!(pair.dialer.dump().waiting, 7);
    let mut order = Vec::new();
    for _ in 0..40 {
        let messages = forward(&mut pair);
        settle_all(&mut pair, &messages);
        for (to, _, body) in messages {
            let _ = pair.acceptor.release(to, body.len() as u32);
            order.push(to);
        }
        backward(&mut pair);
    }
    let place = order.iter().position(|each| *each == to).expect("it came");
    assert_eq!(order.len(), 13);
    assert!(place <= 8, "overtaken by {place} without a label");
}

/// S-32.
#[test]
fn releases_are_told_at_once_when_they_matter_and_along_when_not() {
    let mut pair = Pair::connected(&window(256));
    let (a, b) = (label(&mut pair.dialer, "a"), label(&mut pair.dialer, "b"));
    for _ in 0..90 {
        push_to(&mut pair.dialer, a, b"x");
    }
    push_to(&mut pair.dialer, b, b"x");
    let messages = forward(&mut pair);
    assert_eq!(messages.len(), 91);
    settle_all(&mut pair, &messages);
    written(&mut pair.acceptor, pair.now);
    let _ = pair
        .acceptor
        .run_timeouts(pair.now + Duration::from_millis(6));
    written(&mut pair.acceptor, pair.now);
    // One of b: nobody waits for it.
    assert_eq!(pair.acceptor.release(b, 1), Wake::No);
    assert_eq!(written(&mut pair.acceptor, pair.now), []);
    let wakes: Vec<Wake> = (0..32).map(|_| pair.acceptor.release(a, 1)).collect();
    let first = wakes.iter().position(|wake| wake.is_now());
    // At the latest when it is an eighth of the window; here a quarter of the label's share is less.
    assert_eq!(first, Some(26), "{wakes:?}");
    let told = releases(&written(&mut pair.acceptor, pair.now));
    let entry = |label, messages| Released {
        label,
        messages,
        bytes: messages,
    };
    assert_eq!(
        told,
        [entry(b, 1), entry(a, 32)],
        "and the other goes along"
    );
    // S-32: a new connection may have lost it, so all is said again.
    pair.reconnect();
    let again = releases(&written(&mut pair.acceptor, pair.now));
    assert_eq!(again, [entry(a, 32), entry(b, 1)]);
}

/// S-32: drained, with enough to be worth a frame.
#[test]
fn a_drained_label_is_told_at_once() {
    let mut pair = Pair::connected(&Config::default());
    let to = label(&mut pair.dialer, "a");
    for _ in 0..limits::RELEASED_DRAINED {
        push_to(&mut pair.dialer, to, b"x");
    }
    let messages = forward(&mut pair);
    settle_all(&mut pair, &messages);
    let wake = pair
        .acceptor
        .release_run(to, limits::RELEASED_DRAINED - 1, 15);
    assert_eq!(wake, Wake::No);
    assert_eq!(pair.acceptor.release(to, 1), Wake::Now);
}

#[test]
fn more_of_a_label_is_never_released_than_came() {
    let mut pair = Pair::connected(&window(4));
    let to = label(&mut pair.dialer, "a");
    push_to(&mut pair.dialer, to, b"x");
    let messages = forward(&mut pair);
    settle_all(&mut pair, &messages);
    for _ in 0..50 {
        let _ = pair.acceptor.release(to, u32::MAX);
        let _ = pair.acceptor.release(Label::new(77), 1);
    }
    pair.acceptor.check();
    backward(&mut pair);
    assert!(!pair.dialer.is_closed());
}

/// S-36.
#[test]
fn what_waits_is_not_delivered_when_the_session_fails() {
    let mut pair = Pair::connected(&window(2));
    let to = label(&mut pair.dialer, "a");
    for at in 0..5 {
        push_to(&mut pair.dialer, to, &[at]);
    }
    forward(&mut pair);
    let cause = hyperactor_protocol::Cause::Abandoned;
    pair.dialer.fail(cause, pair.now);
    pair.dialer.check();
    let told: Vec<(u64, bool)> = events(&mut pair.dialer)
        .into_iter()
        .filter_map(|event| match event {
            Event::Failed {
                post,
                failure,
                body,
            } => {
                assert_eq!(body, Some(vec![post.0 as u8].into()));
                Some((post.0, failure.is_certain()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(
        told,
        [(0, false), (1, true), (2, true), (3, true), (4, true)]
    );
}

/// S-11, S-36.
#[test]
fn a_restarted_peer_gets_what_waited_in_order_and_shares_begin_anew() {
    let mut pair = Pair::connected(&window(8));
    let (a, b) = (label(&mut pair.dialer, "a"), label(&mut pair.dialer, "b"));
    for at in 0..12 {
        push_to(&mut pair.dialer, a, &[at]);
        push_to(&mut pair.dialer, b, &[at]);
    }
    let sent = forward(&mut pair).len() as u64;
    assert!((2..=8).contains(&sent));
    let answer = pair.restart(0xAD);
    pair.dialer.on_hello(&answer, pair.now).expect("accepted");
    pair.dialer.check();
    let unknown = events(&mut pair.dialer).len() as u64;
    assert_eq!(unknown, sent);
    let mut arrived = [Vec::new(), Vec::new()];
    for _ in 0..60 {
        let messages = forward(&mut pair);
        settle_all(&mut pair, &messages);
        for (to, _, body) in messages {
            arrived[usize::from(to == b)].push(body[0]);
            let _ = pair.acceptor.release(to, 1);
        }
        backward(&mut pair);
    }
    assert_eq!(arrived[0].len() + arrived[1].len(), 24 - sent as usize);
    for bodies in &arrived {
        assert!(
            bodies.is_sorted() && bodies.last() == Some(&11),
            "{bodies:?}"
        );
    }
    assert_eq!(pair.dialer.unresolved(), 0);
}

/// S-23, S-27.
#[test]
fn a_closing_session_ends_when_what_waits_has_gone_too() {
    let mut pair = Pair::connected(&window(2));
    let to = label(&mut pair.dialer, "a");
    for at in 0..6 {
        push_to(&mut pair.dialer, to, &[at]);
    }
    pair.dialer.close();
    assert_eq!(try_push(&mut pair.dialer, to, b"x"), Err(PushError::Closed));
    let mut delivered = 0;
    for _ in 0..30 {
        let messages = forward(&mut pair);
        settle_all(&mut pair, &messages);
        for (to, _, _) in messages {
            delivered += 1;
            let _ = pair.acceptor.release(to, 1);
        }
        if pair.dialer.is_closed() {
            break;
        }
        backward(&mut pair);
    }
    assert_eq!(delivered, 6);
    assert!(pair.dialer.is_closed(), "{}", pair.dialer.dump());
}

/// S-27.
#[test]
fn messages_that_wait_without_a_connection_fail_in_time() {
    let mut dialer = Session::dialer(Config::default(), ID, DIALER, at(0));
    let to = label(&mut dialer, "a");
    for _ in 0..limits::ASSUMED_MESSAGES {
        push_to(&mut dialer, to, b"x");
    }
    let _ = dialer.run_timeouts(at(1));
    let due = dialer.next_timeout().expect("a deadline");
    let _ = dialer.run_timeouts(due);
    assert!(dialer.is_closed());
    let failed = events(&mut dialer).len() as u64;
    assert_eq!(failed, limits::ASSUMED_MESSAGES + 1);
}

/// S-21.
#[test]
fn a_refused_message_of_a_lane_says_nothing_of_the_others() {
    let mut pair = Pair::connected(&window(4));
    let to = label(&mut pair.dialer, "a");
    for at in 0..9 {
        push_to(&mut pair.dialer, to, &[at]);
    }
    let mut told = Vec::new();
    for _ in 0..40 {
        for (to, seq, body) in forward(&mut pair) {
            let verdict = if body[0] == 5 {
                Verdict::NotDelivered(Refusal::new(1))
            } else {
                Verdict::Delivered
            };
            let _ = pair.acceptor.settle(seq, verdict);
            let _ = pair.acceptor.release(to, 1);
        }
        told.extend(backward(&mut pair));
    }
    let failed: Vec<u64> = told
        .iter()
        .filter_map(|event| match event {
            Event::Failed { post, body, .. } => {
                assert_eq!(body.as_deref(), Some(&[5][..]));
                Some(post.0)
            }
            _ => None,
        })
        .collect();
    assert_eq!(failed, [5]);
    assert_eq!(pair.dialer.unresolved(), 0);
}

/// The fast way: a labelled message that may go goes into the same buffer as those before it.
#[test]
fn small_messages_of_different_labels_share_one_write() {
    let mut pair = Pair::connected(&Config::default());
    let labels: Vec<Label> = (0..10)
        .map(|at| label(&mut pair.dialer, &at.to_string()))
        .collect();
    written(&mut pair.dialer, pair.now);
    for to in &labels {
        push_to(&mut pair.dialer, *to, b"first use");
    }
    written(&mut pair.dialer, pair.now);
    for _ in 0..2 {
        for to in &labels {
            push_to(&mut pair.dialer, *to, b"x");
        }
    }
    let epoch = pair.epoch();
    let part = pair
        .dialer
        .transmit(epoch, pair.now, 1 << 20)
        .expect("one part");
    assert_eq!(frames(&part.bytes).len(), 20);
    assert_eq!(written_bytes(&mut pair.dialer, pair.now).len(), 0);
}
