//! The attribute `actor` where it does not belong.

use hyperactor_proc::{Actor, ActorResult, Context, Handler, actor};

#[actor]
struct Forgotten;

#[derive(Actor)]
struct Counter;

#[actor(messages(u8))]
impl Counter {
    async fn add(&mut self, _cx: &Context<Self>, _amount: u64) -> ActorResult {
        Ok(())
    }
}

#[actor]
impl Handler<u8> for Counter {
    async fn handle(&mut self, _cx: &Context<Self>, _: u8) -> ActorResult {
        Ok(())
    }
}

#[actor]
impl Counter {
    async fn forgets_its_context(&mut self, _amount: u64) -> ActorResult {
        Ok(())
    }
}

fn main() {}
