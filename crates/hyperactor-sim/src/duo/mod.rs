//! The smallest world: two ends of one session, the connections between them frame by frame, and the ledger.
//!
//! What happens next is its caller's choice: [`explore`](mod@explore) tries every order, the fuzz target draws one, the script
//! of a hole is fixed. Bytes within frames, streams that fill up and more than two nodes are the engine's matter.

pub(crate) mod explore;
pub(crate) mod hole;

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use bytes::BytesMut;
use hyperactor_protocol::{
    Accept, Config, ConnectionEpoch, DataFlags, Event, Frame, FrameDecoder, Hello, HelloError,
    Incarnation, Label, Life, Outgoing, PushError, Seq, Session, SessionId, Time, Timeout, Verdict,
    limits,
};

use crate::labels::{Given, Lane, Named};
use crate::ledger::{self, FlawKind, Ledger, Told};

/// The most bytes taken from a session at once.
const TRANSMIT_BYTES: usize = 64 * 1024;

/// The side that dials.
pub(crate) const DIALER: usize = 0;
/// The side that accepts.
pub(crate) const ACCEPTOR: usize = 1;

/// Two ends and what is between them.
#[derive(Debug)]
pub(crate) struct Duo {
    configs: [Config; 2],
    ends: [Option<End>; 2],
    lives: [u64; 2],
    /// States made so far, on either side.
    states: u64,
    pub(crate) wires: Vec<Wire>,
    /// Each end's own clock: what happens at one end takes no time at the other.
    clocks: [Time; 2],
    pub(crate) ledger: Ledger,
    pub(crate) seen: DuoSeen,
}

/// What was seen of the rarer ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DuoSeen {
    pub(crate) fenced: u64,
    pub(crate) duplicates: u64,
    pub(crate) resumed: u64,
    pub(crate) fresh: u64,
    pub(crate) refusals: u64,
    pub(crate) unknown: u64,
    pub(crate) full: u64,
    pub(crate) parts: u64,
}

/// One end's state of a session.
#[derive(Debug)]
struct End {
    session: Session,
    state: u64,
    wire: Option<usize>,
    /// The messages without an outcome, by their numbers.
    sent: BTreeMap<u64, u64>,
    /// Arrived and not settled.
    held: Vec<Held>,
    /// Settled and not released.
    queued: VecDeque<(Label, u32)>,
    given: Given,
    named: Named,
}

/// A message that waits for its outcome where it arrived.
#[derive(Clone, Copy, Debug)]
struct Held {
    seq: Seq,
    to: Label,
    id: u64,
    size: u32,
    /// Its sender's state is gone: no outcome reaches anybody.
    is_stale: bool,
}

/// A message to post.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Letter {
    pub(crate) size: u32,
    pub(crate) to: Lane,
    pub(crate) from: Lane,
    pub(crate) urgent: bool,
}

/// One connection; what is on its way to each side.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    open: [bool; 2],
    /// The state that each side has on it, and its number there.
    states: [u64; 2],
    epochs: [Option<ConnectionEpoch>; 2],
    pub(crate) queues: [VecDeque<Packet>; 2],
}

/// What is on its way.
#[derive(Debug)]
pub(crate) enum Packet {
    Hello(Box<Hello>),
    Frame(Frame),
    End,
}

/// How a connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The dialer hangs up; what it wrote still arrives.
    Dialer,
    /// What is on its way is lost both ways, and both learn of the end.
    Both,
}

impl Duo {
    pub(crate) fn new(configs: [Config; 2]) -> Self {
        Self {
            configs,
            ends: [None, None],
            lives: [1, 1],
            states: 0,
            wires: Vec::new(),
            clocks: [Time::ZERO; 2],
            ledger: Ledger::default(),
            seen: DuoSeen::default(),
        }
    }

    pub(crate) fn session(&self, side: usize) -> Option<&Session> {
        self.ends[side].as_ref().map(|end| &end.session)
    }

    /// How many messages wait for their outcome at this side's application.
    pub(crate) fn held(&self, side: usize) -> usize {
        self.ends[side].as_ref().map_or(0, |end| end.held.len())
    }

