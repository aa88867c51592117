//! Peers of other versions, and what is no peer at all. A version is refused with the range that would do; a newer peer's
//! additions are skipped; a client that is refused does not dial again.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use hyperactor_channel::{DialOptions, Outcome, Reason, Status, dial_tx};
use hyperactor_protocol::limits::HELLO_FIXED_BYTES;
use hyperactor_protocol::{Hello, HelloCode, HelloKind, MAGIC, VERSION_MAX, VERSION_MIN};
use hyperactor_refs::Incarnation;
use hyperactor_testkit::{Key, Stamped, SuiteReport};
use tokio::io::AsyncWriteExt;

use crate::support::net::{Kind, Listener, Raw, hello};
use crate::support::traffic::codec;
use crate::support::victim::Victim;
use crate::support::{Context, runtime};

/// How long a refused client is watched for another dial, and how often it posts meanwhile.
const WATCHED: Duration = Duration::from_secs(31);
const POSTS: Duration = Duration::from_millis(100);

/// What becomes of a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Accepted,
    Refused(HelloCode),
    /// Closed without an answer.
    Closed,
}

pub(crate) fn run(kind: Kind, context: &Context, report: &mut SuiteReport) {
    runtime().block_on(async {
        servers(kind, report).await;
        clients(kind, context, report).await;
    });
}

async fn servers(kind: Kind, report: &mut SuiteReport) {
    let mut victim = Victim::start(kind).await;
    let table = table();
    let (mut right, mut refused) = (0, 0);
    for (name, bytes, expected) in &table {
        let mut raw = Raw::connect(&victim.addr).await.unwrap();
        raw.write(bytes).await.unwrap();
        // Whoever says less than a hello ends there.
        if bytes.len() < HELLO_FIXED_BYTES {
            raw.stream.shutdown().await.unwrap();
        }
        let fate = match raw.hello().await {
            Ok(answer) => match answer.kind {
                HelloKind::Refused(code) => {
                    let range = (answer.version_min, answer.version_max);
                    assert_eq!(range, (VERSION_MIN, VERSION_MAX), "{name}");
                    refused += u64::from(code == HelloCode::Version);
                    Fate::Refused(code)
                }
                HelloKind::AcceptedFresh => Fate::Accepted,
                other => panic!("{name}: {other:?}"),
            },
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => panic!("{name}: no end"),
            Err(_) => Fate::Closed,
        };
        right += u64::from(fate == *expected);
        if fate != *expected {
            report.check(name, false, format!("{fate:?} instead of {expected:?}"));
        }
    }
    report.at_least("hellos judged as the table says", right, table.len() as u64);
    report.at_least("refusals that name the range", refused, 4);
    victim.honest().await;
    victim.judge(report).await;
}

fn table() -> Vec<(String, Vec<u8>, Fate)> {
    let mut table = Vec::new();
    let mut session = 100;
    let mut add =
        |name: String, change: &dyn Fn(&mut Hello), bend: &dyn Fn(&mut BytesMut), fate| {
            session += 1;
            let mut said = hello(session);
            change(&mut said);
            let mut bytes = BytesMut::from(&said.to_bytes()[..]);
            bend(&mut bytes);
            table.push((name, bytes.to_vec(), fate));
        };
    let same = |_: &mut Hello| {};
    let straight = |_: &mut BytesMut| {};
    for (min, max, fate) in [
        (200, 300, Fate::Refused(HelloCode::Version)),
        (2, 2, Fate::Refused(HelloCode::Version)),
        (0, 0, Fate::Refused(HelloCode::Version)),
        (u16::MAX, u16::MAX, Fate::Refused(HelloCode::Version)),
        (1, 1, Fate::Accepted),
        (0, 9, Fate::Accepted),
        (1, u16::MAX, Fate::Accepted),
        (3, 1, Fate::Closed),
    ] {
        let change = move |hello: &mut Hello| (hello.version_min, hello.version_max) = (min, max);
        add(format!("versions {min} to {max}"), &change, &straight, fate);
    }
    for at in 0..MAGIC.len() {
        let bend = move |bytes: &mut BytesMut| bytes[at] ^= 1;
        add(
            format!("byte {at} of the magic"),
            &same,
            &bend,
            Fate::Closed,
        );
    }
    for length in (0..HELLO_FIXED_BYTES)
        .step_by(7)
        .chain([8, HELLO_FIXED_BYTES - 1])
    {
        let bend = move |bytes: &mut BytesMut| bytes.truncate(length);
        add(
            format!("{length} bytes of a hello"),
            &same,
            &bend,
            Fate::Closed,
        );
    }
    let extended = |hello: &mut Hello| {
        assert!(hello.extensions.push(42, b"abc") && hello.extensions.push(255, &[7; 50]));
    };
    add(
        "unknown extensions".to_owned(),
        &extended,
        &straight,
        Fate::Accepted,
    );
    add(
        "unknown flags".to_owned(),
        &same,
        &|bytes| bytes[12..16].copy_from_slice(&0xffff_fff8_u32.to_le_bytes()),
        Fate::Accepted,
    );
    add(
        "reserved bytes".to_owned(),
        &same,
        &|bytes| bytes[122..124].fill(0xff),
        Fate::Accepted,
    );
    add(
        "reserved bytes at 18".to_owned(),
        &same,
        &|bytes| bytes[18..20].fill(0xff),
        Fate::Accepted,
    );
    // An extension that ends beyond the extensions.
    add(
        "a torn extension".to_owned(),
        &extended,
        &|bytes| bytes[HELLO_FIXED_BYTES + 1] = 200,
        Fate::Closed,
    );
    for flags in [3_u32, 5, 7] {
        let bend = move |bytes: &mut BytesMut| bytes[12..16].copy_from_slice(&flags.to_le_bytes());
        add(format!("flags {flags}"), &same, &bend, Fate::Closed);
    }
    for other in [
        "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n",
        "\x16\x03\x01\x02\0\x01",
    ] {
        let bend = |bytes: &mut BytesMut| *bytes = BytesMut::from(other);
        add(format!("{other:?}"), &same, &bend, Fate::Closed);
    }
    table
}

