//! A process that has 512 MiB of address space, and peers that announce far more: memory follows what has arrived and never
//! what was announced, a frame beyond the limit ends its session with a code, a message that is too large comes back alone
//! while its neighbours arrive, and the process never aborts.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use hyperactor_channel::{
    DialOptions, Outcome, Raw as RawCodec, Reason, ServeOptions, dial_tx, serve_queue,
};
use hyperactor_protocol::limits::{FRAME_MAX_DEFAULT, MESSAGE_MAX_DEFAULT, READ_STEP_BYTES};
use hyperactor_protocol::{DataFlags, Frame, HelloKind, Label, Seq};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::liar::bytes;
use crate::liar_labels::first;
use crate::support::net::{Kind, Place, Raw, hello};
use crate::support::process::{peak_kib_of, resident_kib_of};
use crate::support::served::{Served, questions};
use crate::support::{Context, holds_within, runtime};
use hyperactor_testkit::SuiteReport;

const ADDRESS_SPACE: u64 = 512 << 20;
/// Peers that announce the largest frame and then say nothing, and as many that announce the largest message in parts:
/// together far more than the address space.
const SILENT: usize = 100;
const STEP_KIB: u64 = READ_STEP_BYTES as u64 / 1024;
/// What the rest of the process may need meanwhile: the tasks, a page here and there.
const SLACK_KIB: u64 = 512;
/// The limit of the server to which messages are sent that are too large for it.
const SMALL_LIMIT: usize = 1 << 20;
/// Rounds of one that is too large between others.
const ROUNDS: usize = 100;
const LARGEST: usize = 48 << 20;
const TOO_LONG: u16 = 257;
const MESSAGE_TOO_LONG: u16 = 278;

/// The server: keeps itself to its address space, takes every message, tells how many and how many bytes came.
pub(crate) fn serve(arguments: &[String]) {
    let limit = Rlimit {
        current: Some(ADDRESS_SPACE),
        maximum: Some(ADDRESS_SPACE),
    };
    setrlimit(Resource::As, limit).unwrap();
    runtime().block_on(async {
        let place = Place::new(Kind::parse(&arguments[0]).unwrap());
        let mut options = ServeOptions::default();
        if let Some(max) = arguments.get(1) {
            options.max_message_bytes = max.parse().unwrap();
        }
        let mut rx = serve_queue::<Bytes>(place.bind.clone(), options, RawCodec)
            .await
            .unwrap();
        println!("{}", rx.addr());
        let mut asked = questions();
        let (mut messages, mut bytes) = (0, 0);
        loop {
            tokio::select! {
                // What is in the queue when it is asked is counted.
                biased;
                Some(message) = rx.recv() => {
                    messages += 1;
                    bytes += message.len();
                }
                question = asked.recv() => match question {
                    Some(_) => println!("{messages} {bytes}"),
                    None => return,
                },
            }
        }
    });
}

pub(crate) fn run(kind: Kind, context: &Context, report: &mut SuiteReport) {
    runtime().block_on(async {
        announced(kind, context, report).await;
        too_large(kind, context, report).await;
    });
}

/// The first bytes of a data frame of this length.
fn head(length: u32) -> BytesMut {
    let mut head = BytesMut::new();
    head.put_u32_le(length);
    head.put_slice(&[1, 0, 0, 0]);
    head.put_u64_le(0);
    head
}

/// The beginning of a message in parts that has so many bytes.
fn parts(total: u64) -> BytesMut {
    bytes(&first(0, 0, total, 100))
}

async fn greet(server: &Served, number: u128) -> Raw {
    let (raw, answer) = Raw::greet(&server.addr, &hello(number)).await.unwrap();
    assert_eq!(answer.kind, HelloKind::AcceptedFresh);
    raw
}

async fn announced(kind: Kind, context: &Context, report: &mut SuiteReport) {
    let mut server = Served::start("frames", kind);
    let tx = dial_tx::<Bytes>(server.addr.clone(), DialOptions::default(), RawCodec);
    let mut honest = 0;
    let mut ask = async || {
        honest += u64::from(tx.send(Bytes::from_static(b"honest")).await.is_delivered());
    };
    ask().await;

    // Beyond the limit: refused with a code, whatever would follow.
    let mut refused = 0;
    let beyond = [
        (head(FRAME_MAX_DEFAULT + 1), TOO_LONG),
        (head(1 << 30), TOO_LONG),
        (head(u32::MAX), TOO_LONG),
        (parts(u64::from(MESSAGE_MAX_DEFAULT) + 1), MESSAGE_TOO_LONG),
        (parts(u64::MAX), MESSAGE_TOO_LONG),
    ];
    for (number, (said, code)) in (1..).zip(&beyond) {
        let mut raw = greet(&server, number).await;
        raw.write(said).await.unwrap();
        let frames = raw.until_closed().await.unwrap_or_default();
        let is_told =
            |frame: &Frame| matches!(frame, Frame::Goodbye(goodbye) if goodbye.code == *code);
        refused += u64::from(frames.iter().any(is_told));
    }
    report.at_least(
        "frames and messages beyond the limit refused as too long",
        refused,
        beyond.len() as u64,
    );

    // Within it, and nothing follows.
    let silent = context.count(SILENT);
    let before = resident_kib_of(server.pid());
    let mut kept = Vec::new();
    for number in 0..silent {
        let mut raw = greet(&server, 100 + number as u128).await;
        raw.write(&head(FRAME_MAX_DEFAULT)).await.unwrap();
        kept.push(raw);
        let mut raw = greet(&server, 10_000 + number as u128).await;
        raw.write(&parts(MESSAGE_MAX_DEFAULT.into())).await.unwrap();
        kept.push(raw);
    }
    ask().await;
    let grown = resident_kib_of(server.pid()).saturating_sub(before);
    report.at_least(
        "MiB announced by peers that say no more",
        silent as u64 * u64::from((FRAME_MAX_DEFAULT + MESSAGE_MAX_DEFAULT) >> 20),
        if context.scale.percent() >= 100 {
            ADDRESS_SPACE >> 20
        } else {
            1
        },
    );
    report.at_most(
        "KiB of memory that they cost",
        grown,
        kept.len() as u64 * STEP_KIB,
    );
    drop(kept);

    grows(&server, false, report).await;
    grows(&server, true, report).await;
    ask().await;
    // And one who sends what he announces.
    let largest = tx.send(Bytes::from(vec![7; LARGEST])).await;
    report.check(
        "a message of the largest kind arrives within that address space",
        largest == Outcome::Delivered,
        format!("{largest:?}"),
    );
    ask().await;
    report.at_least("honest messages meanwhile", honest, 4);
    let arrived = server.ask("how many?");
    report.check(
        "what was reported delivered is there",
        arrived == format!("{} {}", honest + 1, LARGEST + 6 * honest as usize),
        arrived,
    );
    report.figure("KiB at its peak", peak_kib_of(server.pid()));
    report.check("the server ended in order", server.end(), "it aborted");
}