    /// The message in this place among those that wait.
    pub(crate) fn held_id(&self, side: usize, at: usize) -> Option<u64> {
        let end = self.ends[side].as_ref()?;
        end.held.get(at).map(|held| held.id)
    }

    /// Where that message goes.
    pub(crate) fn held_lane(&self, side: usize, at: usize) -> Option<Lane> {
        let end = self.ends[side].as_ref()?;
        end.named.lane(end.held.get(at)?.to)
    }

    pub(crate) fn clock(&self, side: usize) -> Time {
        self.clocks[side]
    }

    fn state(&mut self) -> u64 {
        self.states += 1;
        self.states
    }

    fn incarnation(&self, side: usize) -> Incarnation {
        Incarnation::new(self.lives[side] << 1 | side as u64)
    }

    fn add_end(&mut self, side: usize, session: Session) -> &mut End {
        let state = self.state();
        self.ends[side].insert(End {
            session,
            state,
            wire: None,
            sent: BTreeMap::new(),
            held: Vec::new(),
            queued: VecDeque::new(),
            given: Given::default(),
            named: Named::default(),
        })
    }

    /// The dialer's end, made if there is none.
    fn dialing_end(&mut self) -> &mut End {
        if self.ends[DIALER].is_none() {
            let id = SessionId(u128::from(self.states) << 64 | 0x00d0_0d1e);
            let (life, now) = (self.incarnation(DIALER), self.clocks[DIALER]);
            let session = Session::dialer(self.configs[DIALER].clone(), id, life, now);
            return self.add_end(DIALER, session);
        }
        match &mut self.ends[DIALER] {
            Some(end) => end,
            None => unreachable!("made above"),
        }
    }

    /// Posts a message; returns whether it was taken.
    pub(crate) fn post(&mut self, side: usize, letter: Letter) -> bool {
        let id = self.ledger.next();
        let end = match side {
            DIALER => self.dialing_end(),
            _ => match &mut self.ends[ACCEPTOR] {
                Some(end) => end,
                None => return false,
            },
        };
        let flags = if letter.urgent {
            DataFlags::ACK_NOW
        } else {
            DataFlags::NONE
        };
        let Some((to, from)) = end.given.labels(&mut end.session, (letter.to, letter.from)) else {
            self.seen.full += 1;
            return false;
        };
        let body = ledger::body(id, letter.size);
        let outgoing = Outgoing {
            flags,
            to,
            from,
            ..Outgoing::default()
        };
        let pushed = end.session.push(outgoing, |out| {
            out.extend_from_slice(&body);
            Ok::<(), Infallible>(())
        });
        let taken = match pushed {
            Ok(post) => {
                end.sent.insert(post.0, id);
                let (state, size) = (end.state, letter.size);
                self.ledger
                    .post_to(state as usize, size, state, (letter.to, letter.from));
                true
            }
            Err(PushError::Full) => {
                self.seen.full += 1;
                false
            }
            Err(PushError::Closed | PushError::TooLarge { .. }) => false,
            Err(error) => {
                let text = error.to_string();
                self.ledger.flaw(FlawKind::Unwarranted, || text);
                false
            }
        };
        self.after(side);
        taken
    }

    /// Opens a connection; an older one is left to itself.
    pub(crate) fn dial(&mut self) {
        let (now, at) = (self.clocks[DIALER], self.wires.len());
        let end = self.dialing_end();
        let hello = end.session.hello(now);
        end.wire = Some(at);
        let mut wire = Wire {
            open: [true; 2],
            states: [end.state, 0],
            epochs: [Some(hello.epoch), None],
            ..Wire::default()
        };
        wire.queues[ACCEPTOR].push_back(Packet::Hello(Box::new(hello)));
        self.wires.push(wire);
        self.after(DIALER);
    }

    /// The next thing on its way to a side arrives; returns whether there was one.
    pub(crate) fn deliver(&mut self, wire: usize, side: usize) -> bool {
        let Some(packet) = self.wires[wire].queues[side].pop_front() else {
            return false;
        };
        if self.wires[wire].open[side] {
            match packet {
                Packet::Hello(hello) if side == ACCEPTOR => self.take_open(wire, &hello),
                Packet::Hello(hello) => self.take_answer(wire, &hello),
                Packet::Frame(frame) => self.take_frame(wire, side, frame),
                Packet::End => self.hang_up(wire, side),
            }
        }
        self.after(side);
        true
    }

