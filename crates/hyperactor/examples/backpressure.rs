//! A bounded mailbox: who is too fast waits, is told, or loses what can be lost.
//!
//! Its last line: `every reading was seen, refused or returned: true`.

use hyperactor::mailbox::Overflow;
use hyperactor::prelude::*;
use hyperactor::proc::SpawnOptions;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

#[derive(Debug, Serialize, Deserialize, Message)]
struct Reading(u32);

/// Takes readings only while its gate is open, and tells at its end which it saw.
#[derive(Actor)]
#[actor(hooks, messages(Reading))]
struct Gauge {
    gate: watch::Receiver<bool>,
    seen: Vec<u32>,
    report: PortRef<Vec<u32>>,
}

impl Actor for Gauge {
    async fn cleanup(&mut self, cx: &Context<Self>, _reason: &ExitReason) -> ActorResult {
        self.report.post(cx, std::mem::take(&mut self.seen));
        Ok(())
    }
}

impl Handler<Reading> for Gauge {
    async fn handle(&mut self, _cx: &Context<Self>, Reading(value): Reading) -> ActorResult {
        self.gate.wait_for(|open| *open).await?;
        self.seen.push(value);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proc = Proc::isolated("backpressure");
    let client = proc.client("main")?;
    let mut all_accounted_for = true;
    for (name, overflow) in [
        ("wait", Overflow::Wait),
        ("drop-oldest", Overflow::DropOldest),
        ("drop-newest", Overflow::DropNewest),
    ] {
        let (report, mut reports) = client.mailbox().open_port();
        let (open, gate) = watch::channel(false);
        let gauge = Gauge {
            gate,
            seen: Vec::new(),
            report: report.bind(),
        };
        let options = SpawnOptions::default().queue_capacity(4).overflow(overflow);
        let gauge = proc.spawn_with(name, gauge, &options)?;
        // More than fits: a post never waits. `feed` and `send` do, where the policy is to wait.
        let mut refused = 0;
        for value in 0..10 {
            refused += usize::from(gauge.post(&client, Reading(value)).is_err());
        }
        open.send_replace(true);
        gauge.drain();
        let seen = reports.recv().await.ok_or("the gauge is gone")?;
        let mut returned = 0;
        while client.try_next_undeliverable().is_some() {
            returned += 1;
        }
        println!("{name}: seen {seen:?}, {refused} refused at once, {returned} came back");
        all_accounted_for &= seen.len() + refused + returned == 10;
    }
    println!("every reading was seen, refused or returned: {all_accounted_for}");
    Ok(())
}
