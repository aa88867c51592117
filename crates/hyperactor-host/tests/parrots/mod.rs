//! An actor that says who it is, for tests of ways: in hosts whose procs are in this process.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by several tests, of which each uses a part; a panic is a test's report"
)]

use std::time::Duration;

use hyperactor_host::{Host, LocalProcManager, ProcConfig};
use hyperactor_proc::{
    Actor, ActorError, ActorRef, ActorResult, AskError, Client, Context, Handler, Message,
    OncePortRef, Registry, RemoteSpawn,
};
use hyperactor_refs::{ActorId, ChannelAddr, ProcId};
use serde::{Deserialize, Serialize};

pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// Says who it is, or asks another who that is.
#[derive(Actor, Default)]
#[actor(messages(WhoAreYou))]
pub(crate) struct Parrot;

#[derive(Message, Serialize, Deserialize)]
pub(crate) struct WhoAreYou {
    pub(crate) ask: Option<ActorRef<Parrot>>,
    pub(crate) reply: OncePortRef<ProcId>,
}

impl RemoteSpawn for Parrot {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self)
    }
}

impl Handler<WhoAreYou> for Parrot {
    async fn handle(&mut self, cx: &Context<Self>, asked: WhoAreYou) -> ActorResult {
        let answer = match asked.ask {
            Some(next) => next.ask(cx, |reply| WhoAreYou { ask: None, reply }).await?,
            None => cx.actor_id().proc_id().clone(),
        };
        cx.reply(asked.reply, answer);
        Ok(())
    }
}

pub(crate) fn manager() -> LocalProcManager {
    LocalProcManager::new(Registry::new().with::<Parrot>())
}

pub(crate) fn parrot(addr: &ChannelAddr, name: &str) -> ActorRef<Parrot> {
    let proc_id = ProcId::direct(addr.clone(), name).unwrap();
    ActorRef::attest(ActorId::root(proc_id, "parrot"))
}

/// Spawns a proc with a parrot.
pub(crate) async fn spawn_parrot(host: &Host, name: &str) -> ActorRef<Parrot> {
    let client = host.service_proc().client("spawn").unwrap();
    let proc = host.spawn(name, ProcConfig::new()).await.unwrap();
    proc.spawn::<Parrot>(&client, "parrot", ()).await.unwrap()
}

/// Asks a parrot who it is.
pub(crate) async fn who(client: &Client, parrot: &ActorRef<Parrot>) -> Result<ProcId, AskError> {
    parrot
        .ask_within(client, DEADLINE, |reply| WhoAreYou { ask: None, reply })
        .await
}

/// Asks a parrot to ask another who that is.
pub(crate) async fn who_by(
    client: &Client,
    parrot: &ActorRef<Parrot>,
    other: &ActorRef<Parrot>,
) -> Result<ProcId, AskError> {
    let ask = Some(other.clone());
    parrot
        .ask_within(client, DEADLINE, |reply| WhoAreYou { ask, reply })
        .await
}
