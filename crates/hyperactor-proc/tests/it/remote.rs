//! Spawning and managing actors of another proc through its agent.

use std::time::Duration;

use hyperactor_proc::{
    Actor, ActorError, ActorResult, Client, Context, EndActor, EndMode, Handler, ListActors, Proc,
    ProcAgent, ReadTraffic, Registry, RemoteSpawn, RemoteSpawnError, SpawnRefusal, spawn_remote,
};

use crate::common::{Add, Counter, Total, Wire, soon};

impl RemoteSpawn for Counter {
    type Params = u64;

    fn create(total: u64) -> Result<Self, ActorError> {
        match total {
            13 => Err("13 is refused here".into()),
            666 => panic!("666 panics here"),
            total => Ok(Self { total }),
        }
    }
}

#[derive(Actor)]
#[actor(name = "gauge")]
struct Gauge;

impl RemoteSpawn for Gauge {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self)
    }
}

/// Not in the registry.
#[derive(Actor)]
#[actor(name = "gauges")]
struct Unlisted;

impl RemoteSpawn for Unlisted {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self)
    }
}

/// Another type of the same name and other parameters, as in a program of another version.
#[derive(Actor)]
#[actor(name = "gauge")]
struct OtherGauge;

impl RemoteSpawn for OtherGauge {
    type Params = String;

    fn create(_: String) -> Result<Self, ActorError> {
        Ok(Self)
    }
}

fn two_procs() -> (Client, Proc, Proc, Wire) {
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    let registry = Registry::new().with::<Counter>().with::<Gauge>();
    ProcAgent::spawn_in(&b, registry).unwrap();
    (a.client("main").unwrap(), a, b, wire)
}

