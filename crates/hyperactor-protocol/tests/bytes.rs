//! Any bytes in any pieces: the same frames, no panic, memory that follows what arrived.

mod common;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::{ACCEPTOR, Pair, at, push_flags, written};
use hyperactor_protocol::{
    Accept, Config, ConnectionEpoch, Cut, DataFlags, Extensions, Frame, FrameDecoder, Goodbye,
    Hello, HelloCode, HelloKind, Incarnation, Label, Outgoing, Refusal, Released, Seq, SessionId,
    Verdict, limits,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn refusal() -> impl Strategy<Value = Refusal> {
    (any::<u16>(), bytes(60)).prop_map(|(code, detail)| Refusal::new(code).with_detail(detail))
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::Delivered),
        refusal().prop_map(Verdict::NotDelivered),
        refusal().prop_map(Verdict::Unknown),
    ]
}

/// Numbers that a session of these tests may really have, and any others.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..40_u64, 1 => any::<u64>()]
}

fn label() -> impl Strategy<Value = Label> {
    prop_oneof![4 => 0..4_u32, 1 => any::<u32>()].prop_map(Label::new)
}

/// One that a table has room for.
fn named() -> impl Strategy<Value = Label> {
    prop_oneof![4 => 1..4_u32, 1 => 1..=limits::LABELS_MAX].prop_map(Label::new)
}

fn data() -> impl Strategy<Value = Frame> {
    let whole = prop_oneof![Just(DataFlags::NONE), Just(DataFlags::ACK_NOW)];
    let whole = (whole, bytes(500));
    let later = prop_oneof![Just(DataFlags::MORE), Just(DataFlags::LAST)];
    let later = (
        later,
        bytes(60).prop_filter("not empty", |body| !body.is_empty()),
    );
    let first = (number(), vec(any::<u8>(), 1..60)).prop_map(|(total, came)| {
        let body: Vec<u8> = total.to_le_bytes().into_iter().chain(came).collect();
        (DataFlags::FIRST, Bytes::from(body))
    });
    let void = Just((DataFlags::VOID, Bytes::new()));
    let any = prop_oneof![4 => whole, 2 => first, 2 => later, 1 => void];
    (number(), label(), label(), any).prop_map(|(seq, to, from, (flags, body))| Frame::Data {
        seq: Seq(seq),
        flags,
        to,
        from,
        body,
    })
}

fn released() -> impl Strategy<Value = Released> {
    (named(), number(), number()).prop_map(|(label, messages, bytes)| Released {
        label,
        messages,
        bytes,
    })
}

fn frame() -> impl Strategy<Value = Frame> {
    let seq = || number().prop_map(Seq);
    let name = bytes(60).prop_filter("not empty", |name| !name.is_empty());
    prop_oneof![
        6 => data(),
        3 => (named(), name).prop_map(|(label, name)| Frame::Name { label, name }),
        2 => vec(released(), 1..4).prop_map(|entries| Frame::Released { entries }),
        4 => (seq(), seq()).prop_map(|(received, settled)| Frame::Ack { received, settled }),
        4 => (number(), 1..9_u32, verdict()).prop_map(|(first, count, verdict)| Frame::Settle {
            first: Seq(first.min(u64::MAX - u64::from(count))),
            count,
            verdict,
        }),
        2 => any::<[u64; 3]>().prop_map(|[messages, bytes, large]| Frame::Credit {
            messages,
            bytes,
            large,
        }),
        2 => seq().prop_map(|below| Frame::Resolved { below }),
        1 => any::<u64>().prop_map(|nonce| Frame::Ping { nonce }),
        1 => any::<u64>().prop_map(|nonce| Frame::Pong { nonce }),
        1 => (seq(), any::<u16>(), bytes(60)).prop_map(
            |(received, code, detail)| Frame::Goodbye(Goodbye { received, code, detail })
        ),
    ]
}

