//! A peer that takes part of a message and then nothing more: the delivery timeout counts from the last byte it took.

#![allow(
    clippy::unwrap_used,
    reason = "a test may unwrap: its panic is its report"
)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use hyperactor_channel::{DialOptions, Outcome, Raw, Reason, dial_tx};
use hyperactor_protocol::{Config, FrameDecoder, Hello, Session, Time};
use hyperactor_refs::{ChannelAddr, Incarnation};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn read_hello(stream: &mut TcpStream) -> Hello {
    let mut decoder = FrameDecoder::new(1 << 20);
    loop {
        if let Some(hello) = decoder.next_hello().unwrap() {
            return hello;
        }
        assert_ne!(stream.read_buf(decoder.buffer()).await.unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_a_full_buffer_took_in_part_fails_after_one_timeout_and_not_two() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = ChannelAddr::tcp(listener.local_addr().unwrap()).unwrap();
    let peer = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let theirs = read_hello(&mut stream).await;
        let config = Config::default();
        let mut session = Session::acceptor(config, Incarnation::new(7), &theirs, Time::ZERO);
        session.on_hello(&theirs, Time::ZERO).unwrap();
        let answer = session.hello(Time::ZERO).to_bytes();
        stream.write_all(&answer).await.unwrap();
        // Kept open, and never read again.
        stream
    });
    let timeout = Duration::from_secs(1);
    let options = DialOptions {
        delivery_timeout: timeout,
        ..DialOptions::default()
    };
    let tx = dial_tx::<Bytes>(addr, options, Raw);
    let started = Instant::now();
    // More than any buffer of the kernel takes.
    let outcome = tx.send(Bytes::from(vec![1; 30 << 20])).await;
    let took = started.elapsed();
    // Its last part was never sent: it cannot have arrived.
    assert_eq!(outcome, Outcome::NotDelivered(Reason::Silent(timeout)));
    assert!(took >= timeout, "given up after {took:?}");
    assert!(took < timeout * 18 / 10, "given up after {took:?} only");
    drop(peer.await.unwrap());
}