fn refusal(result: Result<impl std::fmt::Debug, RemoteSpawnError>) -> SpawnRefusal {
    match result {
        Err(RemoteSpawnError::Refused { refusal, .. }) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_actor_is_spawned_in_another_proc_and_used_from_here() {
    let (main, _a, b, _wire) = two_procs();
    let counter = soon(spawn_remote::<Counter>(&main, b.proc_id(), "counter", 40))
        .await
        .unwrap();
    assert_eq!(*counter.actor_id(), b.actor_id("counter"));
    counter.post(&main, Add(2));
    assert_eq!(soon(counter.ask(&main, Total)).await, Ok(42));
}

#[tokio::test]
async fn an_unknown_type_is_answered_with_the_nearest_names() {
    let (main, _a, b, _wire) = two_procs();
    let result = soon(spawn_remote::<Unlisted>(&main, b.proc_id(), "x", ())).await;
    let refusal = refusal(result);
    assert_eq!(refusal.code(), "unknown-type");
    let SpawnRefusal::UnknownType { type_name, near } = &refusal else {
        panic!("{refusal}");
    };
    assert_eq!(type_name, "gauges");
    assert_eq!(near[0], "gauge");
    assert!(refusal.to_string().contains("did you mean"), "{refusal}");
}

#[tokio::test]
async fn parameters_of_another_version_are_refused() {
    let (main, _a, b, _wire) = two_procs();
    let params = "text".to_owned();
    let result = soon(spawn_remote::<OtherGauge>(&main, b.proc_id(), "x", params)).await;
    let refusal = refusal(result);
    assert_eq!(refusal.code(), "bad-params");
    assert!(refusal.to_string().contains("`()`"), "{refusal}");
}

#[tokio::test]
async fn a_create_that_fails_or_panics_is_told_and_the_agent_lives() {
    let (main, _a, b, _wire) = two_procs();
    let result = soon(spawn_remote::<Counter>(&main, b.proc_id(), "x", 13)).await;
    let text = refusal(result).to_string();
    assert!(text.contains("13 is refused here"), "{text}");
    let result = soon(spawn_remote::<Counter>(&main, b.proc_id(), "x", 666)).await;
    let text = refusal(result).to_string();
    assert!(text.contains("666 panics here"), "{text}");
    soon(spawn_remote::<Counter>(&main, b.proc_id(), "x", 1))
        .await
        .unwrap();
    let result = soon(spawn_remote::<Counter>(&main, b.proc_id(), "x", 1)).await;
    assert_eq!(refusal(result).code(), "name-taken");
}

#[tokio::test]
async fn parameters_that_are_too_large_are_refused_before_they_are_sent() {
    #[derive(Actor)]
    struct Large;
    impl RemoteSpawn for Large {
        type Params = Vec<u8>;
        fn create(_: Vec<u8>) -> Result<Self, ActorError> {
            Ok(Self)
        }
    }
    let (main, a, b, _wire) = two_procs();
    let params = vec![0; hyperactor_proc::limits::SPAWN_PARAMS_BYTES_MAX];
    let result = soon(spawn_remote::<Large>(&main, b.proc_id(), "x", params)).await;
    assert_eq!(result.unwrap_err().code(), "too-large");
    assert_eq!(a.traffic().forwarded, 0);
}

#[tokio::test]
async fn a_proc_without_an_agent_says_so_at_once() {
    let (main, a, _b, _wire) = two_procs();
    let result = soon(spawn_remote::<Gauge>(&main, a.proc_id(), "x", ())).await;
    assert_eq!(result.unwrap_err().code(), "unknown-actor");
}

#[tokio::test]
async fn an_agent_lists_ends_and_counts() {
    let (main, _a, b, _wire) = two_procs();
    let agent = ProcAgent::at(b.proc_id());
    let counter = soon(spawn_remote::<Counter>(&main, b.proc_id(), "counter", 0))
        .await
        .unwrap();
    assert_eq!(soon(counter.ask(&main, Total)).await, Ok(0));

    let list = soon(agent.ask(&main, |reply| ListActors { reply }))
        .await
        .unwrap();
    assert_eq!(list.incarnation, b.incarnation());
    assert_eq!(list.total, 2);
    assert_eq!(list.actors[1].actor_id, *counter.actor_id());
    assert_eq!(list.actors[1].status, "running");

    let handle_gone = |actor_id| {
        agent.ask(&main, move |reply| EndActor {
            actor_id,
            how: EndMode::Drain,
            reply,
        })
    };
    assert_eq!(
        soon(handle_gone(counter.actor_id().clone())).await,
        Ok(true)
    );
    assert_eq!(soon(handle_gone(b.actor_id("nobody"))).await, Ok(false));
    let error = soon(async {
        loop {
            if let Err(error) = counter.ask(&main, Total).await {
                break error;
            }
        }
    })
    .await;
    assert!(
        ["actor-stopped", "no-reply"].contains(&error.code()),
        "{error}"
    );

    let traffic = soon(agent.ask(&main, |reply| ReadTraffic { reply }))
        .await
        .unwrap();
    assert!(traffic.received >= 6);
    assert!(soon(b.stop(Duration::from_secs(5))).await.is_clean());
}

#[test]
#[should_panic(expected = "two actor types are called `gauge`")]
fn a_registry_refuses_two_types_of_one_name() {
    let _registry = Registry::new().with::<Gauge>().with::<OtherGauge>();
}

#[test]
fn a_registry_takes_a_type_twice() {
    let registry = Registry::new().with::<Gauge>().with::<Gauge>();
    assert_eq!(registry.type_names().collect::<Vec<_>>(), ["gauge"]);
}

/// The agent's proc may be dropped under it.
#[derive(Actor)]
struct Asks;

impl Handler<Proc> for Asks {
    async fn handle(&mut self, cx: &Context<Self>, proc: Proc) -> ActorResult {
        drop(proc);
        cx.proc()?;
        Ok(())
    }
}

#[tokio::test]
async fn an_actor_whose_proc_was_dropped_learns_it_from_its_context() {
    let proc = Proc::isolated("p");
    let handle = proc.spawn("asks", Asks).unwrap();
    let main = proc.client("main").unwrap();
    handle.post(&main, proc).unwrap();
    let exit = soon(handle.join()).await;
    assert!(exit.to_string().contains("was dropped"), "{exit}");
}
