//! A call that the facade of a reference leaves out.

use hyperactor_proc::{Actor, ActorResult, Client, Context, Facade, RestrictedRef, Tell, actor};

#[derive(Actor)]
struct Counter;

#[actor]
impl Counter {
    async fn add(&mut self, _cx: &Context<Self>, _amount: u64) -> ActorResult {
        Ok(())
    }

    async fn total(&self, _cx: &Context<Self>) -> u64 {
        0
    }

    async fn reset(&mut self, _cx: &Context<Self>) -> ActorResult {
        Ok(())
    }
}

#[derive(Facade)]
#[facade(messages(CounterAdd, CounterTotal))]
struct Adder;

fn by_method(counter: &RestrictedRef<Adder>, client: &Client) {
    counter.reset(client).post();
}

fn by_message(counter: &RestrictedRef<Adder>, client: &Client) {
    counter.post(client, CounterReset);
}

fn main() {}
