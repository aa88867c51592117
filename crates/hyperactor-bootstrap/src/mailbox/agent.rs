//! [`RouteAgent`]: the actor in every child process that says which way its messages go.

use hyperactor_proc::{
    Actor, ActorRef, ActorResult, Context, Handler, Message, OncePortRef, Proc, SpawnError,
};
use hyperactor_refs::{ActorId, ProcId};
use serde::{Deserialize, Serialize};

use super::{LocalProcDialer, RouteReport};

/// The name of the route agent in every proc that is a process of its own.
pub const ROUTE_AGENT: &str = "routes";

/// Answers for the forwarder of its proc.
#[derive(Actor)]
#[actor(messages(ExplainRoute))]
pub struct RouteAgent {
    dialer: LocalProcDialer,
}

impl RouteAgent {
    /// Spawns the route agent of a proc under its well-known name.
    ///
    /// # Errors
    /// As [`Proc::spawn`].
    pub fn spawn_in(proc: &Proc, dialer: LocalProcDialer) -> Result<ActorRef<Self>, SpawnError> {
        Ok(proc.spawn(ROUTE_AGENT, Self { dialer })?.bind())
    }

    /// A reference to the route agent of a proc, wherever it is.
    #[must_use]
    pub fn at(proc_id: &ProcId) -> ActorRef<Self> {
        ActorRef::attest(ActorId::root(proc_id.clone(), ROUTE_AGENT))
    }
}

/// Asks a proc which way its messages to another proc go, and why not a faster one.
#[derive(Message, Serialize, Deserialize)]
pub struct ExplainRoute {
    /// The other proc.
    pub to: ProcId,
    /// Takes the answer.
    pub reply: OncePortRef<RouteReport>,
}

impl Handler<ExplainRoute> for RouteAgent {
    async fn handle(
        &mut self,
        cx: &Context<Self>,
        ExplainRoute { to, reply }: ExplainRoute,
    ) -> ActorResult {
        cx.reply(reply, self.dialer.explain(&to));
        Ok(())
    }
}
