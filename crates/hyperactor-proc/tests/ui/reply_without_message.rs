//! A method that replies what cannot leave the process.

use hyperactor_proc::{Actor, Context, actor};

struct Total(u64);

#[derive(Actor)]
struct Counter;

#[actor]
impl Counter {
    async fn total(&self, _cx: &Context<Self>) -> Total {
        Total(0)
    }
}

fn main() {}
