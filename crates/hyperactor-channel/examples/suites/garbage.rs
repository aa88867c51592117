//! Random bytes, with and without a valid hello before them: each kills its own connection and nothing else.

use std::sync::Arc;
use std::time::Duration;

use hyperactor_refs::ChannelAddr;
use hyperactor_testkit::{Seed, SuiteReport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::net::{Kind, connect, hello};
use crate::support::victim::Victim;
use crate::support::{Context, runtime};

/// On each transport.
const CONNECTIONS: u64 = 10_000;
const BYTES: u64 = 64 * 1024;
/// Open at the same time.
const AT_ONCE: usize = 64;
/// A look at honest peers after so many.
const LOOK: u64 = 500;

pub(crate) fn run(kind: Kind, context: &Context, report: &mut SuiteReport) {
    runtime().block_on(attack(kind, context, report));
}

async fn attack(kind: Kind, context: &Context, report: &mut SuiteReport) {
    let mut victim = Victim::start(kind).await;
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut attackers = JoinSet::new();
    let connections = context.scaled(CONNECTIONS);
    for number in 0..connections {
        let permit = Arc::clone(&room).acquire_owned().await.unwrap();
        let seed = context.seed.fork(&format!("{}/{number}", kind.name()));
        let addr = victim.addr.clone();
        attackers.spawn(async move {
            let ended = one(&addr, number, seed).await;
            drop(permit);
            ended
        });
        if number % LOOK == LOOK - 1 {
            victim.honest().await;
        }
    }
    let (mut bytes, mut greeted, mut open) = (0, 0, 0);
    while let Some(ended) = attackers.join_next().await {
        let ended = ended.unwrap();
        bytes += ended.bytes;
        greeted += u64::from(ended.greeted);
        open += u64::from(!ended.closed);
    }
    report.at_least("connections", connections, context.scaled(CONNECTIONS));
    report.at_least(
        "of these with a valid hello before the garbage",
        greeted,
        connections / 3,
    );
    report.figure("bytes written", bytes);
    report.at_most("connections that the server left open", open, 0);
    victim.judge(report).await;
}

struct Ended {
    bytes: u64,
    greeted: bool,
    closed: bool,
}

async fn one(addr: &ChannelAddr, number: u64, seed: Seed) -> Ended {
    let mut rng = seed.rng();
    let mut stream = connect(addr).await.unwrap();
    let greeted = number.is_multiple_of(2);
    let mut bytes = Vec::new();
    if greeted {
        let session = u128::from(rng.next_u64()) << 64 | u128::from(number);
        bytes.extend_from_slice(&hello(session).to_bytes());
    }
    // Not less than a frame's head behind a hello: silence is another suite's matter.
    let length = rng.below(BYTES) + if greeted { 16 } else { 0 };
    bytes.extend(rng.bytes(usize::try_from(length).unwrap()));
    let mut written = 0;
    // The server may close while this is still writing, and it may read nothing of the rest.
    let write = async {
        while written < bytes.len() {
            match stream.write(&bytes[written..]).await {
                Ok(count) if count > 0 => written += count,
                _ => return,
            }
        }
        let _closed_already = stream.shutdown().await;
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), write)
        .await
        .is_ok();
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
    Ended {
        bytes: written as u64,
        greeted,
        closed: in_time && read.is_ok(),
    }
}
