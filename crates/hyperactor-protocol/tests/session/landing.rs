//! Parts of messages that are read to where they stay: without a copy, in memory that is used again, and with nothing lost
//! or taken twice when the connection is.

use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use hyperactor_protocol::{
    Accept, Buffers, Config, ConnectionEpoch, DataFlags, Frame, FrameDecoder, Label, Outgoing, Seq,
    Session, Verdict, Violation, limits,
};

use crate::common::{Pair, Rng, written_bytes};

/// Keeps every buffer.
#[derive(Default)]
struct Shelf(Mutex<Vec<BytesMut>>);

impl Shelf {
    fn count(&self) -> usize {
        self.0.lock().expect("nobody panicked").len()
    }
}

impl Buffers for Shelf {
    fn take(&self, bytes: usize) -> Option<BytesMut> {
        let mut kept = self.0.lock().expect("nobody panicked");
        let at = kept.iter().position(|each| each.capacity() >= bytes)?;
        Some(kept.swap_remove(at))
    }

    fn give(&self, buffer: BytesMut) {
        assert!(buffer.is_empty());
        self.0.lock().expect("nobody panicked").push(buffer);
    }
}

/// An acceptor's end of a connection, that reads as a driver does.
struct Reader {
    decoder: FrameDecoder,
    epoch: ConnectionEpoch,
    landed: usize,
}

impl Reader {
    fn new(pair: &Pair) -> Self {
        Self {
            decoder: FrameDecoder::new(limits::FRAME_MAX_DEFAULT).landing_from(1),
            epoch: pair.acceptor.epoch(),
            landed: 0,
        }
    }

    /// Takes bytes in; returns what was delivered.
    fn read(&mut self, pair: &mut Pair, bytes: &[u8]) -> Vec<Bytes> {
        self.decoder.feed(bytes);
        let mut delivered = Vec::new();
        loop {
            let taken = if let Some(landed) = self.decoder.take_landed() {
                self.landed += 1;
                pair.acceptor.on_landed(self.epoch, landed, pair.now)
            } else if let Some(frame) = self.decoder.next_frame().expect("lawful") {
                pair.acceptor.on_frame(self.epoch, frame, pair.now)
            } else {
                break;
            };
            if let Accept::Deliver {
                seq,
                to,
                body,
                size,
                ..
            } = taken.expect("lawful")
            {
                let _ = pair.acceptor.settle(seq, Verdict::Delivered);
                let _ = pair.acceptor.release(to, size);
                delivered.push(body);
            }
        }
        if let Some(head) = self.decoder.part_head()
            && let Some(room) = pair.acceptor.land(self.epoch, &head)
        {
            self.decoder.land(head, room);
        }
        pair.acceptor.check();
        delivered
    }
}

fn with_shelf(config: &Config) -> (Pair, Arc<Shelf>) {
    let shelf = Arc::new(Shelf::default());
    let pair = Pair::connected_with(config, |acceptor| acceptor.with_buffers(shelf.clone()));
    (pair, shelf)
}

fn pattern(size: usize, from: usize) -> Bytes {
    (0..size).map(|at| ((at + from) % 251) as u8).collect()
}

fn push(session: &mut Session, to: Label, shared: Bytes) {
    let outgoing = Outgoing {
        to,
        shared,
        ..Outgoing::default()
    };
    let pushed = session.push(outgoing, |_| Ok::<(), ()>(()));
    assert!(pushed.is_ok());
}

fn parts(bytes: u32) -> Config {
    Config {
        fragment_bytes: bytes,
        part_bytes: bytes,
        ..Config::default()
    }
}

