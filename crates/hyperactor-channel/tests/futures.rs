//! What can be done with the futures of this crate: each can be handed to a runtime that moves it between threads.

#![allow(
    clippy::unwrap_used,
    reason = "a test may unwrap: its panic is its report"
)]

use hyperactor_channel::{ChannelRx, ChannelTx, Outcome, dial, serve};
use hyperactor_refs::ChannelTransport;

/// Compiles for what may move between threads only.
fn movable<F: Future + Send>(future: F) -> F {
    future
}

#[tokio::test]
async fn every_wait_can_be_spawned() {
    let (addr, mut rx): (_, ChannelRx<u32>) =
        movable(serve::<u32>(ChannelTransport::Unix)).await.unwrap();
    let tx: ChannelTx<u32> = dial(addr);
    movable(tx.ready()).await.unwrap();
    assert_eq!(movable(tx.send(1)).await, Outcome::Delivered);
    movable(tx.flush()).await.unwrap();
    assert_eq!(movable(rx.recv()).await, Some(1));
    tx.close();
    assert_eq!(movable(tx.closed()).await.code(), "closed");
    movable(rx.close()).await;
}
