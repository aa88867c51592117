//! A peer that lies about labels, releases and parts: each lie has its name, ends the session, and changes no outcome.

mod common;

use bytes::Bytes;
use common::{Pair, check, push, written};
use hyperactor_protocol::{
    Config, DataFlags, Frame, FrameDecoder, Label, Outgoing, Released, Seq, Violation, limits,
};

fn data_to(seq: u64, flags: DataFlags, to: u32, body: impl Into<Bytes>) -> Frame {
    Frame::Data {
        seq: Seq(seq),
        flags,
        to: Label::new(to),
        from: Label::NONE,
        body: body.into(),
    }
}

fn name(label: u32, bytes: usize) -> Frame {
    Frame::Name {
        label: Label::new(label),
        name: vec![b'n'; bytes].into(),
    }
}

/// The first part of a message of `total` bytes, with `came` of them.
fn first(seq: u64, to: u32, total: u64, came: usize) -> Frame {
    let mut body = total.to_le_bytes().to_vec();
    body.resize(8 + came, 7);
    data_to(seq, DataFlags::FIRST, to, body)
}

/// Frames that are lawful, then a lie.
#[track_caller]
fn check_after(lawful: impl IntoIterator<Item = Frame>, lie: Frame, violation: Violation) {
    let config = Config {
        window_bytes: 10_000,
        max_message: 20_000,
        ..Config::default()
    };
    let mut pair = Pair::connected(&config);
    for at in 0..3 {
        push(&mut pair.dialer, &[at]);
    }
    written(&mut pair.dialer, pair.now);
    for frame in lawful {
        assert!(pair.hand_dialer(frame).is_ok());
        pair.dialer.check();
    }
    check(pair, lie, violation);
}

/// S-29.
#[test]
fn a_label_that_was_not_named_is_a_violation_in_either_place() {
    for label in [1, 2, limits::LABELS_MAX, limits::LABELS_MAX + 1, u32::MAX] {
        let label_of = Label::new(label);
        let violation = Violation::UnknownLabel { label: label_of };
        let lie = data_to(0, DataFlags::NONE, label, &b"x"[..]);
        check_after([name(3, 5)], lie, violation);
        let lie = Frame::Data {
            seq: Seq(0),
            flags: DataFlags::NONE,
            to: Label::new(3),
            from: label_of,
            body: "x".into(),
        };
        check_after([name(3, 5)], lie, violation);
    }
}

/// S-29.
#[test]
fn names_beyond_their_limit_are_a_violation_and_new_ones_in_place_of_old_are_not() {
    let most = limits::LABEL_NAME_MAX;
    let fit = (limits::LABEL_BYTES_MAX / most) as u32;
    let lawful: Vec<Frame> = (1..=fit)
        .map(|label| name(label, most))
        .chain((1..=fit).map(|label| name(label, most)))
        .chain([name(fit, most - 1), name(limits::LABELS_MAX, 1)])
        .collect();
    let violation = Violation::NamesTooLong {
        bytes: limits::LABEL_BYTES_MAX as u64 + 1,
        max: limits::LABEL_BYTES_MAX as u64,
    };
    check_after(lawful, name(fit + 1, 1), violation);
}

/// W-11.
#[test]
fn names_and_releases_of_impossible_labels_are_no_frames() {
    for number in [0, limits::LABELS_MAX + 1, u32::MAX] {
        for (kind, rest) in [(9_u8, vec![1]), (10, vec![0; 16])] {
            let mut bytes = vec![8 + rest.len() as u8, 0, 0, 0, kind, 0, 0, 0];
            bytes.extend(number.to_le_bytes());
            bytes.extend(rest);
            let mut decoder = FrameDecoder::new(limits::FRAME_MAX_DEFAULT);
            decoder.buffer().extend_from_slice(&bytes);
            assert_eq!(decoder.next_frame(), Err(Violation::FieldRange { kind }));
        }
    }
    // An empty name, one that is too long, no entry, half an entry, too many.
    let most = limits::LABEL_NAME_MAX as u32;
    let entries = limits::RELEASED_ENTRIES_MAX as u32;
    for (kind, payload) in [
        (9, 4),
        (9, 5 + most),
        (10, 0),
        (10, 30),
        (10, 20 * (entries + 1)),
    ] {
        let length = 4 + payload;
        let mut head = length.to_le_bytes().to_vec();
        head.extend([kind, 0, 0, 0]);
        let mut decoder = FrameDecoder::new(limits::FRAME_MAX_DEFAULT);
        decoder.buffer().extend_from_slice(&head);
        let length = length.into();
        let expected = Violation::FrameLength { kind, length };
        assert_eq!(decoder.next_frame(), Err(expected));
    }
}

