//! What happens when the process has no descriptors left. Alone in its file, because the limit is the whole process's.

#![allow(
    clippy::unwrap_used,
    reason = "a test may unwrap: its panic is its report"
)]

mod support;

use hyperactor_channel::{ChannelTx, dial, serve};
use hyperactor_refs::ChannelTransport;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Message, soon};

/// Low, so that it is quickly reached; enough for the runtime and the test harness.
const DESCRIPTORS: u64 = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lack_of_descriptors_harms_no_connection_and_passes() {
    let (addr, mut rx) = serve::<Message>(ChannelTransport::Tcp).await.unwrap();
    let old: ChannelTx<Message> = dial(addr.clone());
    assert!(old.send(Message::new(0)).await.is_delivered());
    let before = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(DESCRIPTORS),
            maximum: before.maximum,
        },
    )
    .unwrap();
    let mut hoard = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        hoard.push(file);
        assert!(hoard.len() as u64 <= DESCRIPTORS, "the limit does not hold");
    }
    // No new connection can be made, on either side; the present one is not affected.
    let new: ChannelTx<Message> = dial(addr);
    new.post(Message::new(1));
    for id in 2..50 {
        assert!(
            soon("the outcome", old.send(Message::new(id)))
                .await
                .is_delivered()
        );
    }
    // One for the dialer, none for the server that is to accept it.
    hoard.pop();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    hoard.clear();
    soon("the flush of the new channel", new.flush())
        .await
        .unwrap();
    assert!(
        soon("the outcome", old.send(Message::new(50)))
            .await
            .is_delivered()
    );
    setrlimit(Resource::Nofile, before).unwrap();
    let mut received = Vec::new();
    while let Some(message) = rx.try_recv() {
        received.push(message.id);
    }
    received.sort_unstable();
    assert_eq!(received, (0..=50).collect::<Vec<_>>());
}
