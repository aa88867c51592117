//! Two processes whose actors throw a ball to each other, past the host that started them.
//!
//! Its last line: `ended in order: true`.

use std::time::Duration;

use hyperactor::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, Message)]
struct Ball {
    throws_left: u32,
    /// Who catches next; references to actors travel in messages.
    next: ActorRef<Player>,
    /// Told when the game is over.
    referee: PortRef<u32>,
}

#[derive(Default, Actor)]
#[actor(messages(Ball))]
struct Player;

impl RemoteSpawn for Player {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self)
    }
}

impl Handler<Ball> for Player {
    async fn handle(&mut self, cx: &Context<Self>, ball: Ball) -> ActorResult {
        let Ball {
            throws_left,
            next,
            referee,
        } = ball;
        if throws_left == 0 {
            referee.post(cx, std::process::id());
            return Ok(());
        }
        let back = Ball {
            throws_left: throws_left - 1,
            next: cx.handle().bind(),
            referee,
        };
        next.post(cx, back);
        Ok(())
    }
}

#[hyperactor::main(actors(Player))]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let host = Host::new(ProcessManager::new()?, ChannelTransport::Unix).await?;
    let client = host.service_proc().client("main")?;

    let left = host.spawn("left", ProcConfig::default()).await?;
    let right = host.spawn("right", ProcConfig::default()).await?;
    let left_player = left.spawn::<Player>(&client, "player", ()).await?;
    let right_player = right.spawn::<Player>(&client, "player", ()).await?;

    let (referee, mut whistle) = client.mailbox().open_port::<u32>();
    let ball = Ball {
        throws_left: 1_000,
        next: right_player,
        referee: referee.bind(),
    };
    left_player.post(&client, ball);
    let last = whistle.recv().await.ok_or("the referee is gone")?;
    println!("a thousand throws; the ball ended in process {last}");

    let report = host.stop(Duration::from_secs(5)).await;
    println!("ended in order: {}", report.is_clean());
    Ok(())
}
