//! A message that came back: the envelope, the reason and the route that it had taken.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::capacity::Capacity;
use crate::certificate::DeathCertificate;
use crate::envelope::MessageEnvelope;
use crate::failure::Failure;
use crate::limits;

/// How a message reached the next place on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RouteKind {
    /// Within the process.
    InProcess,
    /// Straight to another process of the same host.
    Direct,
    /// Through the host.
    Relay,
    /// To another host.
    Remote,
}

impl fmt::Display for RouteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InProcess => "in-process",
            Self::Direct => "direct",
            Self::Relay => "relay",
            Self::Remote => "remote",
        })
    }
}

/// One step of a message's way, added by whoever made the step when the message comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// Where the step led: an address, or the id of a proc.
    pub at: String,
    /// How it was made.
    pub route: RouteKind,
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.route, self.at)
    }
}

/// A message that was not delivered, or whose delivery is not known, as it is given back to its sender.
#[derive(Debug)]
pub struct Undeliverable {
    /// The message. A typed payload is still the value that was posted, unless it had been encoded to be sent.
    pub envelope: MessageEnvelope,
    /// Why it came back.
    pub failure: Failure,
    /// The steps it had taken, the last one first; at most [`limits::ROUTE_HOPS`].
    pub route: Vec<Hop>,
    /// What to wait for before another try; only where a queue in this process was full.
    pub capacity: Option<Capacity>,
    /// How the destination's process ended, where that is why the message came back and this process knows it.
    pub certificate: Option<Arc<DeathCertificate>>,
}

impl Undeliverable {
    /// A report without a route.
    pub fn new(envelope: MessageEnvelope, failure: impl Into<Failure>) -> Self {
        Self {
            envelope,
            failure: failure.into(),
            route: Vec::new(),
            capacity: None,
            certificate: None,
        }
    }

    /// Adds a step. Called on the way back, so the first step added is the last one taken.
    ///
    /// # Bounds
    /// Beyond [`limits::ROUTE_HOPS`] steps nothing is added.
    pub fn push_hop(&mut self, hop: Hop) {
        if self.route.len() < limits::ROUTE_HOPS {
            self.route.push(hop);
        }
    }
}

impl fmt::Display for Undeliverable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "message from `{}` to `{}`: {}",
            self.envelope.sender(),
            self.envelope.dest(),
            self.failure
        )?;
        if let Some(certificate) = &self.certificate {
            write!(f, "; {certificate}")?;
        }
        for (at, hop) in self.route.iter().rev().enumerate() {
            write!(f, "{}{hop}", if at == 0 { "; route: " } else { ", " })?;
        }
        Ok(())
    }
}
