//! Which chain of messages a message belongs to, carried from actor to actor and from process to process: [`TraceContext`],
//! in the form of the W3C. What is done with it is left to whoever subscribes to the spans.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hyperactor_mailbox::{Headers, Outbox};
use parking_lot::Mutex;

/// The header under which an envelope carries the context: 16 bytes trace, 8 bytes span, 1 byte flags, big-endian.
pub(crate) const TRACE_HEADER: u32 = 2;

const HEADER_BYTES: usize = 25;

/// The place of a message in a chain of messages: which chain, and which step of it sent the message.
///
/// A client or an actor that has one puts it into everything it posts; an actor that handles a message with one has it, with
/// a span of its own, until the message is handled. So one trace covers what followed from one message, over all
/// processes. Without one nothing is carried, and nothing costs.
///
/// Its text is the `traceparent` of the W3C's recommendation "Trace Context" (2021), as other systems write it:
///
/// ```
/// use hyperactor_proc::TraceContext;
///
/// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let context: TraceContext = text.parse()?;
/// assert_eq!(context.to_string(), text);
/// assert!(context.is_sampled());
/// # Ok::<(), hyperactor_proc::BadTrace>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

/// A text is no `traceparent`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no traceparent: it has the form 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, and neither id is 0"
)]
pub struct BadTrace {
    /// The text, shortened.
    pub text: String,
}

impl TraceContext {
    /// A new trace, which begins here.
    pub fn root() -> Self {
        Self {
            trace_id: (u128::from(fresh()) << 64) | u128::from(fresh()),
            span_id: fresh(),
            flags: 1,
        }
    }

    /// A further step of the same trace.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            span_id: fresh(),
            ..*self
        }
    }

    /// The number of the trace. Never 0.
    pub fn trace_id(&self) -> u128 {
        self.trace_id
    }

    /// The number of the step. Never 0.
    pub fn span_id(&self) -> u64 {
        self.span_id
    }

    /// Whether whoever began the trace records it.
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    /// What somebody puts into what they post.
    #[inline]
    pub(crate) fn of(cx: &(impl Outbox + ?Sized)) -> Option<Self> {
        match cx.is_stamping() {
            true => Self::stamped(cx),
            false => None,
        }
    }

    #[cold]
    fn stamped(cx: &(impl Outbox + ?Sized)) -> Option<Self> {
        let mut headers = Headers::new();
        cx.stamp(&mut headers);
        Self::read(&headers)
    }

    pub(crate) fn read(headers: &Headers) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = headers.value(TRACE_HEADER)?.as_ref().try_into().ok()?;
        let (trace_id, rest) = bytes.split_first_chunk::<16>()?;
        let (span_id, flags) = rest.split_first_chunk::<8>()?;
        let context = Self {
            trace_id: u128::from_be_bytes(*trace_id),
            span_id: u64::from_be_bytes(*span_id),
            flags: *flags.first()?,
        };
        context.is_valid().then_some(context)
    }

    pub(crate) fn write(&self, headers: &mut Headers) {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&self.trace_id.to_be_bytes());
        bytes.extend_from_slice(&self.span_id.to_be_bytes());
        bytes.push(self.flags);
        // A full envelope travels without its trace: what it is for matters more.
        if let Err(error) = headers.set(TRACE_HEADER, bytes) {
            tracing::debug!("a message is not traced: {error}");
        }
    }

    fn is_valid(&self) -> bool {
        self.trace_id != 0 && self.span_id != 0
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace_id, self.span_id, self.flags
        )
    }
}

impl FromStr for TraceContext {
    type Err = BadTrace;

    fn from_str(text: &str) -> Result<Self, BadTrace> {
        parse(text).ok_or_else(|| BadTrace {
            text: text.chars().take(64).collect(),
        })
    }
}

fn parse(text: &str) -> Option<TraceContext> {
    let mut parts = text.split('-');
    let mut hex = |digits: usize| {
        let part = parts.next()?;
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (part.len() == digits && part.bytes().all(is_hex)).then_some(part)
    };
    let version = hex(2)?;
    let context = TraceContext {
        trace_id: u128::from_str_radix(hex(32)?, 16).ok()?,
        span_id: u64::from_str_radix(hex(16)?, 16).ok()?,
        flags: u8::from_str_radix(hex(2)?, 16).ok()?,
    };
    // A later version may say more behind these four; the version 255 is none.
    let is_known = version != "ff" && (version != "00" || parts.next().is_none());
    (is_known && context.is_valid()).then_some(context)
}

/// A number that no other step has, but for a small chance, and never 0.
fn fresh() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static SEED: OnceLock<u64> = OnceLock::new();
    // Without a source of randomness the clock tells processes apart.
    let seed = *SEED.get_or_init(|| getrandom::u64().unwrap_or_else(|_| clock()));
    // SplitMix64 (G. Steele, D. Lea and C. Flood, 2014): the numbers of one process are all different.
    let step = NEXT
        .fetch_add(1, Ordering::Relaxed)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut mixed = seed.wrapping_add(step);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)).max(1)
}

fn clock() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |since| since.as_nanos() as u64)
}

/// Where the context of an actor or a client is kept.
#[derive(Default)]
pub(crate) struct Carried(Mutex<Option<TraceContext>>);

/// The context that an actor or a client has now. Looking is one plain load while it has none, and only one that is set
/// needs a place to be.
pub(crate) struct CurrentTrace<'a, C> {
    pub(crate) is_set: &'a AtomicBool,
    pub(crate) carried: C,
}

impl<'a, C: FnOnce() -> &'a Carried> CurrentTrace<'a, C> {
    pub(crate) fn set(self, context: Option<TraceContext>) {
        if context.is_none() && !self.is_set.load(Ordering::Relaxed) {
            return;
        }
        *(self.carried)().0.lock() = context;
        self.is_set.store(context.is_some(), Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    pub(crate) fn get(self) -> Option<TraceContext> {
        if self.is_set() {
            *(self.carried)().0.lock()
        } else {
            None
        }
    }

    /// Puts it into the headers of what is posted, unless they have one.
    pub(crate) fn stamp(self, headers: &mut Headers) {
        if let Some(context) = self.get()
            && headers.value(TRACE_HEADER).is_none()
        {
            context.write(headers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_no_traceparent_is_refused() {
        for text in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(text.parse::<TraceContext>().is_err(), "{text}");
        }
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what";
        assert!(later.parse::<TraceContext>().is_ok());
    }

    #[test]
    fn a_step_has_the_trace_of_the_one_before_and_a_number_of_its_own() {
        let root = TraceContext::root();
        let child = root.child();
        assert_eq!(child.trace_id(), root.trace_id());
        assert_ne!(child.span_id(), root.span_id());
        assert_ne!(TraceContext::root().trace_id(), root.trace_id());
    }

    #[test]
    fn what_is_written_into_headers_is_read_from_them_and_nonsense_is_not() {
        let mut headers = Headers::new();
        let context = TraceContext::root();
        context.write(&mut headers);
        assert_eq!(TraceContext::read(&headers), Some(context));
        for nonsense in [vec![], vec![0; 24], vec![0; 25], vec![0xff; 26]] {
            headers.set(TRACE_HEADER, nonsense).unwrap();
            assert_eq!(TraceContext::read(&headers), None);
        }
    }
}
