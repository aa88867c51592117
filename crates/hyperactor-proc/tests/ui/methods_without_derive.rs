//! Methods of a type that is no actor.

use hyperactor_proc::{ActorResult, Context, actor};

struct Counter;

#[actor]
impl Counter {
    async fn add(&mut self, _cx: &Context<Self>, _amount: u64) -> ActorResult {
        Ok(())
    }
}

fn main() {}
