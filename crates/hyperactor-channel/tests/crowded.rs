//! A server with as many sessions as it may have: those that have a connection keep their place, and those whose dialer died
//! without a goodbye make room for who comes.

#![allow(
    clippy::unwrap_used,
    reason = "a test may unwrap: its panic is its report"
)]

mod support;

use hyperactor_channel::{Postcard, ServeOptions, serve_queue};
use hyperactor_protocol::{
    Config, FrameDecoder, Hello, HelloCode, HelloKind, Session, SessionId, Time,
};
use hyperactor_refs::{ChannelTransport, Incarnation};
use support::{Message, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Says hello for a session that is dialled for the first time; the connection, and whether it was let in.
async fn greet(at: std::net::SocketAddr, number: u128) -> (TcpStream, HelloKind) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let life = Incarnation::new(1);
    let mut session = Session::dialer(Config::default(), SessionId(number), life, Time::ZERO);
    let hello: Hello = session.hello(Time::ZERO);
    stream.write_all(&hello.to_bytes()).await.unwrap();
    let mut decoder = FrameDecoder::new(1 << 20);
    loop {
        if let Some(hello) = decoder.next_hello().unwrap() {
            return (stream, hello.kind);
        }
        let read = stream.read_buf(decoder.buffer()).await.unwrap();
        assert_ne!(read, 0, "closed without an answer");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dead_make_room_and_the_living_keep_theirs() {
    const SESSIONS: usize = 3;
    let options = ServeOptions {
        sessions_max: SESSIONS,
        ..ServeOptions::default()
    };
    let rx = serve_queue::<Message>(ChannelTransport::Tcp, options, Postcard)
        .await
        .unwrap();
    let at = rx.addr().host_port().unwrap().socket_addr().unwrap();
    let mut living = Vec::new();
    for number in 1..=SESSIONS as u128 {
        let (stream, kind) = greet(at, number).await;
        assert!(!matches!(kind, HelloKind::Refused(_)), "{kind:?}");
        living.push(stream);
    }
    let (_, kind) = greet(at, 10).await;
    assert_eq!(
        kind,
        HelloKind::Refused(HelloCode::TooMany),
        "all of them live"
    );

    // Each death makes room for one: as soon as the server has seen it, and not when the session expires.
    for number in 11..20 {
        drop(living.remove(0));
        let let_in = async {
            loop {
                let (stream, kind) = greet(at, number).await;
                if !matches!(kind, HelloKind::Refused(_)) {
                    return stream;
                }
                tokio::task::yield_now().await;
            }
        };
        living.push(soon("a place", let_in).await);
    }
}
