//! The first thing said on a connection, both ways, in a fixed shape. What follows from it is the session's matter.

use std::fmt;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hyperactor_refs::Incarnation;
use thiserror::Error;

use crate::limits::{HELLO_EXTENSIONS_MAX, HELLO_FIXED_BYTES};
use crate::{ConnectionEpoch, Seq, SessionId, Violation};

/// The eight bytes that every hello begins with. The first is no ASCII, and the line ends in the middle suffer
/// where something on the way treats the stream as text.
pub const MAGIC: [u8; 8] = *b"\x89HYP\r\n\x1a\n";
/// The oldest version of the protocol that this library speaks.
pub const VERSION_MIN: u16 = 1;
/// The newest version of the protocol that this library speaks.
pub const VERSION_MAX: u16 = 1;
/// W-14: the tag of the extension by which a dialer says that it takes messages, too. It has no value.
pub const EXTENSION_RECEIVES: u8 = 1;
/// W-15: the tag of the extension by which a side says for how long a connection may show no life: milliseconds, a `u32`.
pub const EXTENSION_SILENCE: u8 = 2;

/// Whether a hello asks, agrees or refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HelloKind {
    /// The dialer's.
    Open,
    /// The acceptor's: the session is new to it, and its receiving half begins at the dialer's `next_unsent`.
    AcceptedFresh,
    /// The acceptor's: the session goes on where `next_expected` says.
    AcceptedResumed,
    /// The acceptor's: no.
    Refused(HelloCode),
}

impl HelloKind {
    const FLAG_FRESH: u32 = 1;
    const FLAG_RESUMED: u32 = 2;
    const FLAG_REFUSED: u32 = 4;
    const FLAGS_KNOWN: u32 = 7;

    fn to_wire(self) -> (u32, u16) {
        match self {
            Self::Open => (0, 0),
            Self::AcceptedFresh => (Self::FLAG_FRESH, 0),
            Self::AcceptedResumed => (Self::FLAG_RESUMED, 0),
            Self::Refused(code) => (Self::FLAG_REFUSED, code.number()),
        }
    }

    fn from_wire(flags: u32, code: u16) -> Option<Self> {
        match (flags & Self::FLAGS_KNOWN, code) {
            (0, 0) => Some(Self::Open),
            (Self::FLAG_FRESH, 0) => Some(Self::AcceptedFresh),
            (Self::FLAG_RESUMED, 0) => Some(Self::AcceptedResumed),
            (Self::FLAG_REFUSED, code) => Some(Self::Refused(HelloCode::from_number(code))),
            _ => None,
        }
    }
}

/// Why a hello was refused, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HelloCode {
    /// No version in common; the refusal carries the range that the refuser speaks.
    Version,
    /// The speaker is not the incarnation that was expected, or the session belongs to another one.
    WrongIncarnation,
    /// A connection with this epoch or a higher one was seen already.
    StaleEpoch,
    /// The session ended in order, and nothing more is taken for it.
    Ended,
    /// The acceptor has as many sessions as it wants.
    TooMany,
    /// The acceptor does not talk to this peer.
    NotAuthorised,
    /// The hello contradicts itself or what was said before.
    Malformed,
    /// A code of a newer version.
    Other(u16),
}

impl HelloCode {
    /// Returns the number on the wire.
    pub const fn number(self) -> u16 {
        match self {
            Self::Version => 1,
            Self::WrongIncarnation => 2,
            Self::StaleEpoch => 3,
            Self::Ended => 4,
            Self::TooMany => 5,
            Self::NotAuthorised => 6,
            Self::Malformed => 7,
            Self::Other(number) => number,
        }
    }

    /// Returns the code that this number stands for.
    pub const fn from_number(number: u16) -> Self {
        match number {
            1 => Self::Version,
            2 => Self::WrongIncarnation,
            3 => Self::StaleEpoch,
            4 => Self::Ended,
            5 => Self::TooMany,
            6 => Self::NotAuthorised,
            7 => Self::Malformed,
            other => Self::Other(other),
        }
    }

    /// Returns whether another attempt for the same session may succeed.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::StaleEpoch | Self::TooMany)
    }
}

