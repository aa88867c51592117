//! The bytes of an envelope, and what `Debug` shows of one.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use bytes::{Bytes, BytesMut};
use common::actor;
use hyperactor_mailbox::{
    DecodeError, EncodeError, Headers, Message, MessageEnvelope, Payload, PayloadError, limits,
};
use hyperactor_refs::{ActorId, PortId, ProcId};
use proptest::prelude::*;

fn encoded(envelope: &MessageEnvelope) -> Bytes {
    let mut out = BytesMut::new();
    envelope.encode(&mut out).unwrap();
    out.freeze()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn golden() -> MessageEnvelope {
    let proc_id = |name| ProcId::direct("unix:@h".parse().unwrap(), name).unwrap();
    let sender = ActorId::new(proc_id("p"), "s", 2);
    let dest = PortId::new(ActorId::root(proc_id("q"), "d"), 0x1234);
    let mut envelope = MessageEnvelope::typed(sender, dest, "hi".to_string());
    envelope.set_ttl(9);
    envelope.headers_mut().set(5, "v").unwrap();
    envelope
}

/// E-02: each id behind its length.
#[test]
fn an_envelope_has_the_bytes_of_its_specification() {
    // The same bytes, field by field, stand in docs/spec/envelope.md.
    let expected = "01 09 3862ebd4ecb3b458 3412000000000000 \
        0800 0401680171016400 0800 0401680170017302 \
        01 05000000 0100 76 026869";
    assert_eq!(hex(&encoded(&golden())), expected.replace(' ', ""));
}

#[test]
fn an_envelope_comes_back_from_its_bytes() {
    let bytes = encoded(&golden());
    let back = MessageEnvelope::decode(bytes.clone()).unwrap();
    assert_eq!(
        (back.sender(), back.dest()),
        (golden().sender(), golden().dest())
    );
    assert_eq!((back.ttl(), back.headers()), (9, golden().headers()));
    assert_eq!(encoded(&back), bytes);
    assert_eq!(back.into_message::<String>().unwrap(), "hi");
}

fn unnamed(envelope: &MessageEnvelope) -> Bytes {
    let mut out = BytesMut::new();
    envelope.encode_unnamed(&mut out).unwrap();
    // As a connection writes it: behind others, with room in its buffer and without.
    for room in [0, 20, 1_000] {
        let mut log = BytesMut::with_capacity(6 + room);
        log.extend_from_slice(b"before");
        let parts = envelope.encode_sharing(&mut log).unwrap();
        assert!(parts.is_empty());
        assert_eq!((&log[..6], &log[6..]), (&b"before"[..], &out[..]));
    }
    out.freeze()
}

#[test]
fn an_envelope_without_headers_says_so_in_front_of_its_payload() {
    let mut envelope = golden();
    *envelope.headers_mut() = Headers::new();
    let expected = "01 09 3862ebd4ecb3b458 3412000000000000 00 026869";
    assert_eq!(hex(&unnamed(&envelope)), expected.replace(' ', ""));
}

/// E-06: between routers the same bytes without the ids.
#[test]
fn an_envelope_between_routers_has_the_bytes_of_its_specification() {
    let expected = "01 09 3862ebd4ecb3b458 3412000000000000 01 05000000 0100 76 026869";
    let bytes = unnamed(&golden());
    assert_eq!(hex(&bytes), expected.replace(' ', ""));
    let (dest, sender) = (
        golden().dest().actor_id().clone(),
        golden().sender().clone(),
    );
    let back = MessageEnvelope::decode_unnamed(bytes.clone(), dest, sender).unwrap();
    assert_eq!(
        (back.sender(), back.dest()),
        (golden().sender(), golden().dest())
    );
    assert_eq!((back.ttl(), back.headers()), (9, golden().headers()));
    // What is encoded already follows as it is.
    let Payload::Encoded { bytes: payload, .. } = back.payload() else {
        panic!("decoded")
    };
    assert_eq!([&unnamed(&back)[..], &payload[..]].concat(), bytes);
    assert_eq!(back.into_message::<String>().unwrap(), "hi");
}

/// E-01.
#[test]
fn the_payload_is_a_slice_of_the_buffer_it_came_in() {
    let bytes = encoded(&golden());
    let within = bytes.as_ptr_range();
    let back = MessageEnvelope::decode(bytes).unwrap();
    let Payload::Encoded { bytes: payload, .. } = back.payload() else {
        panic!("decoded")
    };
    assert!(within.contains(&payload.as_ptr()));
}

#[test]
fn every_cut_of_an_envelope_is_an_error_or_a_shorter_payload() {
    let bytes = encoded(&golden());
    let payload_at = bytes.len() - 3;
    for end in 0..bytes.len() {
        let result = MessageEnvelope::decode(bytes.slice(..end));
        assert_eq!(result.is_ok(), end >= payload_at, "cut at {end}");
    }
}

/// E-03.
#[test]
fn what_is_no_envelope_says_why() {
    let decode = |bytes: Vec<u8>| MessageEnvelope::decode(bytes.into()).unwrap_err();
    let good = encoded(&golden()).to_vec();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    assert_eq!(decode(with(0, 2)), DecodeError::Version { found: 2 });
    assert!(matches!(
        decode(with(19, 0xff)),
        DecodeError::TooMuch {
            what: "bytes of id",
            ..
        }
    ));
    assert!(matches!(
        decode(with(20, 0xff)),
        DecodeError::Id {
            field: "destination",
            ..
        }
    ));
    let headers_at = good.len() - 3 - 8;
    assert_eq!(good[headers_at], 1);
    assert!(matches!(
        decode(with(headers_at, 17)),
        DecodeError::TooMuch {
            what: "headers",
            ..
        }
    ));
    assert!(matches!(
        decode(with(headers_at + 6, 0xff)),
        DecodeError::Truncated { field: "headers" }
    ));
}

/// E-03.
#[test]
fn an_id_that_is_too_long_fails_its_message_alone() {
    let long = ActorId::root(common::proc_id(), "x".repeat(limits::ID_BYTES));
    let envelope = MessageEnvelope::typed(actor("s"), PortId::new(long, 1), 1_u8);
    let error = envelope.encode(&mut BytesMut::new()).unwrap_err();
    assert!(
        matches!(error, EncodeError::IdTooLong { size } if size > limits::ID_BYTES),
        "{error}"
    );
}

#[test]
fn a_message_that_does_not_encode_names_its_type() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Bad(#[serde(serialize_with = "fail")] u8);
    fn fail<S: serde::Serializer>(_: &u8, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("never"))
    }
    impl Message for Bad {
        const TYPE_HASH: u64 = hyperactor_mailbox::type_hash("Bad");
        fn type_name() -> std::borrow::Cow<'static, str> {
            "Bad".into()
        }
    }
    let envelope = MessageEnvelope::typed(actor("s"), PortId::new(actor("d"), 1), Bad(1));
    let error = envelope.encode(&mut BytesMut::new()).unwrap_err();
    assert!(matches!(error, EncodeError::Payload { type_name, .. } if type_name == "Bad"));
}

