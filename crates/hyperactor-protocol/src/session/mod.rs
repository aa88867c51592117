//! One endpoint's state of one session: what it holds, how messages enter it and how outcomes leave it.
//!
//! Hellos stand in `connect`, outgoing messages in `push`, incoming frames in `input`, what they say of messages that
//! went out in `answers`, outgoing bytes in `output`,
//! deadlines in `timers`, the end in `ending`, what can be seen from outside in `view` and `dump`.
//! Deliberately without I/O, clock, randomness and runtime: bytes and time are arguments.

mod answers;
mod connect;
mod dump;
mod ending;
mod input;
mod output;
mod push;
mod timers;
mod view;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyperactor_refs::Incarnation;

pub use self::connect::Established;
pub use self::dump::Dump;
pub use self::input::Accept;
pub use self::output::Transmit;
use self::push::Ahead;
pub use self::push::{Outgoing, PushError};
pub use self::timers::Timeout;
use crate::assembly::Assemblies;
use crate::inbox::Inbox;
use crate::landing::Supply;
use crate::lanes::{Amount, Lanes};
use crate::life::{Life, Step};
use crate::limits::{ASSUMED_BYTES, ASSUMED_MESSAGES, COUNT_MAX, DETAIL_MAX, SPAN_OUTBOXES};
use crate::outbox::{Credit, Outbox, Sizes};
use crate::shares::{Shares, Telling};
use crate::{
    Buffers, Config, ConnectionEpoch, Event, EventSink, Hello, Label, Notice, Refusal, Seq,
    SessionId, Time, Verdict,
};

/// What the driver of a session has to do after a call from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[must_use = "without it an acknowledgement or credit may never leave"]
pub enum Wake {
    /// Nothing: it is on its way, or waits for company under a timer that runs already.
    No,
    /// [`Session::next_timeout`] is earlier than it was.
    Timer,
    /// [`Session::transmit`] has something to write now.
    Now,
}

impl Wake {
    /// Returns whether there is something to write now.
    pub const fn is_now(self) -> bool {
        matches!(self, Self::Now)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Dialer,
    Acceptor,
}

/// Counters of what happened and should be rare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) duplicates: u64,
    pub(crate) fenced: u64,
    pub(crate) strays: u64,
    pub(crate) resent: u64,
    pub(crate) connections: u64,
}

/// One endpoint of a session. It outlives connections, and is driven by whoever owns one.
///
/// # Bounds
///
/// The outgoing half holds [`Config::outbox_messages`] and [`Config::outbox_bytes`] (one message more may begin below
/// and end above), and [`LABELS_MAX`](crate::limits::LABELS_MAX) labels with
/// [`LABEL_BYTES_MAX`](crate::limits::LABEL_BYTES_MAX) of names. The receiving half holds
/// [`Config::large_window`] bytes of messages in parts until they are released, whatever is declared, keeps at most [`Config::window_messages`] refusals of
/// [`DETAIL_MAX`](crate::limits::DETAIL_MAX) bytes each, two counts for each label, and one bit for each message between the oldest unsettled
/// and the newest, at most [`SPAN_WINDOWS`](crate::limits::SPAN_WINDOWS) windows of them. Events wait until they are
/// polled, at most one for each message of the log and a few.
pub struct Session {
    config: Config,
    id: SessionId,
    role: Role,
    local: Incarnation,
    expected: Option<Incarnation>,
    peer: Option<Incarnation>,
    /// The epoch in which the acceptor's state began; at the dialer, of the state it knows.
    born: ConnectionEpoch,
    life: Life,
    epoch: ConnectionEpoch,
    was_resumed: bool,
    closing: bool,

    outbox: Outbox,
    lanes: Lanes,
    /// Messages without an outcome, in the log or not; and the number of the next.
    open: u64,
    next_post: u64,
    ahead: Ahead,
    inbox: Inbox,
    shares: Shares,
    assemblies: Assemblies,
    sizes: Sizes,
    /// What the peer's state said of its limits, frame and message, once it is known.
    peer_limits: Option<(u32, u32)>,
    /// The peer's grant; its bytes in our own count.
    credit: Credit,
    /// The same moment in the peer's count of bytes and in ours.
    bytes_base: (u64, u64),
    acked_received: u64,
    acked_settled: u64,

    /// Settled or received since the last acknowledgement was written.
    unacked: u32,
    /// Below this number someone waits for the outcome.
    urgent_below: u64,
    /// An acknowledgement with all that belongs to it must be written now; by then.
    ack_due: bool,
    ack_at: Option<Time>,
    credit_due: bool,
    /// Refusals came since the last time we said what is resolved.
    resolved_unsaid: bool,
    /// What we said last; and one past the last refusal that the peer keeps until we say so.
    resolved_said: u64,
    refused_below: u64,
    ping_due: bool,
    pong_due: Option<u64>,
    pings: u64,
    goodbye_due: bool,
    /// The last bytes of a closed session, for the connection that was current.
    farewell: Option<Bytes>,
    control: BytesMut,