impl fmt::Display for HelloCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "no protocol version in common",
            Self::WrongIncarnation => "not the expected incarnation",
            Self::StaleEpoch => "a newer connection of this session exists",
            Self::Ended => "the session has ended",
            Self::TooMany => "too many sessions",
            Self::NotAuthorised => "not authorised",
            Self::Malformed => "malformed hello",
            Self::Other(number) => return write!(f, "refused with code {number}"),
        })
    }
}

/// Fields that an older peer skips: a tag, a length and bytes each, at most
/// [`HELLO_EXTENSIONS_MAX`](crate::limits::HELLO_EXTENSIONS_MAX) bytes in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions(Bytes);

impl Extensions {
    /// Returns the extensions that every hello of a session has.
    pub(crate) fn of_silence(silence: Duration) -> Self {
        let millis = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
        let mut this = Self::default();
        let has_room = this.push(EXTENSION_SILENCE, &millis.to_le_bytes());
        debug_assert!(has_room, "the first of them");
        this
    }

    /// Adds a field; returns whether there was room for it.
    #[must_use]
    pub fn push(&mut self, tag: u8, value: &[u8]) -> bool {
        let total = self.0.len() + 2 + value.len();
        let Ok(length) = u8::try_from(value.len()) else {
            return false;
        };
        if total > HELLO_EXTENSIONS_MAX {
            return false;
        }
        let mut bytes = BytesMut::with_capacity(total);
        bytes.extend_from_slice(&self.0);
        bytes.put_u8(tag);
        bytes.put_u8(length);
        bytes.put_slice(value);
        self.0 = bytes.freeze();
        true
    }

    /// Returns the value of the first field with this tag.
    pub fn find(&self, tag: u8) -> Option<&[u8]> {
        self.iter()
            .find_map(|(each, value)| (each == tag).then_some(value))
    }

    /// Returns tags and values in the order they were said.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (&[tag, length], tail) = rest.split_first_chunk::<2>()?;
            let (value, tail) = tail.split_at_checked(length.into())?;
            rest = tail;
            Some((tag, value))
        })
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let this = Self(Bytes::copy_from_slice(bytes));
        let covered: usize = this.iter().map(|(_, value)| 2 + value.len()).sum();
        (covered == bytes.len()).then_some(this)
    }
}

/// What a side says first on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Asks, agrees or refuses.
    pub kind: HelloKind,
    /// The oldest version the speaker knows.
    pub version_min: u16,
    /// The newest version the speaker knows.
    pub version_max: u16,
    /// The life of the speaker.
    pub incarnation: Incarnation,
    /// The life that the speaker wants to talk to; `None` for any.
    pub expected: Option<Incarnation>,
    /// The session.
    pub session: SessionId,
    /// The connection's number in the session; the answer repeats it.
    pub epoch: ConnectionEpoch,
    /// The epoch in which the acceptor's state of the session began; from a dialer, of the state it knows, else 0. Two answers with different
    /// births come from two states, so what the first had received is unknown to the second.
    pub born: ConnectionEpoch,
    /// Receiving half: the next number expected, where the other side goes on.
    pub next_expected: Seq,
    /// Receiving half: body bytes received below `next_expected`.
    pub received_bytes: u64,
    /// Sending half: the first number without an outcome.
    pub oldest_unresolved: Seq,
    /// Sending half: the first number never sent.
    pub next_unsent: Seq,
    /// Messages granted in all.
    pub credit_messages: u64,
    /// Body bytes granted in all, in the count of `received_bytes`.
    pub credit_bytes: u64,
    /// Largest frame the speaker takes (the value of the length field).
    pub max_frame: u32,
    /// Largest message the speaker takes, bytes.
    pub max_message: u32,
    /// Bytes of messages in parts that may be begun on this connection, counted from the point where it goes on.
    pub credit_large: u64,
    /// What newer versions add.
    pub extensions: Extensions,
}

impl Hello {
    /// Returns for how long the speaker lets a connection show no life, if it says so in a form that this version knows.
    pub fn silence(&self) -> Option<Duration> {
        let millis = self.extensions.find(EXTENSION_SILENCE)?.try_into().ok()?;
        Some(Duration::from_millis(u32::from_le_bytes(millis).into()))
    }

