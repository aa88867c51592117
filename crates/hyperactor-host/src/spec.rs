//! What a host tells a proc manager about the proc it wants, and what it is told back: plain values, all of which can
//! be sent to another process.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyperactor_refs::{ChannelAddr, Incarnation, ProcId};
use serde::{Deserialize, Serialize};

/// Everything that is decided about a proc before it exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcSpec {
    /// Who it will be.
    pub proc_id: Arc<ProcId>,
    /// Which of its lives this is: a number that no earlier life of the same id had.
    pub incarnation: Incarnation,
    /// Where the world reaches the host.
    pub frontend: ChannelAddr,
    /// Where the proc reaches the host.
    pub backend: ChannelAddr,
    /// What the caller chose.
    pub config: ProcConfig,
}

/// What a caller may choose about a proc.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ProcConfig {
    /// How its messages reach other procs of the same host.
    pub route: RoutePolicy,
}

impl ProcConfig {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses how messages reach other procs of the same host.
    #[must_use]
    pub fn with_route(mut self, route: RoutePolicy) -> Self {
        self.route = route;
        self
    }
}

/// How a proc's messages reach other procs of the same host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RoutePolicy {
    /// Straight from process to process where that works, through the host where it does not.
    #[default]
    Auto,
    /// Always through the host.
    Relay,
    /// Never through the host: where the straight way does not work, the message comes back.
    Direct,
}

impl fmt::Display for RoutePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Relay => "relay",
            Self::Direct => "direct",
        })
    }
}

/// A text that names no [`RoutePolicy`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no route policy: use auto, relay or direct")]
pub struct UnknownRoutePolicy(String);

impl std::str::FromStr for RoutePolicy {
    type Err = UnknownRoutePolicy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "relay" => Ok(Self::Relay),
            "direct" => Ok(Self::Direct),
            other => Err(UnknownRoutePolicy(other.chars().take(40).collect())),
        }
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn route_policies_print_and_parse_back() {
        for policy in [RoutePolicy::Auto, RoutePolicy::Relay, RoutePolicy::Direct] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        let error = "fast".parse::<RoutePolicy>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`fast` is no route policy: use auto, relay or direct"
        );
    }
}
