//! The agent: the actor through which a proc is managed from outside. It holds no policy; a host decides, the agent
//! does.

use bytes::Bytes;
use hyperactor_mailbox::OncePortRef;
use hyperactor_refs::{ActorId, Incarnation, ProcId};
use serde::{Deserialize, Serialize};

use crate::control::End;
use crate::{
    Actor, ActorRef, ActorResult, Context, Handler, Message, Proc, Registry, SpawnError,
    SpawnRefusal, Traffic, limits,
};

/// The name of the agent in every proc that has one.
pub const AGENT_NAME: &str = "agent";

/// Spawns, lists and ends actors of its proc at the request of others.
#[derive(Actor)]
#[actor(messages(SpawnActor, ListActors, EndActor, ReadTraffic))]
pub struct ProcAgent {
    registry: Registry,
}

impl ProcAgent {
    /// An agent that can spawn the types of `registry`.
    pub fn new(registry: Registry) -> Self {
        Self { registry }
    }

    /// Spawns the agent of a proc under its well-known name.
    ///
    /// # Errors
    /// As [`Proc::spawn`].
    pub fn spawn_in(proc: &Proc, registry: Registry) -> Result<ActorRef<Self>, SpawnError> {
        Ok(proc.spawn(AGENT_NAME, Self::new(registry))?.bind())
    }

    /// A reference to the agent of a proc, wherever it is.
    pub fn at(proc_id: &ProcId) -> ActorRef<Self> {
        ActorRef::attest(ActorId::root(proc_id.clone(), AGENT_NAME))
    }
}

/// Asks an agent to spawn an actor; see [`spawn_remote`](crate::spawn_remote) for the typed call.
#[derive(Message, Serialize, Deserialize)]
pub struct SpawnActor {
    /// The actor's type, as its registry names it.
    pub type_name: String,
    /// The actor's name in the proc.
    pub name: String,
    /// The wire hash of the parameters, so that a difference of versions is seen.
    pub params_type: u64,
    /// The encoded parameters; at most [`limits::SPAWN_PARAMS_BYTES_MAX`].
    pub params: Bytes,
    /// Takes the id of the actor, or the reason.
    pub reply: OncePortRef<Result<ActorId, SpawnRefusal>>,
}

/// Asks an agent which actors live in its proc.
#[derive(Message, Serialize, Deserialize)]
pub struct ListActors {
    /// Takes the list.
    pub reply: OncePortRef<ActorList>,
}

/// The actors of a proc.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
pub struct ActorList {
    /// The life of the proc that answers.
    pub incarnation: Incarnation,
    /// How many there are.
    pub total: u64,
    /// The first of them by id; at most [`limits::LISTED_ACTORS_MAX`].
    pub actors: Vec<ListedActor>,
}

/// One actor of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedActor {
    /// Who.
    pub actor_id: ActorId,
    /// What it was doing, in words for people.
    pub status: String,
}

/// Asks an agent to end an actor.
#[derive(Message, Serialize, Deserialize)]
pub struct EndActor {
    /// Who; an actor of the agent's own proc.
    pub actor_id: ActorId,
    /// How.
    pub how: EndMode,
    /// Takes whether there was such an actor. It was asked to end then; it may need its time.
    pub reply: OncePortRef<bool>,
}

/// How an actor is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndMode {
    /// Handle what is queued, then end.
    Drain,
    /// End after the message in hand.
    Stop,
    /// End where it awaits next, without cleanup.
    Abort,
}

/// Asks an agent how many messages went which way.
#[derive(Message, Serialize, Deserialize)]
pub struct ReadTraffic {
    /// Takes the counts.
    pub reply: OncePortRef<Traffic>,
}

impl Handler<SpawnActor> for ProcAgent {
    async fn handle(&mut self, cx: &Context<Self>, request: SpawnActor) -> ActorResult {
        let SpawnActor {
            type_name,
            name,
            params_type,
            params,
            reply,
        } = request;
        let result = self
            .registry
            .spawn(&cx.proc()?, &type_name, &name, params_type, params);
        match &result {
            Ok(actor_id) => {
                tracing::debug!(actor = %actor_id, reply = %reply, "spawned at the request of another");
            }
            Err(refusal) => {
                tracing::warn!(agent = %cx.actor_id(), reply = %reply, code = refusal.code(), "not spawned: {refusal}");
            }
        }
        cx.reply(reply, result);
        Ok(())
    }
}

impl Handler<ListActors> for ProcAgent {
    async fn handle(
        &mut self,
        cx: &Context<Self>,
        ListActors { reply }: ListActors,
    ) -> ActorResult {
        let proc = cx.proc()?;
        let actors = proc.actors();
        let list = ActorList {
            incarnation: proc.incarnation(),
            total: actors.len() as u64,
            actors: actors
                .into_iter()
                .take(limits::LISTED_ACTORS_MAX)
                .map(|info| ListedActor {
                    actor_id: info.actor_id,
                    status: info.status.to_string(),
                })
                .collect(),
        };
        cx.reply(reply, list);
        Ok(())
    }
}

impl Handler<EndActor> for ProcAgent {
    async fn handle(&mut self, cx: &Context<Self>, request: EndActor) -> ActorResult {
        let control = cx.proc()?.control(&request.actor_id);
        if let Some(control) = &control {
            control.end(match request.how {
                EndMode::Drain => End::Drain,
                EndMode::Stop => End::Stop,
                EndMode::Abort => End::Abort,
            });
        }
        cx.reply(request.reply, control.is_some());
        Ok(())
    }
}

impl Handler<ReadTraffic> for ProcAgent {
    async fn handle(&mut self, cx: &Context<Self>, request: ReadTraffic) -> ActorResult {
        let traffic = cx.proc()?.traffic();
        cx.reply(request.reply, traffic);
        Ok(())
    }
}
