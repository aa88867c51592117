//! An exported message without a handler.

use hyperactor_proc::{Actor, ActorResult, Context, Handler, Message};
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
struct Add(u64);

#[derive(Actor)]
#[actor(messages(Add))]
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

fn main() {}
