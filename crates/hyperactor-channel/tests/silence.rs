//! Peers that stop at the worst moment: inside a frame, before they read what they are told, after the connection was
//! accepted. None of them keeps a session, a message or a task for longer than its deadline.

#![allow(
    clippy::unwrap_used,
    reason = "a test may unwrap: its panic is its report"
)]

mod support;

use std::time::Duration;

use bytes::BytesMut;
use hyperactor_channel::{
    Accept, ChannelTx, Deliver, DialOptions, Ignore, Inbound, Outbound, Outcome, Peer, Postcard,
    Reason, ServeOptions, Ticket, dial_tx, serve_with,
};
use hyperactor_protocol::{
    Config, DataFlags, Frame, FrameDecoder, Hello, HelloKind, Label, Seq, Session, SessionId, Time,
};
use hyperactor_refs::{ChannelAddr, ChannelTransport, Incarnation};
use support::{Keeper, Kind, Message, soon};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::mpsc;

const SILENCE: Duration = Duration::from_millis(300);

fn hello() -> Hello {
    Session::dialer(
        Config::default(),
        SessionId(1),
        Incarnation::new(5),
        Time::ZERO,
    )
    .hello(Time::ZERO)
}

async fn read_hello(stream: &mut (impl AsyncRead + Unpin)) -> Hello {
    let mut decoder = FrameDecoder::new(1 << 20);
    loop {
        if let Some(hello) = decoder.next_hello().unwrap() {
            return hello;
        }
        let read = stream.read_buf(decoder.buffer()).await.unwrap();
        assert_ne!(read, 0, "closed without a hello");
    }
}

async fn listener() -> (TcpListener, ChannelAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = ChannelAddr::tcp(listener.local_addr().unwrap()).unwrap();
    (listener, addr)
}

#[tokio::test]
async fn a_dialer_that_falls_silent_inside_a_frame_loses_its_connection() {
    let options = ServeOptions {
        silence_timeout: SILENCE,
        ..Default::default()
    };
    let server = serve_with(ChannelTransport::Tcp, options, Postcard, Keeper::default())
        .await
        .unwrap();
    let addr = server.addr().host_port().unwrap().socket_addr().unwrap();
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(&hello().to_bytes()).await.unwrap();
    assert_eq!(read_hello(&mut stream).await.kind, HelloKind::AcceptedFresh);
    let mut frame = BytesMut::new();
    let body = vec![0; 1_000].into();
    let (seq, flags) = (Seq(0), DataFlags::NONE);
    Frame::Data {
        seq,
        flags,
        to: Label::NONE,
        from: Label::NONE,
        body,
    }
    .encode(&mut frame);
    stream.write_all(&frame[..500]).await.unwrap();
    let mut pings = Vec::new();
    soon("the end of the connection", stream.read_to_end(&mut pings))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_server_that_falls_silent_inside_a_frame_is_dialled_anew() {
    let (listener, addr) = listener().await;
    let options = DialOptions {
        silence_timeout: SILENCE,
        ..Default::default()
    };
    let tx: ChannelTx<Message> = dial_tx(addr, options, Postcard);
    tx.post(Message::new(1));
    let (mut stream, _) = listener.accept().await.unwrap();
    let theirs = read_hello(&mut stream).await;
    let mut session =
        Session::acceptor(Config::default(), Incarnation::new(6), &theirs, Time::ZERO);
    session.on_hello(&theirs, Time::ZERO).unwrap();
    let mut bytes = BytesMut::from(&session.hello(Time::ZERO).to_bytes()[..]);
    let mut ack = BytesMut::new();
    let (received, settled) = (Seq(1), Seq(1));
    Frame::Ack { received, settled }.encode(&mut ack);
    bytes.extend_from_slice(&ack[..ack.len() - 1]);
    stream.write_all(&bytes).await.unwrap();
    soon("another connection", listener.accept()).await.unwrap();
}

#[tokio::test]
async fn a_hung_handshake_does_not_outlast_the_delivery_timeout() {
    let (listener, addr) = listener().await;
    let options = DialOptions {
        delivery_timeout: SILENCE,
        ..Default::default()
    };
    let tx: ChannelTx<Message> = dial_tx(addr, options, Postcard);
    let began = tokio::time::Instant::now();
    let (outcome, _connection) = tokio::join!(tx.send(Message::new(1)), listener.accept());
    assert!(matches!(outcome, Outcome::NotDelivered(_)), "{outcome:?}");
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "it took {:?}",
        began.elapsed()
    );
}

