//! s1: what the bytes of an envelope cost beyond those of its payload, and what a part of 1 MiB costs beside a copy of it. On
//! one core, with buffers that are used again.

use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use bytes::BytesMut;
use hyperactor::mailbox::{Message, MessageEnvelope};
use hyperactor::refs::{ActorId, PortId, ProcId};

use crate::compare::actors::{Shared, Small};
use crate::compare::machine::on_core;
use crate::compare::row::{Arm, Figures, Line, Metric, Row, timed};
use crate::compare::rows::{MIB, Setting};

const SMALL: (u64, u64) = (1_000, 100_000_000);
const LARGE: (u64, u64) = (16, 1_000_000);

fn ids() -> Result<(ActorId, ActorId)> {
    let proc_id: Arc<ProcId> = Arc::new("unix:@compare,proc".parse()?);
    Ok((
        ActorId::root(Arc::clone(&proc_id), "receiver"),
        ActorId::root(proc_id, "sender"),
    ))
}

fn arm(
    name: &'static str,
    bounds: (u64, u64),
    core: usize,
    mut once: impl FnMut() -> Result<()> + 'static,
) -> Arm {
    Arm::new(name, bounds, move |count| {
        on_core(core, || {
            let (done, elapsed) = timed(|| (0..count).try_for_each(|_| once()));
            done?;
            Ok(Figures::throughput(count, elapsed))
        })
    })
}

/// Encodes as a connection does: the ids have been told before.
fn encode_arm<M: Message>(
    name: &'static str,
    bounds: (u64, u64),
    core: usize,
    message: M,
) -> Result<Arm> {
    let (to, from) = ids()?;
    let envelope = MessageEnvelope::typed(from, PortId::new(to, M::port()), message);
    let mut out = BytesMut::with_capacity(MIB + 1024);
    Ok(arm(name, bounds, core, move || {
        out.clear();
        black_box(envelope.encode_sharing(&mut out)?);
        black_box(&out);
        Ok(())
    }))
}

fn decode_arm<M: Message>(
    name: &'static str,
    bounds: (u64, u64),
    core: usize,
    message: M,
) -> Result<Arm> {
    let (to, from) = ids()?;
    let port = PortId::new(to.clone(), M::port());
    let mut out = BytesMut::new();
    MessageEnvelope::typed(from.clone(), port, message).encode_unnamed(&mut out)?;
    let bytes = out.freeze();
    Ok(arm(name, bounds, core, move || {
        let envelope = MessageEnvelope::decode_unnamed(bytes.clone(), to.clone(), from.clone())?;
        let message: M = envelope
            .into_message()
            .map_err(|(_, error)| anyhow!("{error}"))?;
        black_box(&message);
        Ok(())
    }))
}

pub(crate) fn envelope(setting: &Setting) -> Result<Row> {
    let core = setting.cores.0;
    let mut buffer = vec![0; 1024];
    let small = Small::new(7);
    let encoded = postcard::to_stdvec(&small)?;
    let (from, mut to) = (vec![0xa5_u8; MIB], vec![0_u8; MIB]);
    let part = || Shared {
        part: vec![0xa5; MIB].into(),
    };
    Ok(Row {
        arms: vec![
            arm("postcard, encode", SMALL, core, move || {
                black_box(postcard::to_slice(&small, &mut buffer)?);
                Ok(())
            }),
            encode_arm("envelope, encode", SMALL, core, Small::new(7))?,
            arm("postcard, decode", SMALL, core, move || {
                black_box(postcard::from_bytes::<Small>(&encoded)?);
                Ok(())
            }),
            decode_arm("envelope, decode", SMALL, core, Small::new(7))?,
            arm("memcpy, 1 MiB", LARGE, core, move || {
                to.copy_from_slice(black_box(&from));
                black_box(&to);
                Ok(())
            }),
            encode_arm("part, encode", LARGE, core, part())?,
            decode_arm("part, decode", LARGE, core, part())?,
        ],
        lines: vec![
            Line::ratio(
                "envelope to bare postcard, encode",
                Metric::Each,
                "envelope, encode",
                "postcard, encode",
            )
            .at_most(1.3),
            Line::ratio(
                "envelope to bare postcard, decode",
                Metric::Each,
                "envelope, decode",
                "postcard, decode",
            )
            .at_most(1.3),
            Line::ratio(
                "1 MiB part to memcpy, encode",
                Metric::Each,
                "part, encode",
                "memcpy, 1 MiB",
            )
            // A tenth of a copy is no copy.
            .at_most(0.1),
            Line::ratio(
                "1 MiB part to memcpy, decode",
                Metric::Each,
                "part, decode",
                "memcpy, 1 MiB",
            )
            .at_most(0.1),
        ],
        placement: "one core",
        is_counted: false,
    })
}
