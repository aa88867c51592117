//! Handlers that block their threads.

use std::sync::mpsc;
use std::time::Duration;

use hyperactor_proc::{Actor, ActorHandle, ActorResult, Client, Context, Handler, Proc};

use crate::common::{PATIENCE, soon, workers};

/// Tells that it was asked to.
#[derive(Actor)]
struct Echo;

impl Handler<mpsc::Sender<()>> for Echo {
    async fn handle(&mut self, _: &Context<Self>, back: mpsc::Sender<()>) -> ActorResult {
        // Nobody listens any more where it took too long.
        back.send(()).ok();
        Ok(())
    }
}

/// Posts to another actor of its proc, and blocks its thread until that has handled it, or for so long; counts how often it
/// did not.
#[derive(Actor)]
struct Blocking {
    echo: ActorHandle<Echo>,
}

struct Block {
    at_most: Duration,
    was_handled: tokio::sync::oneshot::Sender<bool>,
}

impl Handler<Block> for Blocking {
    async fn handle(&mut self, cx: &Context<Self>, block: Block) -> ActorResult {
        let (back, handled) = mpsc::channel();
        self.echo.post(cx, back)?;
        let was_handled = handled.recv_timeout(block.at_most).is_ok();
        block.was_handled.send(was_handled).ok();
        Ok(())
    }
}

/// A proc with both, and a client that asks one of them to block.
struct Scene {
    main: Client,
    blocking: ActorHandle<Blocking>,
    _proc: Proc,
}

impl Scene {
    fn new() -> Self {
        let proc = Proc::isolated("p");
        let main = proc.client("main").unwrap();
        let echo = proc.spawn("echo", Echo).unwrap();
        let blocking = proc.spawn("blocking", Blocking { echo }).unwrap();
        Self {
            main,
            blocking,
            _proc: proc,
        }
    }

    /// Has the actor block its thread for so long at most; whether the other one ran meanwhile.
    async fn block(&self, at_most: Duration) -> bool {
        soon(self.begin(at_most)).await.unwrap()
    }

    fn begin(&self, at_most: Duration) -> tokio::sync::oneshot::Receiver<bool> {
        let (was_handled, told) = tokio::sync::oneshot::channel();
        let block = Block {
            at_most,
            was_handled,
        };
        self.blocking.post(&self.main, block).unwrap();
        told
    }
}

#[test]
fn whom_an_actor_woke_before_it_blocks_its_thread_runs_meanwhile_once_it_is_known_as_slow() {
    workers(2).block_on(async {
        // Whom it woke may run on another worker by chance; then the first turn was a quick one, and says nothing.
        let (mut rounds, mut kept) = (0, 0);
        while kept < 3 {
            rounds += 1;
            assert!(rounds < 100, "whom it woke always runs at once");
            let scene = Scene::new();
            // Both lie in the queue before the first one ends: one turn could take them both.
            let first = scene.begin(Duration::from_millis(500));
            let second = scene.begin(PATIENCE / 2);
            let was_kept = !soon(first).await.unwrap();
            let was_handled = soon(second).await.unwrap();
            assert!(was_handled || !was_kept, "it keeps whom it woke waiting");
            kept += u32::from(was_kept);
        }
    });
}

/// Another runtime may be entered, by a guard, where actors are polled; that one could not take over their thread.
#[test]
fn an_actor_that_blocks_the_only_thread_of_its_runtime_lives_on_where_another_one_is_entered() {
    let other = workers(1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let scene = Scene::new();
        let _other = other.enter();
        for _ in 0..5 {
            let was_handled = scene.block(Duration::from_millis(50)).await;
            assert!(!was_handled, "on the same thread");
        }
    });
}
