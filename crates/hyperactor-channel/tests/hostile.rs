//! Peers that mean no good, or speak something else: garbage, slow hellos, versions, foreign sessions, liars. Only their own
//! connection suffers.

#![allow(
    clippy::unwrap_used,
    reason = "a test may unwrap: its panic is its report"
)]

mod support;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyperactor_channel::limits::{HANDSHAKE_DEADLINE, UNAUTHENTICATED_MAX};
use hyperactor_channel::{
    ChannelRx, ChannelTx, DialOptions, Outcome, Raw, Reason, Status, dial, dial_tx, serve,
};
use hyperactor_protocol::{
    Config, ConnectionEpoch, DataFlags, Frame, FrameDecoder, Hello, HelloCode, HelloKind, Label,
    Seq, Session, SessionId, Time,
};
use hyperactor_refs::{ChannelAddr, ChannelTransport, Incarnation};
use serde::{Deserialize, Serialize};
use support::proxy::Seeded;
use support::{Message, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

async fn server() -> (ChannelAddr, ChannelRx<Message>) {
    serve(ChannelTransport::Tcp).await.unwrap()
}

async fn raw(addr: &ChannelAddr) -> TcpStream {
    TcpStream::connect(addr.host_port().unwrap().socket_addr().unwrap())
        .await
        .unwrap()
}

fn hello(session: u128) -> Hello {
    let id = SessionId(session);
    let config = Config::default();
    Session::dialer(config, id, Incarnation::new(5), Time::ZERO).hello(Time::ZERO)
}

async fn read_hello(stream: &mut TcpStream) -> Hello {
    let mut decoder = FrameDecoder::new(1 << 20);
    loop {
        if let Some(hello) = decoder.next_hello().unwrap() {
            return hello;
        }
        assert_ne!(
            stream.read_buf(decoder.buffer()).await.unwrap(),
            0,
            "closed without an answer"
        );
    }
}

/// Reads until the peer closes.
async fn is_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let closed = soon("the end of the connection", stream.read_to_end(&mut rest)).await;
    assert!(closed.is_ok() || closed.is_err_and(|error| error.raw_os_error().is_some()));
}

