//! Why a proc is lost, and what the outcome of a message tells about the proc that it was for.

use std::sync::Arc;

use hyperactor_mailbox::{DeathCertificate, Failure, NotDelivered, Unknown};
use hyperactor_refs::{Incarnation, ProcId};
use serde::{Deserialize, Serialize};

/// Why a proc that was watched is lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ProcLoss {
    /// The proc has ended.
    #[error("{}", Died(proc_id, certificate.as_deref(), seen))]
    Died {
        /// Which proc.
        proc_id: Arc<ProcId>,
        /// How its process ended, where its host told this one.
        certificate: Option<Arc<DeathCertificate>>,
        /// By what its end was noticed.
        seen: String,
    },
    /// Another life of the proc answers now.
    #[error("proc `{proc_id}` was started again as {now}: its former life has ended")]
    Restarted {
        /// Which proc.
        proc_id: Arc<ProcId>,
        /// The life that answers.
        now: Incarnation,
    },
    /// The proc cannot be reached; it may live.
    #[error("the connection to proc `{proc_id}` is lost: {failure}")]
    Unreachable {
        /// Which proc.
        proc_id: Arc<ProcId>,
        /// What became of the last message to it.
        failure: Failure,
    },
}

impl ProcLoss {
    /// Which proc.
    pub fn proc_id(&self) -> &Arc<ProcId> {
        match self {
            Self::Died { proc_id, .. }
            | Self::Restarted { proc_id, .. }
            | Self::Unreachable { proc_id, .. } => proc_id,
        }
    }

    /// How its process ended, where that is known.
    pub fn certificate(&self) -> Option<&Arc<DeathCertificate>> {
        match self {
            Self::Died { certificate, .. } => certificate.as_ref(),
            _ => None,
        }
    }

    /// A stable word for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Died { .. } => "proc-died",
            Self::Restarted { .. } => "proc-restarted",
            Self::Unreachable { .. } => "connection-lost",
        }
    }
}

struct Died<'a>(&'a ProcId, Option<&'a DeathCertificate>, &'a str);

impl std::fmt::Display for Died<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.1 {
            Some(certificate) => certificate.fmt(f),
            None => write!(f, "proc `{}` has ended: {}", self.0, self.2),
        }
    }
}

/// What an outcome tells about the proc that a message was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It took the message, or refused it itself.
    Alive,
    /// A queue on the way is full: nothing is told.
    Busy,
    /// The message may have been lost with a connection that others replace.
    Doubt,
    /// It cannot be reached.
    Lost,
    /// It is not there any more.
    Gone,
}

impl Sign {
    pub(crate) fn of(failure: &Failure) -> Self {
        match failure {
            Failure::NotDelivered(reason) => Self::of_not_delivered(reason),
            // The channel has waited for as long as it waits for anything.
            Failure::Unknown(Unknown::TimedOut { .. }) => Self::Lost,
            // Whose end it was, that of the proc or that of a relay, the next message tells.
            Failure::Unknown(_) => Self::Doubt,
        }
    }

    fn of_not_delivered(reason: &NotDelivered) -> Self {
        match reason {
            NotDelivered::UnknownProc { .. } | NotDelivered::ProcGone { .. } => Self::Gone,
            NotDelivered::Connect { .. }
            | NotDelivered::TimedOut { .. }
            | NotDelivered::NoRoute { .. }
            | NotDelivered::TtlExpired { .. } => Self::Lost,
            NotDelivered::PeerClosed { .. } | NotDelivered::Other { .. } => Self::Doubt,
            NotDelivered::QueueFull { .. } => Self::Busy,
            _ => Self::Alive,
        }
    }
}