    fn take_open(&mut self, wire: usize, hello: &Hello) {
        let now = self.clocks[ACCEPTOR];
        let known = self
            .session(ACCEPTOR)
            .is_some_and(|session| session.id() == hello.session);
        if !known {
            self.drop_end(ACCEPTOR);
            let life = self.incarnation(ACCEPTOR);
            let session = Session::acceptor(self.configs[ACCEPTOR].clone(), life, hello, now);
            self.add_end(ACCEPTOR, session);
        }
        let life = self.incarnation(ACCEPTOR);
        let Some(end) = &mut self.ends[ACCEPTOR] else {
            return;
        };
        match end.session.on_hello(hello, now) {
            Ok(established) => {
                let answer = end.session.hello(now);
                end.wire = Some(wire);
                end.named.clear();
                self.wires[wire].states[ACCEPTOR] = end.state;
                self.wires[wire].epochs[ACCEPTOR] = Some(established.epoch);
                self.say(wire, ACCEPTOR, Packet::Hello(Box::new(answer)));
            }
            Err(error) => {
                self.note_refusal(&error);
                if !known {
                    self.ends[ACCEPTOR] = None;
                }
                let refusal = Hello::refusal(hello, life, error.code());
                self.say(wire, ACCEPTOR, Packet::Hello(Box::new(refusal)));
                self.hang_up(wire, ACCEPTOR);
            }
        }
    }

    fn take_answer(&mut self, wire: usize, hello: &Hello) {
        let now = self.clocks[DIALER];
        let state = self.wires[wire].states[DIALER];
        let Some(end) = self.ends[DIALER].as_mut().filter(|end| end.state == state) else {
            self.hang_up(wire, DIALER);
            return;
        };
        match end.session.on_hello(hello, now) {
            Ok(established) => {
                end.named.clear();
                self.seen.resumed += u64::from(established.resumed);
                self.seen.fresh += u64::from(!established.resumed);
                if !established.resumed {
                    end.held.iter_mut().for_each(|held| held.is_stale = true);
                }
            }
            Err(error) => {
                self.note_refusal(&error);
                self.hang_up(wire, DIALER);
            }
        }
    }

    /// Honest ends refuse each other only for what comes late.
    fn note_refusal(&mut self, error: &HelloError) {
        self.seen.refusals += 1;
        let lawful = match error {
            HelloError::StaleEpoch { .. } | HelloError::StaleState { .. } => true,
            HelloError::Ended | HelloError::Unexpected => true,
            HelloError::Refused { code } => {
                code.is_retryable() || *code == hyperactor_protocol::HelloCode::Ended
            }
            _ => false,
        };
        if !lawful {
            let text = format!("refused: {error}");
            self.ledger.flaw(FlawKind::Unwarranted, || text);
        }
    }

    fn take_frame(&mut self, wire: usize, side: usize, frame: Frame) {
        let now = self.clocks[side];
        let state = self.wires[wire].states[side];
        let (Some(end), Some(epoch)) = (
            self.ends[side].as_mut().filter(|end| end.state == state),
            self.wires[wire].epochs[side],
        ) else {
            // Its state is gone.
            self.hang_up(wire, side);
            return;
        };
        match end.session.on_frame(epoch, frame, now) {
            Ok(Accept::Deliver {
                seq,
                to,
                from,
                body,
                size,
                ..
            }) => {
                if let Some(id) = self.ledger.arrive(side, end.state, &body, true) {
                    end.held.push(Held {
                        seq,
                        to,
                        id,
                        size,
                        is_stale: false,
                    });
                    self.seen.parts += u64::from(size > self.configs[side].fragment_bytes);
                    let (to, from) = (end.named.lane(to), end.named.lane(from));
                    self.ledger.is_for(id, to, from);
                }
            }
            Ok(Accept::Named { label, name }) => {
                if !end.named.name(label, &name) {
                    self.ledger.flaw(FlawKind::Corrupt, || {
                        format!("label {label} has no name of ours")
                    });
                }
            }
            Ok(Accept::Duplicate) => self.seen.duplicates += 1,
            Ok(Accept::Fenced) => {
                self.seen.fenced += 1;
                if end.wire != Some(wire) {
                    self.hang_up(wire, side);
                }
            }
            Ok(Accept::Handled) => {}
            Err(violation) => {
                let text = format!("{violation}: {}", end.session.dump());
                self.ledger.flaw(FlawKind::Unwarranted, || text);
            }
        }
    }

