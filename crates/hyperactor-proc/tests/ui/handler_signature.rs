//! A handler that takes its context by value and returns nothing.

use hyperactor_proc::{Actor, Context, Handler};

#[derive(Actor)]
struct Counter;

impl Handler<u64> for Counter {
    async fn handle(&mut self, _cx: Context<Self>, _number: u64) {}
}

fn main() {}
