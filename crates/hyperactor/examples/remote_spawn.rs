//! An actor that is made in another process, by its type and its parameters.
//!
//! Its last line: `ended in order: true`.

use std::time::Duration;

use hyperactor::prelude::*;
use hyperactor::proc::RemoteSpawnError;

/// Counts from a number on.
#[derive(Actor)]
struct Counter {
    total: i64,
}

#[actor]
impl Counter {
    /// What [`RemoteSpawn`] calls in the other process. An error comes back to whoever asked.
    #[actor(spawn)]
    fn create(from: i64) -> ActorResult<Self> {
        if from < 0 {
            return Err(format!("a counter begins at nought at least, not at {from}").into());
        }
        Ok(Self { total: from })
    }

    /// Adds, and replies the new total and the process it is in.
    async fn add(&mut self, _cx: &Context<Self>, amount: i64) -> (i64, u32) {
        self.total += amount;
        (self.total, std::process::id())
    }
}

/// Registered nowhere.
#[derive(Actor)]
struct Countess;

impl RemoteSpawn for Countess {
    type Params = ();

    fn create((): ()) -> ActorResult<Self> {
        Ok(Self)
    }
}

#[hyperactor::main(actors(Counter))]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let host = Host::new(ProcessManager::new()?, ChannelTransport::Unix).await?;
    let client = host.service_proc().client("main")?;
    let worker = host.spawn("worker", ProcConfig::default()).await?;

    let counter = worker.spawn::<Counter>(&client, "counter", 40).await?;
    let (total, process) = counter.add(&client, 2).await?;
    let elsewhere = process != std::process::id();
    println!("{total}, counted in another process: {elsewhere}");

    // The parameters may be refused, and a type may be unknown there: the answer says why, and which names are near.
    for refused in [
        worker.spawn::<Counter>(&client, "below", -1).await.err(),
        worker
            .spawn::<Countess>(&client, "countess", ())
            .await
            .err(),
    ] {
        let error: RemoteSpawnError = refused.ok_or("it was spawned")?;
        println!("refused ({}): {error}", error.code());
    }

    let report = host.stop(Duration::from_secs(5)).await;
    println!("ended in order: {}", report.is_clean());
    Ok(())
}
