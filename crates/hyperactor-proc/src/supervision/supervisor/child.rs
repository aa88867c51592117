//! One child of a supervisor: how it is made, here or in another proc, and how it is ended.

use std::sync::Arc;
use std::time::Duration;

use hyperactor_mailbox::BoxFuture;
use hyperactor_refs::{ActorId, ProcId};
use serde::{Deserialize, Serialize};

use super::{Restart, Supervisor};
use crate::control::{AnyCell, Control, End};
use crate::time::within;
use crate::{
    Actor, ActorExit, ActorHandle, ActorStatus, Context, EndActor, EndMode, Exports, Message,
    MonitorId, ProcAgent, Relation, RemoteSpawn, RemoteSpawnError, SpawnError, SpawnOptions,
    limits, spawn_remote,
};

/// What a supervisor is to start, and when to start it again.
///
/// A child that lives here has the name as its actor's name: its id is the same after a restart, and references to it
/// stay good.
pub struct ChildSpec {
    pub(super) name: String,
    pub(super) restart: Restart,
    pub(super) stop_deadline: Duration,
    start: Box<dyn Start>,
}

/// Makes a child. Boxed, because each child is of a type of its own.
trait Start: Send + Sync {
    fn start<'a>(
        &'a self,
        cx: &'a Context<Supervisor>,
        name: &'a str,
        options: SpawnOptions,
    ) -> BoxFuture<'a, Result<Running, StartError>>;
}

/// A child that was started.
pub(super) enum Running {
    Here(Arc<dyn AnyCell>),
    Elsewhere {
        actor_id: ActorId,
        monitor: MonitorId,
    },
}

/// Why a child was not started.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error(transparent)]
    Remote(#[from] RemoteSpawnError),
    #[error("its init did not return within {} ms", .0.as_millis())]
    Slow(Duration),
    #[error("its init ended it: {0}")]
    Ended(ActorExit),
}

impl ChildSpec {
    /// A child of this proc that `make` makes anew for each start.
    pub fn new<A: Actor>(
        name: impl Into<String>,
        make: impl Fn() -> A + Send + Sync + 'static,
    ) -> Self {
        Self::with(name, move |cx, name, options| {
            cx.spawn_as(name, make(), options)
        })
    }

    /// As [`new`](Self::new), for an actor whose exported messages are to be taken from other procs.
    pub fn exporting<A: Exports>(
        name: impl Into<String>,
        make: impl Fn() -> A + Send + Sync + 'static,
    ) -> Self {
        Self::with(name, move |cx, name, options| {
            let handle = cx.spawn_as(name, make(), options)?;
            handle.bind();
            Ok(handle)
        })
    }

    /// A child in another proc, of a type that the registry there lists, made from a clone of `params` at each start.
    ///
    /// It ends with its supervisor, also when that is killed with its whole process.
    pub fn remote<A: RemoteSpawn>(
        name: impl Into<String>,
        proc_id: ProcId,
        params: A::Params,
    ) -> Self
    where
        A::Params: Clone + Sync,
    {
        let start = Elsewhere::<A> { proc_id, params };
        Self::boxed(name.into(), Box::new(start))
    }

    fn with<A: Actor>(
        name: impl Into<String>,
        spawn: impl Fn(&Context<Supervisor>, &str, &SpawnOptions) -> Result<ActorHandle<A>, SpawnError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self::boxed(name.into(), Box::new(Here { spawn }))
    }

    fn boxed(name: String, start: Box<dyn Start>) -> Self {
        Self {
            name,
            restart: Restart::default(),
            stop_deadline: limits::CHILDREN_DEADLINE,
            start,
        }
    }

    /// Starts it again after every end but an orderly one.
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.restart = Restart::Transient;
        self
    }

    /// Never starts it again.
    #[must_use]
    pub fn temporary(mut self) -> Self {
        self.restart = Restart::Temporary;
        self
    }

    /// How long it may take to stop before it is aborted. Default: [`limits::CHILDREN_DEADLINE`].
    #[must_use]
    pub fn stop_deadline(mut self, deadline: Duration) -> Self {
        self.stop_deadline = deadline;
        self
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn start<'a>(
        &'a self,
        cx: &'a Context<Supervisor>,
    ) -> BoxFuture<'a, Result<Running, StartError>> {
        let options = SpawnOptions::default().stop_deadline(self.stop_deadline);
        self.start.start(cx, &self.name, options)
    }
}

impl std::fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChildSpec")
            .field("name", &self.name)
            .field("restart", &self.restart)
            .field("stop_deadline", &self.stop_deadline)
            .finish_non_exhaustive()
    }
}

struct Here<F> {
    spawn: F,
}

impl<F, A> Start for Here<F>
where
    F: Fn(&Context<Supervisor>, &str, &SpawnOptions) -> Result<ActorHandle<A>, SpawnError>
        + Send
        + Sync,
    A: Actor,
{
    fn start<'a>(
        &'a self,
        cx: &'a Context<Supervisor>,
        name: &'a str,
        options: SpawnOptions,
    ) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(async move {
            let handle = (self.spawn)(cx, name, &options)?;
            let control: Arc<dyn AnyCell> = handle.cell().clone();
            // A start that is given up, as when the supervisor is told to stop, leaves the child to the supervisor's end.
            match within(limits::CHILD_START_DEADLINE, started(&control)).await {
                Some(None) => Ok(Running::Here(control)),
                Some(Some(exit)) => {
                    forget(cx, control.actor_id());
                    Err(StartError::Ended(exit))
                }
                None => {
                    forget(cx, control.actor_id());
                    control.end(End::Abort);
                    Err(StartError::Slow(limits::CHILD_START_DEADLINE))
                }
            }
        })
    }
}

