//! Posts that are tried again when they meet a full queue: the message comes back to whoever posts, not to the sender's return
//! handle, if it comes back before the post has returned. Waiting for room is in `outbox.rs`.
//!
//! Nothing of this is allocated: what comes back is left with the thread that posts, under a number that the return handle
//! bears.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::outbox::full;
use crate::settle::ReturnHandle;
use crate::undeliverable::Undeliverable;

/// One try. No other in this process has its number; nought is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attempt(u64);

/// A message that met a full queue, with the handle of its sender.
pub(crate) type Returned = (ReturnHandle, Box<Undeliverable>);

/// Numbers are handed out to threads by so many.
const NUMBERS_PER_THREAD: u64 = 1 << 32;

/// What a thread is in the middle of.
#[derive(Clone, Copy)]
struct Current {
    attempt: Attempt,
    /// Its message came back.
    is_returned: bool,
}

impl Current {
    const NOTHING: Self = Self {
        attempt: Attempt(0),
        is_returned: false,
    };
}

thread_local! {
    // Apart from what comes back: as a rule nothing does, and this alone is looked at.
    static CURRENT: Cell<Current> = const { Cell::new(Current::NOTHING) };
    static RETURNED: RefCell<Option<Returned>> = const { RefCell::new(None) };
    /// The last number given out, and the end of those that the thread has.
    static NUMBERS: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

impl Attempt {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (mut last, mut end) = NUMBERS.get();
        if last + 1 >= end {
            last = NEXT.fetch_add(NUMBERS_PER_THREAD, Ordering::Relaxed);
            end = last + NUMBERS_PER_THREAD;
        }
        // A key's own `set` is a call, which costs more than what it does.
        NUMBERS.with(|numbers| numbers.set((last + 1, end)));
        Self(last + 1)
    }

    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// Posts with this handle, and gives it back with the message if that met a full queue before the post returned.
pub(crate) fn post(handle: ReturnHandle, post: impl FnOnce(ReturnHandle)) -> Option<Returned> {
    /// A try that this one is within goes on as it was, also when a post panics.
    struct Outer(Current, Option<Returned>);
    impl Outer {
        /// What came back meanwhile.
        fn resume(&mut self) -> Option<Returned> {
            let inner = CURRENT.replace(self.0);
            let returned = if inner.is_returned {
                RETURNED.take()
            } else {
                None
            };
            if let Some(outer) = self.1.take() {
                RETURNED.set(Some(outer));
            }
            returned
        }
    }
    impl Drop for Outer {
        fn drop(&mut self) {
            drop(self.resume());
        }
    }
    let attempt = Attempt::new();
    let current = Current {
        attempt,
        is_returned: false,
    };
    let outer = CURRENT.replace(current);
    let kept = if outer.is_returned {
        RETURNED.take()
    } else {
        None
    };
    let mut outer = Outer(outer, kept);
    post(handle.with_attempt(attempt));
    let returned = outer.resume();
    // It has resumed: a second time would take what is not its own.
    std::mem::forget(outer);
    returned
}

/// Keeps a report for the try that its handle belongs to, if the thread is in the middle of that and the message met a full
/// queue; gives it back else.
#[allow(clippy::result_large_err)]
pub(crate) fn keep(
    handle: ReturnHandle,
    report: Undeliverable,
) -> Result<(), (ReturnHandle, Undeliverable)> {
    let current = CURRENT.get();
    if handle.attempt() != current.attempt || full(&report).is_none() {
        return Err((handle, report));
    }
    CURRENT.set(Current {
        is_returned: true,
        ..current
    });
    RETURNED.set(Some((handle, Box::new(report))));
    Ok(())
}