/// A client whose server refuses its version, or speaks something else. Both are watched at once.
async fn clients(kind: Kind, context: &Context, report: &mut SuiteReport) {
    let scale = u32::try_from(context.scale.percent().min(100)).unwrap();
    let watched = WATCHED * scale / 100;
    let (other, foreign) = tokio::join!(
        client(kind, "versions-other", true, watched),
        client(kind, "versions-foreign", false, watched),
    );
    for (name, client) in [
        ("a server of another version", other),
        ("a server of another kind", foreign),
    ] {
        report.check(
            &format!("{name}: the message comes back with the refusal"),
            matches!(
                client.outcome,
                Outcome::NotDelivered(Reason::Refused { .. })
            ),
            format!("{:?}", client.outcome),
        );
        report.check(
            &format!("{name}: the channel has ended for good"),
            client.is_closed,
            "it has not",
        );
        report.at_most(
            &format!("{name}: later posts that were taken"),
            client.taken,
            0,
        );
        report.at_least(
            &format!("{name}: later posts"),
            client.posts,
            watched.as_secs(),
        );
        report.at_most(&format!("{name}: dials in {watched:?}"), client.dials, 1);
    }
}

/// What a refused client did.
struct Client {
    outcome: Outcome,
    is_closed: bool,
    posts: u64,
    taken: u64,
    dials: u64,
}

async fn client(kind: Kind, name: &str, speaks: bool, watched: Duration) -> Client {
    let (listener, addr) = Listener::new(kind, name).await;
    let until = Instant::now() + watched;
    let server = tokio::spawn(refuse(listener, speaks, until));
    let tx = dial_tx::<Stamped>(addr, DialOptions::default(), codec());
    let key = Key {
        sender: 0,
        stream: 0,
        number: 0,
    };
    let outcome = tx.send(Stamped::new(key, Vec::new())).await;
    let is_closed = matches!(
        &*tx.status().borrow(),
        Status::Closed(Reason::Refused { .. })
    );
    let (mut posts, mut taken) = (0, 0);
    while Instant::now() < until {
        posts += 1;
        taken += u64::from(tx.try_post(Stamped::new(key, Vec::new())).is_ok());
        tokio::time::sleep(POSTS).await;
    }
    let dials = server.await.unwrap();
    Client {
        outcome,
        is_closed,
        posts,
        taken,
        dials,
    }
}

/// Refuses whoever dials, until the time is up; gives how many did.
async fn refuse(listener: Listener, speaks: bool, until: Instant) -> u64 {
    let (mut dials, mut kept) = (0_u64, Vec::new());
    while let Ok(accepted) = tokio::time::timeout_at(until.into(), listener.accept()).await {
        dials += 1;
        let mut raw = Raw::new(accepted.unwrap());
        let answer = if speaks {
            let theirs = raw.hello().await.unwrap();
            let mut answer = Hello::refusal(&theirs, Incarnation::new(9), HelloCode::Version);
            (answer.version_min, answer.version_max) = (7, 9);
            answer.to_bytes().to_vec()
        } else {
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()
        };
        if let Err(error) = raw.write(&answer).await {
            eprintln!("dial {dials}: the answer could not be said: {error}");
        }
        kept.push(raw);
    }
    dials
}