    now: Time,
    /// For how long this connection may show no life: the shorter of what both sides say.
    silence: Duration,
    /// Something came over this connection when it was dead already.
    is_late: bool,
    heard: Time,
    drained: Time,
    pinged: Time,
    progress: Time,
    /// When the peer's hello was accepted last.
    greeted: Time,
    /// A first message waits since the next call that brings the time.
    progress_unset: bool,
    since: Time,

    events: VecDeque<Event>,
    starved: bool,
    counters: Counters,
    sink: Option<Arc<dyn EventSink>>,
}

impl Session {
    /// Makes the dialing end of a new session. `id` must be drawn at random: it is what the session is resumed by.
    pub fn dialer(config: Config, id: SessionId, local: Incarnation, now: Time) -> Self {
        Self::new(config, id, Role::Dialer, local, (0, 0), now)
    }

    /// Makes the accepting end of a session from the first hello for it. [`on_hello`](Self::on_hello) must be called
    /// with the same hello next: it checks it.
    pub fn acceptor(config: Config, local: Incarnation, theirs: &Hello, now: Time) -> Self {
        // S-05: numbers go on where the dialer stands, so that no number means two messages.
        let first = (
            theirs.next_expected.0.min(COUNT_MAX),
            theirs.next_unsent.0.min(COUNT_MAX),
        );
        let mut this = Self::new(config, theirs.session, Role::Acceptor, local, first, now);
        this.born = theirs.epoch;
        this
    }

    fn new(
        config: Config,
        id: SessionId,
        role: Role,
        local: Incarnation,
        (first_out, first_in): (u64, u64),
        now: Time,
    ) -> Self {
        let config = config.sane();
        let silence = config.silence_timeout;
        let span = u64::from(config.outbox_messages) * SPAN_OUTBOXES;
        Self {
            outbox: Outbox::new(span, first_out),
            lanes: Lanes::new(Amount {
                messages: config.outbox_messages.into(),
                bytes: config.outbox_bytes as u64,
            }),
            open: 0,
            next_post: 0,
            ahead: Ahead::default(),
            inbox: Inbox::new(config.window_messages, config.window_bytes, first_in),
            shares: Shares::new(config.window_messages, config.window_bytes),
            assemblies: Assemblies::new(config.max_message.into(), config.large_window()),
            sizes: Sizes {
                fragment: config.fragment_bytes.into(),
                part: config.part_bytes.into(),
                message: config.max_message.into(),
            },
            peer_limits: None,
            config,
            id,
            role,
            local,
            expected: None,
            peer: None,
            born: ConnectionEpoch(0),
            life: Life::Detached,
            epoch: ConnectionEpoch(0),
            was_resumed: false,
            closing: false,
            // S-30: what is not known yet is taken to be small.
            credit: Credit {
                messages: first_out + ASSUMED_MESSAGES,
                bytes: ASSUMED_BYTES,
            },
            bytes_base: (0, 0),
            acked_received: first_out,
            acked_settled: first_out,
            unacked: 0,
            urgent_below: 0,
            ack_due: false,
            ack_at: None,
            credit_due: false,
            resolved_unsaid: false,
            resolved_said: 0,
            refused_below: 0,
            ping_due: false,
            pong_due: None,
            pings: 0,
            goodbye_due: false,
            farewell: None,
            control: BytesMut::new(),
            now,
            silence,
            is_late: false,
            heard: now,
            drained: now,
            pinged: now,
            progress: now,
            greeted: now,
            progress_unset: false,
            since: now,
            events: VecDeque::new(),
            starved: false,
            counters: Counters::default(),
            sink: None,
        }
    }

    /// Sends notices to `sink`.
    #[must_use]
    pub fn with_sink(mut self, sink: Arc<dyn EventSink>) -> Self {
        self.sink = Some(sink);
        self
    }

    /// Takes the memory of messages that come in parts from `buffers`, where there is some, and gives it back there.
    #[must_use]
    pub fn with_buffers(mut self, buffers: Arc<dyn Buffers>) -> Self {
        self.assemblies.set_supply(Supply(Some(buffers)));
        self
    }

    /// Dialer: insists on this incarnation of the peer; another one ends the session.
    #[must_use]
    pub fn expecting(mut self, incarnation: Option<Incarnation>) -> Self {
        self.expected = incarnation;
        self
    }

    /// Records what became of a received message; once for each, in any order, from any thread that has the session.
    ///
    /// A second verdict for the same message, or one for a message from before a fresh start, changes nothing.
    pub fn settle(&mut self, seq: Seq, verdict: Verdict) -> Wake {
        let verdict = bounded(verdict);
        if !self.inbox.settle(seq.0, verdict) {
            self.counters.strays += 1;
            self.notice(|| Notice::StraySettle { seq });
            return Wake::No;
        }
        if self.closing {
            self.finish_if_drained();
        }
        if self.life != Life::Connected {
            return Wake::No;
        }
        self.unacked += 1;
        // S-17: at once when someone waits or enough has gathered, else after the delay.
        if seq.0 < self.urgent_below || self.unacked >= self.config.ack_every || self.goodbye_due {
            return self.want_ack();
        }
        self.want_ack_soon()
    }

