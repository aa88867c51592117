//! An actor with two messages, in one process and without any network.

use hyperactor::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, Message)]
struct Greet {
    name: String,
}

#[derive(Debug, Serialize, Deserialize, Message)]
struct HowMany {
    reply: OncePortRef<u64>,
}

#[derive(Default, Actor)]
#[actor(messages(Greet, HowMany))]
struct Greeter {
    greeted: u64,
}

impl Handler<Greet> for Greeter {
    async fn handle(&mut self, _cx: &Context<Self>, Greet { name }: Greet) -> ActorResult {
        println!("hello, {name}");
        self.greeted += 1;
        Ok(())
    }
}

impl Handler<HowMany> for Greeter {
    async fn handle(&mut self, cx: &Context<Self>, HowMany { reply }: HowMany) -> ActorResult {
        reply.post(cx, self.greeted);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proc = Proc::isolated("hello");
    let client = proc.client("main")?;
    let greeter = proc.spawn("greeter", Greeter::default())?.bind();

    for name in ["world", "reader"] {
        greeter.post(
            &client,
            Greet {
                name: name.to_owned(),
            },
        );
    }
    let greeted = greeter.ask(&client, |reply| HowMany { reply }).await?;
    println!("{greeted} greeted");
    Ok(())
}
