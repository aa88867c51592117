//! A reply in many parts: items that come as fast as they are taken, an end, and a failure that is no end.
//!
//! Its last line: `5 items came, then a failure that is no end: true`.

use std::time::Duration;

use hyperactor::prelude::*;
use hyperactor::proc::{StreamError, StreamRef};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Message)]
struct Draw {
    buckets: u32,
    /// Where the buckets go; in another process as well.
    out: StreamRef<u32>,
}

#[derive(Actor)]
#[actor(messages(Draw))]
struct Well {
    left: u32,
}

#[actor]
impl Well {
    #[actor(spawn)]
    fn create(left: u32) -> Self {
        Self { left }
    }

    async fn depth(&mut self, _cx: &Context<Self>) -> u32 {
        self.left
    }
}

impl Handler<Draw> for Well {
    async fn handle(&mut self, cx: &Context<Self>, draw: Draw) -> ActorResult {
        let mut out = draw.out.open(cx)?;
        for bucket in 0..draw.buckets {
            if self.left == 0 {
                out.fail("the well is dry");
                return Ok(());
            }
            self.left -= 1;
            // Waits while the receiver is slow; an error says that it wants no more.
            if out.send(bucket).await.is_err() {
                return Ok(());
            }
        }
        out.finish();
        Ok(())
    }
}

#[hyperactor::main(actors(Well))]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let host = Host::new(ProcessManager::new()?, ChannelTransport::Unix).await?;
    let client = host.service_proc().client("main")?;
    let garden = host.spawn("garden", ProcConfig::default()).await?;
    let well = garden.spawn::<Well>(&client, "well", 15).await?;

    let draw = |buckets| move |out| Draw { buckets, out };
    let all = well.ask_stream(&client, draw(10)).await?.collect().await?;
    println!("{} buckets in order: {}", all.len(), all.is_sorted());
    println!("left in the well: {}", well.depth(&client).await?);

    let mut stream = well.ask_stream(&client, draw(10)).await?;
    let mut items = 0;
    let error: StreamError = loop {
        match stream.next_within(Duration::from_secs(5)).await {
            Ok(Some(_)) => items += 1,
            Ok(None) => return Err("the well cannot hold that much".into()),
            Err(error) => break error,
        }
    };
    host.stop(Duration::from_secs(5)).await;
    println!("{error}");
    let failed = matches!(error, StreamError::Failed { .. });
    println!("{items} items came, then a failure that is no end: {failed}");
    Ok(())
}
