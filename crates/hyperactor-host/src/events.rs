//! What happens to the procs of a host, as values: [`ProcEvent`]. For supervisors, which must not poll.

use std::sync::Arc;
use std::time::Duration;

use hyperactor_mailbox::DeathCertificate;
use hyperactor_refs::ProcId;

use crate::spec::ProcInfo;

/// Something that happened to a proc of a host.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ProcEvent {
    /// A proc can be reached.
    Ready {
        /// What is known of it: its incarnation is that of this life.
        info: ProcInfo,
        /// How often it was started again before this life.
        restarts: u32,
        /// Whether it was made by an earlier life of this host, lived on without it, and is back.
        taken_back: bool,
    },
    /// A life of a proc is over. Its name is free, unless it is to be started again.
    Ended {
        /// How, and why as far as it is known.
        certificate: Arc<DeathCertificate>,
        /// After which pause it is started again, if it is.
        restart_in: Option<Duration>,
    },
    /// A proc was to be started again and could not. It is tried again like after any end.
    RestartFailed {
        /// Which proc.
        proc_id: Arc<ProcId>,
        /// Why, in words.
        reason: String,
        /// After which pause it is tried again, if it is.
        restart_in: Option<Duration>,
    },
    /// A proc had been started again as often as its policy allows: it stays gone, and its name is free.
    GaveUp {
        /// Which proc.
        proc_id: Arc<ProcId>,
        /// How often it was started again.
        restarts: u32,
    },
}
