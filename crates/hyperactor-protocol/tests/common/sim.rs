//! Two applications over two sessions over connections that break at any byte, in simulated time, from one seed.
//! A ledger knows what really became of each message and compares it with what the sender was told.

mod apps;

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use hyperactor_protocol::{
    Accept, Config, ConnectionEpoch, DataFlags, Failure, Frame, FrameDecoder, Hello, HelloCode,
    Incarnation, Label, Outgoing, PushError, Refusal, Seq, Session, SessionId, Time, Verdict,
};

use super::ledger::{Entry, Seen, body, record};
use super::{DIALER, Rng, hand};

/// What a lane is called; the one of messages without a label has no name.
fn name(lane: u32) -> Bytes {
    if lane == 0 {
        Bytes::new()
    } else {
        format!("lane {lane}").into()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Dialer,
    Acceptor,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Acceptor,
            Self::Acceptor => Self::Dialer,
        }
    }
}

/// One end of one connection.
struct End {
    open: bool,
    decoder: FrameDecoder,
    hello_taken: bool,
    epoch: Option<ConnectionEpoch>,
    /// Handed out by the session, not yet taken by the transport.
    out: Bytes,
    /// The transport took no more the last time.
    is_full: bool,
    /// In the transport, on the way to this end.
    incoming: BytesMut,
}

impl End {
    fn new(max_frame: u32) -> Self {
        Self {
            open: true,
            decoder: FrameDecoder::new(max_frame),
            hello_taken: false,
            epoch: None,
            out: Bytes::new(),
            is_full: false,
            incoming: BytesMut::new(),
        }
    }
}

struct Conn {
    ends: [End; 2],
}

/// An application and its session.
struct Node {
    session: Option<Session>,
    incarnation: Incarnation,
    /// Numbers of messages by session and sequence number.
    posted: BTreeMap<(SessionId, u64), u64>,
    /// Placed and not yet settled; then not yet released.
    unsettled: Vec<(Seq, u64)>,
    queue: VecDeque<(Label, u32)>,
    /// The last message placed, by lane.
    last_placed: BTreeMap<u32, u64>,
    /// The labels of the present session, by lane; and the names that the peer told on the present connection.
    labels: BTreeMap<u32, Label>,
    names: BTreeMap<Label, Bytes>,
}

pub struct Sim {
    rng: Rng,
    seed: u64,
    pub now: Time,
    config: Config,
    nodes: [Node; 2],
    conns: Vec<Conn>,
    ledger: [Vec<Entry>; 2],
    lives: u64,
    sessions: u128,
    healed: bool,
    steps: u64,
    pub seen: Seen,
}

