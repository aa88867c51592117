//! What can be set about a session. The defaults and their reasons stand in [`limits`](crate::limits).

use std::time::Duration;

use crate::limits;

/// Limits and times of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Messages that the peer may have outstanding here.
    pub window_messages: u32,
    /// Body bytes that the peer may have outstanding here.
    pub window_bytes: u64,
    /// Unresolved messages held for sending and resending.
    pub outbox_messages: u32,
    /// Bytes held for sending and resending. One message may begin below this and end above, and one of more than half
    /// counts as half, so that it leaves room to others: at most this and two messages are held.
    pub outbox_bytes: usize,
    /// Largest frame, sent or taken (the value of the length field, bytes).
    pub max_frame: u32,
    /// Largest message, sent or taken, bytes.
    pub max_message: u32,
    /// A message larger than this is sent in parts of at most this size, bytes; or smaller ones, where a frame that
    /// both sides take holds less.
    pub fragment_bytes: u32,
    /// The largest part of a message while nothing else waits to be sent, bytes: larger parts cost less, and hold more
    /// up. At least [`fragment_bytes`](Self::fragment_bytes), at most what a frame holds.
    pub part_bytes: u32,
    /// Settled messages after which an acknowledgement is written at once.
    pub ack_every: u32,
    /// Longest time an acknowledgement waits for company.
    pub ack_delay: Duration,
    /// Both hellos must have passed within this time.
    pub handshake_timeout: Duration,
    /// A ping goes out when nothing was heard for this long.
    pub keepalive_idle: Duration,
    /// A live connection on which nothing moved for this long is dead.
    pub silence_timeout: Duration,
    /// Messages outstanding without progress for this long fail.
    pub delivery_timeout: Duration,
    /// An accepting session that nobody resumes for this long expires.
    pub session_ttl: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            window_messages: limits::WINDOW_MESSAGES,
            window_bytes: limits::WINDOW_BYTES,
            outbox_messages: limits::OUTBOX_MESSAGES,
            outbox_bytes: limits::OUTBOX_BYTES,
            max_frame: limits::FRAME_MAX_DEFAULT,
            max_message: limits::MESSAGE_MAX_DEFAULT,
            fragment_bytes: limits::FRAGMENT_BYTES,
            part_bytes: limits::PART_BYTES,
            ack_every: limits::ACK_EVERY,
            ack_delay: limits::ACK_DELAY,
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
            keepalive_idle: limits::KEEPALIVE_IDLE,
            silence_timeout: limits::SILENCE_TIMEOUT,
            delivery_timeout: limits::DELIVERY_TIMEOUT,
            session_ttl: limits::SESSION_TTL,
        }
    }
}

impl Config {
    /// Brings every value into the range in which the protocol works: nothing zero that would stop it.
    #[must_use]
    pub fn sane(mut self) -> Self {
        self.window_messages = self.window_messages.max(1);
        self.window_bytes = self.window_bytes.max(1);
        self.outbox_messages = self.outbox_messages.max(1);
        self.outbox_bytes = self.outbox_bytes.max(1);
        self.max_frame = self
            .max_frame
            .clamp(limits::FRAME_MAX_FLOOR, limits::FRAME_MAX_CEILING);
        self.max_message = self.max_message.max(1);
        let body = self.max_frame - limits::DATA_OVERHEAD_BYTES as u32;
        self.fragment_bytes = self
            .fragment_bytes
            .clamp(limits::FRAGMENT_FLOOR_BYTES, body);
        self.part_bytes = self.part_bytes.clamp(self.fragment_bytes, body);
        self.ack_every = self.ack_every.max(1);
        self
    }

    /// Returns how many bytes of messages in parts the receiving half holds, arriving or waiting in queues: a window and
    /// one message of the largest size.
    pub const fn large_window(&self) -> u64 {
        self.window_bytes.saturating_add(self.max_message as u64)
    }
}
