//! A message that the actor does not handle, posted through a handle.

use hyperactor_proc::{Actor, ActorHandle, ActorResult, Client, Context, Handler};

#[derive(Actor)]
struct Counter;

impl Handler<u8> for Counter {
    async fn handle(&mut self, _cx: &Context<Self>, _: u8) -> ActorResult {
        Ok(())
    }
}

impl Handler<u16> for Counter {
    async fn handle(&mut self, _cx: &Context<Self>, _: u16) -> ActorResult {
        Ok(())
    }
}

fn post(counter: &ActorHandle<Counter>, client: &Client) {
    counter.post(client, "text").ok();
}

fn main() {}