/// Resolves when an actor has been initialised; to its exit, if it ended in that.
async fn started(control: &Control) -> Option<ActorExit> {
    let mut status = control.status();
    let is_over = |status: &ActorStatus| {
        !matches!(status, ActorStatus::Starting | ActorStatus::Ending) || control.has_run()
    };
    match status.wait_for(is_over).await {
        // Initialised, and perhaps ended since: that is told as the end of every child is.
        _ if control.has_run() => None,
        Ok(status) => status.exit().cloned(),
        // The sender lives in the control, which is held here.
        Err(_) => Some(ActorExit::Aborted),
    }
}

/// The end of a child that the supervisor ends, or sees end, itself is not told again.
fn forget(cx: &Context<Supervisor>, child: &ActorId) {
    cx.control().disown(child);
    cx.control()
        .forget_events(|event| event.relation == Relation::Child && event.actor_id == *child);
}

struct Elsewhere<A: RemoteSpawn> {
    proc_id: ProcId,
    params: A::Params,
}

impl<A: RemoteSpawn> Start for Elsewhere<A>
where
    A::Params: Clone + Sync,
{
    fn start<'a>(
        &'a self,
        cx: &'a Context<Supervisor>,
        name: &'a str,
        _options: SpawnOptions,
    ) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(async move {
            let params = self.params.clone();
            let child = spawn_remote::<A>(cx, &self.proc_id, name, params).await?;
            let actor_id = child.actor_id().clone();
            let proc = cx.proc().map_err(SpawnError::from)?;
            proc.adopt_remote(&actor_id, cx.actor_id());
            let monitor = cx.monitor(&actor_id).map_err(SpawnError::from)?;
            Ok(Running::Elsewhere { actor_id, monitor })
        })
    }
}

impl Running {
    pub(super) fn actor_id(&self) -> &ActorId {
        match self {
            Self::Here(control) => control.actor_id(),
            Self::Elsewhere { actor_id, .. } => actor_id,
        }
    }

    /// Whether an event tells of the end of this child, of this start.
    pub(super) fn is_meant_by(&self, event: &crate::Event) -> bool {
        match self {
            Self::Here(control) => {
                event.relation == Relation::Child && event.actor_id == *control.actor_id()
            }
            Self::Elsewhere { monitor, .. } => event.relation == Relation::Monitored(*monitor),
        }
    }

    /// Ends the child and waits for it. Its end is not told to the supervisor any more.
    pub(super) async fn stop(self, cx: &Context<Supervisor>, deadline: Duration) {
        match self {
            Self::Here(control) => {
                control.end(End::Stop);
                cx.control().disown(control.actor_id());
                if within(deadline, control.ended()).await.is_none() {
                    tracing::warn!(actor = %cx.actor_id(), child = %control.actor_id(), "a child did not stop in time and is aborted");
                    control.end(End::Abort);
                    if within(limits::ABORT_GRACE, control.ended()).await.is_none() {
                        tracing::error!(actor = %cx.actor_id(), child = %control.actor_id(), "a child blocks its thread and cannot be ended");
                    }
                }
                forget(cx, control.actor_id());
            }
            Self::Elsewhere { actor_id, monitor } => {
                cx.demonitor(monitor);
                end_elsewhere(cx, &actor_id, deadline).await;
            }
        }
    }
}

/// Ends an actor of another proc: asked to stop, then aborted.
async fn end_elsewhere(cx: &Context<Supervisor>, actor_id: &ActorId, deadline: Duration) {
    let Ok(proc) = cx.proc() else {
        return;
    };
    let monitor = proc.monitor(actor_id);
    let agent = ProcAgent::at(actor_id.proc_id());
    for (how, time) in [
        (EndMode::Stop, deadline),
        (EndMode::Abort, limits::ABORT_GRACE),
    ] {
        let asked = agent.ask_within(cx, time, |reply| EndActor {
            actor_id: actor_id.clone(),
            how,
            reply,
        });
        match asked.await {
            Ok(true) => {}
            // It has ended already, or its proc has.
            Ok(false) => return,
            Err(error) => {
                tracing::debug!(actor = %cx.actor_id(), child = %actor_id, "a child elsewhere was not asked to end: {error}");
            }
        }
        if within(time, monitor.ended()).await.is_some() {
            return;
        }
    }
    tracing::warn!(actor = %cx.actor_id(), child = %actor_id, "a child in another proc did not end in time");
}

/// How a child of a supervisor is doing.
#[derive(Clone, Debug, PartialEq, Eq, Message, Serialize, Deserialize)]
#[message(name = "hyperactor.ChildInfo")]
#[non_exhaustive]
pub struct ChildInfo {
    /// What it is called.
    pub name: String,
    /// Its id, while it runs.
    pub actor_id: Option<ActorId>,
    /// When it is started again.
    pub restart: Restart,
    /// How often it was started again.
    pub restarts: u64,
}
