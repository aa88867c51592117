//! A facade with a message that the actor does not take.

use hyperactor_proc::{Actor, ActorRef, ActorResult, Context, Facade, RestrictedRef, actor};

#[derive(Actor)]
struct Counter;

#[actor]
impl Counter {
    async fn add(&mut self, _cx: &Context<Self>, _amount: u64) -> ActorResult {
        Ok(())
    }

    async fn reset(&mut self, _cx: &Context<Self>) -> ActorResult {
        Ok(())
    }
}

#[derive(Facade)]
#[facade(messages(CounterAdd, u8))]
struct Adder;

fn restrict(counter: &ActorRef<Counter>) -> RestrictedRef<Adder> {
    counter.restrict()
}

fn main() {}