impl Sim {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let config = Config {
            window_messages: 1 + rng.below(64) as u32,
            window_bytes: 1 + rng.below(64 * 1024),
            outbox_messages: 1 + rng.below(200) as u32,
            outbox_bytes: 1 + rng.below(256 * 1024) as usize,
            max_frame: 256 * 1024,
            max_message: 256 * 1024,
            fragment_bytes: 64 + rng.below(8000) as u32,
            ack_every: 1 + rng.below(32) as u32,
            ..Config::default()
        };
        let node = |incarnation| Node {
            session: None,
            incarnation,
            posted: BTreeMap::new(),
            unsettled: Vec::new(),
            queue: VecDeque::new(),
            last_placed: BTreeMap::new(),
            labels: BTreeMap::new(),
            names: BTreeMap::new(),
        };
        Self {
            rng,
            seed,
            now: Time::ZERO,
            config,
            nodes: [node(DIALER), node(Incarnation::new(1))],
            conns: Vec::new(),
            ledger: [Vec::new(), Vec::new()],
            lives: 1,
            sessions: 0,
            healed: false,
            steps: 0,
            seen: Seen::default(),
        }
    }

    /// Faults for `steps` steps, then a healed network until everything has an outcome.
    pub fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.step();
        }
        self.healed = true;
        for round in 0.. {
            assert!(
                round < 20_000,
                "seed {}: no end: {}",
                self.seed,
                self.describe()
            );
            self.see_ends();
            if self.conns.iter().all(|conn| !conn.ends[0].open) {
                self.connect();
            }
            for side in [Side::Dialer, Side::Acceptor] {
                self.settle_some(side, usize::MAX);
                self.release_some(side, usize::MAX);
                self.pump(side, usize::MAX);
            }
            self.advance(Duration::from_millis(1));
            if self.is_at_rest() {
                break;
            }
        }
        self.judge();
    }

    fn is_at_rest(&self) -> bool {
        self.nodes.iter().all(|node| {
            node.session
                .as_ref()
                .is_none_or(|s| s.unresolved() == 0 && !s.has_output())
                && node.unsettled.is_empty()
        }) && self.conns.iter().all(|conn| {
            conn.ends
                .iter()
                .all(|end| !end.open || (end.out.is_empty() && end.incoming.is_empty()))
        })
    }

    fn describe(&self) -> String {
        let dump = |side: Side| match &self.nodes[side as usize].session {
            Some(session) => session.dump().to_string(),
            None => "no session".into(),
        };
        format!(
            "{} / {} / {} connections",
            dump(Side::Dialer),
            dump(Side::Acceptor),
            self.conns.len()
        )
    }

    fn step(&mut self) {
        let side = if self.rng.chance(4) {
            Side::Acceptor
        } else {
            Side::Dialer
        };
        match self.rng.below(1000) {
            0..300 => self.post(side),
            300..700 => {
                let at_most = 1 + self.rng.below(2000) as usize;
                self.pump(side, at_most);
                let at_most = 1 + self.rng.below(2000) as usize;
                self.pump(side.other(), at_most);
            }
            700..800 => self.settle_some(side.other(), 8),
            800..880 => self.release_some(side.other(), 8),
            880..960 => {
                let millis = self.rng.below(8);
                self.advance(Duration::from_millis(millis));
            }
            960..980 => self.connect(),
            980..990 => self.cut(),
            990..996 if !self.conns.is_empty() => {
                let at = self.rng.below(self.conns.len() as u64) as usize;
                self.cut_conn(at);
            }
            996 if self.rng.chance(4) => self.restart(),
            997 if self.rng.chance(4) => self.forget(),
            998 if self.rng.chance(8) => self.advance(Duration::from_secs(11)),
            999 if self.rng.chance(20) => self.advance(Duration::from_secs(31)),
            _ => {}
        }
        self.steps += 1;
        for node in &self.nodes {
            // Looking at everything costs more than a step does.
            let session = node
                .session
                .as_ref()
                .filter(|_| self.steps.is_multiple_of(4));
            if let Some(session) = session {
                session.check();
                let dump = session.dump();
                self.seen.waiting += u64::from(dump.waiting > 0);
                self.seen.assembling += u64::from(dump.assemblies > 0);
                let room = self.config.large_window() + 64 * 1024;
                assert!(dump.assembly_bytes <= room, "seed {}: {dump}", self.seed);
            }
        }
    }

    fn post(&mut self, side: Side) {
        if side == Side::Dialer
            && self.nodes[0]
                .session
                .as_ref()
                .is_none_or(Session::is_closed)
        {
            self.sessions += 1;
            let id = SessionId(self.sessions);
            let session = Session::dialer(self.config.clone(), id, DIALER, self.now);
            self.nodes[0].session = Some(session);
            self.nodes[0].unsettled.clear();
            self.nodes[0].queue.clear();
            self.nodes[0].labels.clear();
            self.conns
                .iter_mut()
                .for_each(|conn| conn.ends[0].open = false);
        }
        let node = &mut self.nodes[side as usize];
        let Some(session) = &mut node.session else {
            return;
        };
        let id = self.ledger[side as usize].len() as u64;
        let size = match self.rng.below(100) {
            0 => 20_000 + self.rng.below(80_000) as usize,
            1..20 => 8,
            _ => 8 + self.rng.below(300) as usize,
        };
        let flags = if self.rng.chance(3) {
            DataFlags::ACK_NOW
        } else {
            DataFlags::NONE
        };
        let whole = body(id, size);
        let shared = if self.rng.chance(3) {
            whole.slice(8..)
        } else {
            Bytes::new()
        };
        let inline = whole.slice(..whole.len() - shared.len());
        // Mostly a few lanes, and now and then one that is never used again.
        let lane = match self.rng.below(40) {
            0 => 100 + self.rng.below(1000) as u32,
            lane => (lane % 6) as u32,
        };
        let mut label = |lane: u32| {
            if lane == 0 {
                return Label::NONE;
            }
            let known = node.labels.get(&lane).copied();
            let label = known.or_else(|| session.add_label(name(lane)));
            let label = label.expect("few labels");
            node.labels.insert(lane, label);
            label
        };
        let (to, from) = (label(lane), label(lane / 2));
        let outgoing = Outgoing {
            flags,
            to,
            from,
            room: 0,
            shared,
        };
        let pushed = session.push(outgoing, |out| {
            out.extend_from_slice(&inline);
            Ok::<(), Infallible>(())
        });
        match pushed {
            Ok(post) => {
                node.posted.insert((session.id(), post.0), id);
                self.ledger[side as usize].push(Entry {
                    size,
                    lane,
                    ..Entry::default()
                });
                self.seen.posted += 1;
            }
            Err(PushError::Full) if session.has_room() => self.seen.lane_full += 1,
            Err(PushError::Full) => self.seen.full += 1,
            Err(PushError::Closed) => {}
            Err(error) => panic!("seed {}: {error}", self.seed),
        }
    }

    /// The dialer opens a connection; an older one may be left half open.
    fn connect(&mut self) {
        let Some(session) = &mut self.nodes[0].session else {
            return;
        };
        if session.is_closed() {
            return;
        }
        let mut conn = Conn {
            ends: [
                End::new(self.config.max_frame),
                End::new(self.config.max_frame),
            ],
        };
        let hello = session.hello(self.now);
        conn.ends[0].epoch = Some(hello.epoch);
        conn.ends[0].out = hello.to_bytes();
        for old in &mut self.conns {
            old.ends[0].open = false;
        }
        self.conns.push(conn);
    }

    /// The newest connection breaks: each direction loses its last bytes.
    fn cut(&mut self) {
        if let Some(last) = self.conns.len().checked_sub(1) {
            self.cut_conn(last);
        }
    }

    fn cut_conn(&mut self, at: usize) {
        for side in [Side::Dialer, Side::Acceptor] {
            let end = &mut self.conns[at].ends[side as usize];
            let keep = self.rng.below(end.incoming.len() as u64 + 1) as usize;
            end.incoming.truncate(keep);
            if !end.hello_taken && keep > 0 {
                self.seen.cut_in_hello += 1;
            }
            // What arrived is still read, then the end is seen.
            self.read(at, side, usize::MAX);
            let end = &mut self.conns[at].ends[side as usize];
            if end.decoder.pending_bytes() > 0 && end.hello_taken {
                self.seen.cut_in_frame += 1;
            }
            self.hang_up(at, side);
        }
        self.drop_dead();
    }

    fn hang_up(&mut self, at: usize, side: Side) {
        let end = &mut self.conns[at].ends[side as usize];
        if !std::mem::replace(&mut end.open, false) {
            return;
        }
        if let (Some(epoch), Some(session)) = (end.epoch, &mut self.nodes[side as usize].session) {
            session.disconnected(epoch, self.now);
        }
        self.take_events(side);
    }

    /// An end whose other end is closed sees it once it has read what came before.
    fn see_ends(&mut self) {
        for at in 0..self.conns.len() {
            for side in [Side::Dialer, Side::Acceptor] {
                let conn = &self.conns[at];
                let read = conn.ends[side as usize].incoming.is_empty();
                if read && !conn.ends[side.other() as usize].open {
                    self.hang_up(at, side);
                }
            }
        }
        self.drop_dead();
    }

    fn drop_dead(&mut self) {
        self.conns
            .retain(|conn| conn.ends.iter().any(|end| end.open));
    }

    fn restart(&mut self) {
        self.lives += 1;
        self.nodes[1].incarnation = Incarnation::new(self.lives);
        self.end_acceptor();
    }

    /// The acceptor forgets the session and lives on.
    fn forget(&mut self) {
        self.end_acceptor();
    }

    fn end_acceptor(&mut self) {
        if let Some(session) = &mut self.nodes[1].session {
            session.fail(hyperactor_protocol::Cause::Abandoned, self.now);
        }
        self.take_events(Side::Acceptor);
        let node = &mut self.nodes[1];
        node.session = None;
        node.unsettled.clear();
        node.queue.clear();
        node.last_placed.clear();
        node.labels.clear();
        for at in 0..self.conns.len() {
            self.conns[at].ends[1].open = false;
            self.hang_up(at, Side::Dialer);
        }
        self.conns.clear();
    }

    fn advance(&mut self, by: Duration) {
        self.now = self.now + by;
        for side in [Side::Dialer, Side::Acceptor] {
            let Some(session) = &mut self.nodes[side as usize].session else {
                continue;
            };
            let mut asked = 0;
            while let Some(timeout) = session.on_timeout(self.now) {
                asked += 1;
                assert!(
                    asked < 10,
                    "seed {}: deadlines never end: {timeout:?}",
                    self.seed
                );
                if timeout == hyperactor_protocol::Timeout::Expired {
                    self.seen.expired += 1;
                }
            }
            assert!(
                session
                    .next_timeout()
                    .is_none_or(|at| at > self.now || session.has_output()),
                "seed {}: a deadline in the past stays",
                self.seed
            );
            self.take_events(side);
        }
        // A session that ended at one side ends its connections there.
        for at in 0..self.conns.len() {
            for side in [Side::Dialer, Side::Acceptor] {
                let end = &self.conns[at].ends[side as usize];
                let session = &self.nodes[side as usize].session;
                let current = session.as_ref().is_some_and(|s| {
                    end.epoch.is_none_or(|epoch| epoch == s.epoch())
                        && (s.has_output()
                            || matches!(
                                s.life(),
                                hyperactor_protocol::Life::Connected
                                    | hyperactor_protocol::Life::Handshaking
                            ))
                });
                if end.open && end.epoch.is_some() && !current && self.healed {
                    self.hang_up(at, side);
                    self.hang_up(at, side.other());
                }
            }
        }
        self.drop_dead();
    }

    /// One side reads what has come and writes what it has, about `at_most` bytes.
    fn pump(&mut self, side: Side, at_most: usize) {
        for at in 0..self.conns.len() {
            self.read(at, side, at_most);
            self.write(at, side, at_most);
        }
        self.take_events(side);
        self.drop_dead();
    }

    fn write(&mut self, at: usize, side: Side, at_most: usize) {
        let mut left = at_most;
        loop {
            let conn = &mut self.conns[at];
            let (mine, theirs) = match (&mut conn.ends, side) {
                ([mine, theirs], Side::Dialer) | ([theirs, mine], Side::Acceptor) => (mine, theirs),
            };
            let Some(epoch) = mine.epoch.filter(|_| mine.open && left > 0) else {
                return;
            };
            // The transport holds so much.
            if theirs.incoming.len() > 64 * 1024 && !self.healed {
                mine.is_full = true;
                return;
            }
            let session = self.nodes[side as usize].session.as_mut();
            if mine.out.is_empty() {
                let Some(session) = session else { return };
                let Some(part) = session.transmit(epoch, self.now, 4096) else {
                    return;
                };
                mine.out = part.bytes;
            } else {
                let count = left.min(mine.out.len());
                theirs.incoming.extend_from_slice(&mine.out[..count]);
                mine.out.advance(count);
                left -= count;
                if let Some(session) = session
                    && std::mem::take(&mut mine.is_full)
                {
                    session.drained(epoch, self.now);
                }
            }
        }
    }

    fn read(&mut self, at: usize, side: Side, at_most: usize) {
        let end = &mut self.conns[at].ends[side as usize];
        if !end.open {
            return;
        }
        let count = at_most.min(end.incoming.len());
        let bytes = end.incoming.split_to(count);
        end.decoder.buffer().extend_from_slice(&bytes);
        if let (Some(epoch), Some(session)) = (end.epoch, &mut self.nodes[side as usize].session)
            && count > 0
        {
            session.heard(epoch, self.now);
        }
        if !end.hello_taken {
            let hello = end.decoder.next_hello().expect("only cut, never changed");
            let Some(hello) = hello else { return };
            end.hello_taken = true;
            if !self.take_hello(at, side, &hello) {
                self.hang_up(at, side);
                return;
            }
        }
        loop {
            let end = &mut self.conns[at].ends[side as usize];
            let Some(frame) = end.decoder.next_frame().expect("lawful") else {
                return;
            };
            let Some(epoch) = end.epoch else { return };
            self.take_frame(side, epoch, frame);
        }
    }

    fn take_hello(&mut self, at: usize, side: Side, hello: &Hello) -> bool {
        let node = &mut self.nodes[side as usize];
        if side == Side::Acceptor {
            let known = node
                .session
                .as_ref()
                .is_some_and(|s| s.id() == hello.session && !s.is_closed());
            if !known {
                // The only other session is one that its dialer gave up; its connections went with it.
                for (other, conn) in self.conns.iter_mut().enumerate() {
                    conn.ends[1].open &= other == at;
                }
                if let Some(mut old) = node.session.take() {
                    old.fail(hyperactor_protocol::Cause::Abandoned, self.now);
                    let posted = &node.posted;
                    while let Some(event) = old.poll_event() {
                        record(
                            &mut self.ledger[1],
                            &mut self.seen,
                            posted,
                            old.id(),
                            event,
                            self.seed,
                        );
                    }
                }
                node.unsettled.clear();
                node.queue.clear();
                node.labels.clear();
                let config = self.config.clone();
                node.session = Some(Session::acceptor(config, node.incarnation, hello, self.now));
            }
        }
        let Some(session) = &mut node.session else {
            return false;
        };
        let end = &mut self.conns[at].ends[side as usize];
        let before = session.unresolved();
        let parts = session.dump().assemblies > 0;
        match session.on_hello(hello, self.now) {
            Ok(established) => {
                end.epoch = Some(established.epoch);
                // What the peer names counts from here on.
                node.names.clear();
                if established.resumed && before > 0 {
                    self.seen.resumed_with_unresolved += 1;
                }
                if parts && established.resumed {
                    self.seen.resumed_in_parts += 1;
                } else if parts {
                    self.seen.fresh_in_parts += 1;
                }
                if side == Side::Acceptor {
                    end.out = session.hello(self.now).to_bytes();
                } else if !established.resumed {
                    self.seen.fresh += 1;
                    self.nodes[0].unsettled.clear();
                    self.nodes[0].last_placed.clear();
                }
            }
            Err(error) => {
                let lawful = matches!(error.code(), HelloCode::StaleEpoch | HelloCode::Malformed);
                assert!(lawful, "seed {}: {error}", self.seed);
                let stale = matches!(
                    error,
                    hyperactor_protocol::HelloError::StaleEpoch { .. }
                        | hyperactor_protocol::HelloError::Unexpected
                );
                assert!(stale, "seed {}: {error}", self.seed);
                self.seen.stale_hello += 1;
                return false;
            }
        }
        self.take_events(side);
        true
    }

    fn take_frame(&mut self, side: Side, epoch: ConnectionEpoch, frame: Frame) {
        let node = &mut self.nodes[side as usize];
        let Some(session) = &mut node.session else {
            return;
        };
        match hand(self.seed, session, epoch, frame, self.now) {
            Ok(Accept::Deliver {
                seq,
                to,
                from,
                body,
                size,
                ..
            }) => {
                let id = u64::from_le_bytes(*body.first_chunk().expect("an id"));
                let entry = &mut self.ledger[side.other() as usize][id as usize];
                entry.placed += 1;
                assert_eq!(
                    entry.placed, 1,
                    "seed {}: message {id} placed twice",
                    self.seed
                );
                let lane = entry.lane;
                let named = |label: Label| node.names.get(&label).cloned().unwrap_or_default();
                assert_eq!(named(to), name(lane), "seed {}: {id} astray", self.seed);
                assert_eq!(named(from), name(lane / 2), "seed {}: {id}", self.seed);
                assert_eq!(size as usize, entry.size, "seed {}: {id}", self.seed);
                let before = node.last_placed.insert(lane, id);
                assert!(before < Some(id), "seed {}: {id} out of order", self.seed);
                assert_eq!(
                    body,
                    super::ledger::body(id, entry.size),
                    "seed {}",
                    self.seed
                );
                node.unsettled.push((seq, id));
                node.queue.push_back((to, size));
            }
            Ok(Accept::Duplicate) => self.seen.duplicates += 1,
            Ok(Accept::Fenced) => self.seen.fenced += 1,
            Ok(Accept::Named { label, name }) => {
                if node.names.insert(label, name).is_some() {
                    self.seen.renamed += 1;
                }
            }
            Ok(Accept::Handled) => {}
            Err(violation) => panic!("seed {}: {violation}: {}", self.seed, self.describe()),
        }
        self.take_events(side);
    }
}
