//! An exported message that is no message.

use hyperactor_proc::{Actor, ActorResult, Context, Handler};

struct Add(u64);

#[derive(Actor)]
#[actor(messages(Add))]
struct Counter;

impl Handler<Add> for Counter {
    async fn handle(&mut self, _cx: &Context<Self>, _: Add) -> ActorResult {
        Ok(())
    }
}

fn main() {}