fn hello() -> impl Strategy<Value = Hello> {
    let kind = prop_oneof![
        Just(HelloKind::Open),
        Just(HelloKind::AcceptedFresh),
        Just(HelloKind::AcceptedResumed),
        any::<u16>().prop_map(|code| HelloKind::Refused(HelloCode::from_number(code))),
    ];
    let words = any::<[u64; 12]>();
    let rest = (
        any::<u128>(),
        0..4_u16,
        any::<u32>(),
        vec((any::<u8>(), vec(any::<u8>(), 0..9)), 0..6),
    );
    (kind, words, rest).prop_map(|(kind, words, (session, version, max_frame, fields))| {
        let mut extensions = Extensions::default();
        for (tag, value) in fields {
            assert!(
                extensions.push(tag, &value),
                "six fields of at most ten bytes fit"
            );
        }
        Hello {
            kind,
            version_min: version,
            version_max: version + 1,
            incarnation: Incarnation::new(words[0]),
            expected: (words[1] != 0).then(|| Incarnation::new(words[1])),
            session: SessionId(session),
            epoch: ConnectionEpoch(words[2]),
            born: ConnectionEpoch(words[3]),
            next_expected: Seq(words[4]),
            received_bytes: words[5],
            oldest_unresolved: Seq(words[6]),
            next_unsent: Seq(words[7]),
            credit_messages: words[8],
            credit_bytes: words[9],
            max_frame,
            max_message: words[10] as u32,
            credit_large: words[11],
            extensions,
        }
    })
}

