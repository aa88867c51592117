//! A call that is neither awaited nor posted.
#![deny(unused_must_use)]

use hyperactor_proc::{Actor, ActorRef, ActorResult, Client, Context, actor};

#[derive(Actor)]
struct Counter;

#[actor]
impl Counter {
    async fn add(&mut self, _cx: &Context<Self>, _amount: u64) -> ActorResult {
        Ok(())
    }
}

fn add(counter: &ActorRef<Counter>, client: &Client) {
    counter.add(client, 1);
}

fn main() {}
