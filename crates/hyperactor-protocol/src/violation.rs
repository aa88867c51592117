//! Every way in which a peer can break the protocol, as a value. Nothing here is an error of this side.

use thiserror::Error;

use crate::{Label, Seq};

/// What a peer did that the protocol forbids. The session ends; no other session is disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Violation {
    /// A frame claims more bytes than the limit.
    #[error("frame of {claimed} bytes claimed, the limit is {max}")]
    FrameTooLong {
        /// The claimed length, bytes.
        claimed: u64,
        /// The limit, bytes.
        max: u64,
    },
    /// A frame has a length that its kind cannot have.
    #[error("frame of kind {kind} has the impossible length {length}")]
    FrameLength {
        /// The frame's kind.
        kind: u8,
        /// Its length field.
        length: u64,
    },
    /// A frame of an unknown kind.
    #[error("unknown frame kind {kind}")]
    UnknownKind {
        /// The kind.
        kind: u8,
    },
    /// A flag or a reserved field that must be zero is not.
    #[error("reserved bits are set in a frame of kind {kind}")]
    ReservedBits {
        /// The frame's kind.
        kind: u8,
    },
    /// A field has a value outside its range.
    #[error("a frame of kind {kind} has a field out of range")]
    FieldRange {
        /// The frame's kind.
        kind: u8,
    },
    /// A hello where a frame should be.
    #[error("a second hello on one connection")]
    SecondHello,
    /// A message came before one that precedes it.
    #[error("message {got} came where {expected} was next")]
    Gap {
        /// The next number that would have been right.
        expected: Seq,
        /// The number that came.
        got: Seq,
    },
    /// A message beyond the credit that was granted.
    #[error("message {seq} is beyond the granted credit")]
    BeyondCredit {
        /// The message's number.
        seq: Seq,
    },
    /// An acknowledgement or a settlement of a message that was never sent.
    #[error("message {seq} is acknowledged but only those below {sent} were sent")]
    AckOfUnsent {
        /// The number acknowledged, or one past it where a range ends.
        seq: Seq,
        /// The first number not yet sent.
        sent: Seq,
    },
    /// An acknowledgement below an earlier one.
    #[error("acknowledgement went back from {from} to {to}")]
    AckWentBack {
        /// The earlier acknowledgement.
        from: Seq,
        /// The later, lower one.
        to: Seq,
    },
    /// An acknowledgement that has more settled than received.
    #[error("{settled} settled is more than {received} received")]
    SettledBeyondReceived {
        /// Settled below this number.
        settled: Seq,
        /// Received below this number.
        received: Seq,
    },
    /// Granted credit was taken back.
    #[error("granted credit shrank")]
    CreditShrank,
    /// The sender claims outcomes for messages that were never received or never settled.
    #[error("outcomes claimed below {below}, but only those below {settled} were settled")]
    ResolvedUnsettled {
        /// The claim.
        below: Seq,
        /// Where settlement stands.
        settled: Seq,
    },
    /// A resume point that cannot be.
    #[error("resume at {at} is outside {low} to {high}")]
    ForeignResume {
        /// Where the peer wants to go on.
        at: Seq,
        /// The lowest possible point.
        low: Seq,
        /// The highest possible point.
        high: Seq,
    },
    /// The byte counts of the two sides differ at the resume point.
    #[error("the peer counted {theirs} received bytes where {ours} were sent")]
    ForeignBytes {
        /// The peer's count.
        theirs: u64,
        /// Our count.
        ours: u64,
    },
    /// A message with a label that was not named on this connection.
    #[error("label {label} has no name on this connection")]
    UnknownLabel {
        /// The label.
        label: Label,
    },
    /// The names of all labels together are too long.
    #[error("{bytes} bytes of names are more than {max}")]
    NamesTooLong {
        /// Their bytes.
        bytes: u64,
        /// The limit, bytes.
        max: u64,
    },
    /// More of a label released than was sent.
    #[error("more of label {label} is released than was sent")]
    ReleasedUnsent {
        /// The label.
        label: Label,
    },
    /// What was released of a label went back.
    #[error("what was released of label {label} went back")]
    ReleasedWentBack {
        /// The label.
        label: Label,
    },
    /// A part that continues no message, or another message between the parts of one.
    #[error("message {seq} is no part that can follow here for label {label}")]
    PartOutOfPlace {
        /// The frame's number.
        seq: Seq,
        /// Its label.
        label: Label,
    },
    /// The parts are not as long as the first of them said.
    #[error(
        "the parts of a message for label {label} make {got} bytes where {declared} were declared"
    )]
    PartsLength {
        /// The label.
        label: Label,
        /// What the first said, bytes.
        declared: u64,
        /// What came, bytes.
        got: u64,
    },
    /// A message in parts that is larger than what was said to be the limit.
    #[error("a message of {declared} bytes is declared, the limit is {max}")]
    MessageTooLong {
        /// What its first part says, bytes.
        declared: u64,
        /// The limit, bytes.
        max: u64,
    },
    /// Other limits of frames or messages than the same state said before.
    #[error("the peer's limits changed within one state")]
    LimitsChanged,
    /// Parts of too many messages at the same time.
    #[error("parts of more than {max} messages at the same time")]
    TooManyParts {
        /// The limit.
        max: u64,
    },
}

impl Violation {
    /// Returns a stable number: the code of the goodbye that answers the violation.
    pub const fn code(&self) -> u16 {
        match self {
            Self::FrameTooLong { .. } => 0x0101,
            Self::FrameLength { .. } => 0x0102,
            Self::UnknownKind { .. } => 0x0103,
            Self::ReservedBits { .. } => 0x0104,
            Self::FieldRange { .. } => 0x0105,
            Self::SecondHello => 0x0106,
            Self::Gap { .. } => 0x0107,
            Self::BeyondCredit { .. } => 0x0108,
            Self::AckOfUnsent { .. } => 0x0109,
            Self::AckWentBack { .. } => 0x010A,
            Self::SettledBeyondReceived { .. } => 0x010B,
            Self::CreditShrank => 0x010C,
            Self::ResolvedUnsettled { .. } => 0x010D,
            Self::ForeignResume { .. } => 0x010E,
            Self::ForeignBytes { .. } => 0x010F,
            Self::UnknownLabel { .. } => 0x0110,
            Self::NamesTooLong { .. } => 0x0111,
            Self::ReleasedUnsent { .. } => 0x0112,
            Self::ReleasedWentBack { .. } => 0x0113,
            Self::PartOutOfPlace { .. } => 0x0114,
            Self::PartsLength { .. } => 0x0115,
            Self::MessageTooLong { .. } => 0x0116,
            Self::TooManyParts { .. } => 0x0117,
            Self::LimitsChanged => 0x0118,
        }
    }
}