async fn still_serves(addr: &ChannelAddr, rx: &mut ChannelRx<Message>) {
    let tx: ChannelTx<Message> = dial(addr.clone());
    assert_eq!(
        soon("the outcome", tx.send(Message::new(7))).await,
        Outcome::Delivered
    );
    assert_eq!(rx.recv().await.unwrap().id, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_closes_its_own_connection_only() {
    let (addr, mut rx) = server().await;
    let mut random = Seeded(11);
    for round in 0..300 {
        let mut stream = raw(&addr).await;
        let mut bytes = Vec::new();
        if round % 2 == 0 {
            // A valid hello, then garbage.
            bytes.extend_from_slice(&hello(round).to_bytes());
        }
        for _ in 0..random.below(2_000) {
            bytes.push(random.next() as u8);
        }
        // The server may close while this is still writing.
        let _refused_in_between = stream.write_all(&bytes).await;
        let _refused_in_between = stream.shutdown().await;
        is_closed(&mut stream).await;
    }
    still_serves(&addr, &mut rx).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_claims_too_much_ends_its_session() {
    let (addr, mut rx) = server().await;
    for claimed in [u32::MAX, (64 << 20) + 1, 1 << 31] {
        let mut stream = raw(&addr).await;
        stream
            .write_all(&hello(u128::from(claimed)).to_bytes())
            .await
            .unwrap();
        assert_eq!(read_hello(&mut stream).await.kind, HelloKind::AcceptedFresh);
        let mut frame = claimed.to_le_bytes().to_vec();
        frame.extend_from_slice(&[1, 0, 0, 0]);
        stream.write_all(&frame).await.unwrap();
        is_closed(&mut stream).await;
    }
    still_serves(&addr, &mut rx).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_liar_loses_its_session_and_no_other() {
    let (addr, mut rx) = server().await;
    let honest: ChannelTx<Message> = dial(addr.clone());
    assert!(honest.send(Message::new(1)).await.is_delivered());
    let lies = [
        // A message before the one that precedes it.
        Frame::Data {
            seq: Seq(3),
            flags: DataFlags::NONE,
            to: Label::NONE,
            from: Label::NONE,
            body: vec![1].into(),
        },
        // An outcome of what was never sent.
        Frame::Ack {
            received: Seq(9),
            settled: Seq(9),
        },
        // Outcomes known of what was never settled.
        Frame::Resolved { below: Seq(5) },
        Frame::Settle {
            first: Seq(2),
            count: 3,
            verdict: hyperactor_protocol::Verdict::Delivered,
        },
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let mut stream = raw(&addr).await;
        stream
            .write_all(&hello(number as u128).to_bytes())
            .await
            .unwrap();
        assert_eq!(read_hello(&mut stream).await.kind, HelloKind::AcceptedFresh);
        let mut bytes = BytesMut::new();
        lie.encode(&mut bytes);
        stream.write_all(&bytes).await.unwrap();
        is_closed(&mut stream).await;
    }
    assert!(honest.send(Message::new(2)).await.is_delivered());
    assert_eq!(
        (rx.recv().await.unwrap().id, rx.recv().await.unwrap().id),
        (1, 2)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_version_is_refused_with_the_range_spoken_here() {
    let (addr, mut rx) = server().await;
    let mut stream = raw(&addr).await;
    let foreign = Hello {
        version_min: 200,
        version_max: 300,
        ..hello(1)
    };
    stream.write_all(&foreign.to_bytes()).await.unwrap();
    let answer = read_hello(&mut stream).await;
    assert_eq!(answer.kind, HelloKind::Refused(HelloCode::Version));
    assert_eq!(answer.version_max, hyperactor_protocol::VERSION_MAX);
    is_closed(&mut stream).await;
    still_serves(&addr, &mut rx).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_not_resumed_with_an_old_number_or_by_another_life() {
    let (addr, mut rx) = server().await;
    let mut first = raw(&addr).await;
    let fifth = Hello {
        epoch: ConnectionEpoch(5),
        ..hello(1)
    };
    first.write_all(&fifth.to_bytes()).await.unwrap();
    assert_eq!(read_hello(&mut first).await.kind, HelloKind::AcceptedFresh);
    let tries = [
        (
            Hello {
                epoch: ConnectionEpoch(5),
                ..hello(1)
            },
            HelloCode::StaleEpoch,
        ),
        (
            Hello {
                epoch: ConnectionEpoch(4),
                ..hello(1)
            },
            HelloCode::StaleEpoch,
        ),
        (
            Hello {
                epoch: ConnectionEpoch(6),
                incarnation: Incarnation::new(6),
                ..hello(1)
            },
            HelloCode::WrongIncarnation,
        ),
    ];
    for (hello, code) in tries {
        let mut stream = raw(&addr).await;
        stream.write_all(&hello.to_bytes()).await.unwrap();
        assert_eq!(read_hello(&mut stream).await.kind, HelloKind::Refused(code));
        is_closed(&mut stream).await;
    }
    // The first connection has not suffered; a higher number replaces it.
    let mut ping = BytesMut::new();
    Frame::Ping { nonce: 1 }.encode(&mut ping);
    first.write_all(&ping).await.unwrap();
    let mut second = raw(&addr).await;
    let sixth = Hello {
        epoch: ConnectionEpoch(6),
        ..hello(1)
    };
    second.write_all(&sixth.to_bytes()).await.unwrap();
    assert_eq!(
        read_hello(&mut second).await.kind,
        HelloKind::AcceptedResumed
    );
    is_closed(&mut first).await;
    still_serves(&addr, &mut rx).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_hellos_do_not_lock_good_peers_out() {
    let (addr, mut rx) = server().await;
    let began = tokio::time::Instant::now();
    let mut slow = JoinSet::new();
    for _ in 0..UNAUTHENTICATED_MAX + 50 {
        let mut stream = raw(&addr).await;
        slow.spawn(async move {
            // A byte at a time, and never a whole hello.
            for byte in hyperactor_protocol::MAGIC {
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            is_closed(&mut stream).await;
        });
    }
    still_serves(&addr, &mut rx).await;
    assert!(
        began.elapsed() < HANDSHAKE_DEADLINE,
        "good peers had to wait"
    );
    while slow.join_next().await.is_some() {}
    let longest = HANDSHAKE_DEADLINE + Duration::from_secs(2);
    assert!(
        began.elapsed() < longest,
        "slow peers were kept for {:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_speaks_something_else_ends_the_channel_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = ChannelAddr::tcp(listener.local_addr().unwrap()).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        is_closed(&mut stream).await;
    });
    let tx: ChannelTx<Message> = dial(addr.clone());
    let outcome = soon("the outcome", tx.send(Message::new(1))).await;
    assert!(
        matches!(outcome, Outcome::NotDelivered(Reason::Refused { .. })),
        "{outcome:?}"
    );
    assert!(matches!(
        &*tx.status().borrow(),
        Status::Closed(Reason::Refused { .. })
    ));
    server.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_accepts_and_closes_is_not_flooded_with_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = ChannelAddr::tcp(listener.local_addr().unwrap()).unwrap();
    let server = tokio::spawn(async move {
        let mut accepted = 0;
        loop {
            match tokio::time::timeout(Duration::from_secs(3), listener.accept()).await {
                Ok(connection) => drop(connection.unwrap()),
                Err(_) => return accepted,
            }
            accepted += 1;
        }
    });
    let options = DialOptions {
        delivery_timeout: Duration::from_secs(2),
        ..Default::default()
    };
    let tx: ChannelTx<Message> = dial_tx(addr, options, hyperactor_channel::Postcard);
    let outcome = soon("the outcome", tx.send(Message::new(1))).await;
    assert!(matches!(outcome, Outcome::NotDelivered(_)), "{outcome:?}");
    let accepted = server.await.unwrap();
    assert!(accepted < 60, "{accepted} connections in two seconds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_shakes_hands_and_closes_is_not_flooded_with_connections_either() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = ChannelAddr::tcp(listener.local_addr().unwrap()).unwrap();
    let tx: ChannelTx<Message> = dial(addr);
    tx.post(Message::new(1));
    let mut accepted = 0;
    let two_seconds = tokio::time::timeout(Duration::from_secs(2), async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let theirs = read_hello(&mut stream).await;
            // Always the same life and a state that received nothing: only an acknowledgement would be of use.
            let life = Incarnation::new(5);
            let mut session = Session::acceptor(Config::default(), life, &theirs, Time::ZERO);
            session.on_hello(&theirs, Time::ZERO).unwrap();
            let answer = session.hello(Time::ZERO).to_bytes();
            stream.write_all(&answer).await.unwrap();
            accepted += 1;
        }
    });
    assert!(two_seconds.await.is_err());
    assert!(
        (1..60).contains(&accepted),
        "{accepted} connections in two seconds"
    );
}

/// Set for the process that plays another user; names the abstract socket to try.
const STRANGER_VARIABLE: &str = "HYPERACTOR_CHANNEL_TEST_STRANGER";

/// A user that is not ours and exists everywhere, if only as a number.
const STRANGER: u32 = 65_534;

#[test]
fn a_unix_peer_of_another_user_is_refused_before_it_can_say_anything() {
    use std::io::{Read, Write};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixStream};
    use std::os::unix::process::CommandExt;

    if let Some(name) = std::env::var_os(STRANGER_VARIABLE) {
        // This is the other process, started below.
        let addr = SocketAddr::from_abstract_name(name.as_encoded_bytes()).unwrap();
        let mut stream = UnixStream::connect_addr(&addr).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(3)))
            .unwrap();
        // The server may have closed by now.
        let _closed_already = stream.write_all(&hello(1).to_bytes());
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer).inspect_err(|error| {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        });
        assert!(answer.is_empty(), "the server answered");
        return;
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can start a process of another user");
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (addr, mut rx) = serve::<Message>(ChannelTransport::Unix).await.unwrap();
        let ChannelAddr::Unix(unix) = &addr else {
            panic!("{addr}")
        };
        let name = String::from_utf8(unix.as_abstract().unwrap().to_vec()).unwrap();
        // The test's own file may be where the other user cannot read.
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("stranger");
        std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        std::os::unix::fs::chown(dir.path(), Some(STRANGER), None).unwrap();
        std::os::unix::fs::chown(&copy, Some(STRANGER), None).unwrap();
        let stranger = tokio::task::spawn_blocking(move || {
            std::process::Command::new(copy)
                .args([
                    "--exact",
                    "a_unix_peer_of_another_user_is_refused_before_it_can_say_anything",
                ])
                .env(STRANGER_VARIABLE, name)
                .current_dir("/")
                .uid(STRANGER)
                .output()
        });
        let output = soon("the other user", stranger).await.unwrap().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
        still_serves(&addr, &mut rx).await;
    });
}

/// A type whose values may be nested as deeply as their sender likes.
#[derive(Serialize, Deserialize)]
enum Tree {
    Leaf,
    Node(Box<Tree>),
}

impl Tree {
    fn levels(&self) -> usize {
        let mut levels = 0;
        let mut at = self;
        while let Self::Node(next) = at {
            levels += 1;
            at = next;
        }
        levels
    }
}

/// The stack would end the whole process: no panic that could be caught.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_nested_too_deeply_fails_alone() {
    let (addr, mut rx) = serve::<Tree>(ChannelTransport::Unix).await.unwrap();
    // It writes what it likes.
    let tx: ChannelTx<Bytes> = dial_tx(addr, DialOptions::default(), Raw);
    let tree = |levels| {
        let mut bytes = vec![1; levels];
        bytes.push(0);
        Bytes::from(bytes)
    };
    for _ in 0..3 {
        let outcome = soon("the refusal", tx.send(tree(1_000_000))).await;
        let Outcome::NotDelivered(Reason::Decode(why)) = outcome else {
            panic!("{outcome:?}");
        };
        assert!(why.contains("nested too deeply"), "{why}");
        let outcome = soon("the outcome", tx.send(tree(100))).await;
        assert_eq!(outcome, Outcome::Delivered);
        assert_eq!(rx.recv().await.unwrap().levels(), 100);
    }
}
