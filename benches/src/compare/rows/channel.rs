//! b2: a channel alone, between two processes: 64-byte frames posted one by one, beside a plain Unix stream with one write for
//! each and with writes of 64 KiB.

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use hyperactor::channel::{ChannelTx, DialOptions, Raw as RawCodec, Reason, dial_tx};

use crate::compare::helper::{Helper, Role};
use crate::compare::raw::{Kind, Raw, Reads, Writes};
use crate::compare::row::{Arm, Figures, Line, Metric, Row};
use crate::compare::rows::Setting;

const FRAME_BYTES: usize = 64;
const BOUNDS: (u64, u64) = (1_000, 20_000_000);

async fn post_all(tx: &ChannelTx<Bytes>, count: u64) -> Result<Figures> {
    let message = Bytes::from_static(&[0xa5; FRAME_BYTES]);
    let started = std::time::Instant::now();
    for _ in 0..count {
        let mut next = message.clone();
        while let Err((back, reason)) = tx.try_post(next) {
            if reason != Reason::Full {
                return Err(anyhow!("{reason}"));
            }
            next = back;
            tx.ready().await.map_err(|reason| anyhow!("{reason}"))?;
        }
    }
    tx.flush().await.context("not all were delivered")?;
    Ok(Figures::throughput(count, started.elapsed()))
}

pub(crate) fn posts(_setting: &Setting) -> Result<Row> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let helper = Helper::start(Role::Channel)?;
    let addr = helper.said.parse()?;
    let tx = {
        let _entered = runtime.enter();
        dial_tx(addr, DialOptions::default(), RawCodec)
    };
    let (mut each, mut gathered) = (Raw::new(Kind::Unix)?, Raw::new(Kind::Unix)?);
    let channel = Arm::new("channel", BOUNDS, move |count| {
        let _lives = &helper;
        runtime.block_on(post_all(&tx, count))
    });
    Ok(Row {
        arms: vec![
            channel,
            Arm::new("plain, a write each", BOUNDS, move |count| {
                each.push(FRAME_BYTES, Writes::Each, Reads::Reused, count)
            }),
            Arm::new("plain, 64 KiB writes", BOUNDS, move |count| {
                gathered.push(FRAME_BYTES, Writes::Gathered, Reads::Reused, count)
            }),
        ],
        lines: vec![
            Line::ratio(
                "posts to plain writes, one each",
                Metric::Rate,
                "channel",
                "plain, a write each",
            )
            .at_least(10.0),
            Line::ratio(
                "posts to plain writes of 64 KiB",
                Metric::Rate,
                "channel",
                "plain, 64 KiB writes",
            )
            .at_least(0.4),
        ],
        placement: "free",
        is_counted: false,
    })
}
