//! What the suites share: how they are told what to do. Sockets and peers that speak by hand
//! are in `net`, messages with their ledgers in `traffic`, with names for destinations in
//! `named`, the observer of connections in `tap`, what is attacked in
//! `victim`, `/proc` in `process`, counted log lines in `log`, one process for each transport in `apart`, a server in a
//! process of its own in `served`.

pub(crate) mod apart;
pub(crate) mod log;
pub(crate) mod named;
pub(crate) mod net;
pub(crate) mod process;
pub(crate) mod served;
pub(crate) mod tap;
pub(crate) mod traffic;
pub(crate) mod victim;

use std::time::Duration;

use hyperactor_protocol::limits::HELLO_FIXED_BYTES;
use hyperactor_testkit::{Scale, Seed};
use net::Kind;
use tokio::runtime::{Builder, Runtime};

/// What a suite is asked to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    pub(crate) seed: Seed,
    pub(crate) scale: Scale,
    /// The only transport to use, where a suite gives each a process of its own.
    pub(crate) kind: Option<Kind>,
}

impl Context {
    /// A full figure, scaled; at least 1.
    pub(crate) fn scaled(&self, figure: u64) -> u64 {
        self.scale.of(figure)
    }

    /// As [`scaled`](Self::scaled), for things that are counted in memory.
    pub(crate) fn count(&self, figure: usize) -> usize {
        usize::try_from(self.scaled(figure as u64)).unwrap_or(usize::MAX)
    }
}

/// How many times its aim the longest of many waits may take where the machine does other work besides: still far from a
/// wait that passed because of a fault.
pub(crate) const BUSY: u32 = 10;

/// Bytes of each hello of these suites: the fixed part, and the extension that says when a connection is dead.
pub(crate) const HELLO_BYTES: usize = HELLO_FIXED_BYTES + 2 + size_of::<u32>();

/// The runtime that a suite runs on: as many workers as a small machine has cores.
pub(crate) fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// Waits until a condition holds; says whether it came to hold in time.
pub(crate) async fn holds_within(limit: Duration, condition: impl Fn() -> bool) -> bool {
    let waited = tokio::time::timeout(limit, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.is_ok()
}

/// The value that the given share, in thousandths, of all values does not exceed.
pub(crate) fn quantile(values: &mut [Duration], thousandths: usize) -> Duration {
    values.sort_unstable();
    let at = (values.len() * thousandths / 1000).min(values.len().saturating_sub(1));
    values.get(at).copied().unwrap_or_default()
}