/// One frame of the largest size arrives piece by piece, or one message of the largest size part by part.
async fn grows(server: &Served, in_parts: bool, report: &mut SuiteReport) {
    let mut raw = greet(server, 98 + u128::from(in_parts)).await;
    let before = resident_kib_of(server.pid());
    let begin = if in_parts {
        parts(MESSAGE_MAX_DEFAULT.into())
    } else {
        head(FRAME_MAX_DEFAULT)
    };
    raw.write(&begin).await.unwrap();
    let mut sent = 0;
    let mut worst = 0;
    let times = if in_parts { 8 } else { 1 };
    for (seq, piece_kib) in (1..).zip([1, 31, 32, 64, 128, 256, 256].repeat(times)) {
        let piece = vec![1; piece_kib * 1024];
        if in_parts {
            let (to, from) = (Label::NONE, Label::NONE);
            let (seq, flags, body) = (Seq(seq), DataFlags::MORE, piece.into());
            let frame = Frame::Data {
                seq,
                flags,
                to,
                from,
                body,
            };
            raw.frame(&frame).await.unwrap();
        } else {
            raw.write(&piece).await.unwrap();
        }
        sent += piece_kib as u64;
        // It may be read or not yet: more than this it never costs. As much again as is there, one step at least, and the
        // frame that a part is read from.
        let frame = if in_parts { piece_kib as u64 } else { 0 };
        for _ in 0..5 {
            let grown = resident_kib_of(server.pid()).saturating_sub(before);
            let allowed = sent + sent.max(STEP_KIB) + frame + SLACK_KIB;
            worst = worst.max(grown.saturating_sub(allowed));
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
    }
    let name = if in_parts { "parts" } else { "a frame" };
    report.at_most(
        &format!("KiB beyond what had arrived of {name} and one step"),
        worst,
        0,
    );
    let there = holds_within(Duration::from_secs(5), || {
        resident_kib_of(server.pid()) + SLACK_KIB >= before + sent
    });
    report.check(
        &format!("KiB of {name} that had arrived were really read"),
        there.await,
        format!("{sent} were not"),
    );
}

/// Messages too large for the server, between others, over one channel.
async fn too_large(kind: Kind, context: &Context, report: &mut SuiteReport) {
    let mut server = Served::with("frames", &[kind.word(), &SMALL_LIMIT.to_string()]);
    let tx = dial_tx::<Bytes>(server.addr.clone(), DialOptions::default(), RawCodec);
    let rounds = context.count(ROUNDS);
    let (mut small, mut bytes, mut refused, mut others) = (0, 0, 0, Vec::new());
    for round in 0..rounds {
        let sizes = [100, SMALL_LIMIT + 1 + round, 1_000];
        let [before, large, behind] = sizes.map(|size| tx.send(Bytes::from(vec![1; size])));
        // All under way at once.
        let (before, large, behind) = tokio::join!(before, large, behind);
        match large {
            Outcome::NotDelivered(Reason::TooLarge { .. }) => refused += 1,
            other => others.push(other),
        }
        for (outcome, size) in [(before, sizes[0]), (behind, sizes[2])] {
            if outcome == Outcome::Delivered {
                (small, bytes) = (small + 1, bytes + size);
            } else {
                others.push(outcome);
            }
        }
    }
    report.at_least(
        "messages that came back as too large",
        refused,
        rounds as u64,
    );
    report.at_least(
        "messages queued with them that arrived",
        small,
        2 * rounds as u64,
    );
    report.check("no other outcome", others.is_empty(), format!("{others:?}"));
    let arrived = server.ask("how many?");
    report.check(
        "the server has exactly those",
        arrived == format!("{small} {bytes}"),
        arrived,
    );
    report.check("that server ended in order", server.end(), "it aborted");
}
