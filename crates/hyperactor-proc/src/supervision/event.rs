//! What a supervisor, a linked actor or a monitor is told: [`Event`], as a value that crosses processes, and
//! [`Escalation`], the error by which it is passed up.

use std::fmt;
use std::sync::Arc;

use hyperactor_refs::{ActorId, Incarnation};
use serde::{Deserialize, Serialize};

use super::MonitorId;
use super::text::{OneLine, clipped};
use crate::{ActorError, ActorExit, Message, PanicReport, ProcLoss, limits};

/// An actor ended, told to whoever watched it.
///
/// It prints in five lines: who, why, where, what had happened before, and why it is told.
///
/// ```
/// use hyperactor_proc::{Actor, ActorResult, Context, Event, Proc};
///
/// #[derive(Actor)]
/// #[actor(hooks)]
/// struct Broken;
///
/// impl Actor for Broken {
///     async fn init(&mut self, _cx: &Context<Self>) -> ActorResult {
///         Err("no disk".into())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), hyperactor_proc::SpawnError> {
/// let proc = Proc::isolated("example");
/// let broken = proc.spawn("broken", Broken)?;
/// let event: Event = proc.monitor(broken.actor_id()).ended().await;
/// assert_eq!(event.cause.to_string(), "failed: init: no disk");
/// assert_eq!(event.to_string().lines().count(), 5);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[message(name = "hyperactor.Event")]
#[non_exhaustive]
pub struct Event {
    /// Who ended.
    pub actor_id: ActorId,
    /// The life of its proc, where that is known.
    pub incarnation: Option<Incarnation>,
    /// Why it ended.
    pub cause: Cause,
    /// The ends that led to this one, the nearest first, the first of all last; at most [`limits::CHAIN_EVENTS_MAX`].
    pub chain: Vec<Earlier>,
    /// Why it is told.
    pub relation: Relation,
}

/// An end that led to another.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Earlier {
    /// Who ended.
    pub actor_id: ActorId,
    /// Why.
    pub cause: Cause,
}

/// Why somebody is told of an actor's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Relation {
    /// It was a child.
    Child,
    /// It was linked.
    Linked,
    /// It was monitored.
    Monitored(MonitorId),
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Child => f.write_str("it was a child"),
            Self::Linked => f.write_str("it was linked"),
            Self::Monitored(id) => write!(f, "it was monitored ({id})"),
        }
    }
}

/// Why an actor ended, as a value that crosses processes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Cause {
    /// As asked: it was stopped or drained.
    Stopped,
    /// It returned an error.
    Failed {
        /// The error and its causes, outermost first; at most [`limits::ERROR_CHAIN_MAX`].
        errors: Vec<String>,
    },
    /// It panicked.
    Panicked(PanicReport),
    /// It was aborted, did not clean up in time, or its runtime was shut down.
    Killed,
    /// There is no such actor; how it ended, if it ever was, is not known any more.
    NoSuchActor,
    /// Its proc ended, was started again, or cannot be reached.
    ProcLost(ProcLoss),
}

impl Cause {
    pub(crate) fn of(exit: &ActorExit) -> Self {
        match exit {
            ActorExit::Stopped => Self::Stopped,
            ActorExit::Failed(error) => Self::Failed {
                errors: error
                    .chain()
                    .take(limits::ERROR_CHAIN_MAX)
                    .map(|error| clipped(&error.to_string(), limits::EVENT_TEXT_BYTES_MAX))
                    .collect(),
            },
            ActorExit::Panicked(report) => {
                let mut report = report.clone();
                report.message = clipped(&report.message, limits::EVENT_TEXT_BYTES_MAX);
                Self::Panicked(report)
            }
            ActorExit::Aborted => Self::Killed,
        }
    }

    /// Whether the actor ended as it was asked to.
    pub fn is_orderly(&self) -> bool {
        matches!(self, Self::Stopped)
    }

    /// A stable word for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Failed { .. } => "failed",
            Self::Panicked(_) => "panicked",
            Self::Killed => "killed",
            Self::NoSuchActor => "no-such-actor",
            Self::ProcLost(loss) => loss.code(),
        }
    }

    /// What stands after the actor's id.
    fn verb(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Failed { .. } => "failed",
            Self::Panicked(_) => "panicked",
            Self::Killed => "was killed",
            Self::NoSuchActor => "does not exist",
            Self::ProcLost(ProcLoss::Unreachable { .. }) => "cannot be reached",
            Self::ProcLost(_) => "ended with its proc",
        }
    }

    fn why(&self) -> String {
        match self {
            Self::Stopped => "it was asked to stop".to_owned(),
            Self::Failed { errors } => errors.join(": "),
            Self::Panicked(report) => report.message.clone(),
            Self::Killed => {
                "it was aborted, did not clean up in time, or its runtime was shut down".to_owned()
            }
            Self::NoSuchActor => "no actor of this id lives in its proc".to_owned(),
            Self::ProcLost(loss) => loss.to_string(),
        }
    }
}

