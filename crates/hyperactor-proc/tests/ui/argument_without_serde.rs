//! A method that takes what cannot leave the process.

use hyperactor_proc::{Actor, ActorResult, Context, actor};

struct Amount(u64);

#[derive(Actor)]
struct Counter;

#[actor]
impl Counter {
    async fn add(&mut self, _cx: &Context<Self>, amount: Amount) -> ActorResult {
        drop(amount);
        Ok(())
    }
}

fn main() {}