    /// As [`settle`](Self::settle) with [`Verdict::Delivered`] for `count` messages, one after the other.
    pub fn settle_run(&mut self, first: Seq, count: u64) -> Wake {
        let run = if self.closing {
            0
        } else {
            // Everything before them has its outcome already, as a rule.
            self.inbox.settle_front(first.0, count)
        };
        let mut wake = Wake::No;
        if run != 0 && self.life == Life::Connected {
            // S-17.
            self.unacked = self
                .unacked
                .saturating_add(u32::try_from(run).unwrap_or(u32::MAX));
            let is_due = first.0 < self.urgent_below
                || self.unacked >= self.config.ack_every
                || self.goodbye_due;
            wake = if is_due {
                self.want_ack()
            } else {
                self.want_ack_soon()
            };
        }
        for seq in first.0.saturating_add(run)..first.0.saturating_add(count) {
            wake = wake.max(self.settle(Seq(seq), Verdict::Delivered));
        }
        wake
    }

    fn want_ack(&mut self) -> Wake {
        if std::mem::replace(&mut self.ack_due, true) {
            Wake::No
        } else {
            Wake::Now
        }
    }

    #[inline]
    fn want_ack_soon(&mut self) -> Wake {
        if self.ack_due || self.ack_at.is_some() {
            return Wake::No;
        }
        self.ack_at = Some(self.now + self.config.ack_delay);
        Wake::Timer
    }

    /// Gives the credit of a message back, by its label and size: it left its queue. Once for each that was delivered,
    /// whatever its verdict.
    pub fn release(&mut self, to: Label, size: u32) -> Wake {
        self.release_run(to, 1, size.into())
    }

    /// Gives the credit of several messages of one label back, `bytes` in all.
    pub fn release_run(&mut self, to: Label, messages: u64, bytes: u64) -> Wake {
        let freed = self.shares.release(to, messages, bytes);
        self.inbox.release(messages, freed.small);
        self.assemblies.release(freed.large);
        let mut wake = self.offer_credit().max(self.offer_released(to));
        if freed.large != 0 && self.life == Life::Connected {
            // S-33: the label's next large message may wait for its share of their room, of which the window knows
            // nothing. They are few enough for each to be told.
            wake = wake.max(self.want_ack_soon());
        }
        wake
    }

    #[inline]
    fn offer_credit(&mut self) -> Wake {
        if self.life != Life::Connected || self.credit_due {
            return Wake::No;
        }
        // S-15: a quarter of the window at once; less only when the peer may be waiting for it.
        match self.inbox.telling().max(self.assemblies.telling()) {
            Telling::Now => {
                self.credit_due = true;
                Wake::Now
            }
            Telling::Soon => self.want_ack_soon(),
            Telling::Along => Wake::No,
        }
    }

    /// S-32: what a label has released is told before its sender runs out of it.
    #[inline]
    fn offer_released(&mut self, to: Label) -> Wake {
        if to.is_none() || self.life != Life::Connected {
            return Wake::No;
        }
        match self.shares.telling(to, self.inbox.peer_free()) {
            Telling::Now => self.want_ack(),
            Telling::Soon => self.want_ack_soon(),
            Telling::Along => Wake::No,
        }
    }

    /// Takes the next event. Take all of them after every call that can bring some.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Walks an edge of the table. The callers have checked that there is one.
    fn step(&mut self, step: Step) {
        self.ahead = Ahead::default();
        let after = self.life.after(step);
        debug_assert!(after.is_some(), "no edge from {} by {step}", self.life);
        self.life = after.unwrap_or(Life::Closed);
    }

    /// A call brings the time, and something that may change what messages may enter the log.
    #[inline]
    fn touch(&mut self, now: Time) {
        self.ahead = Ahead::default();
        self.now = self.now.max(now);
        if self.progress_unset {
            self.progress_unset = false;
            self.progress = self.now;
        }
    }

    fn notice(&self, make: impl FnOnce() -> Notice) {
        if let Some(sink) = &self.sink {
            sink.notice(self.id, &make());
        }
    }
}

fn bounded(verdict: Verdict) -> Verdict {
    let fit = |refusal: Refusal| {
        if refusal.detail.len() > DETAIL_MAX {
            Refusal::new(refusal.code)
        } else {
            refusal
        }
    };
    match verdict {
        Verdict::Delivered => Verdict::Delivered,
        Verdict::NotDelivered(refusal) => Verdict::NotDelivered(fit(refusal)),
        Verdict::Unknown(refusal) => Verdict::Unknown(fit(refusal)),
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.dump().fmt(f)
    }
}
