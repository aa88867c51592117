//! Moves bytes between one connection and one session: reads into the decoder's buffer, takes frames in by the batch,
//! writes what the session hands out, keeps its deadlines. What a message or an outcome means is the endpoint's matter.
//!
//! One task does it all. Reading and writing go on side by side: a socket that takes no bytes does not stop what comes in.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyperactor_protocol::{
    Accept, ConnectionEpoch, Cut, DataFlags, FrameDecoder, Label, Seq, Session, Time, Timeout,
    Violation,
};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::limits::{
    FAREWELL_DEADLINE, FRAMES_BATCH_MAX, IO_TURNS_MAX, WRITE_BATCH_BYTES, WRITE_PARTS_MAX,
};
use crate::net::alarm::Alarm;
use crate::net::courtesy::Courtesy;
use crate::net::memory;
use crate::spin::Spinner;
use crate::transport::ByteStream;
use crate::{Spin, clock};

/// What owns a session, as the pump sees it.
pub(crate) trait Endpoint {
    /// Works with the session, under its lock if it has one, then gathers the events that came of it.
    fn with<T>(&mut self, work: impl FnOnce(&mut Session) -> T) -> T;

    /// Brings into the session what was settled and released since the last time.
    fn sync(&mut self) {}

    /// The pump runs, and parks again before it rests: what is settled by those that it delivers to need not wake it.
    fn unpark(&mut self) {}

    /// Takes a message. No lock is held.
    fn deliver(&mut self, message: Arrived);

    /// Takes the messages and the names among these frames, in their order, and leaves none. The session has acted on all
    /// others. No lock is held.
    fn take(&mut self, frames: &mut Vec<Cut>);

    /// Those that were at hand are delivered or taken. No lock is held.
    fn delivered(&mut self) {}

    /// Acts on the events gathered by [`with`](Self::with). No lock is held.
    fn finish(&mut self);

    /// Nothing is to be written. Keeps the waker for whoever makes it otherwise; says `false` when someone has already.
    fn park(&mut self, waker: &Waker) -> bool;
}

/// A message that came in.
pub(crate) struct Arrived {
    pub(crate) seq: Seq,
    pub(crate) to: Label,
    pub(crate) from: Label,
    pub(crate) body: Bytes,
    pub(crate) size: u32,
    pub(crate) ack_now: bool,
}

impl Arrived {
    /// One that came in one frame.
    #[inline]
    pub(crate) fn whole(seq: Seq, flags: DataFlags, to: Label, from: Label, body: Bytes) -> Self {
        Self {
            seq,
            to,
            from,
            // The limit of a message is within the range of 32 bits.
            size: body.len() as u32,
            body,
            ack_now: flags.contains(DataFlags::ACK_NOW),
        }
    }
}

/// How a connection ended. The session may go on.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The session is over, and everything that it had to say is written.
    Over,
    /// The other end closed the stream, or it failed.
    Lost(Option<io::Error>),
    /// The session was silent for so long that the connection counts as dead.
    Dead(Duration),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Over => f.write_str("the session is over"),
            Self::Lost(None) => f.write_str("the peer closed the connection"),
            Self::Lost(Some(error)) => error.fmt(f),
            Self::Dead(silence) => write!(f, "nothing came for {silence:?}"),
        }
    }
}

/// One connection of a session.
pub(crate) struct Pump {
    stream: Box<dyn ByteStream>,
    decoder: FrameDecoder,
    epoch: ConnectionEpoch,
    /// Handed out by the session and not yet taken by the stream.
    out: VecDeque<Bytes>,
    out_bytes: usize,
    /// The stream took no more the last time.
    is_full: bool,
    /// A stream that was full takes bytes again, and the session was not told yet.
    has_drained: bool,
    alarm: Alarm,
    spinner: Spinner,
    /// Frames may have come along with the hello: the decoder is looked into once without anything being read.
    is_new: bool,
    /// The session is over: until then its last words may wait for a peer that does not read.
    over_by: Option<Time>,
    frames: Vec<Cut>,
    courtesy: Courtesy,
    _memory: memory::User,
}

