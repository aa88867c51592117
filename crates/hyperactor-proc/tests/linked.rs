//! Types that are registered at link time. In a program of its own, since it asserts on all there are.

#![cfg(feature = "link-registration")]
#![allow(clippy::unwrap_used, reason = "tests")]

use hyperactor_proc::{
    Actor, ActorError, Context, Proc, ProcAgent, Registry, RemoteSpawn, actor, spawn_remote,
};

#[derive(Actor)]
#[actor(linked, name = "linked.gauge")]
struct Gauge {
    level: u8,
}

#[actor]
impl Gauge {
    async fn level(&self, _cx: &Context<Self>) -> u8 {
        self.level
    }
}

impl RemoteSpawn for Gauge {
    type Params = u8;

    fn create(level: u8) -> Result<Self, ActorError> {
        Ok(Self { level })
    }
}

mod elsewhere {
    use super::*;

    #[derive(Actor)]
    #[actor(linked, name = "linked.valve")]
    struct Valve;

    impl RemoteSpawn for Valve {
        type Params = ();

        fn create((): ()) -> Result<Self, ActorError> {
            Ok(Self)
        }
    }
}

#[derive(Actor)]
#[actor(name = "listed")]
struct Listed;

impl RemoteSpawn for Listed {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self)
    }
}

#[test]
fn a_registry_gathers_what_is_linked_beside_what_is_listed() {
    let registry = Registry::new().with::<Listed>().with_linked();
    let names: Vec<_> = registry.type_names().collect();
    assert_eq!(names, ["linked.gauge", "linked.valve", "listed"]);
    // What is listed and linked is there once.
    let again = registry.with::<Gauge>().with_linked();
    assert_eq!(again.type_names().count(), 3);
}

#[tokio::test]
async fn a_linked_type_is_spawned_by_its_name() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    ProcAgent::spawn_in(&proc, Registry::new().with_linked()).unwrap();
    let gauge = spawn_remote::<Gauge>(&main, proc.proc_id(), "gauge", 7)
        .await
        .unwrap();
    assert_eq!(gauge.level(&main).await, Ok(7));
}
