//! A call by method where the client trait is not in scope.

use hyperactor_proc::{ActorRef, Client, Tell};

mod counting {
    use hyperactor_proc::{Actor, ActorResult, Context, actor};

    #[derive(Actor)]
    pub struct Counter;

    #[actor]
    impl Counter {
        pub async fn add(&mut self, _cx: &Context<Self>, _amount: u64) -> ActorResult {
            Ok(())
        }
    }
}

fn add(counter: &ActorRef<counting::Counter>, client: &Client) {
    counter.add(client, 1).post();
}

fn main() {}
