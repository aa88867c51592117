//! Registration at link time, without the feature that gathers it.

use hyperactor_proc::{Actor, ActorError, RemoteSpawn};

#[derive(Actor)]
#[actor(linked)]
struct Counter;

impl RemoteSpawn for Counter {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self)
    }
}

fn main() {}
