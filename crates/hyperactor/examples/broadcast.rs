//! One message to many: a group whose members live in several processes.
//!
//! Its last line: `left behind: 0`.

use std::time::Duration;

use hyperactor::prelude::*;
use hyperactor::proc::Group;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
struct Bell {
    heard: PortRef<String>,
}

#[derive(Default, Actor)]
#[actor(messages(Bell))]
struct Listener;

#[actor]
impl Listener {
    #[actor(spawn)]
    fn create() -> Self {
        Self
    }

    /// Joins a group.
    async fn listen(&mut self, cx: &Context<Self>, group: Group<Bell>) -> ActorResult<()> {
        group.join(cx, &cx.handle().bind().port::<Bell>()).await?;
        Ok(())
    }
}

impl Handler<Bell> for Listener {
    async fn handle(&mut self, cx: &Context<Self>, bell: Bell) -> ActorResult {
        bell.heard
            .post(cx, cx.actor_id().proc_id().name().to_owned());
        Ok(())
    }
}

#[hyperactor::main(actors(Listener))]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let host = Host::new(ProcessManager::new()?, ChannelTransport::Unix).await?;
    let client = host.service_proc().client("main")?;
    let group = Group::<Bell>::new(host.service_proc().proc_id().clone(), "village");

    for name in ["north", "east", "south", "west"] {
        let proc = host.spawn(name, ProcConfig::default()).await?;
        let listener = proc.spawn::<Listener>(&client, "listener", ()).await?;
        listener.listen(&client, group.clone()).await?;
    }

    let (heard, mut ears) = client.mailbox().open_port::<String>();
    let members = group
        .broadcast(
            &client,
            Bell {
                heard: heard.bind(),
            },
        )
        .await?;
    let mut names = Vec::new();
    while names.len() < members {
        names.push(ears.recv().await.ok_or("the port is gone")?);
    }
    names.sort();
    println!("heard in {}", names.join(", "));

    // A member whose process ends leaves by itself.
    let east = host.proc("east").ok_or("east is not there")?;
    east.end(hyperactor::host::End::Kill).await;
    while group.members(&client).await?.len() == members {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("members now: {}", group.members(&client).await?.len());

    let report = host.stop(Duration::from_secs(5)).await;
    println!("left behind: {}", report.left_behind.len());
    Ok(())
}