    /// Says what became of one of the messages that wait, and takes it out of its queue unless `lingers`.
    pub(crate) fn settle(&mut self, side: usize, at: usize, verdict: Verdict, lingers: bool) {
        let Some(end) = &mut self.ends[side] else {
            return;
        };
        if at >= end.held.len() {
            return;
        }
        let held = end.held.remove(at);
        if verdict == Verdict::Delivered {
            self.ledger.place(held.id);
        }
        let _written_below = end.session.settle(held.seq, verdict);
        if lingers {
            end.queued.push_back((held.to, held.size));
        } else {
            let _written_below = end.session.release(held.to, held.size);
        }
        self.after(side);
    }

    /// A settled message leaves its queue; returns whether there was one.
    pub(crate) fn release(&mut self, side: usize) -> bool {
        if let Some(end) = &mut self.ends[side]
            && let Some((to, size)) = end.queued.pop_front()
        {
            let _written_below = end.session.release(to, size);
            self.after(side);
            return true;
        }
        false
    }

    /// The dialer's newest connection breaks.
    pub(crate) fn cut(&mut self, how: Cut) {
        let Some(wire) = self.ends[DIALER].as_ref().and_then(|end| end.wire) else {
            return;
        };
        match how {
            Cut::Dialer => self.hang_up(wire, DIALER),
            Cut::Both => {
                for side in [DIALER, ACCEPTOR] {
                    self.wires[wire].queues[side].clear();
                    self.hang_up(wire, side);
                    self.wires[wire].queues[side].clear();
                }
            }
        }
        self.after(DIALER);
        self.after(ACCEPTOR);
    }

    /// A side's process ends without a word and starts again with nothing; what it wrote still arrives.
    pub(crate) fn restart(&mut self, side: usize) {
        self.lives[side] += 1;
        self.lose(side);
    }

    /// A side loses its state and lives on.
    pub(crate) fn lose(&mut self, side: usize) {
        self.drop_end(side);
        for wire in 0..self.wires.len() {
            self.wires[wire].queues[side].clear();
            self.hang_up(wire, side);
        }
    }

    fn drop_end(&mut self, side: usize) {
        if let Some(end) = self.ends[side].take() {
            self.ledger.forget(end.state as usize);
        }
    }

    /// A side takes no more messages and ends when everything has its outcome.
    pub(crate) fn close(&mut self, side: usize) {
        if let Some(end) = &mut self.ends[side] {
            end.session.close();
            self.after(side);
        }
    }

    /// A side gives the session up.
    pub(crate) fn abandon(&mut self, side: usize) {
        let now = self.clocks[side];
        if let Some(end) = &mut self.ends[side] {
            end.session.fail(hyperactor_protocol::Cause::Abandoned, now);
            self.after(side);
        }
    }

    /// Compares what both sessions say of themselves with what their drivers know.
    pub(crate) fn compare(&mut self) {
        for side in [DIALER, ACCEPTOR] {
            let Some(end) = &self.ends[side] else {
                continue;
            };
            let (open, unsettled) = (end.session.unresolved(), end.session.unsettled());
            let held = end.held.iter().filter(|held| !held.is_stale).count() as u64;
            let sent = end.sent.len() as u64;
            if (open, unsettled) != (sent, held) {
                let dump = end.session.dump();
                self.ledger.flaw(FlawKind::Unwarranted, || {
                    format!("{sent} are open and {held} wait for an outcome, and not as in {dump}")
                });
            }
        }
    }

    /// Time passes at one end.
    pub(crate) fn wait(&mut self, side: usize, by: Duration) {
        self.clocks[side] = self.clocks[side] + by;
        self.after(side);
    }

