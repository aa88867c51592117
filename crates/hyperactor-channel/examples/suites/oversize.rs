//! Lengths that cannot be, and lengths that can be and are never followed by what they announce. The first end their
//! session with a code, the second cost no memory until bytes arrive.

use bytes::{BufMut, BytesMut};
use hyperactor_protocol::limits::{CONTROL_FRAME_MAX, FRAME_MAX_DEFAULT, HELLO_FIXED_BYTES};
use hyperactor_protocol::{Frame, HelloKind};

use crate::support::net::{Kind, Raw, hello};
use crate::support::process::resident_kib;
use crate::support::victim::Victim;
use crate::support::{Context, runtime};
use hyperactor_testkit::SuiteReport;

/// Connections that announce the largest frame and say nothing more.
const SILENT: usize = 200;
/// What each of them may cost, the connection and the session included.
const SILENT_KIB: u64 = 64;

const TOO_LONG: u16 = 257;
const WRONG_LENGTH: u16 = 258;

pub(crate) fn run(kind: Kind, context: &Context, report: &mut SuiteReport) {
    runtime().block_on(attack(kind, context, report));
}

async fn attack(kind: Kind, context: &Context, report: &mut SuiteReport) {
    let mut victim = Victim::start(kind).await;
    let mut closed = 0;
    let shapes = shapes();
    for (number, (length, kind, codes)) in shapes.iter().enumerate() {
        let (mut raw, answer) = Raw::greet(&victim.addr, &hello(number as u128))
            .await
            .unwrap();
        assert_eq!(answer.kind, HelloKind::AcceptedFresh);
        let mut head = BytesMut::new();
        head.put_u32_le(*length);
        head.put_slice(&[*kind, 0, 0, 0]);
        raw.write(&head).await.unwrap();
        let frames = raw.until_closed().await.expect("the server closes");
        let said = frames.iter().find_map(|frame| match frame {
            Frame::Goodbye(goodbye) => Some(goodbye.code),
            _ => None,
        });
        let expected = said.is_some_and(|code| codes.contains(&code));
        closed += u64::from(expected);
        if !expected {
            report.check(
                &format!("length {length} of kind {kind}"),
                false,
                format!("{said:?}"),
            );
        }
        if number % 10 == 0 {
            victim.honest().await;
        }
    }
    report.at_least(
        "lengths that ended their session with a code",
        closed,
        shapes.len() as u64,
    );

    // Extensions of a hello that are longer than a hello may be.
    for length in [65_u16, 256, u16::MAX] {
        let mut bytes = BytesMut::from(&hello(1).to_bytes()[..]);
        bytes[120..122].copy_from_slice(&length.to_le_bytes());
        // More is announced than ever comes.
        bytes.truncate(HELLO_FIXED_BYTES);
        let mut raw = Raw::connect(&victim.addr).await.unwrap();
        raw.write(&bytes).await.unwrap();
        report.check(
            &format!("a hello with {length} bytes of extensions is closed"),
            raw.until_closed().await.is_some(),
            "it is not",
        );
    }

    let silent = context.count(SILENT);
    let before = resident_kib();
    let mut kept = Vec::new();
    for number in 0..silent {
        let (mut raw, answer) = Raw::greet(&victim.addr, &hello(1_000 + number as u128))
            .await
            .unwrap();
        assert_eq!(answer.kind, HelloKind::AcceptedFresh);
        let mut head = BytesMut::new();
        head.put_u32_le(FRAME_MAX_DEFAULT);
        head.put_slice(&[1, 0, 0, 0]);
        head.put_u64_le(0);
        raw.write(&head).await.unwrap();
        kept.push(raw);
    }
    victim.honest().await;
    let grown = resident_kib().saturating_sub(before);
    report.at_least(
        "connections silent after the largest length",
        silent as u64,
        context.scaled(SILENT as u64),
    );
    report.at_most(
        "KiB of memory that they cost",
        grown,
        silent as u64 * SILENT_KIB,
    );
    drop(kept);
    victim.judge(report).await;
}

/// Length, kind, and the codes that may answer it.
fn shapes() -> Vec<(u32, u8, Vec<u16>)> {
    let mut shapes = Vec::new();
    for length in [
        FRAME_MAX_DEFAULT + 1,
        FRAME_MAX_DEFAULT * 2,
        1 << 30,
        (1 << 30) + 1,
        1 << 31,
        u32::MAX - 1,
        u32::MAX,
    ] {
        for kind in [1, 2, 3, 8, 200] {
            shapes.push((length, kind, vec![TOO_LONG, WRONG_LENGTH]));
        }
    }
    for length in [0, 1, 3, 4, 11] {
        shapes.push((length, 1, vec![WRONG_LENGTH]));
    }
    // Control frames have lengths of their own.
    for kind in 2..=8 {
        shapes.push((
            CONTROL_FRAME_MAX as u32 + 1,
            kind,
            vec![TOO_LONG, WRONG_LENGTH],
        ));
        shapes.push((5, kind, vec![WRONG_LENGTH]));
    }
    shapes
}
