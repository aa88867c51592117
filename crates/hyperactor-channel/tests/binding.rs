//! What binding an address gives: addresses that can be dialled, typed refusals that name the path and the limit, and
//! nothing left behind.

#![allow(
    clippy::unwrap_used,
    reason = "a test may unwrap: its panic is its report"
)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use hyperactor_channel::{
    ChannelRx, ChannelTx, Outcome, Reason, ServeError, ServeOptions, dial, serve, serve_queue,
};
use hyperactor_refs::{BindSpec, ChannelAddr, ChannelTransport};
use support::{Message, eventually, soon};

async fn bind(text: &str) -> Result<ChannelRx<Message>, ServeError> {
    let spec: BindSpec = text.parse().unwrap();
    serve_queue(spec, ServeOptions::default(), hyperactor_channel::Postcard).await
}

fn at(path: &Path) -> String {
    format!("unix:{}", path.display())
}

#[tokio::test]
async fn any_address_of_a_transport_is_one_that_can_be_dialled() {
    for transport in [
        ChannelTransport::Local,
        ChannelTransport::Unix,
        ChannelTransport::Tcp,
    ] {
        let (first, mut rx) = serve::<Message>(transport).await.unwrap();
        let (second, _other) = serve::<Message>(transport).await.unwrap();
        assert_ne!(first, second);
        assert_eq!(first.to_string().parse::<ChannelAddr>().unwrap(), first);
        let tx: ChannelTx<Message> = dial(first);
        assert!(
            soon("the outcome", tx.send(Message::new(1)))
                .await
                .is_delivered()
        );
        assert_eq!(rx.recv().await.unwrap().id, 1);
    }
}

#[tokio::test]
async fn an_address_in_use_is_refused_and_its_server_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let port = serve::<Message>(ChannelTransport::Tcp).await.unwrap();
    let name = serve::<Message>(ChannelTransport::Unix).await.unwrap();
    let path = bind(&at(&dir.path().join("s"))).await.unwrap();
    let number = serve::<Message>(ChannelTransport::Local).await.unwrap();
    for (addr, mut rx) in [port, name, (path.addr().clone(), path), number] {
        match serve::<Message>(addr.clone()).await {
            Err(error @ ServeError::AddrInUse { .. }) => {
                assert!(error.to_string().contains(&addr.to_string()), "{error}");
                assert!(error.is_retryable());
            }
            other => panic!("{addr}: {other:?}"),
        }
        let tx: ChannelTx<Message> = dial(addr);
        assert!(
            soon("the outcome", tx.send(Message::new(1)))
                .await
                .is_delivered()
        );
        assert_eq!(rx.recv().await.unwrap().id, 1);
    }
}

#[tokio::test]
async fn a_stopped_server_frees_its_address_and_removes_its_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    for _ in 0..3 {
        let mut rx = bind(&at(&path)).await.unwrap();
        assert!(path.exists());
        rx.close().await;
        assert!(!path.exists());
    }
    let rx = bind(&at(&path)).await.unwrap();
    drop(rx);
    eventually("the socket is removed", || !path.exists()).await;
}

#[tokio::test]
async fn a_socket_that_another_server_bound_meanwhile_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut old = bind(&at(&path)).await.unwrap();
    fs::remove_file(&path).unwrap();
    let mut new = bind(&at(&path)).await.unwrap();
    old.close().await;
    assert!(path.exists());
    let tx: ChannelTx<Message> = dial(new.addr().clone());
    assert!(
        soon("the outcome", tx.send(Message::new(1)))
            .await
            .is_delivered()
    );
    assert_eq!(new.recv().await.unwrap().id, 1);
}

#[tokio::test]
async fn a_stale_socket_of_ours_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    // Bound and closed without being removed: what a killed process leaves.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let mut rx = bind(&at(&path)).await.unwrap();
    let tx: ChannelTx<Message> = dial(rx.addr().clone());
    assert!(
        soon("the outcome", tx.send(Message::new(1)))
            .await
            .is_delivered()
    );
    assert_eq!(rx.recv().await.unwrap().id, 1);
}

