//! A question with a deadline: an answer, an actor that does not answer in time, and one that is gone.

use std::time::Duration;

use hyperactor::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, Message)]
struct SquareRoot {
    of: u64,
    reply: OncePortRef<Result<u64, String>>,
}

/// A question that is never answered: its reply port waits until the asker gives up.
#[derive(Debug, Serialize, Deserialize, Message)]
struct Ponder {
    reply: OncePortRef<u64>,
}

#[derive(Default, Actor)]
#[actor(messages(SquareRoot, Ponder))]
struct Mathematician {
    pondering: Vec<OncePortRef<u64>>,
}

impl Handler<SquareRoot> for Mathematician {
    async fn handle(&mut self, cx: &Context<Self>, message: SquareRoot) -> ActorResult {
        let SquareRoot { of, reply } = message;
        let root = of.isqrt();
        // What concerns the asker alone goes into the reply; an error returned here would end the actor.
        let answer = match root * root == of {
            true => Ok(root),
            false => Err(format!("{of} is no square number")),
        };
        reply.post(cx, answer);
        Ok(())
    }
}

impl Handler<Ponder> for Mathematician {
    async fn handle(&mut self, _cx: &Context<Self>, Ponder { reply }: Ponder) -> ActorResult {
        self.pondering.push(reply);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proc = Proc::isolated("maths");
    let client = proc.client("main")?;
    let handle = proc.spawn("mathematician", Mathematician::default())?;
    let mathematician = handle.bind();

    for of in [1764, 1765] {
        let answer = mathematician
            .ask(&client, |reply| SquareRoot { of, reply })
            .await?;
        println!("square root of {of}: {answer:?}");
    }

    let deadline = Duration::from_millis(100);
    let late = mathematician
        .ask_within(&client, deadline, |reply| Ponder { reply })
        .await;
    if let Err(error) = late {
        println!("pondering: {error}");
    }

    handle.stop();
    handle.join().await;
    // No waiting for the deadline: the question came back, so there is no answer to wait for.
    let gone = mathematician.ask(&client, |reply| Ponder { reply }).await;
    if let Err(error) = gone {
        println!("after its end: {error}");
    }
    Ok(())
}
