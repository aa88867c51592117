//! An actor made from what cannot be sent.

use hyperactor_proc::{Actor, ActorError, RemoteSpawn};

struct Options;

#[derive(Actor)]
struct Counter;

impl RemoteSpawn for Counter {
    type Params = Options;

    fn create(_: Options) -> Result<Self, ActorError> {
        Ok(Self)
    }
}

fn main() {}
