//! A reply of another type than the port takes.

use hyperactor_proc::{Actor, ActorResult, Context, Handler, Message, OncePortRef};
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
struct Total(OncePortRef<u64>);

#[derive(Actor)]
#[actor(messages(Total))]
struct Counter;

impl Handler<Total> for Counter {
    async fn handle(&mut self, cx: &Context<Self>, Total(reply): Total) -> ActorResult {
        cx.reply(reply, "three");
        Ok(())
    }
}

fn main() {}
