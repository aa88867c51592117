//! A handler that holds what cannot move between threads across an await.

use std::rc::Rc;

use hyperactor_proc::{Actor, ActorResult, Context, Handler};

#[derive(Actor)]
struct Counter;

impl Handler<u64> for Counter {
    async fn handle(&mut self, _cx: &Context<Self>, number: u64) -> ActorResult {
        let shared = Rc::new(number);
        tokio::task::yield_now().await;
        drop(shared);
        Ok(())
    }
}

fn main() {}
