//! What a handler that blocks its thread costs its neighbours in the same process: nothing, once that is known of it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use hyperactor_host::RoutePolicy;
use hyperactor_proc::{
    Actor, ActorError, ActorResult, Context, Handler, Message, OncePortRef, RemoteSpawn,
};
use libtest_mimic::Trial;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;

use crate::actors::Sink;
use crate::trial;
use crate::world::{LONG, TestResult, World};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "a_handler_that_blocks_its_thread_delays_nobody_once_its_actor_is_known_as_slow",
        neighbours,
    )]
}

/// Blocks its thread for as long as others want it to.
#[derive(Actor, Default)]
#[actor(messages(Hold))]
pub(crate) struct Holder;

/// Connects to a socket, and blocks until the other end closes, or for so long; replies whether it closed.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Hold {
    socket: PathBuf,
    at_most: Duration,
    reply: OncePortRef<bool>,
}

impl RemoteSpawn for Holder {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self)
    }
}

impl Handler<Hold> for Holder {
    async fn handle(&mut self, cx: &Context<Self>, hold: Hold) -> ActorResult {
        let mut socket = UnixStream::connect(&hold.socket)?;
        socket.set_read_timeout(Some(hold.at_most))?;
        socket.write_all(b"x")?;
        let was_released = socket.read_to_end(&mut Vec::new()).is_ok();
        cx.reply(hold.reply, was_released);
        Ok(())
    }
}

/// The handler is inside while its neighbour is asked over the same connection, from another process.
async fn neighbours() -> TestResult {
    let world = World::new().await?;
    let hosted = world.spawn("a", RoutePolicy::Auto).await?;
    let holder = hosted.spawn::<Holder>(&world.client, "holder", ()).await?;
    let sink = hosted.spawn::<Sink>(&world.client, "sink", ()).await?;
    let dir = tempfile::tempdir()?;
    let mut sockets = 0;
    let mut hold = async |at_most| {
        sockets += 1;
        let socket = dir.path().join(sockets.to_string());
        let listener = UnixListener::bind(&socket)?;
        let held = holder.ask_within(&world.client, 3 * LONG, |reply| Hold {
            socket,
            at_most,
            reply,
        });
        let asked = async {
            let (mut inside, _) = listener.accept().await?;
            inside.read_exact(&mut [0]).await?;
            for _ in 0..20 {
                world.arrived(&sink).await?;
            }
            drop(inside);
            TestResult::Ok(())
        };
        let (held, asked) = tokio::join!(held, asked);
        asked?;
        TestResult::Ok(held?)
    };
    // Of its first long turn nothing is known before, and a machine may be too busy to look.
    let mut rounds = 0;
    while !hold(Duration::from_millis(500)).await? {
        rounds += 1;
        assert!(rounds < 20, "its neighbour waits for it every time");
    }
    for round in 0..5 {
        assert!(hold(2 * LONG).await?, "in round {round}");
    }
    world.end().await
}
