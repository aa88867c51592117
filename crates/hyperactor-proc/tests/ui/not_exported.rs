//! A message that is handled but not exported, sent through a reference.

use hyperactor_proc::{Actor, ActorRef, ActorResult, Client, Context, Handler, Message};
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
struct Add(u64);

#[derive(Actor)]
#[actor(messages(u8, u16))]
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

impl Handler<Add> for Counter {
    async fn handle(&mut self, _cx: &Context<Self>, _: Add) -> ActorResult {
        Ok(())
    }
}

fn send(counter: &ActorRef<Counter>, client: &Client) {
    counter.post(client, Add(1));
}

fn main() {}
