//! Labels that change hands: numbers are few, names are many, and what is in use is never taken away.

use bytes::Bytes;
use hyperactor_protocol::{Config, Event, Frame, Label, Outgoing, Seq, Verdict, limits};

use crate::common::{Pair, events, push, written};
use crate::labels::{backward, forward, label, push_to, settle_all};

/// S-29.
#[test]
fn an_idle_label_is_given_to_another_name_and_a_busy_one_is_not() {
    let mut pair = Pair::connected(&Config::default());
    let busy = label(&mut pair.dialer, "busy");
    push_to(&mut pair.dialer, busy, b"x");
    let read = label(&mut pair.dialer, "settled and not released");
    push_to(&mut pair.dialer, read, b"x");
    let messages = forward(&mut pair);
    let _ = pair.acceptor.settle(messages[1].1, Verdict::Delivered);
    backward(&mut pair);
    let from = label(&mut pair.dialer, "idle but told");
    let outgoing = Outgoing {
        from,
        ..Outgoing::default()
    };
    pair.dialer
        .push(outgoing, |_| Ok::<(), ()>(()))
        .expect("room");
    let messages = forward(&mut pair);
    settle_all(&mut pair, &messages);
    let _ = pair.acceptor.release(Label::NONE, 0);
    for at in 3..limits::LABELS_MAX {
        assert!(pair.dialer.add_label(at.to_string().into()).is_some());
    }
    // The first is open, so what came after it is not known to have its outcome in order.
    for _ in 3..limits::LABELS_MAX {
        let again = label(&mut pair.dialer, "n");
        assert!(again.number() > 3, "{again} is in use");
        push_to(&mut pair.dialer, again, b"now it is in use");
        if pair.dialer.unresolved() > 4000 {
            break;
        }
    }
    pair.dialer.check();
    let _ = pair.acceptor.settle(Seq(0), Verdict::Delivered);
    for to in [busy, read] {
        let _ = pair.acceptor.release(to, 1);
    }
    pair.exchange(|_, _| Verdict::Delivered);
    assert_eq!(pair.dialer.unresolved(), 0);
}

/// S-29: second chance, and the new name is told where the old one was.
#[test]
fn a_label_that_changes_hands_is_told_anew() {
    let mut pair = Pair::connected(&Config::default());
    let old = label(&mut pair.dialer, "old");
    push_to(&mut pair.dialer, old, b"x");
    let messages = forward(&mut pair);
    settle_all(&mut pair, &messages);
    let _ = pair.acceptor.release(old, 1);
    backward(&mut pair);
    // Told along with something else, by now.
    push(&mut pair.dialer, b"y");
    let messages = forward(&mut pair);
    settle_all(&mut pair, &messages);
    backward(&mut pair);
    for at in 1..limits::LABELS_MAX {
        assert!(pair.dialer.add_label(at.to_string().into()).is_some());
    }
    let new = (0..limits::LABELS_MAX)
        .map(|_| label(&mut pair.dialer, "new"))
        .find(|new| *new == old);
    assert_eq!(new, Some(old));
    // Before anything uses it: what the peer holds follows what this side holds.
    let frames = written(&mut pair.dialer, pair.now);
    let name = Bytes::from("new");
    assert!(
        frames.contains(&Frame::Name { label: old, name }),
        "{frames:?}"
    );
    push_to(&mut pair.dialer, old, b"z");
    let frames = written(&mut pair.dialer, pair.now);
    assert_eq!(
        frames.iter().filter(|frame| frame.name() == "name").count(),
        0
    );
}

/// S-29: no label is idle; when one is, that is told.
#[test]
fn without_an_idle_label_none_is_given_until_one_is() {
    let config = Config {
        window_messages: 100_000,
        outbox_messages: 100_000,
        ..Config::default()
    };
    let mut pair = Pair::connected(&config);
    for at in 0..limits::LABELS_MAX {
        let to = label(&mut pair.dialer, &at.to_string());
        push_to(&mut pair.dialer, to, b"x");
    }
    assert_eq!(pair.dialer.add_label("one more".into()), None);
    assert_eq!(pair.dialer.add_label("one more".into()), None);
    assert_eq!(events(&mut pair.dialer), []);
    for (to, seq, _) in forward(&mut pair) {
        let _ = pair.acceptor.settle(seq, Verdict::Delivered);
        let _ = pair.acceptor.release(to, 1);
    }
    let told = backward(&mut pair);
    let room = Event::Room { label: Label::NONE };
    assert!(told.contains(&room), "{told:?}");
    assert!(pair.dialer.add_label("one more".into()).is_some());
}

/// S-29.
#[test]
fn the_bytes_of_names_are_limited_together() {
    let mut pair = Pair::connected(&Config::default());
    let name = vec![b'n'; limits::LABEL_NAME_MAX];
    let fit = limits::LABEL_BYTES_MAX / limits::LABEL_NAME_MAX;
    let mut all = Vec::new();
    for _ in 0..fit {
        let to = pair.dialer.add_label(name.clone().into()).expect("it fits");
        push_to(&mut pair.dialer, to, b"x");
        all.push(to);
    }
    assert_eq!(pair.dialer.add_label("a".into()), None, "all are in use");
    for (to, seq, _) in forward(&mut pair) {
        let _ = pair.acceptor.settle(seq, Verdict::Delivered);
        let _ = pair.acceptor.release(to, 1);
    }
    backward(&mut pair);
    push(&mut pair.dialer, b"along");
    let messages = forward(&mut pair);
    settle_all(&mut pair, &messages);
    backward(&mut pair);
    // Many changes of names: what the peer holds stays within the limit all the time, or it would be a violation.
    for round in 0..2 * fit {
        let name = if round % 3 == 0 {
            name.clone()
        } else {
            vec![b'm'; 10]
        };
        if let Some(to) = pair.dialer.add_label(name.into()) {
            push_to(&mut pair.dialer, to, b"x");
        }
        if round % 7 == 0 {
            for (to, seq, _) in forward(&mut pair) {
                let _ = pair.acceptor.settle(seq, Verdict::Delivered);
                let _ = pair.acceptor.release(to, 1);
            }
            backward(&mut pair);
        }
    }
    forward(&mut pair);
}
