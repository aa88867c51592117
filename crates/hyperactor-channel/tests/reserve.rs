//! A server without descriptors still tells who dials that there is no room. Alone in its file, because the limit is the
//! whole process's.

#![allow(
    clippy::unwrap_used,
    reason = "a test may unwrap: its panic is its report"
)]

mod support;

use std::net::SocketAddr;
use std::time::Instant;

use hyperactor_channel::limits::REFUSAL_DEADLINE;
use hyperactor_channel::{ChannelTx, dial, serve};
use hyperactor_protocol::{
    Config, FrameDecoder, Hello, HelloCode, HelloKind, Session, SessionId, Time,
};
use hyperactor_refs::{ChannelTransport, Incarnation};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Message, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DESCRIPTORS: u64 = 64;

/// How often a hello may be too late because this machine has no time for the test.
const TRIES: u32 = 20;

/// Connects with the one descriptor that is free. For a moment it may be the server's: where it looks for somebody to accept, the
/// kernel takes a descriptor for whom it may find before it looks.
async fn connect(at: SocketAddr) -> TcpStream {
    loop {
        match TcpStream::connect(at).await {
            Ok(stream) => return stream,
            Err(error) if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => {
                tokio::task::yield_now().await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Connects and says hello; `None` when the connection was closed without an answer.
async fn greeted(at: SocketAddr, number: u128) -> Option<Hello> {
    let life = Incarnation::new(1);
    let mut session = Session::dialer(Config::default(), SessionId(number), life, Time::ZERO);
    let hello = session.hello(Time::ZERO).to_bytes();
    let mut stream = connect(at).await;
    stream.write_all(&hello).await.ok()?;
    let mut decoder = FrameDecoder::new(1 << 20);
    loop {
        if let Some(hello) = decoder.next_hello().unwrap() {
            return Some(hello);
        }
        match stream.read_buf(decoder.buffer()).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

/// The answer to a hello that came in time.
async fn answer(at: SocketAddr, number: u128) -> Hello {
    for _ in 0..TRIES {
        let began = Instant::now();
        if let Some(hello) = greeted(at, number).await {
            return hello;
        }
        // The server waits for so long and no longer: it has one descriptor for all of those.
        assert!(
            began.elapsed() >= REFUSAL_DEADLINE,
            "closed without an answer"
        );
    }
    panic!("no hello was in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dialer_without_a_descriptor_for_it_is_refused_and_let_in_later() {
    let (addr, mut rx) = serve::<Message>(ChannelTransport::Tcp).await.unwrap();
    let at = addr.host_port().unwrap().socket_addr().unwrap();
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
    // Each takes the one descriptor that is given up for it, on its own side; the server has none but its reserve.
    for number in 1..=5 {
        hoard.pop();
        let answer = soon("the answer", answer(at, number)).await;
        assert_eq!(answer.kind, HelloKind::Refused(HelloCode::TooMany));
        hoard.push(
            soon("the descriptor", async {
                loop {
                    match std::fs::File::open("/dev/null") {
                        Ok(file) => return file,
                        Err(_) => tokio::task::yield_now().await,
                    }
                }
            })
            .await,
        );
    }
    hoard.clear();
    setrlimit(Resource::Nofile, before).unwrap();
    let tx: ChannelTx<Message> = dial(addr);
    assert!(
        soon("the outcome", tx.send(Message::new(1)))
            .await
            .is_delivered()
    );
    assert_eq!(rx.recv().await.unwrap().id, 1);
}