/// One line, as in a log.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::Killed => f.write_str("killed"),
            Self::NoSuchActor => f.write_str("no such actor"),
            Self::ProcLost(loss) => write!(f, "{}", OneLine(loss)),
            Self::Failed { errors } => write!(f, "failed: {}", OneLine(errors.join(": "))),
            Self::Panicked(report) => write!(f, "panicked: {}", OneLine(report)),
        }
    }
}

impl fmt::Display for Earlier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.actor_id, self.cause)
    }
}

impl Event {
    /// The end of an actor of this process.
    pub(crate) fn of(actor_id: ActorId, incarnation: Incarnation, exit: &ActorExit) -> Self {
        let cause = Cause::of(exit);
        let chain = match exit {
            ActorExit::Failed(error) => error
                .downcast_ref::<Escalation>()
                .map(Escalation::chain)
                .unwrap_or_default(),
            _ => Vec::new(),
        };
        Self {
            actor_id,
            incarnation: Some(incarnation),
            cause,
            chain,
            relation: Relation::Child,
        }
    }

    /// An end without a story: of an actor that is not there, or of a proc.
    pub(crate) fn bare(actor_id: ActorId, incarnation: Option<Incarnation>, cause: Cause) -> Self {
        Self {
            actor_id,
            incarnation,
            cause,
            chain: Vec::new(),
            relation: Relation::Child,
        }
    }

    pub(crate) fn told_as(&self, relation: Relation) -> Self {
        Self {
            relation,
            ..self.clone()
        }
    }

    /// Whether the actor ended as it was asked to.
    pub fn is_orderly(&self) -> bool {
        self.cause.is_orderly()
    }

    /// The end that began it all: the last of the chain, or this one.
    pub fn root(&self) -> (&ActorId, &Cause) {
        match self.chain.last() {
            Some(first) => (&first.actor_id, &first.cause),
            None => (&self.actor_id, &self.cause),
        }
    }
}

/// Five lines, whatever the texts hold.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "`{}` {}", self.actor_id, self.cause.verb())?;
        writeln!(f, "  why:   {}", OneLine(self.cause.why()))?;
        write!(f, "  where: ")?;
        if let Cause::Panicked(report) = &self.cause
            && let Some(place) = &report.location
        {
            write!(f, "{} in ", OneLine(place))?;
        }
        write!(f, "proc `{}`", self.actor_id.proc_id())?;
        match self.incarnation {
            Some(incarnation) => writeln!(f, ", life {incarnation}")?,
            None => writeln!(f)?,
        }
        write!(f, "  after: ")?;
        match self.chain.as_slice() {
            [] => f.write_str("nothing before it")?,
            chain => {
                for (at, earlier) in chain.iter().enumerate() {
                    let comma = if at == 0 { "" } else { ", after " };
                    write!(f, "{comma}{earlier}")?;
                }
            }
        }
        write!(f, "\n  told:  because {}", self.relation)
    }
}

/// An event that was not handled and so fails the actor it was told to: what the default
/// [`on_supervision`](crate::Actor::on_supervision) returns.
///
/// Whoever supervises that actor finds the event in the chain of the next one.
#[derive(Clone, Debug)]
pub struct Escalation {
    event: Arc<Event>,
    /// Why it was not handled.
    because: Option<String>,
}

impl Escalation {
    /// The error that passes an event up.
    pub fn new(event: Event) -> Self {
        Self {
            event: Arc::new(event),
            because: None,
        }
    }

    /// As [`new`](Self::new), with the reason why the event could not be handled.
    pub fn because(event: Event, reason: impl Into<String>) -> Self {
        Self {
            event: Arc::new(event),
            because: Some(reason.into()),
        }
    }

    /// What happened.
    pub fn event(&self) -> &Event {
        &self.event
    }

    fn chain(&self) -> Vec<Earlier> {
        let event = &self.event;
        let nearest = Earlier {
            actor_id: event.actor_id.clone(),
            cause: event.cause.clone(),
        };
        let earlier = event.chain.iter().cloned();
        std::iter::once(nearest)
            .chain(earlier)
            .take(limits::CHAIN_EVENTS_MAX)
            .collect()
    }

    /// As the error of a hook.
    pub fn into_error(self) -> ActorError {
        ActorError::new(self)
    }
}

impl fmt::Display for Escalation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(because) = &self.because {
            write!(f, "{because}: ")?;
        }
        let what = match self.event.relation {
            Relation::Child => "the child",
            Relation::Linked => "the linked actor",
            Relation::Monitored(_) => "the monitored actor",
        };
        write!(
            f,
            "{what} `{}` {}",
            self.event.actor_id,
            self.event.cause.verb()
        )
    }
}

impl std::error::Error for Escalation {}
