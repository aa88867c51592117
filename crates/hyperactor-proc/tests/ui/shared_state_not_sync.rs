//! A method that shares, across an await, state that cannot be shared.

use std::cell::Cell;

use hyperactor_proc::{Actor, ActorResult, Context, actor};

#[derive(Actor)]
struct Counter {
    total: Cell<u64>,
}

#[actor]
impl Counter {
    async fn add(&self, _cx: &Context<Self>, amount: u64) -> ActorResult {
        tokio::task::yield_now().await;
        self.total.set(self.total.get() + amount);
        Ok(())
    }
}

fn main() {}
