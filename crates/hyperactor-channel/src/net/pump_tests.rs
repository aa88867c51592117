//! The pump on a stream that does what no socket can be made to do at will.

#![allow(
    clippy::unwrap_used,
    reason = "a test may unwrap: its panic is its report"
)]

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyperactor_protocol::{
    Config, ConnectionEpoch, Cut, DataFlags, Event, Frame, FrameDecoder, PostId, Seq, Session,
    SessionId, Time, Verdict,
};
use hyperactor_refs::Incarnation;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;

use super::courtesy::Courtesy;
use super::pump::{Arrived, Ended, Endpoint, Pump};
use crate::limits::{COURTESY_BYTES, COURTESY_WINDOW, IO_TURNS_MAX};
use crate::transport::ByteStream;
use crate::{Spin, clock};

/// A stream whose other end goes away between a look for input and the next write; its last words are still there.
struct Dying {
    last_words: Bytes,
    is_gone: bool,
}

impl AsyncRead for Dying {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.is_gone {
            return Poll::Pending;
        }
        let count = buf.remaining().min(self.last_words.len());
        buf.put_slice(&self.last_words.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Dying {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_gone = true;
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl ByteStream for Dying {}

struct Bare(Session, usize);

impl Endpoint for Bare {
    fn with<T>(&mut self, work: impl FnOnce(&mut Session) -> T) -> T {
        work(&mut self.0)
    }
    fn deliver(&mut self, _message: Arrived) {
        self.1 += 1;
    }
    fn take(&mut self, cuts: &mut Vec<Cut>) {
        for cut in cuts.drain(..) {
            self.1 += match cut {
                Cut::Frame(Frame::Data { .. }) => 1,
                Cut::Frame(_) => 0,
                Cut::Run(run) => run.messages().count(),
            };
        }
    }
    fn finish(&mut self) {}
    fn park(&mut self, _waker: &Waker) -> bool {
        !self.0.has_output()
    }
}

fn push(session: &mut Session) {
    let body = |out: &mut BytesMut| {
        out.extend_from_slice(b"message");
        Ok::<(), ()>(())
    };
    session.push_with(DataFlags::NONE, body).unwrap();
}

fn connected(config: &Config, now: Time) -> (Session, Session, ConnectionEpoch) {
    let life = Incarnation::new(1);
    let mut dialer = Session::dialer(config.clone(), SessionId(1), life, now);
    let hello = dialer.hello(now);
    let mut acceptor = Session::acceptor(config.clone(), life, &hello, now);
    let epoch = acceptor.on_hello(&hello, now).unwrap().epoch;
    dialer.on_hello(&acceptor.hello(now), now).unwrap();
    (dialer, acceptor, epoch)
}

/// As before a process that was stopped: the connection is dead since its first moment, and nobody has looked yet.
#[tokio::test]
async fn what_lay_before_a_stopped_process_is_not_taken_in() {
    for (silence, delivered) in [(Duration::from_nanos(1), 0), (Duration::from_secs(60), 1)] {
        let config = Config {
            silence_timeout: silence,
            ..Config::default()
        };
        let (mut dialer, acceptor, epoch) = connected(&config, Time::ZERO);
        push(&mut dialer);
        let (here, mut there) = UnixStream::pair().unwrap();
        while let Some(part) = dialer.transmit(epoch, Time::ZERO, 1 << 20) {
            there.write_all(&part.bytes).await.unwrap();
        }
        // Without it the second round would never end.
        there.shutdown().await.unwrap();
        let mut ends = Bare(acceptor, 0);
        let mut pump = Pump::new(
            Box::new(here),
            FrameDecoder::new(1 << 20),
            epoch,
            Spin::Never,
        );
        pump.run(&mut ends).await;
        assert_eq!(ends.1, delivered, "{silence:?}");
    }
}

#[tokio::test]
async fn what_a_peer_acknowledged_before_it_went_away_counts() {
    let now = clock::now();
    let (mut dialer, mut acceptor, epoch) = connected(&Config::default(), now);
    push(&mut dialer);
    let mut decoder = FrameDecoder::new(1 << 20);
    while let Some(part) = dialer.transmit(epoch, now, 1 << 20) {
        decoder.buffer().extend_from_slice(&part.bytes);
    }
    while let Some(frame) = decoder.next_frame().unwrap() {
        acceptor.on_frame(epoch, frame, now).unwrap();
    }
    let _transmitted_below = acceptor.settle(Seq(0), Verdict::Delivered);
    let stream = Box::new(Dying {
        last_words: acceptor.transmit(epoch, now, 1 << 20).unwrap().bytes,
        is_gone: false,
    });
    push(&mut dialer);
    let mut ends = Bare(dialer, 0);
    let mut pump = Pump::new(stream, FrameDecoder::new(1 << 20), epoch, Spin::Never);
    let ended = pump.run(&mut ends).await;
    assert!(matches!(ended, Ended::Lost(_)), "{ended}");
    assert_eq!(
        ends.0.poll_event(),
        Some(Event::Resolved {
            first: PostId(0),
            count: 1
        })
    );
}

/// A stream that never has an end, nor anything worth an answer; counts what is read of it.
struct Endless {
    frames: Bytes,
    read: Arc<AtomicUsize>,
}

impl AsyncRead for Endless {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // A frame may be read in two pieces.
        let at = self.read.load(Ordering::Relaxed) % self.frames.len();
        let count = buf.remaining().min(self.frames.len() - at);
        buf.put_slice(&self.frames[at..at + count]);
        self.read.fetch_add(count, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl ByteStream for Endless {}

/// The most bytes that such a stream moves before another task of its thread is polled, of twenty times.
async fn most_in_a_turn() -> usize {
    let (_, acceptor, epoch) = connected(&Config::default(), clock::now());
    let mut frames = BytesMut::new();
    for nonce in 0..65_536 {
        Frame::Pong { nonce }.encode(&mut frames);
    }
    let read = Arc::new(AtomicUsize::new(0));
    let stream = Endless {
        frames: frames.freeze(),
        read: Arc::clone(&read),
    };
    let pumping = tokio::spawn(async move {
        let decoder = FrameDecoder::new(1 << 20);
        let mut pump = Pump::new(Box::new(stream), decoder, epoch, Spin::Never);
        pump.run(&mut Bare(acceptor, 0)).await
    });
    let (mut last, mut most) = (0, 0);
    for _ in 0..20 {
        tokio::task::yield_now().await;
        let now = read.load(Ordering::Relaxed);
        most = most.max(now - std::mem::replace(&mut last, now));
    }
    assert!(!pumping.is_finished());
    pumping.abort();
    most
}

/// More than one read takes of small frames.
const READ_BYTES: usize = 128 * 1024;

#[tokio::test]
async fn a_connection_that_always_has_more_lets_others_have_their_turn() {
    let most = most_in_a_turn().await;
    assert!(
        (1..IO_TURNS_MAX * READ_BYTES).contains(&most),
        "{most} bytes in a turn"
    );
}

#[tokio::test(start_paused = true)]
async fn where_another_connection_carries_little_others_have_their_turn_sooner() {
    let mut little = Courtesy::new();
    little.moved(1);
    // Time stands still, so it is never too long ago.
    little.is_over(clock::now() + COURTESY_WINDOW);
    let most = most_in_a_turn().await;
    assert!(
        (1..COURTESY_BYTES + READ_BYTES).contains(&most),
        "{most} bytes in a turn"
    );
}
