//! Byte streams between two nodes: bytes take time, streams hold only so much, and break at any byte.

use std::collections::VecDeque;

use bytes::Bytes;
use hyperactor_protocol::{ConnectionEpoch, FrameDecoder};

use super::{Ev, Sim};
use crate::fault::Nanos;

/// Small parts land, too.
const LANDING_BYTES: usize = 16;

/// The bytes on their way to one side.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    pub(super) chunks: VecDeque<(Nanos, Bytes)>,
    /// Bytes held, on their way or lost where nobody reads.
    pub(super) held: usize,
    pub(super) written: u64,
    /// The connection breaks when so many bytes were written.
    pub(super) cut_at: Option<u64>,
    /// What is written vanishes.
    pub(super) black: bool,
    /// The stream ends at this time.
    pub(super) fin_at: Option<Nanos>,
    last_at: Nanos,
}

/// One side of a connection.
#[derive(Debug)]
pub(super) struct End {
    pub(super) open: bool,
    pub(super) half: Option<usize>,
    pub(super) epoch: Option<ConnectionEpoch>,
    pub(super) decoder: FrameDecoder,
    pub(super) hello_taken: bool,
    /// Handed out by the session, not yet taken by the stream.
    pub(super) out: Bytes,
    /// The stream took no more the last time.
    pub(super) is_full: bool,
    /// How much of `out` is a hello.
    pub(super) hello_left: usize,
    pub(super) inbound: Pipe,
}

/// A connection; side 0 dialed.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) link: usize,
    pub(super) ends: [End; 2],
}

impl Sim<'_> {
    pub(super) fn open_conn(&mut self, link: usize) -> usize {
        let at = self.conns.len();
        let frames = &self.scenario.world.max_frame;
        let ends = self.links[link].ends;
        let cuts = std::mem::take(&mut self.links[link].cut_next);
        let end = |side: usize| End {
            open: true,
            half: None,
            epoch: None,
            decoder: FrameDecoder::new(frames[ends[side]]).landing_from(LANDING_BYTES),
            hello_taken: false,
            out: Bytes::new(),
            is_full: false,
            hello_left: 0,
            inbound: Pipe {
                // What comes to a side was sent by the other.
                cut_at: cuts[1 - side],
                ..Pipe::default()
            },
        };
        self.conns.push(Conn {
            link,
            ends: [end(0), end(1)],
        });
        self.links[link].newest = Some(at);
        self.seen.connections += 1;
        at
    }

    /// Gives the stream as much of `out` as it takes; returns how many bytes of it were no hello, and whether any
    /// could not be taken.
    pub(super) fn write(&mut self, conn: usize, side: usize) -> (usize, bool) {
        let world = &self.scenario.world;
        let (capacity, chunk) = (world.socket_bytes, world.chunk);
        let mut frames = 0;
        loop {
            let free = capacity.saturating_sub(self.conns[conn].ends[1 - side].inbound.held);
            let end = &mut self.conns[conn].ends[side];
            if end.out.is_empty() {
                return (frames, false);
            }
            let count = end.out.len().min(free).min(chunk);
            if count == 0 {
                return (frames, true);
            }
            let bytes = end.out.split_to(count);
            let hello = end.hello_left.min(count);
            end.hello_left -= hello;
            frames += count - hello;
            self.send(conn, side, &bytes);
        }
    }

    fn send(&mut self, conn: usize, side: usize, bytes: &Bytes) {
        let link = self.conns[conn].link;
        let (by, until) = self.links[link].extra[side];
        let extra = if until > self.now { by } else { 0 };
        let at = self.now + self.latency(link) + extra;
        let pipe = &mut self.conns[conn].ends[1 - side].inbound;
        pipe.held += bytes.len();
        let before = pipe.written;
        pipe.written += bytes.len() as u64;
        if pipe.black {
            return;
        }
        let cut = pipe.cut_at.filter(|cut| *cut <= pipe.written);
        let passed = cut.map_or(bytes.len(), |cut| cut.saturating_sub(before) as usize);
        if passed != 0 {
            pipe.last_at = pipe.last_at.max(at);
            let at = pipe.last_at;
            pipe.chunks.push_back((at, bytes.slice(..passed)));
            self.push(at, Ev::Read(conn, 1 - side));
        }
        if cut.is_some() {
            self.seen.faults += 1;
            self.snap(conn, side);
        }
    }

    /// The connection breaks: what was written this way arrives, the other way loses a part.
    fn snap(&mut self, conn: usize, side: usize) {
        let link = self.conns[conn].link;
        self.log.line(
            self.now,
            self.links[link].ends[side],
            "snap",
            [conn as u64, side as u64, 0],
        );
        self.lose_tail(conn, side);
        self.finish_stream(conn, 1 - side);
        self.finish_stream(conn, side);
    }

    /// A random part of what is on its way to this side is lost.
    pub(super) fn lose_tail(&mut self, conn: usize, side: usize) {
        let link = self.conns[conn].link;
        let pipe = &mut self.conns[conn].ends[side].inbound;
        let total: usize = pipe.chunks.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut keep = self.links[link].rng.below(total as u64 + 1) as usize;
        for (_, bytes) in &mut pipe.chunks {
            bytes.truncate(keep);
            keep -= bytes.len();
        }
        pipe.chunks.retain(|(_, bytes)| !bytes.is_empty());
    }

    /// The stream to this side ends behind what is on its way; what is written to it from now on vanishes.
    pub(super) fn finish_stream(&mut self, conn: usize, side: usize) {
        let link = self.conns[conn].link;
        let at = self.now + self.latency(link);
        let pipe = &mut self.conns[conn].ends[side].inbound;
        if pipe.fin_at.is_some() || pipe.black {
            return;
        }
        let at = pipe.last_at.max(at);
        pipe.fin_at = Some(at);
        pipe.black = true;
        self.push(at, Ev::Read(conn, side));
    }

    /// Nothing written to this side arrives any more, not even the end.
    pub(super) fn blacken(&mut self, conn: usize, side: usize, keep: bool) {
        let pipe = &mut self.conns[conn].ends[side].inbound;
        pipe.black = true;
        if !keep {
            pipe.chunks.clear();
            pipe.fin_at = None;
        }
    }

    /// Hands what has arrived at this side to its decoder; returns whether something had, and whether the stream
    /// ended.
    pub(super) fn receive(&mut self, conn: usize, side: usize) -> (usize, bool) {
        let now = self.now;
        let end = &mut self.conns[conn].ends[side];
        let mut count = 0;
        while let Some((at, _)) = end.inbound.chunks.front()
            && *at <= now
            && let Some((_, bytes)) = end.inbound.chunks.pop_front()
        {
            end.decoder.feed(&bytes);
            count += bytes.len();
            end.inbound.held -= bytes.len();
        }
        let ended = end.inbound.chunks.is_empty() && end.inbound.fin_at.is_some_and(|at| at <= now);
        (count, ended)
    }
}
