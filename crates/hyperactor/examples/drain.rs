//! Three ways for an actor to end: what is queued is handled, comes back, or is cut off.
//!
//! Its last line: `messages that no actor handled: 4`.

use std::time::Duration;

use hyperactor::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

#[derive(Debug, Serialize, Deserialize, Message)]
struct Work(u32);

/// Works only while its gate is open.
#[derive(Actor)]
#[actor(hooks)]
struct Worker {
    /// Becomes true when the first piece is in hand.
    began: watch::Sender<bool>,
    gate: watch::Receiver<bool>,
    done: u32,
}

impl Actor for Worker {
    async fn cleanup(&mut self, cx: &Context<Self>, reason: &ExitReason) -> ActorResult {
        println!(
            "{} ({reason:?}) after {} pieces",
            cx.actor_id().name(),
            self.done
        );
        Ok(())
    }
}

impl Handler<Work> for Worker {
    async fn handle(&mut self, _cx: &Context<Self>, Work(_): Work) -> ActorResult {
        self.began.send_replace(true);
        self.gate.wait_for(|open| *open).await?;
        self.done += 1;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proc = Proc::isolated("drain");
    let client = proc.client("main")?;
    for how in ["drained", "stopped", "aborted"] {
        let (open, gate) = watch::channel(false);
        let (began, mut has_begun) = watch::channel(false);
        let worker = proc.spawn(
            how,
            Worker {
                began,
                gate,
                done: 0,
            },
        )?;
        for piece in 0..3 {
            worker.post(&client, Work(piece))?;
        }
        has_begun.wait_for(|begun| *begun).await?;
        match how {
            "drained" => worker.drain(),
            "stopped" => worker.stop(),
            _ => worker.abort(),
        }
        // An aborted actor is cut off where it waits; the others finish the piece in hand.
        if how != "aborted" {
            open.send_replace(true);
        }
        println!("{how}: {}", worker.join().await);
        let mut returned = 0;
        while client.try_next_undeliverable().is_some() {
            returned += 1;
        }
        println!("{how}: {returned} came back");
    }
    let report = proc.stop(Duration::from_secs(5)).await;
    println!("messages that no actor handled: {}", report.unhandled);
    Ok(())
}
