//! The duty to answer that a reference to a once-port carries in the process where it is: dropped unfulfilled, it
//! tells whoever waits. Decoding makes references without one; [`decode_with_duties`] finds them.

use std::cell::RefCell;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use hyperactor_refs::PortId;

use crate::asked::{Asked, Never};
use crate::limits;

/// Shared by the clones of one reference; told when the last one is dropped.
#[derive(Default)]
pub(crate) struct Duty {
    port: OnceLock<Arc<dyn Asked>>,
    is_settled: AtomicBool,
}

impl Duty {
    pub(crate) fn new(port: Arc<dyn Asked>) -> Arc<Self> {
        let duty = Self::default();
        // The cell was made empty in the line above.
        let _ = duty.port.set(port);
        Arc::new(duty)
    }

    pub(crate) fn port(&self) -> Option<&Arc<dyn Asked>> {
        self.port.get()
    }

    pub(crate) fn answered(&self) {
        self.settle(|port| port.answered());
    }

    pub(crate) fn handed_over(&self) {
        self.settle(|port| port.handed_over());
    }

    fn settle(&self, tell: impl FnOnce(&dyn Asked)) {
        if !self.is_settled.swap(true, Ordering::Relaxed)
            && let Some(port) = self.port.get()
        {
            tell(&**port);
        }
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        let Some(port) = self.port.get() else {
            return;
        };
        if *self.is_settled.get_mut() {
            return;
        }
        match ENDING.with_borrow(Clone::clone) {
            Some(cause) => port.never(Never::Ended {
                cause: cause.to_string(),
            }),
            None => port.dropped(),
        }
    }
}

thread_local! {
    static DECODED: RefCell<Option<Vec<DecodedReply>>> = const { RefCell::new(None) };
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
    impl Drop for Stop {
        fn drop(&mut self) {
            DECODED.set(None);
        }
    }
    let stop = Stop;
    DECODED.set(Some(Vec::new()));
    let value = decode();
    let found = DECODED.take().unwrap_or_default();
    drop(stop);
    (value, found)
}

/// The duty of a reference that is being decoded, if somebody collects them.
pub(crate) fn decoded(port_id: &PortId) -> Option<Arc<Duty>> {
    DECODED.with_borrow_mut(|found| {
        let found = found.as_mut()?;
        // Copies of one reference within a message are clones of it, as they were before they were encoded.
        if let Some(known) = found.iter().find(|known| known.port_id == *port_id) {
            return Some(Arc::clone(&known.duty));
        }
        if found.len() >= limits::REPLIES_PER_MESSAGE {
            return None;
        }
        let duty = Arc::<Duty>::default();
        found.push(DecodedReply {
            port_id: port_id.clone(),
            duty: Arc::clone(&duty),
        });
        Some(duty)
    })
}