impl Pump {
    /// Pumps over a stream on which both hellos have passed; the decoder may hold what came after them.
    pub(crate) fn new(
        stream: Box<dyn ByteStream>,
        decoder: FrameDecoder,
        epoch: ConnectionEpoch,
        spin: Spin,
    ) -> Self {
        Self {
            stream,
            decoder,
            epoch,
            out: VecDeque::new(),
            out_bytes: 0,
            is_full: false,
            has_drained: false,
            alarm: Alarm::new(),
            spinner: Spinner::new(spin),
            is_new: true,
            over_by: None,
            frames: Vec::new(),
            courtesy: Courtesy::new(),
            _memory: memory::pool().user(),
        }
    }

    /// Pumps until the connection or the session ends. Dropping the future stops it between two steps; the pump can go on
    /// with another call.
    pub(crate) async fn run(&mut self, endpoint: &mut impl Endpoint) -> Ended {
        loop {
            if let Some(ended) = std::future::poll_fn(|cx| self.poll(cx, endpoint)).await {
                return ended;
            }
            self.courtesy.give_way();
            // Not just woken again: this thread may be the one that is to notice what comes for others, and as long as a task is
            // ready it seldom looks.
            tokio::task::yield_now().await;
        }
    }

    /// Ready without an end when a turn is over and there is more to do.
    fn poll(&mut self, cx: &mut Context<'_>, endpoint: &mut impl Endpoint) -> Poll<Option<Ended>> {
        self.courtesy.begin();
        let mut held = std::mem::take(&mut self.is_new) && self.decoder.pending_bytes() != 0;
        for _ in 0..IO_TURNS_MAX {
            let read = self.poll_read(cx);
            // S-26. Asked when the bytes are there: they may have lain before a process that was stopped.
            let now = clock::now();
            let mut moved = match read {
                Poll::Ready(Ok(0)) => return Poll::Ready(Some(Ended::Lost(None))),
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Ended::Lost(Some(error)))),
                Poll::Ready(Ok(read)) => {
                    self.courtesy.moved(read);
                    true
                }
                Poll::Pending => std::mem::take(&mut held),
            };
            if moved {
                self.take_in(endpoint, now);
            }
            match self.poll_give_out(cx, endpoint, now) {
                Poll::Ready(Ok(wrote)) => moved |= wrote,
                Poll::Ready(Err(error)) => {
                    self.hear_out(cx, endpoint);
                    return Poll::Ready(Some(Ended::Lost(Some(error))));
                }
                Poll::Pending => {}
            }
            let (is_over, has_output) =
                endpoint.with(|session| (session.is_closed(), session.has_output()));
            if is_over {
                let by = *self.over_by.get_or_insert(now + FAREWELL_DEADLINE);
                if (self.out.is_empty() && !has_output) || now >= by {
                    endpoint.finish();
                    return Poll::Ready(Some(Ended::Over));
                }
            }
            if moved {
                if self.courtesy.is_over(now) {
                    return Poll::Ready(None);
                }
                continue;
            }
            // Nothing to read, nothing to write, or no room to write it: wait for either, or for the next deadline.
            let has_drained = std::mem::take(&mut self.has_drained);
            let (next, is_answered) = endpoint.with(|session| {
                // Told before the wait: told at its end, what a full buffer took first would count as taken then.
                if has_drained {
                    session.drained(self.epoch, now);
                }
                (session.next_timeout(), session.unresolved() != 0)
            });
            let next = self.over_by.or(next);
            if self.alarm.poll(cx, next).is_pending() {
                self.spinner.rest(is_answered, self.stream.descriptor());
                return Poll::Pending;
            }
            if let Some(ended) = self.keep_time(endpoint) {
                return Poll::Ready(Some(ended));
            }
        }
        Poll::Ready(None)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        pin!(self.stream.read_buf(&mut self.decoder.space())).poll(cx)
    }

    /// Takes in what a peer said before it went away: that it takes nothing more does not make it untrue.
    fn hear_out(&mut self, cx: &mut Context<'_>, endpoint: &mut impl Endpoint) {
        for _ in 0..IO_TURNS_MAX {
            match self.poll_read(cx) {
                Poll::Ready(Ok(read)) if read != 0 => self.take_in(endpoint, clock::now()),
                _ => return,
            }
        }
    }

    /// Takes in every whole frame that was read.
    fn take_in(&mut self, endpoint: &mut impl Endpoint, now: Time) {
        loop {
            let landed = self.decoder.take_landed();
            let mut violation = None;
            while self.frames.len() < FRAMES_BATCH_MAX {
                match self.decoder.next_cut() {
                    Ok(Some(cut)) => self.frames.push(cut),
                    Ok(None) => break,
                    Err(error) => {
                        violation = Some(error);
                        break;
                    }
                }
            }
            let more = self.frames.len() == FRAMES_BATCH_MAX;
            let head = if more { None } else { self.decoder.part_head() };
            let Self {
                epoch,
                frames,
                decoder,
                ..
            } = self;
            let mut first = None;
            let room = endpoint.with(|session| {
                session.heard(*epoch, now);
                if let Some(landed) = landed {
                    first = arrived(session.on_landed(*epoch, landed, now));
                }
                if let Err(violation) = session.on_frames(*epoch, frames, now) {
                    report(violation);
                }
                if let Some(violation) = violation {
                    session.violated(*epoch, violation, now);
                }
                head.and_then(|head| Some((head, session.land(*epoch, &head)?)))
            });
            if let Some((head, room)) = room {
                decoder.land(head, room);
            }
            if first.is_some() || !frames.is_empty() {
                self.spinner.note_received();
                endpoint.unpark();
            }
            if let Some(first) = first {
                endpoint.deliver(first);
            }
            endpoint.take(frames);
            endpoint.delivered();
            endpoint.finish();
            if !more {
                return;
            }
        }
    }

    /// Writes until nothing is to be written or the stream takes no more; says whether it took anything.
    fn poll_give_out(
        &mut self,
        cx: &mut Context<'_>,
        endpoint: &mut impl Endpoint,
        now: Time,
    ) -> Poll<io::Result<bool>> {
        let mut moved = false;
        // A stream that takes everything at once must not keep this from reading.
        for _ in 0..IO_TURNS_MAX {
            if moved && self.courtesy.is_over(now) {
                break;
            }
            if self.out.is_empty() {
                self.fetch(endpoint, now);
            }
            if self.out.is_empty() {
                if endpoint.park(cx.waker()) {
                    return Poll::Ready(Ok(moved));
                }
                continue;
            }
            let written = ready!(self.poll_write(cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
            self.courtesy.moved(written);
            moved = true;
            self.spinner.note_sent();
        }
        Poll::Ready(Ok(true))
    }

    /// Asks the session for as much as one write may carry.
    fn fetch(&mut self, endpoint: &mut impl Endpoint, now: Time) {
        endpoint.sync();
        let Self {
            epoch,
            out,
            out_bytes,
            has_drained,
            ..
        } = self;
        endpoint.with(|session| {
            if std::mem::take(has_drained) {
                session.drained(*epoch, now);
            }
            while *out_bytes < WRITE_BATCH_BYTES && out.len() < WRITE_PARTS_MAX {
                let Some(part) = session.transmit(*epoch, now, WRITE_BATCH_BYTES - *out_bytes)
                else {
                    break;
                };
                *out_bytes += part.bytes.len();
                out.push_back(part.bytes);
            }
        });
        endpoint.finish();
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        let polled = if let [only] = self.out.make_contiguous() {
            stream.poll_write(cx, only)
        } else {
            let mut slices = [IoSlice::new(&[]); WRITE_PARTS_MAX];
            for (slice, part) in slices.iter_mut().zip(&self.out) {
                *slice = IoSlice::new(part);
            }
            stream.poll_write_vectored(cx, &slices[..self.out.len().min(WRITE_PARTS_MAX)])
        };
        // S-25
        match polled {
            Poll::Pending => self.is_full = true,
            Poll::Ready(Ok(written)) if written != 0 => {
                self.has_drained |= std::mem::take(&mut self.is_full);
            }
            Poll::Ready(_) => {}
        }
        polled
    }

    fn advance(&mut self, mut written: usize) {
        self.out_bytes = self.out_bytes.saturating_sub(written);
        while let Some(part) = self.out.front_mut() {
            if written < part.len() {
                part.advance(written);
                return;
            }
            written -= part.len();
            self.out.pop_front();
        }
    }

    /// Acts on the deadlines that have passed.
    fn keep_time(&mut self, endpoint: &mut impl Endpoint) -> Option<Ended> {
        let now = clock::now();
        memory::pool().trim(now);
        let has_drained = std::mem::take(&mut self.has_drained);
        endpoint.sync();
        let dead = endpoint.with(|session| {
            if has_drained {
                session.drained(self.epoch, now);
            }
            match session.run_timeouts(now) {
                Some(Timeout::Dead { silence }) => Some(silence),
                _ => None,
            }
        });
        endpoint.finish();
        dead.map(Ended::Dead)
    }

    /// Writes the acknowledgements that wait, as far as the stream takes them without waiting. The connection ends after it.
    pub(crate) async fn acknowledge_at_once(&mut self, endpoint: &mut impl Endpoint) {
        endpoint.sync();
        // Deadlines of acknowledgements are brought forward; later ones no longer matter.
        let soon = endpoint.with(|session| clock::now() + session.config().ack_delay);
        endpoint.with(|session| while session.on_timeout(soon) == Some(Timeout::AckDue) {});
        self.fetch(endpoint, soon);
        std::future::poll_fn(|cx| {
            while !self.out.is_empty() {
                match self.poll_write(cx) {
                    Poll::Ready(Ok(written)) if written != 0 => self.advance(written),
                    _ => break,
                }
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Ends the stream so that what was written last arrives: closes this direction, and waits a moment for the other
    /// side to close the other.
    pub(crate) async fn farewell(mut self) {
        let farewell = async {
            self.stream.shutdown().await?;
            while self.stream.read_buf(self.decoder.buffer()).await? != 0 {
                self.decoder.buffer().clear();
            }
            io::Result::Ok(())
        };
        match tokio::time::timeout(FAREWELL_DEADLINE, farewell).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the peer was gone before the goodbye"),
            Err(_) => tracing::debug!("the peer did not close after the goodbye"),
        }
    }
}

/// The message that is whole with a part that has landed, if it is.
fn arrived(accepted: Result<Accept, Violation>) -> Option<Arrived> {
    match accepted {
        Ok(Accept::Deliver {
            seq,
            to,
            from,
            body,
            size,
            ack_now,
        }) => Some(Arrived {
            seq,
            to,
            from,
            body,
            size,
            ack_now,
        }),
        Ok(_) => None,
        Err(violation) => {
            report(violation);
            None
        }
    }
}

fn report(violation: Violation) {
    tracing::warn!(%violation, "the peer broke the protocol; its session ends");
}

/// Writes a few bytes to a stream that has room for them, or not at all.
pub(crate) async fn say_at_once(mut stream: Box<dyn ByteStream>, bytes: &[u8]) {
    let said = std::future::poll_fn(|cx| {
        Poll::Ready(match Pin::new(&mut stream).poll_write(cx, bytes) {
            Poll::Ready(written) => written.map(|written| written == bytes.len()),
            Poll::Pending => Ok(false),
        })
    });
    if !matches!(said.await, Ok(true)) {
        tracing::debug!("a refusal could not be said");
    }
}
