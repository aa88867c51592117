//! A question with a deadline: an answer, an actor that does not answer in time, and one that is gone.
//!
//! Its last line: `worth asking again: false`.

use std::time::Duration;

use hyperactor::prelude::*;

#[derive(Default, Actor)]
struct Mathematician {
    pondering: Vec<OncePortRef<u64>>,
}

#[actor]
impl Mathematician {
    /// An error that concerns the asker alone is a reply; an `ActorResult` with an error would end the actor.
    async fn square_root(&mut self, _cx: &Context<Self>, of: u64) -> Result<u64, String> {
        let root = of.isqrt();
        if root * root == of {
            Ok(root)
        } else {
            Err(format!("{of} is no square number"))
        }
    }

    /// A question that is never answered: its reply port waits until the asker gives up.
    async fn ponder(&mut self, _cx: &Context<Self>, reply: Option<OncePortRef<u64>>) {
        self.pondering.extend(reply);
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proc = Proc::isolated("maths");
    let client = proc.client("main")?;
    let mathematician = proc.spawn("mathematician", Mathematician::default())?;

    for of in [1764, 1765] {
        let answer = mathematician.square_root(&client, of).await?;
        println!("square root of {of}: {answer:?}");
    }

    let deadline = Duration::from_millis(100);
    let late = mathematician.ponder(&client).within(deadline).await;
    if let Err(error) = late {
        println!("pondering: {error}");
    }

    mathematician.stop();
    mathematician.join().await;
    // No waiting for the deadline: the question came back, so there is no answer to wait for.
    let gone = mathematician.ponder(&client).await;
    if let Err(error) = gone {
        println!("after its end ({}): {error}", error.code());
        println!("worth asking again: {}", error.is_retryable());
    }
    Ok(())
}
