//! What a host tells a proc manager about the proc it wants, and what it is told back: plain values, all of which can
//! be sent to another process.

use std::sync::Arc;
use std::time::Duration;

use hyperactor_refs::{ChannelAddr, Incarnation, ProcId};
use serde::{Deserialize, Serialize};

use crate::addrs::HostAddrs;
use crate::config::ProcConfig;

/// Everything that is decided about a proc before it exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcSpec {
    /// Who it will be.
    pub proc_id: Arc<ProcId>,
    /// Which of its lives this is: a number that no earlier life of the same id had.
    pub incarnation: Incarnation,
    /// Where the world reaches the host; the address in the id.
    pub frontend: ChannelAddr,
    /// The other addresses under which the host is known.
    #[serde(default)]
    pub aliases: Vec<ChannelAddr>,
    /// Where the proc reaches the host.
    pub backend: ChannelAddr,
    /// What the caller chose.
    pub config: ProcConfig,
}

impl ProcSpec {
    /// All addresses of the host.
    #[must_use]
    pub fn host_addrs(&self) -> HostAddrs {
        HostAddrs::new(self.frontend.clone()).with_all(self.aliases.iter().cloned())
    }
}

/// A proc that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcInfo {
    /// Who it is.
    pub proc_id: Arc<ProcId>,
    /// Which of its lives this is.
    pub incarnation: Incarnation,
    /// Where its host dials it.
    pub addr: ChannelAddr,
    /// Its operating-system process, unless it runs in this one.
    pub pid: Option<u32>,
}

/// How a proc is to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum End {
    /// Its actors empty their mailboxes first, for at most this long; then it is stopped, and at last killed.
    Drain {
        /// How long the actors have.
        deadline: Duration,
    },
    /// At once, without asking it.
    Kill,
}

/// Who wanted a proc to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum EndedBy {
    /// Nobody: it ended by itself, or something outside the host ended it.
    Itself,
    /// A caller of [`HostedProc::end`](crate::HostedProc::end).
    Caller,
    /// The stop of the whole host.
    Host,
}
