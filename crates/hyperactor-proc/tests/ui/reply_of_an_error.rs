//! A method whose error, a reply, cannot leave the process.

use hyperactor_proc::{Actor, Context, actor};

#[derive(Actor)]
struct Counter;

#[actor]
impl Counter {
    async fn parse(&mut self, _cx: &Context<Self>, text: String) -> Result<u64, std::num::ParseIntError> {
        text.parse()
    }
}

fn main() {}