    /// Returns the refusal of `theirs`, for an acceptor that has no session to answer with.
    pub fn refusal(theirs: &Self, local: Incarnation, code: HelloCode) -> Self {
        Self {
            kind: HelloKind::Refused(code),
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            incarnation: local,
            expected: None,
            session: theirs.session,
            epoch: theirs.epoch,
            born: ConnectionEpoch(0),
            next_expected: Seq(0),
            received_bytes: 0,
            oldest_unresolved: Seq(0),
            next_unsent: Seq(0),
            credit_messages: 0,
            credit_bytes: 0,
            max_frame: 0,
            max_message: 0,
            credit_large: 0,
            extensions: Extensions::default(),
        }
    }

    /// Returns the newest version that both sides know.
    pub fn common_version(&self) -> Option<u16> {
        let newest = self.version_max.min(VERSION_MAX);
        (newest >= self.version_min.max(VERSION_MIN)).then_some(newest)
    }

    /// Appends the hello's bytes.
    pub fn encode(&self, out: &mut BytesMut) {
        let (flags, code) = self.kind.to_wire();
        out.put_slice(&MAGIC);
        out.put_u16_le(self.version_min);
        out.put_u16_le(self.version_max);
        out.put_u32_le(flags);
        out.put_u16_le(code);
        out.put_u16_le(0);
        out.put_u64_le(self.incarnation.get());
        out.put_u64_le(self.expected.map_or(0, Incarnation::get));
        out.put_u128_le(self.session.0);
        out.put_u64_le(self.epoch.0);
        out.put_u64_le(self.born.0);
        out.put_u64_le(self.next_expected.0);
        out.put_u64_le(self.received_bytes);
        out.put_u64_le(self.oldest_unresolved.0);
        out.put_u64_le(self.next_unsent.0);
        out.put_u64_le(self.credit_messages);
        out.put_u64_le(self.credit_bytes);
        out.put_u32_le(self.max_frame);
        // Extensions keep themselves within HELLO_EXTENSIONS_MAX.
        out.put_u16_le(self.extensions.0.len() as u16);
        out.put_u16_le(0);
        out.put_u32_le(self.max_message);
        out.put_u64_le(self.credit_large);
        out.put_slice(&self.extensions.0);
    }

    /// Returns the hello's bytes.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HELLO_FIXED_BYTES + self.extensions.0.len());
        self.encode(&mut out);
        out.freeze()
    }

    /// Takes a hello from the front of `buffer`; `None` until all of it has arrived. Bytes behind it stay.
    ///
    /// # Errors
    ///
    /// [`HelloError::NotHello`] as soon as a byte differs from the magic, [`HelloError::Malformed`] for a field that
    /// cannot be. A version out of range is not an error here: [`Hello::common_version`] tells.
    pub fn decode(buffer: &mut BytesMut) -> Result<Option<Self>, HelloError> {
        let seen = buffer.len().min(MAGIC.len());
        if buffer[..seen] != MAGIC[..seen] {
            return Err(HelloError::NotHello);
        }
        let Some(fixed) = buffer.first_chunk::<HELLO_FIXED_BYTES>() else {
            return Ok(None);
        };
        let extensions = usize::from(u16::from_le_bytes([fixed[120], fixed[121]]));
        if extensions > HELLO_EXTENSIONS_MAX {
            return Err(HelloError::Malformed {
                field: "extensions",
            });
        }
        if buffer.len() < HELLO_FIXED_BYTES + extensions {
            return Ok(None);
        }
        // W-01: frames may stand right behind an answer.
        let whole = buffer.split_to(HELLO_FIXED_BYTES + extensions);
        Self::parse(&whole).map(Some)
    }

    fn parse(whole: &[u8]) -> Result<Self, HelloError> {
        let (mut at, extensions) = whole.split_at(HELLO_FIXED_BYTES);
        // W-09: unknown flags, reserved bytes and unknown extensions are a newer peer's and are passed over.
        at.advance(MAGIC.len());
        let (version_min, version_max) = (at.get_u16_le(), at.get_u16_le());
        if version_min > version_max {
            return Err(HelloError::Malformed { field: "version" });
        }
        let (flags, code) = (at.get_u32_le(), at.get_u16_le());
        at.advance(2);
        let kind =
            HelloKind::from_wire(flags, code).ok_or(HelloError::Malformed { field: "flags" })?;
        let incarnation = Incarnation::new(at.get_u64_le());
        let expected = at.get_u64_le();
        Ok(Self {
            kind,
            version_min,
            version_max,
            incarnation,
            expected: (expected != 0).then(|| Incarnation::new(expected)),
            session: SessionId(at.get_u128_le()),
            epoch: ConnectionEpoch(at.get_u64_le()),
            born: ConnectionEpoch(at.get_u64_le()),
            next_expected: Seq(at.get_u64_le()),
            received_bytes: at.get_u64_le(),
            oldest_unresolved: Seq(at.get_u64_le()),
            next_unsent: Seq(at.get_u64_le()),
            credit_messages: at.get_u64_le(),
            credit_bytes: at.get_u64_le(),
            max_frame: at.get_u32_le(),
            max_message: {
                // The length of the extensions, read above, and a reserved field.
                at.advance(4);
                at.get_u32_le()
            },
            credit_large: at.get_u64_le(),
            extensions: Extensions::parse(extensions).ok_or(HelloError::Malformed {
                field: "extensions",
            })?,
        })
    }
}

