//! The sending half by destination: what waits for its turn to enter the log, and how much of the peer's window each
//! label may take, so that one whose receiver is stuck stops only itself. Names stand in `labels`, messages in parts in
//! `large`, the turns in `serve`. Knows nothing of connections, frames' fates and time.

mod labels;
mod large;
mod serve;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use self::large::Pool;
pub(crate) use self::large::Whole;
pub(crate) use self::serve::Gate;
use crate::limits::{ASSUMED_BYTES, ASSUMED_MESSAGES};
use crate::outbox::{Credit, Outbox};
use crate::pieces::Pieces;
use crate::{DataFlags, Label, Violation};

/// Messages and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Amount {
    pub(crate) fn add(&mut self, messages: u64, bytes: u64) {
        self.messages += messages;
        self.bytes += bytes;
    }

    /// Whether there is anything of both.
    #[inline]
    pub(crate) fn is_open(self) -> bool {
        self.messages != 0 && self.bytes != 0
    }

    /// Whether this much is less than a label's share of `whole` while `free` of it is free, in both counts.
    #[inline]
    pub(crate) fn is_share(self, free: Self, whole: Self) -> bool {
        is_share(self.messages, free.messages, whole.messages)
            && is_share(self.bytes, free.bytes, whole.bytes)
    }

    #[inline]
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            messages: self.messages + other.messages,
            bytes: self.bytes + other.bytes,
        }
    }

    #[inline]
    fn minus(self, other: Self) -> Self {
        Self {
            messages: self.messages - other.messages,
            bytes: self.bytes - other.bytes,
        }
    }

    pub(crate) fn times(self, factor: u64) -> Self {
        Self {
            messages: self.messages.saturating_mul(factor),
            bytes: self.bytes.saturating_mul(factor),
        }
    }

    fn lower(&mut self, other: Self) {
        self.messages = self.messages.min(other.messages);
        self.bytes = self.bytes.min(other.bytes);
    }

    const MOST: Self = Self {
        messages: u64::MAX,
        bytes: u64::MAX,
    };
}

/// Parts of what might go ahead that are tried, each a quarter of the one before.
const AHEAD_TRIES: u32 = 3;

/// S-30: a label's share is the free part of what is free. A threshold that follows what is free is an old way to share a
/// buffer (Choudhury and Hahne, 1998); one that follows it in proportion loses a constant part of the rest to each label
/// that gets stuck, and twelve of them take a window of 4,096. The square leaves about 1/(k+1) to the others.
#[inline]
pub(crate) fn is_share(out: u64, free: u64, whole: u64) -> bool {
    let free = u128::from(free);
    u128::from(out) * u128::from(whole) < free * free
}

/// What is left of a credit behind the end of the log.
#[inline]
pub(crate) fn free_of(credit: Credit, outbox: &Outbox) -> Amount {
    Amount {
        messages: credit.messages.saturating_sub(outbox.next()),
        bytes: credit.bytes.saturating_sub(outbox.next_bytes()),
    }
}

/// A message that is encoded and not in the log, or not all of it.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) post: u64,
    pub(crate) flags: DataFlags,
    pub(crate) from: Label,
    pub(crate) body: Pieces,
    /// How much of it is in the log, in parts; and the number of the first of them.
    pub(crate) at: u64,
    pub(crate) first: u64,
}

impl Waiting {
    pub(crate) fn size(&self) -> u64 {
        self.body.size()
    }

    fn body(self) -> Bytes {
        self.body.joined()
    }
}

/// Where a lane waits for its turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Nothing waits.
    #[default]
    Idle,
    /// In the ring of those whose next message is one frame.
    Small,
    /// In the ring of those whose next frame is a part of a message.
    Large,
    /// Until more of the window is free, or more of its own is released.
    Blocked,
    /// Until there is room for a message in parts.
    Pooled,
}

/// One label: its name, its share of the window, and what waits.
#[derive(Debug, Default)]
struct Lane {
    name: Bytes,
    /// Used since the search for an idle one last passed.
    recent: bool,
    /// Told on this connection, or about to be.
    announced: bool,
    /// A message was refused.
    starved: bool,
    place: Place,
    /// One past the last number in the log that refers to it, and how many waiting messages do.
    referred: u64,
    waiting_refs: u64,
    /// Brought into the log, and released by the peer, since its state began.
    sent: Amount,
    released: Amount,
    queue: VecDeque<Waiting>,
    waiting_bytes: u64,
}

impl Lane {
    /// S-30: what a label has outstanding is less than its share, or nothing.
    #[inline]
    fn has_share(&self, free: Amount, window: Amount) -> bool {
        let out = self.sent.minus(self.released);
        // P17 is a deliberate fault for the test of the simulator's oracle: no share is ever used up.
        let has_more = out.is_share(free, window) || cfg!(planted = "P17");
        free.is_open() && (out.messages == 0 || has_more)
    }

