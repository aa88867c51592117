//! What comes back when a message cannot be delivered: the message itself, the reason, and the way it took.
//!
//! Its last line: `ended in order: true`.

use std::time::Duration;

use hyperactor::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, Message)]
struct Note(String);

#[derive(Default, Actor)]
#[actor(messages(Note))]
struct Desk;

impl Handler<Note> for Desk {
    async fn handle(&mut self, _cx: &Context<Self>, Note(text): Note) -> ActorResult {
        println!("on the desk: {text}");
        Ok(())
    }
}

#[hyperactor::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let host = Host::new(ProcessManager::new()?, ChannelTransport::Unix).await?;
    let client = host.service_proc().client("main")?;

    // `send` waits for the outcome and returns it.
    let desk = host.service_proc().spawn("desk", Desk)?;
    let here = desk.bind();
    println!(
        "to an actor: {}",
        here.send(&client, Note("one".into())).await
    );

    desk.stop();
    desk.join().await;
    println!(
        "to one that ended: {}",
        here.send(&client, Note("two".into())).await
    );

    // A proc that this host does not have: it says so at once, and which it does have.
    let nowhere = ProcId::direct(host.addr().clone(), "nowhere")?;
    let lost = ActorRef::<Desk>::attest(ActorId::root(nowhere, "desk"));
    println!(
        "to no proc: {}",
        lost.send(&client, Note("three".into())).await
    );

    // `post` does not wait; what comes back reaches the sender later.
    lost.post(&client, Note("four".into()));
    let report = client.next_undeliverable().await;
    println!("came back: {report}");

    let report = host.stop(Duration::from_secs(5)).await;
    println!("ended in order: {}", report.is_clean());
    Ok(())
}