    /// Everything that follows a change at a side: deadlines, events, what is to be written.
    fn after(&mut self, side: usize) {
        self.take_events(side);
        let now = self.clocks[side];
        while let Some(end) = &mut self.ends[side] {
            match end.session.on_timeout(now) {
                None => break,
                Some(Timeout::Dead { .. }) => {
                    if let Some(wire) = end.wire {
                        self.hang_up(wire, side);
                    }
                }
                Some(_) => {}
            }
        }
        self.pump(side);
        self.take_events(side);
        let Some(end) = &self.ends[side] else { return };
        end.session.check();
        if end.session.is_closed() {
            if let Some(wire) = end.wire {
                self.hang_up(wire, side);
            }
            self.ends[side] = None;
        }
    }

    fn pump(&mut self, side: usize) {
        let now = self.clocks[side];
        let Some(end) = &mut self.ends[side] else {
            return;
        };
        let Some(wire) = end.wire.filter(|wire| self.wires[*wire].open[side]) else {
            return;
        };
        let Some(epoch) = self.wires[wire].epochs[side] else {
            return;
        };
        let mut bytes = BytesMut::new();
        while let Some(part) = end.session.transmit(epoch, now, TRANSMIT_BYTES) {
            bytes.extend_from_slice(&part.bytes);
        }
        if bytes.is_empty() {
            return;
        }
        let mut decoder = FrameDecoder::new(limits::FRAME_MAX_CEILING);
        decoder.buffer().unsplit(bytes);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => self.say(wire, side, Packet::Frame(frame)),
                Ok(None) => break,
                Err(violation) => {
                    let text = format!("own output is no frame: {violation}");
                    self.ledger.flaw(FlawKind::Corrupt, || text);
                    return;
                }
            }
        }
        if decoder.pending_bytes() != 0 {
            let text = format!("{} bytes of output are no frame", decoder.pending_bytes());
            self.ledger.flaw(FlawKind::Corrupt, || text);
        }
    }

    fn say(&mut self, wire: usize, side: usize, packet: Packet) {
        let wire = &mut self.wires[wire];
        if wire.open[side] && wire.open[1 - side] {
            wire.queues[1 - side].push_back(packet);
        }
    }

    fn hang_up(&mut self, wire: usize, side: usize) {
        if !self.wires[wire].open[side] {
            return;
        }
        self.say(wire, side, Packet::End);
        self.wires[wire].open[side] = false;
        self.wires[wire].queues[side].clear();
        let now = self.clocks[side];
        let state = self.wires[wire].states[side];
        if let (Some(end), Some(epoch)) = (
            self.ends[side].as_mut().filter(|end| end.state == state),
            self.wires[wire].epochs[side],
        ) {
            if end.wire == Some(wire) {
                end.wire = None;
            }
            end.session.disconnected(epoch, now);
        }
    }

    fn take_events(&mut self, side: usize) {
        let Some(end) = &mut self.ends[side] else {
            return;
        };
        while let Some(event) = end.session.poll_event() {
            match event {
                Event::Resolved { first, count } => {
                    for seq in first.0..first.0 + count {
                        tell(&mut self.ledger, &mut end.sent, seq, Told::Delivered);
                    }
                }
                Event::Failed {
                    post: seq,
                    failure,
                    body,
                } => {
                    let told = if failure.is_certain() {
                        Told::NotDelivered
                    } else {
                        self.seen.unknown += 1;
                        Told::Unknown
                    };
                    let id = tell(&mut self.ledger, &mut end.sent, seq.0, told);
                    if let (Some(id), Some(body)) = (id, body)
                        && ledger::number(&body) != Some(id)
                    {
                        let text = format!("message {id} came back with other bytes");
                        self.ledger.flaw(FlawKind::Corrupt, || text);
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether the dialer has no connection and could open one.
    pub(crate) fn is_detached(&self) -> bool {
        self.session(DIALER)
            .is_some_and(|session| session.life() == Life::Detached)
    }
}

fn tell(ledger: &mut Ledger, sent: &mut BTreeMap<u64, u64>, seq: u64, told: Told) -> Option<u64> {
    let id = sent.remove(&seq);
    match id {
        Some(id) => ledger.tell(id, told),
        None => ledger.flaw(FlawKind::Unexpected, || {
            format!("number {seq} was told {told:?} and nobody waits for it")
        }),
    }
    id
}
