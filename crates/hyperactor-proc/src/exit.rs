//! How an actor is doing and how it ended, as values that outlive it.

use std::backtrace::Backtrace;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::supervision::clipped;
use crate::{ActorError, limits};

/// Why an actor is about to end, told to its `cleanup`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ExitReason {
    /// Somebody asked it to stop; what waited in its queue was not handled.
    Stopped,
    /// Somebody asked it to drain; everything that was in its queue has been handled.
    Drained,
    /// A handler or a hook returned an error.
    Failed(Arc<ActorError>),
}

impl From<ExitReason> for ActorExit {
    fn from(reason: ExitReason) -> Self {
        match reason {
            ExitReason::Stopped | ExitReason::Drained => Self::Stopped,
            ExitReason::Failed(error) => Self::Failed(error),
        }
    }
}

/// How an actor ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ActorExit {
    /// As asked: it was stopped or drained, and its cleanup succeeded.
    Stopped,
    /// `init`, a handler, a hook or `cleanup` returned an error.
    Failed(Arc<ActorError>),
    /// `init`, a handler, a hook, `cleanup` or the actor's `Drop` panicked.
    Panicked(PanicReport),
    /// It was aborted, did not clean up within its deadline, or its runtime was shut down.
    Aborted,
}

impl ActorExit {
    /// Whether the actor ended as it was asked to.
    pub fn is_orderly(&self) -> bool {
        matches!(self, Self::Stopped)
    }

    /// A stable word for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Failed(_) => "failed",
            Self::Panicked(_) => "panicked",
            Self::Aborted => "aborted",
        }
    }
}

impl fmt::Display for ActorExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::Failed(error) => write!(f, "failed: {error}"),
            Self::Panicked(report) => write!(f, "panicked: {report}"),
            Self::Aborted => f.write_str("aborted"),
        }
    }
}

/// What is known of a panic that was caught.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PanicReport {
    /// The text given to `panic!`, or a note that the payload was not a text.
    pub message: String,
    /// Where it was raised, as `file:line:column`. `None` if a panic hook that was installed later, and does
    /// not call the earlier one, kept it from this crate, or if the panic was raised without running the hook.
    pub location: Option<String>,
    /// The stack at the panic. `None` as for `location`.
    pub backtrace: Option<PanicTrace>,
}

/// The stack at a panic. In the process of the panic its symbols are resolved only when it is printed; it travels as its
/// text.
#[derive(Clone)]
pub struct PanicTrace(Trace);

#[derive(Clone)]
enum Trace {
    Captured(Arc<Backtrace>),
    Text(Arc<str>),
}

impl PanicTrace {
    pub(crate) fn captured(backtrace: Backtrace) -> Self {
        Self(Trace::Captured(Arc::new(backtrace)))
    }

    /// With the symbols resolved, which takes its time the first time.
    #[must_use]
    pub(crate) fn resolved(&self) -> Self {
        match &self.0 {
            Trace::Captured(backtrace) => {
                let text = clipped(&backtrace.to_string(), limits::BACKTRACE_BYTES_MAX);
                Self(Trace::Text(text.into()))
            }
            Trace::Text(_) => self.clone(),
        }
    }

    pub(crate) fn is_resolved(&self) -> bool {
        matches!(self.0, Trace::Text(_))
    }
}

impl fmt::Display for PanicTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Trace::Captured(backtrace) => backtrace.fmt(f),
            Trace::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for PanicTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The whole stack would hide everything else that is printed with it.
        f.write_str("PanicTrace(..)")
    }
}

impl Serialize for PanicTrace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.resolved().0 {
            Trace::Text(text) => serializer.serialize_str(text),
            Trace::Captured(_) => serializer.serialize_str(""),
        }
    }
}

impl<'de> Deserialize<'de> for PanicTrace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Self(Trace::Text(text.into())))
    }
}

impl fmt::Display for PanicReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(location) = &self.location {
            write!(f, " (at {location})")?;
        }
        Ok(())
    }
}

/// What an actor is doing; changes only when its life changes, never per message.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ActorStatus {
    /// Spawned; its `init` has not returned yet. Messages wait in its queue.
    Starting,
    /// Handling messages.
    Running,
    /// Asked to end: finishing, ending its children, or cleaning up. New messages are refused.
    Ending,
    /// Gone. Its name is free again.
    Ended(ActorExit),
}

impl ActorStatus {
    /// How it ended, if it has.
    pub fn exit(&self) -> Option<&ActorExit> {
        match self {
            Self::Ended(exit) => Some(exit),
            _ => None,
        }
    }
}

impl fmt::Display for ActorStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Running => f.write_str("running"),
            Self::Ending => f.write_str("ending"),
            Self::Ended(exit) => write!(f, "ended: {exit}"),
        }
    }
}
