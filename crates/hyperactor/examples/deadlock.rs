//! Actors that wait for one another in a circle, over three processes: the last one to ask is told at once, with the
//! whole circle.
//!
//! Its last line: `ended in order: true`.

use std::time::{Duration, Instant};

use hyperactor::prelude::*;
use serde::{Deserialize, Serialize};

/// Asks the first of the others to ask the rest.
#[derive(Serialize, Deserialize, Message)]
struct Consult {
    others: Vec<ActorRef<Clerk>>,
    reply: OncePortRef<String>,
}

#[derive(Default, Actor)]
#[actor(messages(Consult))]
struct Clerk;

impl RemoteSpawn for Clerk {
    type Params = ();

    fn create((): ()) -> ActorResult<Self> {
        Ok(Self)
    }
}

impl Handler<Consult> for Clerk {
    async fn handle(&mut self, cx: &Context<Self>, consult: Consult) -> ActorResult {
        let Consult { mut others, reply } = consult;
        if others.is_empty() {
            reply.post(cx, "signed".to_owned());
            return Ok(());
        }
        let next = others.remove(0);
        // While it waits here it handles nothing else: whoever asks it back would wait for ever.
        let answer = next.ask(cx, |reply| Consult { others, reply }).await;
        let said = match answer {
            Ok(answer) => answer,
            Err(AskError::Deadlock { chain, .. }) => {
                let names: Vec<String> = chain
                    .iter()
                    .map(|id| id.proc_id().name().to_owned())
                    .collect();
                format!("no way: {} wait for one another", names.join(", "))
            }
            Err(error) => error.to_string(),
        };
        reply.post(cx, said);
        Ok(())
    }
}

#[hyperactor::main(actors(Clerk))]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let host = Host::new(ProcessManager::new()?, ChannelTransport::Unix).await?;
    let client = host.service_proc().client("main")?;
    let mut clerks = Vec::new();
    for name in ["customs", "harbour", "treasury"] {
        let office = host.spawn(name, ProcConfig::default()).await?;
        clerks.push(office.spawn::<Clerk>(&client, "clerk", ()).await?);
    }
    let [customs, harbour, treasury] = clerks.try_into().map_err(|_| "three clerks")?;

    let line = vec![harbour.clone(), treasury.clone()];
    let answer = customs
        .ask(&client, |reply| Consult {
            others: line,
            reply,
        })
        .await?;
    println!("in a line: {answer}");

    let start = Instant::now();
    let circle = vec![harbour, treasury, customs.clone()];
    let answer = customs
        .ask(&client, |reply| Consult {
            others: circle,
            reply,
        })
        .await?;
    println!("in a circle: {answer}");
    println!("told at once: {}", start.elapsed() < Duration::from_secs(5));

    let report = host.stop(Duration::from_secs(5)).await;
    println!("ended in order: {}", report.is_clean());
    Ok(())
}
