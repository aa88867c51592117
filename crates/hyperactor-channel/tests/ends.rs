//! Ends that are cut short or configured to the edge: a close that is not awaited, a runtime that is gone, a decoder or
//! a receiver that panics, limits of zero and of for ever.

#![allow(
    clippy::unwrap_used,
    reason = "a test may unwrap: its panic is its report"
)]

mod support;

use hyperactor_channel::serve;
use support::{Kind, Message, soon};
use tokio::runtime::Runtime;

const KINDS: [Kind; 3] = [Kind::Local, Kind::UnixPath, Kind::Tcp];

#[tokio::test]
async fn a_receiver_whose_close_was_cut_short_comes_to_its_end_all_the_same() {
    for kind in KINDS {
        let place = kind.place();
        let (_, mut rx) = serve::<Message>(place.bind.clone()).await.unwrap();
        tokio::select! {
            biased;
            () = rx.close() => panic!("it was to be cut short"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(soon("the end", rx.recv()).await, None);
    }
}

#[test]
fn a_receiver_learns_that_the_runtime_of_its_server_is_gone() {
    for kind in KINDS {
        let place = kind.place();
        let server = Runtime::new().unwrap();
        let (_, mut rx) = server
            .block_on(serve::<Message>(place.bind.clone()))
            .unwrap();
        drop(server);
        let end = Runtime::new().unwrap().block_on(soon("the end", rx.recv()));
        assert_eq!(end, None);
    }
}