/// Why a hello was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HelloError {
    /// The bytes are something else's.
    #[error("the peer does not speak this protocol: its first bytes are no hello")]
    NotHello,
    /// A field cannot be.
    #[error("the field {field} of the hello cannot be")]
    Malformed {
        /// The field.
        field: &'static str,
    },
    /// No version in common.
    #[error("the peer speaks versions {min} to {max}, this side {VERSION_MIN} to {VERSION_MAX}")]
    Version {
        /// The peer's oldest.
        min: u16,
        /// The peer's newest.
        max: u16,
    },
    /// One side is not the incarnation that the other expects.
    #[error("incarnation {found} where {expected} was expected")]
    WrongIncarnation {
        /// Expected.
        expected: Incarnation,
        /// Found.
        found: Incarnation,
    },
    /// The epoch is not higher than the last.
    #[error("connection epoch {got} is not above {newest}")]
    StaleEpoch {
        /// The hello's.
        got: ConnectionEpoch,
        /// The highest seen.
        newest: ConnectionEpoch,
    },
    /// The acceptor's state began with a hello that came late: the dialer knows another one, which is gone, and
    /// has gone on since. The state has ended, and the next hello makes a new one.
    #[error(
        "the state born in epoch {born} lacks what passed in the one of epoch {known} that the dialer knows"
    )]
    StaleState {
        /// The birth of the acceptor's state.
        born: ConnectionEpoch,
        /// The birth of the state that the dialer knows.
        known: ConnectionEpoch,
    },
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
    /// A hello where none can be: an answer nobody asked for, a question where an answer was due.
    #[error("a hello that nothing called for")]
    Unexpected,
    /// The peer refused.
    #[error("the peer refused the session: {code}")]
    Refused {
        /// Why.
        code: HelloCode,
    },
    /// The hello contradicts what was said before.
    #[error(transparent)]
    Violation(#[from] Violation),
}

impl HelloError {
    /// Returns the code of the refusal that answers it.
    pub const fn code(&self) -> HelloCode {
        match self {
            Self::Version { .. } => HelloCode::Version,
            Self::WrongIncarnation { .. } => HelloCode::WrongIncarnation,
            Self::StaleEpoch { .. } | Self::StaleState { .. } => HelloCode::StaleEpoch,
            Self::Ended => HelloCode::Ended,
            Self::Refused { code } => *code,
            Self::NotHello | Self::Malformed { .. } | Self::Unexpected | Self::Violation(_) => {
                HelloCode::Malformed
            }
        }
    }

    /// Returns whether another attempt for the same session may succeed.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::StaleEpoch { .. } | Self::StaleState { .. } => true,
            Self::Refused { code } => code.is_retryable(),
            _ => false,
        }
    }
}