#[test]
fn debug_shows_ids_and_sizes_and_never_the_payload() {
    let secret = "hunter2";
    let mut envelope =
        MessageEnvelope::typed(actor("s"), PortId::new(actor("d"), 7), secret.to_string());
    envelope.headers_mut().set(1, secret).unwrap();
    let back = MessageEnvelope::decode(encoded(&envelope)).unwrap();
    for shown in [format!("{envelope:?}"), format!("{back:?}")] {
        assert!(!shown.contains(secret), "{shown}");
        assert!(
            !shown.contains(&format!("{:?}", secret.as_bytes())),
            "{shown}"
        );
        assert!(shown.contains("local:7,here,d[0][7]"), "{shown}");
    }
    assert!(format!("{back:?}").contains("8 bytes"));
}

#[test]
fn a_payload_that_is_something_else_comes_back_whole() {
    let envelope = MessageEnvelope::typed(actor("s"), PortId::new(actor("d"), 1), 5_u32);
    let (envelope, error) = envelope.into_message::<u64>().unwrap_err();
    let expected = PayloadError::TypeMismatch {
        expected: "u64".into(),
        found: "u32".into(),
    };
    assert_eq!(error, expected);
    assert_eq!(envelope.into_message::<u32>().unwrap(), 5);
}

#[test]
fn ids_are_recognised_beyond_what_a_thread_remembers() {
    for round in 0..3 {
        for number in 0..2 * limits::DECODED_IDS_PER_THREAD {
            let dest = PortId::new(actor(&format!("actor-{number}")), round);
            let envelope = MessageEnvelope::typed(actor("s"), dest.clone(), 1_u8);
            assert_eq!(
                *MessageEnvelope::decode(encoded(&envelope)).unwrap().dest(),
                dest
            );
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = MessageEnvelope::decode(bytes.clone().into());
        let _ = MessageEnvelope::decode_unnamed(bytes.into(), actor("d"), actor("s"));
    }

    #[test]
    fn no_change_of_a_real_envelope_panics(at in any::<proptest::sample::Index>(), byte: u8) {
        let mut bytes = encoded(&golden()).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(envelope) = MessageEnvelope::decode(bytes.into()) {
            let _ = envelope.into_message::<String>();
        }
    }

    #[test]
    fn any_envelope_survives_its_bytes(
        name in "[a-z]{1,20}", index: u64, port: u64, ttl: u8, text: String,
        headers in proptest::collection::btree_map(any::<u32>(), proptest::collection::vec(any::<u8>(), 0..64), 0..16),
    ) {
        let dest = PortId::new(ActorId::new(common::proc_id(), &name, index), port);
        let mut envelope = MessageEnvelope::typed(actor("s"), dest.clone(), text.clone());
        envelope.set_ttl(ttl);
        for (key, value) in headers {
            envelope.headers_mut().set(key, value).unwrap();
        }
        let back = MessageEnvelope::decode(encoded(&envelope)).unwrap();
        prop_assert_eq!(back.dest(), &dest);
        prop_assert_eq!(back.ttl(), ttl);
        prop_assert_eq!(back.headers(), envelope.headers());
        prop_assert_eq!(back.into_message::<String>().unwrap(), text);
    }
}
