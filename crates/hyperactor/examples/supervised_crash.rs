//! A worker that crashes, and the supervisor that starts it again; a watcher is told why it ended.
//!
//! Its last line: `life 2: a thousand by eight is 125 again`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hyperactor::prelude::*;
use hyperactor::proc::{Backoff, ChildSpec, Event, ListChildren, Strategy, Supervisor};

/// Divides a thousand, and crashes when it is asked to divide by nothing.
#[derive(Actor)]
struct Divider {
    life: u32,
}

#[actor]
impl Divider {
    /// How much it is, and in which life that was worked out.
    async fn divide(&mut self, _cx: &Context<Self>, by: u32) -> (u32, u32) {
        (1_000 / by, self.life)
    }
}

/// Passes on what it is told of the divider's end.
#[derive(Actor)]
#[actor(hooks)]
struct Watcher {
    divider: ActorId,
    told: PortRef<String>,
}

impl Actor for Watcher {
    async fn init(&mut self, cx: &Context<Self>) -> ActorResult {
        cx.monitor(&self.divider)?;
        Ok(())
    }

    async fn on_supervision(&mut self, cx: &Context<Self>, event: Event) -> ActorResult {
        self.told.post(cx, event.to_string());
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proc = Proc::isolated("supervised");
    let client = proc.client("main")?;

    let lives = Arc::new(AtomicU32::new(0));
    let next_life = move || Divider {
        life: lives.fetch_add(1, Ordering::Relaxed) + 1,
    };
    let supervisor = Supervisor::new(Strategy::OneForOne)
        .intensity(3, Duration::from_secs(5))
        .backoff(Backoff::none())
        .child(ChildSpec::exporting("divider", next_life));
    let supervisor = proc.spawn("supervisor", supervisor)?.bind();
    let divider = child_of(&supervisor, &client, 0).await?;
    let (quotient, life) = divider.divide(&client, 8).await?;
    println!("life {life}: a thousand by eight is {quotient}");

    let (told, mut end) = client.mailbox().open_port::<String>();
    proc.spawn(
        "watcher",
        Watcher {
            divider: divider.actor_id().clone(),
            told: told.bind(),
        },
    )?;

    let crashed = divider.divide(&client, 0).await;
    println!(
        "by nothing: {}",
        crashed.err().ok_or("it did not crash")?.code()
    );
    println!("{}", end.recv().await.ok_or("nobody told of the end")?);

    let divider = child_of(&supervisor, &client, 1).await?;
    let (quotient, life) = divider.divide(&client, 8).await?;
    println!("life {life}: a thousand by eight is {quotient} again");
    Ok(())
}

/// The supervisor's child, once it runs and was started again so many times.
async fn child_of(
    supervisor: &ActorRef<Supervisor>,
    client: &Client,
    restarts: u64,
) -> Result<ActorRef<Divider>, AskError> {
    loop {
        let children = supervisor
            .ask(client, |reply| ListChildren { reply })
            .await?;
        let found = children
            .into_iter()
            .find(|child| child.restarts == restarts);
        if let Some(actor_id) = found.and_then(|child| child.actor_id) {
            return Ok(ActorRef::attest(actor_id));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