    fn waiting(&self) -> Amount {
        Amount {
            messages: self.queue.len() as u64,
            bytes: self.waiting_bytes,
        }
    }

    /// S-31: the same rule for what waits, and the outbox.
    fn may_wait(&self, room: Amount, outbox: Amount) -> bool {
        let waiting = self.waiting();
        waiting.messages == 0 || waiting.is_share(room, outbox)
    }

    /// What must be a share before it is worth telling a lane that was refused: twice what waits.
    fn ample(&self) -> Amount {
        Amount {
            messages: 2 * self.queue.len() as u64,
            bytes: 2 * self.waiting_bytes,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Lanes {
    /// By number; 0 is what has no label.
    lanes: Vec<Lane>,
    hand: usize,
    name_bytes: usize,
    /// Names to be told, in the order in which labels got them, and their bytes.
    untold: VecDeque<(Label, Bytes)>,
    untold_bytes: usize,
    /// The state of things when no label was idle; unchanged, none is now.
    exhausted: Option<(u64, u64)>,
    releases: u64,

    small: VecDeque<u32>,
    large: VecDeque<u32>,
    large_turn: bool,
    blocked: BTreeSet<u32>,
    /// What must be a share before looking at the blocked is worth it.
    wake: Amount,
    /// While no more than this is free, none of the blocked has a share.
    looked: Amount,
    pooled: BTreeSet<u32>,
    pool: Pool,
    /// Messages whose parts are all in the log.
    wholes: BTreeMap<u64, Whole>,
    whole_bytes: u64,
    /// One message that is larger than half of the outbox, and by how much: it leaves that half to the others.
    spared: Option<(u64, u64)>,
    waiting: Amount,

    starved: BTreeSet<u32>,
    /// What must be a share before looking at the starved is worth it.
    room_at: Amount,

    /// The whole of what the peer grants, as far as it is known; and of what this side takes.
    window: Amount,
    outbox: Amount,
}

impl Lanes {
    pub(crate) fn new(outbox: Amount) -> Self {
        Self {
            lanes: vec![Lane::default()],
            hand: 0,
            name_bytes: 0,
            untold: VecDeque::new(),
            untold_bytes: 0,
            exhausted: None,
            releases: 0,
            small: VecDeque::new(),
            large: VecDeque::new(),
            large_turn: false,
            blocked: BTreeSet::new(),
            wake: Amount::MOST,
            looked: Amount::default(),
            pooled: BTreeSet::new(),
            pool: Pool::default(),
            wholes: BTreeMap::new(),
            whole_bytes: 0,
            spared: None,
            waiting: Amount::default(),
            starved: BTreeSet::new(),
            room_at: Amount::MOST,
            window: Amount {
                messages: ASSUMED_MESSAGES,
                bytes: ASSUMED_BYTES,
            },
            outbox,
        }
    }

    /// A state of the peer begins, with so much free of a window that nothing is outstanding of.
    pub(crate) fn set_window(&mut self, free: Amount) {
        self.window = free;
    }

    /// So much is free: the window is at least that.
    pub(crate) fn note_free(&mut self, free: Amount) {
        self.window.messages = self.window.messages.max(free.messages);
        self.window.bytes = self.window.bytes.max(free.bytes);
    }

    /// What waits, and its bytes.
    pub(crate) fn waiting(&self) -> Amount {
        self.waiting
    }

    /// Bytes held besides those of the log.
    #[inline]
    pub(crate) fn held_bytes(&self) -> usize {
        // Bodies that are in memory fit its addresses.
        (self.waiting.bytes + self.whole_bytes) as usize
    }

    /// Whether a message to this label goes into the log at once.
    #[inline]
    pub(crate) fn is_direct(&self, to: Label, free: Amount) -> bool {
        let lane = &self.lanes[to.index()];
        if !lane.queue.is_empty() {
            return false;
        }
        if to.is_none() {
            // S-31: without a label it knows no share; but where others wait for credit, it waits too.
            return free.is_open() || (self.small.is_empty() && self.large.is_empty());
        }
        lane.has_share(free, self.window)
    }

    pub(crate) fn may_wait(&self, to: Label, room: Amount) -> bool {
        to.is_none() || self.lanes[to.index()].may_wait(room, self.outbox)
    }

    /// A message went into the log.
    #[inline(always)]
    pub(crate) fn logged(&mut self, to: Label, from: Label, seq: u64, size: u64) {
        if !to.is_none() {
            self.lanes[to.index()].sent.add(1, size);
        }
        self.refer(to, seq);
        self.refer(from, seq);
    }

    /// As [`logged`](Self::logged), for a message with the labels of the one before it.
    #[inline]
    pub(crate) fn logged_again(&mut self, to: Label, from: Label, seq: u64, size: u64) {
        if !to.is_none() {
            let lane = &mut self.lanes[to.index()];
            lane.sent.add(1, size);
            lane.referred = seq + 1;
        }
        if !from.is_none() {
            self.lanes[from.index()].referred = seq + 1;
        }
    }

    /// How much of `most` may go into the log for a label, by the rules of [`is_direct`](Self::is_direct), while so much is `free`
    /// of the credit: all, or a part of it, or nothing.
    pub(crate) fn ahead(&self, to: Label, free: Amount, mut most: Amount) -> Amount {
        if to.is_none() {
            // Where nobody waits for credit, what has no label does not, either.
            let waits = !(self.small.is_empty() && self.large.is_empty());
            if waits {
                most.lower(free);
            }
            return most;
        }
        most.lower(free);
        let lane = &self.lanes[to.index()];
        let out = lane.sent.minus(lane.released);
        // More outstanding and less free: what is a share then is one at each step before.
        for _ in 0..AHEAD_TRIES {
            if most.is_open() && out.plus(most).is_share(free.minus(most), self.window) {
                return most;
            }
            most.messages /= 4;
            most.bytes /= 4;
        }
        Amount::default()
    }

    #[inline]
    fn refer(&mut self, label: Label, seq: u64) {
        if label.is_none() {
            return;
        }
        let lane = &mut self.lanes[label.index()];
        lane.referred = seq + 1;
        lane.recent = true;
        if !lane.announced {
            self.announce(label.number());
        }
    }

    /// Takes a message that cannot go into the log now; says whether it is the first of its lane.
    pub(crate) fn wait(&mut self, to: Label, message: Waiting) -> bool {
        self.note_waiting(to, &message);
        let lane = &mut self.lanes[to.index()];
        lane.queue.push_back(message);
        let first = lane.place == Place::Idle;
        if first {
            lane.place = Place::Small;
            self.small.push_back(to.number());
        }
        first
    }

    fn note_waiting(&mut self, to: Label, message: &Waiting) {
        self.spare(message.post, message.size());
        self.waiting.add(1, message.size());
        self.lanes[to.index()].waiting_bytes += message.size();
        for label in [to, message.from] {
            if !label.is_none() {
                let lane = &mut self.lanes[label.index()];
                lane.waiting_refs += 1;
                lane.recent = true;
                if !lane.announced {
                    self.announce(label.number());
                }
            }
        }
    }

    /// S-31: counts a large message as half of the outbox, one at a time.
    fn spare(&mut self, post: u64, size: u64) {
        let half = self.outbox.bytes / 2;
        if self.spared.is_none() && size > half {
            self.spared = Some((post, size - half));
        }
    }

    fn forget_spared(&mut self, post: u64) {
        if self.spared.is_some_and(|(spared, _)| spared == post) {
            self.spared = None;
        }
    }

    /// Bytes held that count for nothing where it is asked whether there is room.
    #[inline]
    pub(crate) fn spared_bytes(&self) -> usize {
        self.spared.map_or(0, |(_, bytes)| bytes as usize)
    }

    /// Takes the first message of a lane out.
    fn pop(&mut self, to: Label) -> Option<Waiting> {
        let lane = &mut self.lanes[to.index()];
        let message = lane.queue.pop_front()?;
        self.forget_spared(message.post);
        let lane = &mut self.lanes[to.index()];
        let size = message.size();
        lane.waiting_bytes -= size;
        self.waiting.messages -= 1;
        self.waiting.bytes -= size;
        if lane.starved {
            self.room_at.lower(lane.ample());
        }
        for label in [to, message.from] {
            if !label.is_none() {
                self.lanes[label.index()].waiting_refs -= 1;
            }
        }
        Some(message)
    }

    /// A message to this label was refused: it is told when there is room.
    pub(crate) fn starve(&mut self, to: Label) {
        let lane = &mut self.lanes[to.index()];
        if !std::mem::replace(&mut lane.starved, true) {
            self.room_at.lower(lane.ample());
            self.starved.insert(to.number());
        }
    }

    /// Offers room to those that were refused, where it is worth it.
    pub(crate) fn offer_room(&mut self, room: Amount, mut offer: impl FnMut(Label)) {
        let outbox = self.outbox;
        let reached = |at: Amount| at.messages == 0 || at.is_share(room, outbox);
        if self.starved.is_empty() || !reached(self.room_at) {
            return;
        }
        self.room_at = Amount::MOST;
        let (lanes, room_at) = (&mut self.lanes, &mut self.room_at);
        self.starved.retain(|number| {
            let lane = &mut lanes[*number as usize];
            let ample = lane.ample();
            lane.starved = !reached(ample);
            if lane.starved {
                room_at.lower(ample);
            } else {
                offer(Label::new(*number));
            }
            lane.starved
        });
    }

    /// The peer said how much of a label it has released.
    pub(crate) fn released(&mut self, label: Label, now: Amount) -> Result<(), Violation> {
        let known = self
            .lanes
            .get_mut(label.index())
            .filter(|_| !label.is_none());
        let Some(lane) = known else {
            return Err(Violation::ReleasedUnsent { label });
        };
        if now.messages > lane.sent.messages || now.bytes > lane.sent.bytes {
            return Err(Violation::ReleasedUnsent { label });
        }
        if now.messages < lane.released.messages || now.bytes < lane.released.bytes {
            return Err(Violation::ReleasedWentBack { label });
        }
        lane.released = now;
        self.releases += 1;
        match lane.place {
            Place::Blocked => {
                self.blocked.remove(&label.number());
                lane.place = Place::Small;
                self.small.push_back(label.number());
            }
            Place::Pooled => {
                self.pooled.remove(&label.number());
                lane.place = Place::Large;
                self.large.push_back(label.number());
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes the body of a message whose parts were in the log.
    pub(crate) fn take_whole(&mut self, post: u64) -> Option<Whole> {
        let whole = self.wholes.remove(&post)?;
        self.whole_bytes -= whole.size();
        self.forget_spared(post);
        Some(whole)
    }

    /// Returns the body of a message that waits, or whose parts are in the log.
    pub(crate) fn message(&self, post: u64) -> Option<Bytes> {
        if let Some(whole) = self.wholes.get(&post) {
            return Some(whole.body.clone().joined());
        }
        let mut all = self.lanes.iter().flat_map(|lane| &lane.queue);
        let found = all.find(|message| message.post == post)?;
        Some(found.body.clone().joined())
    }

    /// Takes everything that waits out: the session is over.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(u64, Bytes)) {
        for lane in &mut self.lanes {
            for message in std::mem::take(&mut lane.queue) {
                each(message.post, message.body());
            }
        }
        *self = Self::new(self.outbox);
    }

    /// Asserts what must hold of our own state.
    pub(crate) fn check(&self, gate: &Gate, outbox: &Outbox) {
        let mut waiting = Amount::default();
        let (mut names, mut starved) = (0, 0);
        for lane in &self.lanes {
            names += lane.name.len();
            waiting.add(lane.queue.len() as u64, lane.waiting_bytes);
            let bytes: u64 = lane.queue.iter().map(Waiting::size).sum();
            assert_eq!(bytes, lane.waiting_bytes);
            assert_eq!(lane.queue.is_empty(), lane.place == Place::Idle);
            assert!(lane.released.messages <= lane.sent.messages);
            assert!(lane.released.bytes <= lane.sent.bytes);
            starved += usize::from(lane.starved);
        }
        let is_starved = |number: &u32| self.lanes[*number as usize].starved;
        assert!(starved == self.starved.len() && self.starved.iter().all(is_starved));
        // As many as wait stand in the rings, each where it says: so none stands in two.
        let stands = |number: &u32, place| self.lanes[*number as usize].place == place;
        assert!(self.small.iter().all(|each| stands(each, Place::Small)));
        assert!(self.large.iter().all(|each| stands(each, Place::Large)));
        assert!(self.blocked.iter().all(|each| stands(each, Place::Blocked)));
        assert!(self.pooled.iter().all(|each| stands(each, Place::Pooled)));
        assert_eq!(waiting, self.waiting);
        assert_eq!(names, self.name_bytes);
        let untold: usize = self.untold.iter().map(|(_, name)| name.len()).sum();
        assert_eq!(untold, self.untold_bytes);
        let rings = self.small.len() + self.large.len() + self.blocked.len() + self.pooled.len();
        let busy = self.lanes.iter().filter(|lane| !lane.queue.is_empty());
        assert_eq!(rings, busy.count(), "a lane waits in two places");
        let bytes: u64 = self.wholes.values().map(Whole::size).sum();
        assert_eq!(bytes, self.whole_bytes);
        if let Some((post, _)) = self.spared {
            let waits = self.lanes.iter().flat_map(|lane| &lane.queue);
            let is_held = waits
                .map(|message| message.post)
                .chain(self.wholes.keys().copied());
            assert!(
                is_held.into_iter().any(|held| held == post),
                "what is gone is spared"
            );
        }
        self.check_large();
        self.check_served(gate, outbox);
    }
}
