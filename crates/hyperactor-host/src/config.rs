//! What a caller may choose about a proc: [`ProcConfig`] and its parts. Plain values, all of which can be sent to another
//! process; what comes of them is decided by the proc's manager.

use std::fmt;

use hyperactor_channel::Spin;
use serde::{Deserialize, Serialize};

use crate::restart::RestartPolicy;

/// What a caller may choose about a proc.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ProcConfig {
    /// How its messages reach other procs of the same host.
    pub route: RoutePolicy,
    /// What becomes of what its process writes to standard output and standard error.
    pub output: OutputPolicy,
    /// What its process may use.
    pub limits: ProcLimits,
    /// Whether it is started again when it ends.
    pub restart: RestartPolicy,
    /// What becomes of it when its host dies without having ended it.
    pub on_host_loss: OnHostLoss,
    /// Whether its threads look for messages of other processes for a moment before they sleep.
    pub spin: Spin,
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

    /// Chooses what becomes of what the proc's process writes.
    #[must_use]
    pub fn with_output(mut self, output: OutputPolicy) -> Self {
        self.output = output;
        self
    }

    /// Bounds what the proc's process may use.
    #[must_use]
    pub fn with_limits(mut self, limits: ProcLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Chooses whether the proc is started again when it ends.
    #[must_use]
    pub fn with_restart(mut self, restart: RestartPolicy) -> Self {
        self.restart = restart;
        self
    }

    /// Chooses what becomes of the proc when its host dies without having ended it.
    #[must_use]
    pub fn with_on_host_loss(mut self, on_host_loss: OnHostLoss) -> Self {
        self.on_host_loss = on_host_loss;
        self
    }

    /// Chooses whether the proc's threads look for messages of other processes for a moment before they sleep. Without effect
    /// for procs in their host's process.
    #[must_use]
    pub fn with_spin(mut self, spin: Spin) -> Self {
        self.spin = spin;
        self
    }
}

/// What becomes of a proc when its host dies, is dropped, or panics, without having ended it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum OnHostLoss {
    /// It ends with its host.
    #[default]
    End,
    /// It lives on, talks to other procs directly, and is taken back by the next host in the same place. For managers that
    /// can do that; others refuse to make such a proc.
    Stay,
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

/// What becomes of the lines that a proc's process writes to standard output and standard error. Without effect for procs
/// in their host's process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum OutputPolicy {
    /// The last of them are kept, and each is passed on to the host's own standard output or standard error, with the proc's
    /// name in front.
    #[default]
    Prefixed,
    /// The last of them are kept, and go nowhere else.
    Kept,
    /// The process writes straight to where its host writes. Nothing is kept, and a death certificate has no last words.
    Inherited,
}

/// What the process of a proc may use. The default is no limit but those that its host has itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ProcLimits {
    /// Bytes of memory: of address space where the process is started plainly (an allocation beyond fails), resident where
    /// the launcher has a group of processes to bound (the process is ended).
    pub memory: Option<u64>,
    /// Open descriptors.
    pub descriptors: Option<u64>,
    /// The processors that it may run on, by number; empty means all.
    pub cpus: Vec<usize>,
}

impl ProcLimits {
    /// No limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bounds memory, in bytes.
    #[must_use]
    pub fn with_memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// Bounds open descriptors.
    #[must_use]
    pub fn with_descriptors(mut self, count: u64) -> Self {
        self.descriptors = Some(count);
        self
    }

    /// Chooses the processors, by number.
    #[must_use]
    pub fn with_cpus(mut self, cpus: impl IntoIterator<Item = usize>) -> Self {
        self.cpus = cpus.into_iter().collect();
        self
    }
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
