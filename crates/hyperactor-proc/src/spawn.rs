//! How an actor may be spawned, and why it was not. The spawning itself is in `proc.rs`.

use std::any::TypeId;
use std::sync::Arc;
use std::time::Duration;

use hyperactor_mailbox::{BindError, Overflow};
use hyperactor_refs::{ActorId, NameError, ProcId};

use crate::limits;

/// Why an actor was not spawned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// An actor or client of this name lives in the proc.
    #[error(
        "the name `{name}` is taken in proc `{proc_id}`; it is free again when its actor has ended"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// The proc.
        proc_id: Arc<ProcId>,
    },
    /// The name cannot be used.
    #[error("bad actor name: {0}")]
    BadName(#[from] NameError),
    /// There is no tokio runtime to run the actor on.
    #[error(
        "no tokio runtime here to run `{name}` on; spawn from within one, as under `#[tokio::main]`"
    )]
    NoRuntime {
        /// The name.
        name: String,
    },
    /// The proc is being stopped, or was.
    #[error("proc `{proc_id}` is stopping and takes no new actors")]
    ProcStopping {
        /// The proc.
        proc_id: Arc<ProcId>,
    },
    /// The proc was dropped.
    #[error(transparent)]
    ProcGone(#[from] ProcGone),
    /// The parent is ending.
    #[error("`{parent}` is ending and takes no new children")]
    ParentEnding {
        /// The parent.
        parent: ActorId,
    },
    /// The proc has as many actors as it may.
    #[error("proc `{proc_id}` is full: {error}")]
    Full {
        /// The proc.
        proc_id: Arc<ProcId>,
        /// Which limit was met.
        error: BindError,
    },
}

impl SpawnError {
    /// A stable word for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NameTaken { .. } => "name-taken",
            Self::BadName(_) => "bad-name",
            Self::NoRuntime { .. } => "no-runtime",
            Self::ProcStopping { .. } => "proc-stopping",
            Self::ProcGone(_) => "proc-gone",
            Self::ParentEnding { .. } => "parent-ending",
            Self::Full { .. } => "proc-full",
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NameTaken { .. } | Self::Full { .. })
    }
}

/// The proc was dropped by its last owner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("proc `{proc_id}` was dropped; keep a `Proc` for as long as its actors are needed")]
pub struct ProcGone {
    /// Which proc.
    pub proc_id: Arc<ProcId>,
}

/// How an actor is spawned.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SpawnOptions {
    /// Messages of local senders that the queue holds. Default: [`limits::QUEUE_MESSAGES_MAX`].
    pub queue_capacity: usize,
    /// How long the actor's `cleanup` may take before it is aborted. Default: [`limits::CLEANUP_DEADLINE`].
    pub cleanup_deadline: Duration,
    /// How long the actor's children may take to end before they are aborted. Default: [`limits::CHILDREN_DEADLINE`].
    pub children_deadline: Duration,
    /// How long the actor may take to end once its parent asks it to, before it is aborted. Default: the parent's
    /// [`children_deadline`](Self::children_deadline).
    pub stop_deadline: Option<Duration>,
    /// What the queue does when it is full. Default: [`Overflow::Wait`].
    pub overflow: Overflow,
    /// The messages of class `Control`, by type.
    control: Vec<TypeId>,
}

impl SpawnOptions {
    /// With another capacity of the queue; 0 counts as 1.
    #[must_use]
    pub fn queue_capacity(mut self, messages: usize) -> Self {
        self.queue_capacity = messages;
        self
    }

    /// With another deadline for the actor's `cleanup`.
    #[must_use]
    pub fn cleanup_deadline(mut self, deadline: Duration) -> Self {
        self.cleanup_deadline = deadline;
        self
    }

    /// With another deadline for the end of the actor's children.
    #[must_use]
    pub fn children_deadline(mut self, deadline: Duration) -> Self {
        self.children_deadline = deadline;
        self
    }

    /// With a deadline of its own for its end, when the parent asks for it.
    #[must_use]
    pub fn stop_deadline(mut self, deadline: Duration) -> Self {
        self.stop_deadline = Some(deadline);
        self
    }

    /// With another way to deal with a full queue.
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Lets messages of type `M` go before all others in the actor's queue, whoever sends them and from wherever.
    ///
    /// They keep their order among themselves. Use it for what steers the actor, not for work: a stream of such
    /// messages keeps all others waiting. They have a bound of their own,
    /// [`CONTROL_CAPACITY`](hyperactor_mailbox::limits::CONTROL_CAPACITY), at which senders wait.
    #[must_use]
    pub fn control<M: Send + 'static>(mut self) -> Self {
        self.control.push(TypeId::of::<M>());
        self
    }

    pub(crate) fn control_types(&self) -> Box<[TypeId]> {
        self.control.clone().into()
    }
}

impl Default for SpawnOptions {
    fn default() -> Self {
        Self {
            queue_capacity: limits::QUEUE_MESSAGES_MAX,
            cleanup_deadline: limits::CLEANUP_DEADLINE,
            children_deadline: limits::CHILDREN_DEADLINE,
            stop_deadline: None,
            overflow: Overflow::Wait,
            control: Vec::new(),
        }
    }
}
