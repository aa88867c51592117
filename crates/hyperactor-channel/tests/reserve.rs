//! A server without descriptors still tells who dials that there is no room. Alone in its file, because the limit is the
//! whole process's.

#![allow(
    clippy::unwrap_used,
    reason = "a test may unwrap: its panic is its report"
)]

mod support;

use hyperactor_channel::{ChannelTx, dial, serve};
use hyperactor_protocol::{
    Config, FrameDecoder, Hello, HelloCode, HelloKind, Session, SessionId, Time,
};
use hyperactor_refs::{ChannelTransport, Incarnation};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Message, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DESCRIPTORS: u64 = 64;

async fn answer(stream: &mut TcpStream, number: u128) -> Hello {
    let life = Incarnation::new(1);
    let mut session = Session::dialer(Config::default(), SessionId(number), life, Time::ZERO);
    let hello = session.hello(Time::ZERO).to_bytes();
    stream.write_all(&hello).await.unwrap();
    let mut decoder = FrameDecoder::new(1 << 20);
    loop {
        if let Some(hello) = decoder.next_hello().unwrap() {
            return hello;
        }
        let read = stream.read_buf(decoder.buffer()).await.unwrap();
        assert_ne!(read, 0, "closed without an answer");
    }
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
        let mut stream = soon("the connection", TcpStream::connect(at))
            .await
            .unwrap();
        let answer = soon("the answer", answer(&mut stream, number)).await;
        assert_eq!(answer.kind, HelloKind::Refused(HelloCode::TooMany));
        drop(stream);
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
