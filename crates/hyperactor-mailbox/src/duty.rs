//! The duty to answer that a reference to a once-port carries in the process where it is: dropped unfulfilled, it
//! tells whoever waits. Decoding makes references without one; [`decode_with_duties`] finds them.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use hyperactor_refs::PortId;

use crate::asked::{Asked, Never};
use crate::limits;

/// What a reference owes to whoever waits. Its clones are those of the reference.
pub(crate) enum Owed {
    /// To a port that counts its references itself.
    Port(Arc<dyn Asked>),
    /// To one that was found when the reference was decoded, or to none.
    Decoded(Arc<Duty>),
}

/// How many references to a port there are, and whether one of them was used.
#[derive(Debug, Default)]
pub struct Holders {
    count: AtomicUsize,
    is_settled: AtomicBool,
}

/// Shared by the clones of one decoded reference; told when the last one is dropped.
#[derive(Default)]
pub(crate) struct Duty {
    port: OnceLock<Arc<dyn Asked>>,
    holders: Holders,
}

impl Holders {
    /// Of a port whose first reference is being [made](Owed::first).
    pub(crate) fn one() -> Self {
        Self {
            count: AtomicUsize::new(1),
            is_settled: AtomicBool::new(false),
        }
    }

    /// Whether nobody has settled before.
    fn settles(&self) -> bool {
        !self.is_settled.swap(true, Ordering::Relaxed)
    }

    fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::Relaxed)
    }
}

impl Owed {
    /// The first reference to a port that has a place for its [`Holders`].
    pub(crate) fn to(port: Arc<dyn Asked>) -> Self {
        match port.holders() {
            Some(holders) => {
                holders.count.fetch_add(1, Ordering::Relaxed);
                Self::Port(port)
            }
            None => {
                let duty = Duty::default();
                // The cell was made empty in the line above.
                let _ = duty.port.set(port);
                Self::Decoded(Arc::new(duty))
            }
        }
    }

    /// The first reference to a port that was made with [one](Holders::one).
    pub(crate) fn first(port: Arc<dyn Asked>) -> Self {
        Self::Port(port)
    }

    pub(crate) fn port(&self) -> Option<&Arc<dyn Asked>> {
        match self {
            Self::Port(port) => Some(port),
            Self::Decoded(duty) => duty.port.get(),
        }
    }

    pub(crate) fn answered(&self) {
        match self {
            // Without a locked instruction: to such a port the reply comes itself, and it need not be told once only.
            Self::Port(port) => {
                if let Some(holders) = port.holders() {
                    holders.is_settled.store(true, Ordering::Relaxed);
                }
                port.answered();
            }
            Self::Decoded(_) => {
                if let Some(port) = self.settles() {
                    port.answered();
                }
            }
        }
    }

    pub(crate) fn handed_over(&self) {
        if let Some(port) = self.settles() {
            port.handed_over();
        }
    }

    /// Whom to tell, the first time.
    fn settles(&self) -> Option<&Arc<dyn Asked>> {
        let port = self.port();
        let holders = match self {
            Self::Port(port) => port.holders(),
            Self::Decoded(duty) => Some(&duty.holders),
        };
        port.filter(|_| holders.is_some_and(Holders::settles))
    }
}

impl Clone for Owed {
    fn clone(&self) -> Self {
        match self {
            Self::Port(port) => {
                if let Some(holders) = port.holders() {
                    holders.count.fetch_add(1, Ordering::Relaxed);
                }
                Self::Port(Arc::clone(port))
            }
            Self::Decoded(duty) => Self::Decoded(Arc::clone(duty)),
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        // A decoded one tells by itself. Once one was used the others need not be counted any more.
        if let Self::Port(port) = self
            && let Some(holders) = port.holders()
            && !holders.is_settled()
            && holders.count.fetch_sub(1, Ordering::AcqRel) == 1
            && !holders.is_settled()
        {
            unused(&**port);
        }
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        if let Some(port) = self.port.get()
            && !self.holders.is_settled()
        {
            unused(&**port);
        }
    }
}

/// The last reference was dropped, and none was used.
fn unused(port: &dyn Asked) {
    match ENDING.with_borrow(Clone::clone) {
        Some(cause) => port.never(Never::Ended {
            cause: cause.to_string(),
        }),
        None => port.dropped(),
    }
}

/// Whether the references that are decoded are collected.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Collecting {
    No,
    /// They are, and there was none yet.
    Nothing,
    Something,
}

thread_local! {
    // Apart from what is collected: of most messages that is nothing, and this alone is looked at.
    static COLLECTING: Cell<Collecting> = const { Cell::new(Collecting::No) };
    static DECODED: RefCell<Vec<DecodedReply>> = const { RefCell::new(Vec::new()) };
    static ENDING: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

/// Runs `end`, which drops what an actor leaves behind: every reply that it still owes is told the cause.
pub fn ending_with<T>(cause: &str, end: impl FnOnce() -> T) -> T {
    /// Puts the outer cause back, also when `end` panics.
    struct Restore(Option<Arc<str>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            ENDING.set(self.0.take());
        }
    }
    let _restore = Restore(ENDING.replace(Some(cause.into())));
    end()
}

/// A reference to a once-port that was found in a decoded message.
pub struct DecodedReply {
    port_id: PortId,
    duty: Arc<Duty>,
}

impl DecodedReply {
    /// Where the reply goes.
    #[must_use]
    pub fn port_id(&self) -> &PortId {
        &self.port_id
    }

    /// Whom to tell when the reference is used, or dropped unused.
    pub fn owed_to(self, asked: Arc<dyn Asked>) {
        // A second call is impossible: the value is used up by the first.
        let _ = self.duty.port.set(asked);
    }
}

impl fmt::Debug for DecodedReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DecodedReply({})", self.port_id)
    }
}

/// Runs `decode` and collects the references to once-ports that it decodes.
///
/// # Bounds
/// At most [`limits::REPLIES_PER_MESSAGE`]; further ones carry no duty: nobody is told when they are dropped.
pub fn decode_with_duties<T>(decode: impl FnOnce() -> T) -> (T, Vec<DecodedReply>) {
    /// Collects no longer, also when `decode` panics.
    struct Stop;
    impl Stop {
        fn found(&self) -> Vec<DecodedReply> {
            match COLLECTING.replace(Collecting::No) {
                Collecting::Something => DECODED.take(),
                Collecting::No | Collecting::Nothing => Vec::new(),
            }
        }
    }
    impl Drop for Stop {
        fn drop(&mut self) {
            drop(self.found());
        }
    }
    let stop = Stop;
    COLLECTING.replace(Collecting::Nothing);
    let value = decode();
    let found = stop.found();
    // It has stopped.
    std::mem::forget(stop);
    (value, found)
}

/// The duty of a reference that is being decoded, if somebody collects them.
pub(crate) fn decoded(port_id: &PortId) -> Option<Owed> {
    if COLLECTING.get() == Collecting::No {
        return None;
    }
    DECODED.with_borrow_mut(|found| {
        // Copies of one reference within a message are clones of it, as they were before they were encoded.
        if let Some(known) = found.iter().find(|known| known.port_id == *port_id) {
            return Some(Owed::Decoded(Arc::clone(&known.duty)));
        }
        if found.len() >= limits::REPLIES_PER_MESSAGE {
            return None;
        }
        let duty = Arc::<Duty>::default();
        found.push(DecodedReply {
            port_id: port_id.clone(),
            duty: Arc::clone(&duty),
        });
        COLLECTING.set(Collecting::Something);
        Some(Owed::Decoded(duty))
    })
}
