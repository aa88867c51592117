//! What a caller can choose when dialling or serving: [`DialOptions`], [`ServeOptions`], and the incarnation that a
//! process has when nobody chooses one. The defaults are the limits of this crate and of the protocol.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyperactor_protocol::{Config, limits as protocol_limits};
use hyperactor_refs::Incarnation;

use crate::{Spin, limits};

/// Choices of the dialling side. `DialOptions { expect: Some(life), ..Default::default() }` changes one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialOptions {
    /// The life of the dialling side. Default: [`process_incarnation`].
    pub incarnation: Incarnation,
    /// The only life of the peer that messages are meant for. When another one answers, what was not sent ends as
    /// `NotDelivered(PeerRestarted)` and the channel closes. Default: any.
    pub expect: Option<Incarnation>,
    /// How long messages may be under way without a byte moving, or without a connection. Default: 30 s.
    pub delivery_timeout: Duration,
    /// How long a connected peer may say nothing before the connection counts as dead, at both ends: the shorter of what
    /// they ask for holds, and 100 ms at least. Default: 10 s.
    pub silence_timeout: Duration,
    /// How long a local socket may be absent or refuse before the channel closes; zero gives up at the first refusal.
    /// Default: 1 s.
    pub connect_give_up_local: Duration,
    /// The largest encoded message, in bytes. Default: 64 MiB.
    pub max_message_bytes: usize,
    /// How many messages may be without an outcome before a post finds the channel full. Default: 8,192.
    pub outbox_messages: u32,
    /// How many bytes of messages may be without an outcome before a post finds the channel full; one message may begin
    /// below it and end above. One message of more than half of it counts as half, so that others pass it; while two of
    /// such size are under way, others find the channel full. Default: 32 MiB.
    pub outbox_bytes: usize,
    /// How many messages that come back may wait in the receiver's queues. Default: 4,096.
    pub window_messages: u32,
    /// How many bytes that come back may wait in the receiver's queues. Default: 16 MiB.
    pub window_bytes: u64,
    /// Whether threads look for what comes in for a moment before they sleep. Default: [`Spin::Adaptive`].
    pub spin: Spin,
}

impl Default for DialOptions {
    fn default() -> Self {
        Self {
            incarnation: process_incarnation(),
            expect: None,
            delivery_timeout: protocol_limits::DELIVERY_TIMEOUT,
            silence_timeout: protocol_limits::SILENCE_TIMEOUT,
            connect_give_up_local: limits::CONNECT_GIVE_UP_LOCAL,
            max_message_bytes: limits::MESSAGE_BYTES_MAX,
            outbox_messages: protocol_limits::OUTBOX_MESSAGES,
            outbox_bytes: protocol_limits::OUTBOX_BYTES,
            window_messages: protocol_limits::WINDOW_MESSAGES,
            window_bytes: protocol_limits::WINDOW_BYTES,
            spin: Spin::default(),
        }
    }
}

impl DialOptions {
    /// The session's part of these choices.
    pub(crate) fn config(&self) -> Config {
        Config {
            outbox_messages: self.outbox_messages,
            outbox_bytes: self.outbox_bytes,
            window_messages: self.window_messages,
            window_bytes: self.window_bytes,
            max_message: max_message(self.max_message_bytes),
            silence_timeout: self.silence_timeout,
            keepalive_idle: self.silence_timeout / 3,
            delivery_timeout: self.delivery_timeout,
            handshake_timeout: limits::HANDSHAKE_DEADLINE,
            ..Config::default()
        }
    }
}

/// The limit as the protocol counts it: 4 GiB are one byte too many.
fn max_message(max_message_bytes: usize) -> u32 {
    u32::try_from(max_message_bytes).unwrap_or(u32::MAX)
}

/// Choices of the serving side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    /// The life of the serving side: dialers that expect another one are refused. Default: [`process_incarnation`].
    pub incarnation: Incarnation,
    /// Lets plain TCP be bound beyond the loopback interface, where anyone on the way can read and forge messages.
    /// Default: false.
    pub danger_plaintext_beyond_loopback: bool,
    /// The largest encoded message, in bytes. Default: 64 MiB.
    pub max_message_bytes: usize,
    /// How many messages of one session may wait in the receiver's queues. Default: 4,096.
    pub window_messages: u32,
    /// How many bytes of one session may wait in the receiver's queues. Default: 16 MiB.
    pub window_bytes: u64,
    /// How long a connected peer may say nothing before the connection counts as dead, at both ends: the shorter of what
    /// they ask for holds, and 100 ms at least. Default: 10 s.
    pub silence_timeout: Duration,
    /// How long a session without a connection waits to be resumed. Default: 60 s.
    pub session_ttl: Duration,
    /// How many sessions the server holds. When it has as many, one without a connection makes room, the longest without one
    /// first; if all are connected, the next is refused. In-process channels know no such limit. Default: 1,024.
    pub sessions_max: usize,
    /// How many accepted connections may be without a finished handshake. Default: 128.
    pub unauthenticated_max: usize,
    /// How long messages that are sent back may be under way without a byte moving, or without a connection. Default: 30 s.
    pub delivery_timeout: Duration,
    /// How many messages that are sent back by one session may be without an outcome before a post finds it full.
    /// Default: 8,192.
    pub outbox_messages: u32,
    /// How many bytes of such messages, likewise. Default: 32 MiB.
    pub outbox_bytes: usize,
    /// Whether threads look for what comes in for a moment before they sleep. Default: [`Spin::Adaptive`].
    pub spin: Spin,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            incarnation: process_incarnation(),
            danger_plaintext_beyond_loopback: false,
            max_message_bytes: limits::MESSAGE_BYTES_MAX,
            window_messages: protocol_limits::WINDOW_MESSAGES,
            window_bytes: protocol_limits::WINDOW_BYTES,
            silence_timeout: protocol_limits::SILENCE_TIMEOUT,
            session_ttl: protocol_limits::SESSION_TTL,
            sessions_max: limits::SESSIONS_MAX,
            unauthenticated_max: limits::UNAUTHENTICATED_MAX,
            delivery_timeout: protocol_limits::DELIVERY_TIMEOUT,
            outbox_messages: protocol_limits::OUTBOX_MESSAGES,
            outbox_bytes: protocol_limits::OUTBOX_BYTES,
            spin: Spin::default(),
        }
    }
}

impl ServeOptions {
    /// The session's part of these choices.
    pub(crate) fn config(&self) -> Config {
        Config {
            window_messages: self.window_messages,
            window_bytes: self.window_bytes,
            max_message: max_message(self.max_message_bytes),
            silence_timeout: self.silence_timeout,
            keepalive_idle: self.silence_timeout / 3,
            session_ttl: self.session_ttl,
            delivery_timeout: self.delivery_timeout,
            outbox_messages: self.outbox_messages,
            outbox_bytes: self.outbox_bytes,
            handshake_timeout: limits::HANDSHAKE_DEADLINE,
            ..Config::default()
        }
    }
}

/// The incarnation of this process: one random number, chosen at the first call.
pub fn process_incarnation() -> Incarnation {
    static VALUE: LazyLock<u64> = LazyLock::new(|| random_u64() | 1);
    Incarnation::new(*VALUE)
}

/// A number nobody else has: from the system's generator, or, where there is none, from the clock and the process.
pub(crate) fn random_u64() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        // A splitmix64 step (Steele, Lea, Flood 2014) spreads what little differs between two calls.
        let mut z = (now.as_nanos() as u64) ^ (u64::from(std::process::id()) << 32);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}
