//! Memory that the log keeps when nothing is in it.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Credit, Outbox, Pushed, Sizes};
use crate::limits::BUFFER_KEPT_BYTES;
use crate::{Outgoing, PushError};

const ALL: Credit = Credit {
    messages: u64::MAX,
    bytes: u64::MAX,
};

fn push(outbox: &mut Outbox, size: usize, result: Result<(), ()>) -> Result<u64, PushError<()>> {
    let encode = |out: &mut BytesMut| {
        // Piece by piece, as a serialiser does that does not know how much will come.
        for _ in 0..size / 1024 {
            out.put_bytes(7, 1024);
        }
        result
    };
    number(outbox.push(outbox.next(), &mut Outgoing::default(), SIZES, encode))
}

/// One frame for everything, to look at the memory alone.
const SIZES: Sizes = Sizes {
    fragment: 32 << 20,
    part: 0,
    message: 32 << 20,
};

fn number(pushed: Result<Pushed, PushError<()>>) -> Result<u64, PushError<()>> {
    pushed.map(|pushed| match pushed {
        Pushed::Logged { seq, .. } => seq,
        Pushed::Large { .. } => panic!("too large for a frame"),
    })
}

fn settle_all(outbox: &mut Outbox) {
    while outbox.take(ALL, 1 << 20).is_some() {}
    outbox.resolve_below(outbox.next(), |_, _| {});
    outbox.check();
    assert_eq!(outbox.held_bytes(), 0);
}

#[test]
fn the_buffer_of_a_large_message_goes_with_it() {
    let mut outbox = Outbox::new(800, 0);
    for size in [1024, 20 << 20, 1024] {
        assert!(push(&mut outbox, size, Ok(())).is_ok());
        settle_all(&mut outbox);
    }
    // A buffer of its own for the small message after it, not what is left of the large one's.
    assert!(outbox.tail.capacity() <= BUFFER_KEPT_BYTES);
    assert!(!outbox.tail.try_reclaim(20 << 20));
}

#[test]
fn a_message_that_fails_after_it_grew_leaves_no_buffer() {
    let mut outbox = Outbox::new(800, 0);
    assert_eq!(push(&mut outbox, 2048, Ok(())), Ok(0));
    assert!(matches!(
        push(&mut outbox, 33 << 20, Ok(())),
        Err(PushError::TooLarge { .. })
    ));
    assert!(outbox.tail.capacity() <= BUFFER_KEPT_BYTES);
    let error = push(&mut outbox, 20 << 20, Err(()));
    assert_eq!(error, Err(PushError::Encode(())));
    assert!(outbox.tail.capacity() <= BUFFER_KEPT_BYTES);
    // The message before them is whole.
    assert_eq!(outbox.message(0).map(|body| body.len()), Some(2048));
    assert_eq!(push(&mut outbox, 1024, Ok(())), Ok(1));
    settle_all(&mut outbox);
}

#[test]
fn a_large_message_that_is_settled_is_not_held_by_a_small_one_before_it() {
    const LIMIT: usize = 4 << 20;
    for shared in [0, 5 << 20] {
        let mut outbox = Outbox::new(800, 0);
        // The second buffer has room for more than one of them.
        assert_eq!(push(&mut outbox, 1024, Ok(())), Ok(0));
        assert_eq!(push(&mut outbox, 1024, Ok(())), Ok(1));
        if shared == 0 {
            assert_eq!(push(&mut outbox, 5 << 20, Ok(())), Ok(2));
        } else {
            let tail = Bytes::from(vec![7; shared]);
            let mut outgoing = Outgoing {
                shared: tail,
                ..Outgoing::default()
            };
            let pushed = outbox.push(2, &mut outgoing, SIZES, |out| {
                out.put_bytes(7, 10);
                Ok::<(), ()>(())
            });
            assert_eq!(number(pushed), Ok(2));
        }
        assert!(outbox.held_bytes() > LIMIT);
        while outbox.take(ALL, 1 << 20).is_some() {}
        outbox.resolve_one(2);
        outbox.check();
        let held = outbox.held_bytes();
        assert!(held < LIMIT, "{held} bytes are held");
        assert_eq!(outbox.message(1).map(|body| body.len()), Some(1024));
        assert!(outbox.rewind(3));
        assert_eq!(push(&mut outbox, 1024, Ok(())), Ok(3));
        settle_all(&mut outbox);
    }
}
