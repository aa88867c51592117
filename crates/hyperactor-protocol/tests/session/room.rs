//! Room in the outbox while a message is under way that is larger than it.

use bytes::Bytes;
use hyperactor_protocol::{Config, Label, Outgoing, PushError, Session};

use crate::common::{Pair, push};

const OUTBOX_BYTES: usize = 64 * 1024;

/// An outbox that is much smaller than the largest message.
fn small_outbox() -> Config {
    Config {
        fragment_bytes: 4 * 1024,
        part_bytes: 4 * 1024,
        outbox_bytes: OUTBOX_BYTES,
        ..Config::default()
    }
}

fn push_large(session: &mut Session, to: Label) -> Result<(), PushError<()>> {
    let outgoing = Outgoing {
        to,
        shared: Bytes::from(vec![7; 4 * OUTBOX_BYTES]),
        ..Outgoing::default()
    };
    session.push(outgoing, |_| Ok(())).map(drop)
}

/// S-31.
#[test]
fn a_message_larger_than_the_outbox_leaves_room_to_others_as_long_as_it_is_under_way() {
    let mut pair = Pair::connected(&small_outbox());
    let name = |session: &mut Session, name: &'static str| {
        session.add_label(Bytes::from(name)).expect("there is room")
    };
    let (bulk, other) = (
        name(&mut pair.dialer, "bulk"),
        name(&mut pair.dialer, "other"),
    );
    push_large(&mut pair.dialer, bulk).expect("it begins below the limit");
    // Waiting, in parts, and sent as a whole without an outcome yet: others are taken all the time.
    for taken in 0..40 {
        assert!(pair.dialer.has_room_for(other), "after {taken}");
        push(&mut pair.dialer, b"small");
        while pair
            .dialer
            .transmit(pair.dialer.epoch(), pair.now, 16 * 1024)
            .is_some()
        {}
        pair.dialer.check();
    }
    // A second one begins below the limit, and fills it: what is held is bounded.
    push_large(&mut pair.dialer, bulk).expect("it begins below the limit");
    assert!(!pair.dialer.has_room_for(other));
    assert_eq!(push_large(&mut pair.dialer, other), Err(PushError::Full));
    assert!(pair.dialer.dump().held_bytes <= OUTBOX_BYTES + 8 * OUTBOX_BYTES);
    pair.dialer.check();
}
