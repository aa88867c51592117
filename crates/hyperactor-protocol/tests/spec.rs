//! The pages under `docs/spec` and the code say the same: bytes, edges, codes, clauses.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use hyperactor_protocol::{
    ConnectionEpoch, DataFlags, EDGES, EXTENSION_RECEIVES, Extensions, Frame, FrameDecoder,
    Goodbye, Hello, HelloCode, HelloKind, Incarnation, Label, Refusal, Released, Seq, SessionId,
    Verdict, Violation, limits,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs/spec").join(name)).expect("the page exists")
}

/// The fenced block that begins with this info string.
fn block(page: &str, info: &str) -> String {
    let start = format!("```{info}\n");
    let at = page
        .find(&start)
        .unwrap_or_else(|| panic!("no block {info}"))
        + start.len();
    let end = page[at..].find("```").expect("the block ends");
    page[at..at + end].to_string()
}

fn golden(name: &str) -> Vec<u8> {
    let text = block(&page("wire.md"), &format!("hex {name}"));
    let digits: String = text
        .lines()
        .flat_map(|line| line.split(';').next())
        .flat_map(str::chars)
        .filter(|each| !each.is_whitespace())
        .collect();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex");
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn data(seq: u64, flags: DataFlags, (to, from): (u32, u32), body: &'static [u8]) -> Frame {
    Frame::Data {
        seq: Seq(seq),
        flags,
        to: Label::new(to),
        from: Label::new(from),
        body: Bytes::from_static(body),
    }
}

#[test]
fn every_frame_has_the_bytes_on_the_page() {
    let frames = [
        (
            "data",
            Frame::Data {
                seq: Seq(258),
                flags: DataFlags::ACK_NOW,
                to: Label::NONE,
                from: Label::NONE,
                body: Bytes::from_static(b"hello"),
            },
        ),
        (
            "data-labelled",
            data(259, DataFlags::NONE, (7, 16_384), b"hi"),
        ),
        (
            "first",
            data(260, DataFlags::FIRST, (7, 0), b"\x09\0\0\0\0\0\0\0one"),
        ),
        ("more", data(261, DataFlags::MORE, (7, 0), b"two")),
        (
            "last",
            data(
                262,
                DataFlags::LAST.with(DataFlags::ACK_NOW),
                (7, 0),
                b"tri",
            ),
        ),
        ("void", data(263, DataFlags::VOID, (7, 0), b"")),
        (
            "ack",
            Frame::Ack {
                received: Seq(7),
                settled: Seq(5),
            },
        ),
        (
            "settle-delivered",
            Frame::Settle {
                first: Seq(9),
                count: 2,
                verdict: Verdict::Delivered,
            },
        ),
        (
            "settle-refused",
            Frame::Settle {
                first: Seq(6),
                count: 1,
                verdict: Verdict::NotDelivered(Refusal::new(300).with_detail("no")),
            },
        ),
        (
            "settle-unknown",
            Frame::Settle {
                first: Seq(8),
                count: 1,
                verdict: Verdict::Unknown(Refusal::new(1)),
            },
        ),
        (
            "credit",
            Frame::Credit {
                messages: 4096,
                bytes: 16 << 20,
                large: 80 << 20,
            },
        ),
        (
            "name",
            Frame::Name {
                label: Label::new(7),
                name: Bytes::from_static(b"actor"),
            },
        ),
        (
            "released",
            Frame::Released {
                entries: vec![
                    Released {
                        label: Label::new(7),
                        messages: 3,
                        bytes: 300,
                    },
                    Released {
                        label: Label::new(16_384),
                        messages: u64::MAX,
                        bytes: u64::MAX,
                    },
                ],
            },
        ),
        ("resolved", Frame::Resolved { below: Seq(7) }),
        ("ping", Frame::Ping { nonce: 1 }),
        ("pong", Frame::Pong { nonce: 1 }),
        (
            "goodbye",
            Frame::Goodbye(Goodbye {
                received: Seq(7),
                code: Goodbye::DONE,
                detail: Bytes::from_static(b"bye!"),
            }),
        ),
    ];
    for (name, frame) in frames {
        let mut written = BytesMut::new();
        frame.encode(&mut written);
        assert_eq!(written, golden(name), "{name} as written");
        let mut decoder = FrameDecoder::new(limits::FRAME_MAX_DEFAULT);
        decoder.buffer().extend_from_slice(&golden(name));
        assert_eq!(decoder.next_frame(), Ok(Some(frame)), "{name} as read");
        assert_eq!(decoder.pending_bytes(), 0);
    }
}

fn open() -> Hello {
    let mut extensions = Extensions::default();
    assert!(extensions.push(42, b"abc"));
    Hello {
        kind: HelloKind::Open,
        version_min: 1,
        version_max: 1,
        incarnation: Incarnation::new(0xD1),
        expected: Some(Incarnation::new(0xAC)),
        session: SessionId(0x3052_7496_b8da_fc0e_0011_2233_4455_6677),
        epoch: ConnectionEpoch(3),
        born: ConnectionEpoch(0),
        next_expected: Seq(5),
        received_bytes: 300,
        oldest_unresolved: Seq(7),
        next_unsent: Seq(9),
        credit_messages: 4101,
        credit_bytes: 16_777_516,
        max_frame: 1 << 20,
        max_message: 64 << 20,
        credit_large: 80 << 20,
        extensions,
    }
}

/// W-01, and W-09 for the extension that nobody knows.
#[test]
fn both_hellos_have_the_bytes_on_the_page() {
    let refused = Hello::refusal(&open(), Incarnation::new(0xAC), HelloCode::StaleEpoch);
    for (name, hello) in [("hello-open", open()), ("hello-refused", refused)] {
        assert_eq!(hello.to_bytes(), golden(name), "{name} as written");
        let mut bytes = BytesMut::from(&golden(name)[..]);
        bytes.extend_from_slice(b"frames follow");
        assert_eq!(Hello::decode(&mut bytes), Ok(Some(hello)), "{name} as read");
        assert_eq!(&bytes[..], b"frames follow");
    }
}

#[test]
fn the_edges_are_those_on_the_page() {
    let code: BTreeSet<String> = EDGES
        .iter()
        .map(|(from, step, to)| format!("{from} --{step}--> {to}"))
        .collect();
    let text = block(&page("session.md"), "edges");
    let told: BTreeSet<String> = text.lines().map(str::to_string).collect();
    assert_eq!(code, told);
}

#[test]
fn the_violations_have_the_codes_on_the_page() {
    let (seq, label) = (Seq(0), Label::new(1));
    let all = [
        Violation::FrameTooLong { claimed: 0, max: 0 },
        Violation::FrameLength { kind: 0, length: 0 },
        Violation::UnknownKind { kind: 0 },
        Violation::ReservedBits { kind: 0 },
        Violation::FieldRange { kind: 0 },
        Violation::SecondHello,
        Violation::Gap {
            expected: seq,
            got: seq,
        },
        Violation::BeyondCredit { seq },
        Violation::AckOfUnsent { seq, sent: seq },
        Violation::AckWentBack { from: seq, to: seq },
        Violation::SettledBeyondReceived {
            settled: seq,
            received: seq,
        },
        Violation::CreditShrank,
        Violation::ResolvedUnsettled {
            below: seq,
            settled: seq,
        },
        Violation::ForeignResume {
            at: seq,
            low: seq,
            high: seq,
        },
        Violation::ForeignBytes { theirs: 0, ours: 0 },
        Violation::UnknownLabel { label },
        Violation::NamesTooLong { bytes: 0, max: 0 },
        Violation::ReleasedUnsent { label },
        Violation::ReleasedWentBack { label },
        Violation::PartOutOfPlace { seq, label },
        Violation::PartsLength {
            label,
            declared: 0,
            got: 0,
        },
        Violation::MessageTooLong {
            declared: 0,
            max: 0,
        },
        Violation::TooManyParts { max: 0 },
        Violation::LimitsChanged,
    ];
    let page = page("session.md");
    for (at, violation) in all.iter().enumerate() {
        assert_eq!(usize::from(violation.code()), 257 + at, "{violation}");
        assert!(
            page.contains(&format!("\n| {} |", violation.code())),
            "{violation}"
        );
    }
}

fn clauses(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("-") {
        let Some(letter) = at.checked_sub(1).and_then(|before| text.get(before..at)) else {
            continue;
        };
        let digits: String = text[at + 1..]
            .chars()
            .take_while(char::is_ascii_digit)
            .take(2)
            .collect();
        if (letter == "S" || letter == "W") && digits.len() == 2 {
            found.insert(format!("{letter}-{digits}"));
        }
    }
    found
}

fn sources(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&fs::read_to_string(&path).expect("text"));
        }
    }
}

/// W-14: what says that a dialer receives is an extension that older ones skip.
#[test]
fn a_dialer_that_receives_says_so_by_an_extension() {
    let mut extensions = Extensions::default();
    assert!(extensions.find(EXTENSION_RECEIVES).is_none());
    assert!(extensions.push(EXTENSION_RECEIVES, &[]));
    let tags: Vec<(u8, &[u8])> = extensions.iter().collect();
    assert_eq!(tags, [(1, &[][..])]);
}

#[test]
fn every_clause_is_cited_and_every_citation_is_a_clause() {
    let told: BTreeSet<String> = [page("session.md"), page("wire.md")]
        .iter()
        .flat_map(|page| page.lines())
        .filter_map(|line| line.strip_prefix("* "))
        .filter(|line| line.get(4..5) == Some("."))
        .flat_map(|line| clauses(&line[..4]))
        .collect();
    let mut code = String::new();
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    sources(&package.join("src"), &mut code);
    sources(&package.join("tests"), &mut code);
    assert_eq!(clauses(&code), told);
}
