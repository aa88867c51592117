//! Sending in the name of a proc, which is nobody.

use hyperactor_proc::{Actor, ActorRef, ActorResult, Context, Proc, Tell, actor};

#[derive(Actor)]
struct Counter;

#[actor]
impl Counter {
    async fn add(&mut self, _cx: &Context<Self>, _amount: u64) -> ActorResult {
        Ok(())
    }
}

fn by_method(counter: &ActorRef<Counter>, proc: &Proc) {
    counter.add(proc, 1).post();
}

fn by_message(counter: &ActorRef<Counter>, proc: &Proc) {
    counter.post(proc, CounterAdd { amount: 1 });
}

fn main() {}
