//! Bodies that claim more than they hold: lengths up to 2^64 − 1 in every place where a length stands, lists of nothing,
//! nested options, lists of lists. Each is refused alone, at once, and costs no more memory than a few times its size.

use std::time::Duration;

use bytes::Bytes;
use hyperactor_channel::{Codec, Names, Postcard, ServeOptions, serve_queue};
use hyperactor_protocol::{DataFlags, Frame, HelloKind, Label, Seq, Verdict};
use serde::{Deserialize, Serialize};

use crate::support::net::{Kind, Place, Raw, hello};
use crate::support::process::{peak_kib, reset_peak, resident_kib, thread_time};
use crate::support::{Context, runtime};
use hyperactor_testkit::SuiteReport;

/// One message of many shapes: what a user may well write.
#[derive(Debug, Serialize, Deserialize)]
enum Shape {
    Words(Vec<u64>),
    Texts(Vec<String>),
    Lists(Vec<Vec<Vec<u8>>>),
    Pairs(std::collections::BTreeMap<u64, Vec<u8>>),
    Blob(Bytes),
    Wide(Vec<[u64; 32]>),
    Deep(Box<Option<Shape>>),
}

const TIME: Duration = Duration::from_millis(10);
/// Times the size of the body, and for everything else what options nested 2,000 deep take of the stack.
const TIMES: u64 = 4;
const SLACK_KIB: u64 = 2_048;
/// Random bodies, besides the ones below.
const RANDOM: u64 = 20_000;

pub(crate) fn run(context: &Context, report: &mut SuiteReport) {
    decode(context, report);
    runtime().block_on(connection(report));
}

/// The bodies by name.
fn bombs() -> Vec<(String, Vec<u8>)> {
    let mut bombs = Vec::new();
    // Lengths as varints: 2^64 − 1, 2^63, 2^32, 2^24, and one that never ends.
    let lengths: [&[u8]; 5] = [
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
        &[0x80, 0x80, 0x80, 0x80, 0x10],
        &[0x80, 0x80, 0x80, 0x08],
        &[0xff; 64],
    ];
    for variant in 0..6_u8 {
        for (number, length) in lengths.iter().enumerate() {
            let mut body = vec![variant];
            body.extend_from_slice(length);
            bombs.push((format!("variant {variant}, length {number}"), body));
        }
    }
    // 64 KiB of lists, each of which claims 2^24 lists.
    let nested: Vec<u8> = std::iter::once(2)
        .chain(lengths[3].iter().copied().cycle())
        .take(64 << 10)
        .collect();
    bombs.push(("lists of huge lists".to_owned(), nested));
    let wide: Vec<u8> = std::iter::once(5)
        .chain(lengths[3].iter().copied())
        .chain(std::iter::repeat_n(1, 64 << 10))
        .collect();
    bombs.push(("wide items, far too few".to_owned(), wide));
    let deep: Vec<u8> = [6, 1].into_iter().cycle().take(2 * 2_000).collect();
    bombs.push(("options 2,000 deep".to_owned(), deep));
    bombs
}

fn decode(context: &Context, report: &mut SuiteReport) {
    let (mut refused, mut longest, mut worst) = (0_u64, Duration::ZERO, 0);
    let bombs = bombs();
    for (name, body) in &bombs {
        let size_kib = body.len() as u64 / 1024;
        reset_peak();
        let before = resident_kib();
        let started = thread_time();
        let decoded: Result<Shape, _> = Postcard.decode(Bytes::from(body.clone()), Names::NONE);
        longest = longest.max(thread_time() - started);
        let cost = peak_kib().saturating_sub(before);
        worst = worst.max(cost);
        refused += u64::from(decoded.is_err());
        if cost > size_kib * TIMES + SLACK_KIB {
            report.check(name, false, format!("{cost} KiB for {} bytes", body.len()));
        }
    }
    report.at_least("bombs refused", refused, bombs.len() as u64);
    report.figure("KiB of memory that the worst cost", worst);
    report.within("processor time of the longest", longest, TIME);
    let mut rng = context.seed.rng();
    let (mut longest, random) = (Duration::ZERO, context.scaled(RANDOM));
    for _ in 0..random {
        let length = rng.below(512);
        let mut body = rng.bytes(usize::try_from(length).unwrap());
        if let Some(first) = body.first_mut() {
            // A valid variant: the rest is looked at.
            *first %= 7;
        }
        let started = thread_time();
        let _whatever: Result<Shape, _> = Postcard.decode(body.into(), Names::NONE);
        longest = longest.max(thread_time() - started);
    }
    report.at_least("random bodies", random, context.scaled(RANDOM));
    report.within("processor time of the longest of them", longest, TIME);
}

/// The same over a connection: each is refused alone, and the session goes on.
async fn connection(report: &mut SuiteReport) {
    for kind in Kind::ALL {
        let place = Place::new(kind);
        let options = ServeOptions::default();
        let mut rx = serve_queue::<Shape>(place.bind.clone(), options, Postcard)
            .await
            .unwrap();
        let (mut raw, answer) = Raw::greet(rx.addr(), &hello(1)).await.unwrap();
        assert_eq!(answer.kind, HelloKind::AcceptedFresh);
        let bombs = bombs();
        let flags = DataFlags::ACK_NOW;
        for (seq, (_, body)) in (0..).zip(&bombs) {
            let body = body.clone().into();
            raw.frame(&Frame::Data {
                seq: Seq(seq),
                flags,
                to: Label::NONE,
                from: Label::NONE,
                body,
            })
            .await
            .unwrap();
        }
        let count = bombs.len() as u64;
        let body = postcard::to_stdvec(&Shape::Words(vec![1, 2, 3]))
            .unwrap()
            .into();
        raw.frame(&Frame::Data {
            seq: Seq(count),
            flags,
            to: Label::NONE,
            from: Label::NONE,
            body,
        })
        .await
        .unwrap();
        let mut refused = 0;
        let settled = loop {
            match raw.next().await {
                Ok(Frame::Settle {
                    count,
                    verdict: Verdict::NotDelivered(_),
                    ..
                }) => refused += u64::from(count),
                Ok(Frame::Ack { settled, .. }) if settled.0 == count + 1 => break true,
                Ok(Frame::Goodbye(_)) | Err(_) => break false,
                Ok(_) => {}
            }
        };
        let name = kind.name();
        report.check(
            &format!("{name}: the session goes on behind the bombs"),
            settled,
            "it ended",
        );
        report.at_least(&format!("{name}: bombs refused alone"), refused, count);
        let arrived = rx.recv().await;
        report.check(
            &format!("{name}: what is true arrives"),
            matches!(&arrived, Some(Shape::Words(words)) if words[..] == [1, 2, 3]),
            format!("{arrived:?}"),
        );
    }
}