/// W-13.
#[test]
fn a_message_in_parts_is_read_into_memory_that_an_earlier_one_had() {
    let (mut pair, shelf) = with_shelf(&Config::default());
    let mut reader = Reader::new(&pair);
    let mut addresses = Vec::new();
    for round in 0..4 {
        let whole = pattern((1 << 20) - round, round);
        push(&mut pair.dialer, Label::NONE, whole.clone());
        let before = reader.landed;
        let mut arrived = Vec::new();
        while arrived.is_empty() {
            let bytes = written_bytes(&mut pair.dialer, pair.now);
            // As a socket gives them: what is there, up to some size.
            for chunk in bytes.chunks(200_000) {
                arrived.extend(reader.read(&mut pair, chunk));
            }
        }
        assert_eq!(arrived, [whole]);
        addresses.push(arrived[0].as_ptr());
        assert_eq!(shelf.count(), 0, "it is in use");
        // One of its clones still needs it.
        let end = arrived[0].slice(10..);
        drop(arrived);
        assert_eq!(shelf.count(), 0, "a part of it is in use");
        drop(end);
        assert_eq!(shelf.count(), 1);
        assert!(
            round == 0 || reader.landed - before >= 4,
            "{}",
            reader.landed
        );
    }
    assert!(addresses.iter().all(|each| *each == addresses[0]));
}

#[test]
fn however_the_bytes_come_messages_are_whole_and_in_order() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let (mut pair, shelf) = with_shelf(&parts(64 + rng.below(500) as u32));
        let mut reader = Reader::new(&pair);
        let labels = ["one", "two", "three"].map(|name| {
            pair.dialer
                .add_label(Bytes::from(name))
                .expect("there is room")
        });
        let mut expected = Vec::new();
        for at in 0..30 {
            let size = rng.below(5000) as usize;
            let whole = pattern(size, at);
            push(&mut pair.dialer, labels[at % 3], whole.clone());
            expected.push(whole);
        }
        let mut arrived = Vec::new();
        while pair.dialer.has_output() {
            let bytes = written_bytes(&mut pair.dialer, pair.now);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(1 + rng.below(700) as usize));
                arrived.extend(reader.read(&mut pair, now));
                rest = later;
            }
            pair.backward();
        }
        assert!(reader.landed > 10, "{}", reader.landed);
        assert_eq!(arrived.len(), 30, "seed {seed}");
        let order = |label: usize| expected.iter().skip(label).step_by(3);
        for label in 0..3 {
            let found = arrived
                .iter()
                .filter(|body| order(label).any(|each| each == *body));
            assert!(found.eq(order(label)), "seed {seed}");
        }
        drop(arrived);
        assert!(shelf.count() > 0);
        assert_eq!(pair.acceptor.dump().assemblies, 0);
    }
}

#[test]
fn what_a_lost_connection_had_read_of_a_part_comes_again() {
    let whole = pattern(5000, 0);
    for cut in (1..5200).step_by(37) {
        let (mut pair, _shelf) = with_shelf(&parts(1000));
        push(&mut pair.dialer, Label::NONE, whole.clone());
        let mut reader = Reader::new(&pair);
        let bytes = written_bytes(&mut pair.dialer, pair.now);
        let mut arrived = reader.read(&mut pair, &bytes[..cut.min(bytes.len())]);
        // Its reader goes after the next connection has begun, as that of a connection that nobody noticed to be dead.
        pair.reconnect();
        let old = std::mem::replace(&mut reader, Reader::new(&pair));
        if cut % 2 == 0 {
            drop(old);
        }
        for _ in 0..3 {
            let bytes = written_bytes(&mut pair.dialer, pair.now);
            arrived.extend(reader.read(&mut pair, &bytes));
            pair.backward();
        }
        assert_eq!(arrived, std::slice::from_ref(&whole), "cut at {cut}");
    }
}

/// S-08.
#[test]
fn a_part_that_lands_on_a_connection_that_was_replaced_counts_for_nothing() {
    let (mut pair, _shelf) = with_shelf(&parts(1000));
    push(&mut pair.dialer, Label::NONE, pattern(5000, 0));
    let mut reader = Reader::new(&pair);
    let bytes = written_bytes(&mut pair.dialer, pair.now);
    // Into the second part, which goes where the first ended.
    reader.read(&mut pair, &bytes[..1500]);
    reader.decoder.feed(&bytes[1500..]);
    pair.reconnect();
    let landed = reader.decoder.take_landed().expect("all of it came");
    let taken = pair.acceptor.on_landed(reader.epoch, landed, pair.now);
    assert_eq!(taken, Ok(Accept::Fenced));
    // The first part, without the size in front of it.
    assert_eq!(pair.acceptor.dump().assembly_bytes, 992);
}

