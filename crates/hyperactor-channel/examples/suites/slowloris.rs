//! Peers that say one byte a second and never finish their hello. They are closed in time, the oldest first when there
//! are too many, and good peers get in meanwhile.

use std::time::{Duration, Instant};

use hyperactor_channel::limits::{HANDSHAKE_DEADLINE, UNAUTHENTICATED_MAX};
use hyperactor_refs::ChannelAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::net::{Kind, connect, hello};
use crate::support::process::resident_kib;
use crate::support::victim::Victim;
use crate::support::{Context, quantile, runtime};
use hyperactor_testkit::SuiteReport;

const PEERS: usize = 1_000;
const CLOSED: Duration = Duration::from_secs(6);
/// Both ends of every connection are in this process, the kernel's buffers are not.
const MEMORY_KIB: u64 = 8 * 1024;

pub(crate) fn run(kind: Kind, context: &Context, report: &mut SuiteReport) {
    runtime().block_on(attack(kind, context, report));
}

async fn attack(kind: Kind, context: &Context, report: &mut SuiteReport) {
    let mut victim = Victim::start(kind).await;
    let peers = context.count(PEERS);
    let before = resident_kib();
    let mut slow = Vec::new();
    for _ in 0..peers {
        slow.push(tokio::spawn(peer(victim.addr.clone())));
    }
    let started = Instant::now();
    let mut grown = 0;
    while started.elapsed() < HANDSHAKE_DEADLINE {
        victim.honest().await;
        grown = grown.max(resident_kib().saturating_sub(before));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let (mut times, mut early) = (Vec::new(), 0);
    for peer in slow {
        let closed = peer.await.unwrap();
        early += u64::from(closed < HANDSHAKE_DEADLINE / 2);
        times.push(closed);
    }
    let surplus = (peers as u64).saturating_sub(UNAUTHENTICATED_MAX as u64);
    report.at_least("slow peers", peers as u64, context.scaled(PEERS as u64));
    report.at_least("closed early, to make room", early, surplus);
    report.within(
        "the last was closed after",
        quantile(&mut times, 1000),
        CLOSED,
    );
    report.at_most("KiB of memory that they cost", grown, MEMORY_KIB);
    victim.judge(report).await;
}

/// Says a byte a second; how long until it is closed.
async fn peer(addr: ChannelAddr) -> Duration {
    // The kernel's queue of a Unix socket may be full for a moment.
    let mut stream = loop {
        match connect(&addr).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let started = Instant::now();
    let bytes = hello(1).to_bytes();
    for byte in &bytes {
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        let mut end = [0];
        let read = stream.read(&mut end);
        if tokio::time::timeout(Duration::from_secs(1), read)
            .await
            .is_ok()
        {
            break;
        }
    }
    started.elapsed()
}
