//! An actor with two methods, in one process and without any network.
//!
//! Its last line: `2 greeted`.

use hyperactor::prelude::*;

#[derive(Default, Actor)]
struct Greeter {
    greeted: u64,
}

#[actor]
impl Greeter {
    /// Greets, and replies nothing.
    async fn greet(&mut self, _cx: &Context<Self>, name: String) -> ActorResult {
        println!("hello, {name}");
        self.greeted += 1;
        Ok(())
    }

    /// How many were greeted.
    async fn greeted(&self, _cx: &Context<Self>) -> u64 {
        self.greeted
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proc = Proc::isolated("hello");
    let client = proc.client("main")?;
    let greeter = proc.spawn("greeter", Greeter::default())?;

    // Awaited, a call without a reply says that it is in the actor's queue; posted, it is not waited for.
    greeter.greet(&client, "world".to_owned()).await?;
    greeter.greet(&client, "reader".to_owned()).post();
    let greeted = greeter.greeted(&client).await?;
    println!("{greeted} greeted");
    Ok(())
}
