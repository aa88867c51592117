//! Every number that bounds a session, by name, with its unit; [`Config`](crate::Config) starts from these.
//! Holds no logic: what happens at a limit stands where the limit is applied.

use std::time::Duration;

/// Bytes of a data frame before its body: length, kind, flags, reserved, sequence number, two labels.
pub const DATA_HEADER_BYTES: usize = 24;
/// Bytes of a control frame before its payload: length, kind, flags, reserved.
pub const CONTROL_HEADER_BYTES: usize = 8;
/// Bytes of the length field, which counts everything after itself.
pub const LENGTH_BYTES: usize = 4;
/// Bytes of a data frame that its length field counts besides the body.
pub const DATA_OVERHEAD_BYTES: usize = DATA_HEADER_BYTES - LENGTH_BYTES;
/// Largest value of the length field of a control frame, bytes.
pub const CONTROL_FRAME_MAX: usize = 4096 - LENGTH_BYTES;
/// Longest detail of a refusal or a goodbye, bytes.
pub const DETAIL_MAX: usize = 1024;
/// Default for the largest value of a data frame's length field, bytes.
pub const FRAME_MAX_DEFAULT: u32 = 1024 * 1024;
/// Largest value that the frame limit may be set to, bytes. The hello's magic, read as a length, lies above it.
pub const FRAME_MAX_CEILING: u32 = 1024 * 1024 * 1024;
/// Smallest value that the frame limit may be set to, bytes: control frames always fit.
pub const FRAME_MAX_FLOOR: u32 = 4096;

/// Default for the largest message, bytes. The limit may be anything that 32 bits can say.
pub const MESSAGE_MAX_DEFAULT: u32 = 64 * 1024 * 1024;
/// Default for the largest part of a message in one frame, bytes: larger messages are cut.
pub const FRAGMENT_BYTES: u32 = 64 * 1024;
/// Default for the largest part where nothing else waits, bytes.
pub const PART_BYTES: u32 = 256 * 1024;
/// Smallest value that the size of a fragment may be set to, bytes.
pub const FRAGMENT_FLOOR_BYTES: u32 = 64;
/// Bytes in front of the first fragment's part: the size of the whole message.
pub const FRAGMENT_TOTAL_BYTES: usize = 8;
/// Fragments enter the log while fewer bytes than this wait there to be handed out: what a small message waits for.
pub const FRAGMENTS_AHEAD_BYTES: u64 = 256 * 1024;
/// Messages of a session whose fragments may be under way at the same time.
pub const ASSEMBLIES_MAX: usize = 64;

/// Labels of one direction of a session.
pub const LABELS_MAX: u32 = 16_384;
/// Bytes of all names that the labels of one direction stand for at one time.
pub const LABEL_BYTES_MAX: usize = 1024 * 1024;
/// Longest name that a label may stand for, bytes.
pub const LABEL_NAME_MAX: usize = 2048;
/// Bytes of one entry of a released frame: a label and two counts.
pub const RELEASED_ENTRY_BYTES: usize = 20;
/// Entries of one released frame.
pub const RELEASED_ENTRIES_MAX: usize =
    (CONTROL_FRAME_MAX - (CONTROL_HEADER_BYTES - LENGTH_BYTES)) / RELEASED_ENTRY_BYTES;
/// What was released of a label is told at once when it is this part of the window.
pub const RELEASED_FRACTION: u64 = 8;
/// What was released of a label is told at once when it is this part of the label's share.
pub const RELEASED_SHARE: u64 = 4;
/// What was released of a label is told at once when nothing is left and this many messages are untold.
pub const RELEASED_DRAINED: u64 = 16;
/// Messages of one label that may enter the log before the peer has said its window.
pub const ASSUMED_MESSAGES: u64 = 256;
/// Body bytes that labelled messages may bring into the log before the peer has said its window.
pub const ASSUMED_BYTES: u64 = 1024 * 1024;

/// Bytes of a hello before its extensions.
pub const HELLO_FIXED_BYTES: usize = 136;
/// Longest extensions of a hello, bytes.
pub const HELLO_EXTENSIONS_MAX: usize = 64;
/// Largest hello, bytes.
pub const HELLO_MAX: usize = 256;