/// Answers a dialer's hello as a server of life 6 that took nothing before.
async fn greet(stream: &mut TcpStream) {
    let theirs = read_hello(stream).await;
    let mut session =
        Session::acceptor(Config::default(), Incarnation::new(6), &theirs, Time::ZERO);
    session.on_hello(&theirs, Time::ZERO).unwrap();
    let answer = session.hello(Time::ZERO);
    stream.write_all(&answer.to_bytes()).await.unwrap();
}

/// That nobody lets the sender in any more says nothing of what was sent before.
#[tokio::test]
async fn what_was_sent_to_a_peer_that_cannot_be_reached_any_more_ends_by_its_silence() {
    let (listener, addr) = listener().await;
    let options = DialOptions {
        delivery_timeout: SILENCE,
        ..Default::default()
    };
    let tx: ChannelTx<Message> = dial_tx(addr, options, Postcard);
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        greet(&mut stream).await;
        // The first byte of the message: it was sent.
        stream.read_u8().await.unwrap();
        drop(stream);
        loop {
            drop(listener.accept().await.unwrap());
        }
    };
    let outcome = tokio::select! {
        outcome = soon("an outcome", tx.send(Message::new(1))) => outcome,
        () = server => unreachable!("it never ends"),
    };
    assert_eq!(outcome, Outcome::Unknown(Reason::Silent(SILENCE)));
}

/// Tells when a session has ended.
struct Ends(mpsc::UnboundedSender<()>);

struct EndsSession(mpsc::UnboundedSender<()>);

impl Accept<u8> for Ends {
    type Session = EndsSession;
    type Completion = Ignore;
    fn open(&self, _peer: Peer, _inbound: Inbound, _: Outbound<u8, Ignore>) -> EndsSession {
        EndsSession(self.0.clone())
    }
}

impl Deliver<u8> for EndsSession {
    fn deliver(&mut self, message: u8, _ticket: Ticket) {
        panic!("{message} decoded");
    }
    fn closed(&mut self) {
        self.0.send(()).unwrap();
    }
}

#[tokio::test]
async fn a_peer_that_breaks_the_protocol_and_reads_nothing_keeps_no_session() {
    const COUNT: u64 = 20_000;
    let place = Kind::UnixPath.place();
    let options = ServeOptions {
        window_messages: u32::MAX,
        ..Default::default()
    };
    let (ended, mut ends) = mpsc::unbounded_channel();
    let server = serve_with(place.bind.clone(), options, Postcard, Ends(ended))
        .await
        .unwrap();
    let ChannelAddr::Unix(unix) = server.addr() else {
        panic!("{}", server.addr())
    };
    let mut stream = UnixStream::connect(unix.as_path().unwrap()).await.unwrap();
    stream.write_all(&hello().to_bytes()).await.unwrap();
    read_hello(&mut stream).await;
    // Each is refused with another text than the one before: more than a socket's buffer of words.
    let mut bytes = BytesMut::new();
    for number in 0..COUNT {
        let body = vec![0; 2 + (number % 2) as usize].into();
        let (seq, flags) = (Seq(number), DataFlags::NONE);
        Frame::Data {
            seq,
            flags,
            to: Label::NONE,
            from: Label::NONE,
            body,
        }
        .encode(&mut bytes);
    }
    let beyond = Frame::Data {
        seq: Seq(2 * COUNT),
        flags: DataFlags::NONE,
        to: Label::NONE,
        from: Label::NONE,
        body: vec![0; 2].into(),
    };
    beyond.encode(&mut bytes);
    soon("everything is taken", stream.write_all(&bytes))
        .await
        .unwrap();
    soon("the end of the session", ends.recv()).await.unwrap();
}