/// W-13: there is nothing but what a peer says, and no memory from before.
#[test]
fn memory_follows_what_has_come_where_it_lands_too() {
    let config = Config::default();
    let (mut pair, _shelf) = with_shelf(&config);
    push(&mut pair.dialer, Label::NONE, Bytes::from(vec![1; 8 << 20]));
    let mut reader = Reader::new(&pair);
    let mut came = 0;
    while pair.dialer.has_output() {
        let bytes = written_bytes(&mut pair.dialer, pair.now);
        for chunk in bytes.chunks(50_000) {
            came += chunk.len() as u64;
            reader.read(&mut pair, chunk);
            let held = pair.acceptor.dump().assembly_bytes;
            let step = limits::READ_STEP_BYTES as u64;
            assert!(held <= 2 * came + step, "{held} for {came}");
        }
        pair.backward();
    }
    assert!(reader.landed > 10, "{}", reader.landed);
}

/// S-35: whoever lies about a part is found out as if it had come as a frame.
#[test]
fn there_is_no_room_for_a_part_that_cannot_be() {
    let lie = |seq: u64, flags, body: Bytes| Frame::Data {
        seq: Seq(seq),
        flags,
        to: Label::NONE,
        from: Label::NONE,
        body,
    };
    let mut too_long = BytesMut::from(&u64::MAX.to_le_bytes()[..]);
    too_long.extend_from_slice(&[0; 900]);
    for (flags, body, code) in [
        (DataFlags::MORE, pattern(900, 0), "PartOutOfPlace"),
        (DataFlags::LAST, pattern(900, 0), "PartOutOfPlace"),
        (DataFlags::FIRST, too_long.freeze(), "MessageTooLong"),
    ] {
        let (mut pair, shelf) = with_shelf(&Config::default());
        shelf.give(BytesMut::with_capacity(100_000));
        let mut bytes = BytesMut::new();
        lie(0, flags, body).encode(&mut bytes);
        let mut decoder = FrameDecoder::new(limits::FRAME_MAX_DEFAULT).landing_from(1);
        decoder.feed(&bytes[..200]);
        let head = decoder.part_head().expect("it is a part");
        assert!(pair.acceptor.land(pair.acceptor.epoch(), &head).is_none());
        decoder.feed(&bytes[200..]);
        let frame = decoder.next_frame().expect("well formed").expect("whole");
        let violation: Violation = pair.hand_acceptor(frame).expect_err("a lie");
        assert!(format!("{violation:?}").starts_with(code), "{violation:?}");
        assert_eq!(shelf.count(), 1);
    }
}

/// S-26: what comes after the silence is not placed, wherever it was read to.
#[test]
fn a_part_that_lands_when_the_connection_is_dead_comes_again_on_the_next_one() {
    let (mut pair, _shelf) = with_shelf(&parts(1000));
    let whole = pattern(5000, 0);
    push(&mut pair.dialer, Label::NONE, whole.clone());
    let mut reader = Reader::new(&pair);
    let bytes = written_bytes(&mut pair.dialer, pair.now);
    reader.read(&mut pair, &bytes[..1500]);
    reader.decoder.feed(&bytes[1500..]);
    pair.now = pair.now + 2 * limits::SILENCE_TIMEOUT;
    let landed = reader.decoder.take_landed().expect("all of it came");
    let taken = pair.acceptor.on_landed(reader.epoch, landed, pair.now);
    assert_eq!(taken, Ok(Accept::Fenced));
    pair.reconnect();
    let mut reader = Reader::new(&pair);
    let mut arrived = Vec::new();
    for _ in 0..3 {
        let bytes = written_bytes(&mut pair.dialer, pair.now);
        arrived.extend(reader.read(&mut pair, &bytes));
        pair.backward();
    }
    assert_eq!(arrived, [whole]);
}