/// Feeds `stream` in pieces of the given sizes, over and over, and checks the decoder's memory on the way.
fn decode(stream: &[u8], pieces: &[usize], max_frame: u32) -> (Vec<Frame>, bool) {
    let mut decoder = FrameDecoder::new(max_frame);
    let mut frames = Vec::new();
    let mut rest = stream;
    let mut sizes = pieces.iter().cycle();
    while !rest.is_empty() {
        let size = (*sizes.next().unwrap_or(&1)).clamp(1, rest.len());
        // As a socket would: never more than the buffer has room for.
        let buffer = decoder.buffer();
        let size = size.min(buffer.capacity() - buffer.len());
        assert!(size > 0, "no room to read into");
        let (piece, tail) = rest.split_at(size);
        buffer.extend_from_slice(piece);
        rest = tail;
        loop {
            // Some one by one, some together.
            let cut = if frames.len() % 3 == 0 {
                decoder.next_frame().map(|frame| frame.map(Cut::Frame))
            } else {
                decoder.next_cut()
            };
            match cut {
                Ok(Some(Cut::Frame(frame))) => frames.push(frame),
                Ok(Some(Cut::Run(run))) => {
                    assert!(run.count() >= 2 && run.count() <= limits::RUN_MESSAGES_MAX);
                    frames.extend(run.frames());
                }
                Ok(None) => break,
                Err(violation) => {
                    assert_eq!(decoder.next_frame(), Err(violation), "said twice");
                    assert_eq!(decoder.next_cut(), Err(violation), "said twice");
                    return (frames, true);
                }
            }
        }
        let arrived = decoder.pending_bytes();
        let _room = decoder.buffer();
        let most = 2 * arrived + 2 * limits::READ_STEP_BYTES;
        assert!(
            decoder.capacity_bytes() <= most,
            "{} for {arrived}",
            decoder.capacity_bytes()
        );
    }
    (frames, false)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_are_the_same_however_they_are_cut(
        frames in vec(frame(), 1..20),
        pieces in vec(1..5000_usize, 1..12),
    ) {
        let mut stream = BytesMut::new();
        for frame in &frames {
            frame.encode(&mut stream);
        }
        // Delivered settlements carry no refusal, so every frame reads back as itself.
        prop_assert_eq!(decode(&stream, &pieces, 1 << 20), (frames, false));
    }

    #[test]
    fn random_bytes_neither_panic_nor_take_memory(
        stream in vec(any::<u8>(), 0..5000),
        pieces in vec(1..500_usize, 1..5),
    ) {
        decode(&stream, &pieces, limits::FRAME_MAX_CEILING);
        let _verdict = Hello::decode(&mut BytesMut::from(&stream[..]));
    }

    #[test]
    fn lawful_streams_with_changed_bytes_neither_panic_nor_take_memory(
        frames in vec(frame(), 1..10),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        pieces in vec(1..500_usize, 1..5),
    ) {
        let mut stream = BytesMut::new();
        for frame in &frames {
            frame.encode(&mut stream);
        }
        for (at, byte) in changes {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        decode(&stream, &pieces, limits::FRAME_MAX_DEFAULT);
    }

    #[test]
    fn hellos_read_back_as_themselves_however_they_are_cut(hello in hello(), cut in 0..200_usize) {
        let whole = hello.to_bytes();
        prop_assert!(whole.len() <= limits::HELLO_MAX);
        let mut buffer = BytesMut::from(&whole[..cut.min(whole.len() - 1)]);
        prop_assert_eq!(Hello::decode(&mut buffer), Ok(None));
        buffer.extend_from_slice(&whole[buffer.len()..]);
        prop_assert_eq!(Hello::decode(&mut buffer), Ok(Some(hello)));
    }

    #[test]
    fn hellos_with_changed_bytes_neither_panic_nor_break_a_session(
        changes in vec((8..128_usize, any::<u8>()), 1..4),
    ) {
        let config = Config::default();
        let mut pair = Pair::connected(&config);
        let mut bytes = BytesMut::from(&pair.dialer.hello(pair.now).to_bytes()[..]);
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        if let Ok(Some(hello)) = Hello::decode(&mut bytes) {
            let _known = pair.acceptor.on_hello(&hello, pair.now);
            pair.acceptor.check();
            let mut new = hyperactor_protocol::Session::acceptor(config, ACCEPTOR, &hello, at(0));
            if let Ok(established) = new.on_hello(&hello, at(0)) {
                push_flags(&mut new, DataFlags::ACK_NOW, b"a");
                while new.transmit(established.epoch, at(0), 1000).is_some() {}
            }
            new.check();
        }
    }

    /// Whatever frames come, in whatever order, between whatever the application does: no panic, every invariant
    /// holds, no message has two outcomes.
    #[test]
    fn any_frames_at_any_time_leave_the_session_whole(
        operations in vec((0..8_u8, frame(), number(), verdict()), 1..120),
    ) {
        let config = Config {
            window_messages: 16,
            window_bytes: 20_000,
            outbox_messages: 24,
            fragment_bytes: 64,
            part_bytes: 64,
            ..Config::default()
        };
        let mut pair = Pair::connected(&config);
        for number in 1..4 {
            let (label, name) = (Label::new(number), Bytes::from_static(b"a name"));
            let told = pair.hand_acceptor(Frame::Name { label, name });
            prop_assert!(told.is_ok());
        }
        let mut outcomes = std::collections::BTreeSet::new();
        let mut pushed = 0;
        let labels: Vec<Label> = (0..3_u8)
            .map(|at| pair.acceptor.add_label(vec![at].into()).expect("room"))
            .chain([Label::NONE])
            .collect();
        for (operation, frame, number, verdict) in operations {
            let session = &mut pair.acceptor;
            let epoch = session.epoch();
            match operation {
                0..=2 => {
                    // Frames that a peer would send are likelier to get somewhere.
                    let frame = match frame {
                        Frame::Data { flags, to, from, body, .. } if number % 8 != 0 => {
                            let seq = session.dump().next_expected;
                            Frame::Data { seq, flags, to, from, body }
                        }
                        frame => frame,
                    };
                    if let Ok(Accept::Deliver { seq, to, size, .. }) = session.on_frame(epoch, frame, pair.now)
                        && number % 2 == 0
                    {
                        let _ = session.settle(seq, verdict);
                        let _ = session.release(to, size);
                    }
                }
                3 => {
                    let outgoing = Outgoing {
                        to: labels[number as usize % 4],
                        from: labels[number as usize % 3],
                        shared: vec![7; number as usize % 300].into(),
                        ..Outgoing::default()
                    };
                    if session.push(outgoing, |out| {
                        out.extend_from_slice(&number.to_le_bytes());
                        Ok::<(), ()>(())
                    }).is_ok() {
                        pushed += 1;
                    }
                }
                4 => drop(written(session, pair.now)),
                5 => { let _ = session.settle(Seq(number), verdict); }
                6 => { let _ = session.release(labels[number as usize % 4], number as u32); }
                _ => {
                    pair.now = pair.now + Duration::from_millis(number.min(20_000));
                    while session.on_timeout(pair.now).is_some() {}
                }
            }
            session.check();
            for event in common::events(session) {
                let seqs = match event {
                    hyperactor_protocol::Event::Resolved { first, count } => first.0..first.0 + count,
                    hyperactor_protocol::Event::Failed { post: seq, .. } => seq.0..seq.0 + 1,
                    _ => 0..0,
                };
                for seq in seqs {
                    prop_assert!(outcomes.insert(seq), "two outcomes for {seq}");
                }
            }
            prop_assert_eq!(outcomes.len() as u64 + session.unresolved(), pushed);
        }
    }
}

/// W-06.
#[test]
fn a_claimed_length_takes_no_memory() {
    let mut decoder = FrameDecoder::new(limits::FRAME_MAX_CEILING);
    let mut head = BytesMut::new();
    Frame::Data {
        seq: Seq(0),
        flags: DataFlags::NONE,
        to: Label::NONE,
        from: Label::NONE,
        body: Bytes::new(),
    }
    .encode(&mut head);
    head[..4].copy_from_slice(&limits::FRAME_MAX_CEILING.to_le_bytes());
    decoder.buffer().extend_from_slice(&head);
    assert_eq!(decoder.next_frame(), Ok(None));
    let _room = decoder.buffer();
    assert!(
        decoder.capacity_bytes() <= 2 * limits::READ_STEP_BYTES,
        "{}",
        decoder.capacity_bytes()
    );
}

/// W-06.
#[test]
fn a_large_frame_gets_room_as_it_arrives() {
    let mut stream = BytesMut::new();
    let body = Bytes::from(vec![3; 3 << 20]);
    let frame = Frame::Data {
        seq: Seq(0),
        flags: DataFlags::NONE,
        to: Label::NONE,
        from: Label::NONE,
        body,
    };
    Frame::Ping { nonce: 1 }.encode(&mut stream);
    frame.encode(&mut stream);
    Frame::Ping { nonce: 2 }.encode(&mut stream);
    let (frames, broken) = decode(&stream, &[16 * 1024, 100, 60_000], 4 << 20);
    assert!(!broken);
    assert_eq!(
        frames,
        [Frame::Ping { nonce: 1 }, frame, Frame::Ping { nonce: 2 }]
    );
}

#[test]
fn bodies_are_slices_of_the_read_buffer() {
    let mut decoder = FrameDecoder::new(limits::FRAME_MAX_DEFAULT);
    let mut stream = BytesMut::new();
    Frame::Data {
        seq: Seq(0),
        flags: DataFlags::NONE,
        to: Label::NONE,
        from: Label::NONE,
        body: vec![1; 1000].into(),
    }
    .encode(&mut stream);
    decoder.buffer().extend_from_slice(&stream);
    let start = decoder.buffer().as_ptr();
    let Ok(Some(Frame::Data { body, .. })) = decoder.next_frame() else {
        panic!("a message")
    };
    assert_eq!(body.as_ptr(), start.wrapping_add(limits::DATA_HEADER_BYTES));
}

#[test]
fn a_connection_that_speaks_something_else_is_known_by_its_first_bytes() {
    let mut decoder = FrameDecoder::new(limits::FRAME_MAX_DEFAULT);
    decoder.buffer().extend_from_slice(b"G");
    let error = decoder.next_hello().expect_err("not ours");
    assert_eq!(error, hyperactor_protocol::HelloError::NotHello);
}