#[tokio::test]
async fn what_is_no_socket_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link, folder) = (
        dir.path().join("file"),
        dir.path().join("link"),
        dir.path().join("folder"),
    );
    fs::write(&file, "precious").unwrap();
    symlink(&file, &link).unwrap();
    fs::create_dir(&folder).unwrap();
    for path in [&file, &link, &folder] {
        match bind(&at(path)).await {
            Err(ServeError::PathOccupied { path: named, .. }) => assert_eq!(&named, path),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test]
async fn a_missing_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("missing").join("s");
    match bind(&at(&path)).await {
        Err(error @ ServeError::DirectoryMissing { .. }) => {
            assert!(
                error.to_string().contains(&path.display().to_string()),
                "{error}"
            );
            assert_eq!(error.code(), "directory_missing");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_path_of_the_longest_length_is_bound_and_dialled() {
    let dir = tempfile::tempdir().unwrap();
    let room = hyperactor_channel::limits::UNIX_PATH_BYTES_MAX - dir.path().as_os_str().len() - 1;
    let path = dir.path().join("x".repeat(room));
    let mut rx = bind(&at(&path)).await.unwrap();
    let tx: ChannelTx<Message> = dial(rx.addr().clone());
    assert!(
        soon("the outcome", tx.send(Message::new(1)))
            .await
            .is_delivered()
    );
    assert_eq!(rx.recv().await.unwrap().id, 1);
}

#[tokio::test]
async fn plain_tcp_beyond_loopback_needs_danger_by_name() {
    for text in ["tcp:0.0.0.0:0", "tcp:[::]:0", "tcp:192.0.2.1:0"] {
        match bind(text).await {
            Err(error @ ServeError::PlaintextBeyondLoopback { .. }) => {
                assert!(
                    error
                        .to_string()
                        .contains("danger_plaintext_beyond_loopback"),
                    "{error}"
                );
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    let spec: BindSpec = "tcp:0.0.0.0:0".parse().unwrap();
    let options = ServeOptions {
        danger_plaintext_beyond_loopback: true,
        ..Default::default()
    };
    let mut rx: ChannelRx<Message> = serve_queue(spec, options, hyperactor_channel::Postcard)
        .await
        .unwrap();
    let tx: ChannelTx<Message> = dial(rx.addr().clone());
    assert!(
        soon("the outcome", tx.send(Message::new(1)))
            .await
            .is_delivered()
    );
    assert_eq!(rx.recv().await.unwrap().id, 1);
}

#[tokio::test]
async fn a_transport_that_this_build_lacks_is_named() {
    match bind("tls:127.0.0.1:7").await {
        Err(error @ ServeError::Unsupported { .. }) => {
            assert!(error.to_string().contains("tls"), "{error}");
            assert!(!error.is_retryable());
        }
        other => panic!("{other:?}"),
    }
    let tx: ChannelTx<Message> = dial("tls:127.0.0.1:7".parse().unwrap());
    match soon("the outcome", tx.send(Message::new(1))).await {
        Outcome::NotDelivered(Reason::Connect { error, .. }) => {
            assert!(error.contains("not supported yet by this build"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_name_is_dialled_and_not_bound() {
    match bind("tcp:localhost:0").await {
        Err(ServeError::NotAnAddress { addr }) => assert_eq!(addr, "tcp:localhost:0"),
        other => panic!("{other:?}"),
    }
    let mut rx = bind("tcp:127.0.0.1:0").await.unwrap();
    let port = rx.addr().host_port().unwrap().port();
    let tx: ChannelTx<Message> = dial(format!("tcp:localhost:{port}").parse().unwrap());
    assert!(
        soon("the outcome", tx.send(Message::new(1)))
            .await
            .is_delivered()
    );
    assert_eq!(rx.recv().await.unwrap().id, 1);
}

#[tokio::test]
async fn an_in_process_server_of_another_type_is_no_server() {
    let (addr, _rx) = serve::<u64>(ChannelTransport::Local).await.unwrap();
    let tx: ChannelTx<Message> = dial(addr);
    match soon("the outcome", tx.send(Message::new(1))).await {
        Outcome::NotDelivered(Reason::Connect { error, .. }) => {
            assert!(
                error.contains("u64") && error.contains("Message"),
                "{error}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn serving_outside_a_runtime_is_an_error_and_not_a_panic() {
    let mut serving = std::pin::pin!(serve::<Message>(ChannelTransport::Unix));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match serving.as_mut().poll(&mut cx) {
        std::task::Poll::Ready(Err(ServeError::NoRuntime { .. })) => {}
        other => panic!("{other:?}"),
    }
}
