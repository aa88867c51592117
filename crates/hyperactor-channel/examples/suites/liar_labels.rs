//! What a lying dialer says about labels, releases and messages in parts. The rest of its lies are in `liar`.

use bytes::{BufMut, BytesMut};
use hyperactor_protocol::limits::{
    ASSEMBLIES_MAX, LABEL_BYTES_MAX, LABEL_NAME_MAX, LABELS_MAX, MESSAGE_MAX_DEFAULT,
};
use hyperactor_protocol::{DataFlags, Frame, Label, Released, Seq};

use crate::liar::{Lie, bytes};

const UNKNOWN_LABEL: u16 = 272;
const NAMES_TOO_LONG: u16 = 273;
const RELEASED_UNSENT: u16 = 274;
const PART_OUT_OF_PLACE: u16 = 276;
const PARTS_LENGTH: u16 = 277;
const MESSAGE_TOO_LONG: u16 = 278;
const TOO_MANY_PARTS: u16 = 279;
const BEYOND_CREDIT: u16 = 264;
const FIELD_RANGE: u16 = 261;

fn name(label: u32, length: usize) -> Frame {
    Frame::Name {
        label: Label::new(label),
        name: vec![b'n'; length].into(),
    }
}

fn data_to(seq: u64, flags: DataFlags, to: u32, body: Vec<u8>) -> Frame {
    Frame::Data {
        seq: Seq(seq),
        flags,
        to: Label::new(to),
        from: Label::NONE,
        body: body.into(),
    }
}

/// The first part of a message of `total` bytes, with `came` of them.
pub(crate) fn first(seq: u64, to: u32, total: u64, came: usize) -> Frame {
    let mut body = BytesMut::new();
    body.put_u64_le(total);
    body.put_bytes(7, came);
    data_to(seq, DataFlags::FIRST, to, body.to_vec())
}

fn all(frames: impl IntoIterator<Item = Frame>) -> BytesMut {
    let mut said = BytesMut::new();
    for frame in frames {
        said.extend_from_slice(&bytes(&frame));
    }
    said
}

fn released(label: u32, messages: u64, bytes: u64) -> Frame {
    let label = Label::new(label);
    let entries = vec![Released {
        label,
        messages,
        bytes,
    }];
    Frame::Released { entries }
}

/// As `lies` in `liar`.
pub(crate) fn labels() -> Vec<Lie> {
    let part = |flags| data_to(0, flags, 0, vec![1]);
    let whole = u64::from(MESSAGE_MAX_DEFAULT);
    let mut unknown_sender = data_to(0, DataFlags::NONE, 0, vec![1]);
    if let Frame::Data { from, .. } = &mut unknown_sender {
        *from = Label::new(1);
    }
    let full = (LABEL_BYTES_MAX / LABEL_NAME_MAX) as u32;
    let mut nobody = bytes(&name(1, 1));
    nobody[8..12].fill(0);
    let mut beyond = bytes(&name(1, 1));
    beyond[8..12].copy_from_slice(&(LABELS_MAX + 1).to_le_bytes());
    vec![
        (
            "a destination without a name",
            all([data_to(0, DataFlags::NONE, 1, vec![1])]),
            Some(UNKNOWN_LABEL),
        ),
        (
            "a sender without a name",
            all([unknown_sender]),
            Some(UNKNOWN_LABEL),
        ),
        (
            "more bytes of names than there may be",
            all((1..=full)
                .map(|label| name(label, LABEL_NAME_MAX))
                .chain([name(full + 1, 1)])),
            Some(NAMES_TOO_LONG),
        ),
        ("a name for nobody", nobody, Some(FIELD_RANGE)),
        ("a label that there is not", beyond, Some(FIELD_RANGE)),
        (
            "a release of what was not sent",
            all([released(1, 1, 1)]),
            Some(RELEASED_UNSENT),
        ),
        (
            "the last release that can be counted",
            all([released(LABELS_MAX, u64::MAX, u64::MAX)]),
            Some(RELEASED_UNSENT),
        ),
        (
            "a part of nothing",
            all([part(DataFlags::MORE)]),
            Some(PART_OUT_OF_PLACE),
        ),
        (
            "the end of nothing",
            all([part(DataFlags::LAST)]),
            Some(PART_OUT_OF_PLACE),
        ),
        (
            "a beginning within a message",
            all([first(0, 0, 100, 10), first(1, 0, 100, 10)]),
            Some(PART_OUT_OF_PLACE),
        ),
        (
            "a whole message within another",
            all([
                first(0, 0, 100, 10),
                data_to(1, DataFlags::NONE, 0, vec![1]),
            ]),
            Some(PART_OUT_OF_PLACE),
        ),
        (
            "parts that are too short",
            all([
                first(0, 0, 100, 10),
                data_to(1, DataFlags::LAST, 0, vec![1; 10]),
            ]),
            Some(PARTS_LENGTH),
        ),
        (
            "parts that are too long",
            all([
                first(0, 0, 100, 10),
                data_to(1, DataFlags::MORE, 0, vec![1; 90]),
            ]),
            Some(PARTS_LENGTH),
        ),
        (
            "a beginning that is all of it",
            all([first(0, 0, 10, 10)]),
            Some(PARTS_LENGTH),
        ),
        (
            "a message beyond the limit",
            all([first(0, 0, whole + 1, 10)]),
            Some(MESSAGE_TOO_LONG),
        ),
        (
            "a message of 2^64 - 1 bytes",
            all([first(0, 0, u64::MAX, 10)]),
            Some(MESSAGE_TOO_LONG),
        ),
        (
            "two of the largest at once",
            all([name(1, 1), first(0, 0, whole, 10), first(1, 1, whole, 10)]),
            Some(BEYOND_CREDIT),
        ),
        (
            "more parts at once than there may be",
            too_many(),
            Some(TOO_MANY_PARTS),
        ),
        (
            "names that nobody uses",
            all([name(1, 1), name(1, 9)]),
            None,
        ),
        (
            "a message whose parts end with its session",
            all([first(0, 0, 1_000, 10)]),
            None,
        ),
    ]
}

fn too_many() -> BytesMut {
    let labels = 1..=ASSEMBLIES_MAX as u32 + 1;
    let names = labels.clone().map(|label| name(label, 1));
    let begun = labels
        .clone()
        .zip(0..)
        .map(|(label, seq)| first(seq, label, 100, 10));
    all(names.chain(begun))
}