/// S-32.
#[test]
fn releases_that_cannot_be_are_violations() {
    let sent_to = |pair: &mut Pair| {
        let label = pair.dialer.add_label("a".into()).expect("room");
        for _ in 0..3 {
            let outgoing = Outgoing {
                to: label,
                ..Outgoing::default()
            };
            let pushed = pair.dialer.push(outgoing, |out| {
                out.extend_from_slice(b"12345");
                Ok::<(), ()>(())
            });
            assert!(pushed.is_ok());
        }
        written(&mut pair.dialer, pair.now);
        let one = Released {
            label,
            messages: 2,
            bytes: 10,
        };
        let entries = vec![one];
        assert!(pair.hand_dialer(Frame::Released { entries }).is_ok());
        label
    };
    let unsent = |label| Violation::ReleasedUnsent {
        label: Label::new(label),
    };
    let back = Violation::ReleasedWentBack {
        label: Label::new(1),
    };
    let lies = [
        (1, 4, 15, unsent(1)),
        (1, 3, 16, unsent(1)),
        (1, u64::MAX, u64::MAX, unsent(1)),
        (1, 1, 10, back),
        (1, 2, 9, back),
        (1, 0, 0, back),
        (2, 0, 0, unsent(2)),
        (2, 1, 1, unsent(2)),
        (limits::LABELS_MAX, 1, 1, unsent(limits::LABELS_MAX)),
    ];
    for (label, messages, bytes, violation) in lies {
        let mut pair = Pair::connected(&Config::default());
        assert_eq!(sent_to(&mut pair), Label::new(1));
        let lie = Released {
            label: Label::new(label),
            messages,
            bytes,
        };
        let entries = vec![lie];
        check(pair, Frame::Released { entries }, violation);
    }
}

/// S-35.
#[test]
fn parts_out_of_place_are_violations() {
    let at = |seq| Violation::PartOutOfPlace {
        seq: Seq(seq),
        label: Label::new(1),
    };
    let begun = || [name(1, 1), first(0, 1, 100, 10)];
    let more = data_to(0, DataFlags::MORE, 1, &b"x"[..]);
    check_after([name(1, 1)], more, at(0));
    let last = data_to(0, DataFlags::LAST, 1, &b"x"[..]);
    check_after([name(1, 1)], last, at(0));
    check_after(begun(), first(1, 1, 100, 10), at(1));
    let whole = data_to(1, DataFlags::NONE, 1, &b"x"[..]);
    check_after(begun(), whole, at(1));
    // A whole one behind the last is lawful again.
    let end = data_to(1, DataFlags::LAST, 1, vec![7; 90]);
    let again = data_to(3, DataFlags::MORE, 1, &b"x"[..]);
    let whole = data_to(2, DataFlags::NONE, 1, &b"x"[..]);
    check_after(begun().into_iter().chain([end, whole]), again, at(3));
}

/// S-35, W-13.
#[test]
fn parts_of_other_sizes_than_declared_are_violations() {
    let sizes = |declared, got| Violation::PartsLength {
        label: Label::new(1),
        declared,
        got,
    };
    let begun = |total| [name(1, 1), first(0, 1, total, 10)];
    check_after([name(1, 1)], first(0, 1, 10, 10), sizes(10, 10));
    check_after([name(1, 1)], first(0, 1, 0, 10), sizes(0, 10));
    let part = |flags, size| data_to(1, flags, 1, vec![7; size]);
    check_after(begun(20), part(DataFlags::MORE, 10), sizes(20, 20));
    check_after(begun(20), part(DataFlags::MORE, 11), sizes(20, 21));
    check_after(begun(20), part(DataFlags::LAST, 9), sizes(20, 19));
    check_after(begun(20), part(DataFlags::LAST, 11), sizes(20, 21));
}

/// S-35, S-33.
#[test]
fn declared_sizes_beyond_the_limits_are_violations() {
    let max = 20_000;
    for declared in [max + 1, 1 << 32, u64::MAX] {
        let violation = Violation::MessageTooLong { declared, max };
        check_after([name(1, 1)], first(0, 1, declared, 10), violation);
    }
    // A window and a message: 30,000 bytes, and not one more.
    let lawful = [
        name(1, 1),
        name(2, 1),
        name(3, 1),
        first(0, 1, max, 10),
        first(1, 2, 9_980, 10),
    ];
    let beyond = Violation::BeyondCredit { seq: Seq(2) };
    check_after(lawful.clone(), first(2, 3, 21, 10), beyond);
    let fits = lawful.into_iter().chain([first(2, 3, 20, 10)]);
    let end = data_to(3, DataFlags::LAST, 3, vec![7; 9]);
    let short = Violation::PartsLength {
        label: Label::new(3),
        declared: 20,
        got: 19,
    };
    check_after(fits, end, short);
}

/// S-35.
#[test]
fn parts_of_too_many_messages_are_a_violation() {
    let count = limits::ASSEMBLIES_MAX as u32;
    let names = (1..=count + 1).map(|label| name(label, 1));
    let firsts = (0..count).map(|at| first(at.into(), at + 1, 20, 10));
    let lie = first(count.into(), count + 1, 20, 10);
    let max = count.into();
    check_after(names.chain(firsts), lie, Violation::TooManyParts { max });
}

/// W-12.
#[test]
fn parts_without_content_are_no_frames() {
    for (flags, size) in [(2_u8, 8_u8), (2, 0), (4, 0), (8, 0), (0x80, 1)] {
        let length = 20 + size;
        let head = [length, 0, 0, 0, 1, flags, 0, 0];
        let mut decoder = FrameDecoder::new(limits::FRAME_MAX_DEFAULT);
        decoder.buffer().extend_from_slice(&head);
        let length = length.into();
        let expected = Violation::FrameLength { kind: 1, length };
        assert_eq!(decoder.next_frame(), Err(expected), "{flags} {size}");
    }
    // W-10: more than one place.
    for flags in [6, 10, 12, 14, 0x82, 0x84, 0x88] {
        let head = [60, 0, 0, 0, 1, flags, 0, 0];
        let mut decoder = FrameDecoder::new(limits::FRAME_MAX_DEFAULT);
        decoder.buffer().extend_from_slice(&head);
        let expected = Violation::ReservedBits { kind: 1 };
        assert_eq!(decoder.next_frame(), Err(expected), "{flags}");
    }
}