/// Bytes by which a read buffer grows at least, and at most ahead of what has arrived.
pub const READ_STEP_BYTES: usize = 64 * 1024;
/// Bytes missing of a part from which on it is read to where it stays, by a read of its own.
pub const LANDING_BYTES: usize = 8 * 1024;
/// Messages that are taken in as one run.
pub const RUN_MESSAGES_MAX: u64 = 1_024;
/// Messages to one label that may enter the log before it is asked again whether they may.
pub const AHEAD_MESSAGES: u64 = 64;
/// Body bytes that they may have before the last of them.
pub const AHEAD_BYTES: u64 = 64 * 1024;
/// Messages that are asked one by one after it was found that few may.
pub const AHEAD_REST: u64 = 16;
/// Bytes after which the outgoing log starts a new segment, and the capacity of a fresh one.
pub const SEGMENT_BYTES: usize = 64 * 1024;
/// Free bytes below which the outgoing log starts a new buffer rather than let an encoder grow the old one.
pub const SEGMENT_ROOM_BYTES: usize = 1024;
/// Bytes above which a log buffer that grew for a large message is let go of, rather than used on for small ones.
pub const BUFFER_KEPT_BYTES: usize = 1024 * 1024;
/// Emptied log buffers kept for the next segment.
pub const SPARE_BUFFERS: usize = 2;
/// Bodies of at least this many bytes are shared with the log instead of being copied into it.
pub const SHARED_BODY_BYTES: usize = 16 * 1024;
/// Bytes of control frames written in one go before log bytes get their turn.
pub const CONTROL_BATCH_BYTES: usize = 64 * 1024;

/// Messages that a receiver lets a sender have outstanding.
pub const WINDOW_MESSAGES: u32 = 4096;
/// Body bytes that a receiver lets a sender have outstanding; one message may start below it and end above.
pub const WINDOW_BYTES: u64 = 16 * 1024 * 1024;
/// A credit frame goes out once this part of the window has been released.
pub const CREDIT_FRACTION: u64 = 4;
/// Messages between the oldest unsettled and the newest received, in windows: how far the settled may run ahead
/// of one that is stuck before credit stops.
pub const SPAN_WINDOWS: u64 = 16;
/// Sequence numbers and byte counts that a hello may name are at most this: counting on from there never overflows.
pub const COUNT_MAX: u64 = 1 << 62;
/// Unresolved messages that the outgoing log holds.
pub const OUTBOX_MESSAGES: u32 = 8192;
/// Bytes that the outgoing log holds; one message may start below it and end above.
pub const OUTBOX_BYTES: usize = 32 * 1024 * 1024;
/// Messages between the oldest unresolved and the newest, in multiples of the outbox's message limit.
pub const SPAN_OUTBOXES: u64 = 8;

/// Settled messages after which an acknowledgement is written at once.
pub const ACK_EVERY: u32 = 64;
/// Longest time an acknowledgement waits for company.
pub const ACK_DELAY: Duration = Duration::from_millis(5);
/// Both hellos must have passed within this time.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A live connection on which nothing moved for this long is dead.
pub const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);
/// Shortest silence that a peer can ask for: a connection needs time to show life.
pub const SILENCE_FLOOR: Duration = Duration::from_millis(100);
/// A ping goes out after a third of the silence that would kill the connection.
pub const KEEPALIVE_IDLE: Duration = Duration::from_millis(3_333);
/// Messages outstanding without any progress for this long fail, and their session with them.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// An accepting session that nobody resumes for this long expires: twice the delivery timeout.
pub const SESSION_TTL: Duration = Duration::from_secs(60);

const _: () = assert!(LABEL_NAME_MAX + 64 <= CONTROL_FRAME_MAX);
const _: () = assert!(FRAGMENT_FLOOR_BYTES as usize > 2 * FRAGMENT_TOTAL_BYTES);
const _: () = assert!(FRAGMENT_BYTES as usize + DATA_OVERHEAD_BYTES <= FRAME_MAX_DEFAULT as usize);
const _: () = assert!(PART_BYTES as u64 <= FRAGMENTS_AHEAD_BYTES && PART_BYTES >= FRAGMENT_BYTES);
const _: () = assert!(HELLO_FIXED_BYTES + HELLO_EXTENSIONS_MAX <= HELLO_MAX);
const _: () = assert!(DETAIL_MAX + 64 <= CONTROL_FRAME_MAX);
const _: () = assert!(FRAME_MAX_FLOOR as usize >= CONTROL_FRAME_MAX);
const _: () = assert!(FRAME_MAX_DEFAULT <= FRAME_MAX_CEILING);
const _: () = assert!(SESSION_TTL.as_millis() >= 2 * DELIVERY_TIMEOUT.as_millis());
const _: () = assert!(SILENCE_TIMEOUT.as_millis() >= 3 * KEEPALIVE_IDLE.as_millis());
