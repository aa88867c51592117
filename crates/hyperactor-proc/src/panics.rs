//! Catches panics of user code and learns where they were raised.
//!
//! A panic's payload carries neither place nor stack; only the panic hook sees them. So a hook is put in front
//! of the program's own, once, when the first actor is spawned. It notes the place for panics that happen
//! inside [`caught`] and then calls the hook that was there before: what the program prints does not change.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Once;
use std::task::Poll;

use crate::PanicReport;
use crate::exit::PanicTrace;

/// Where a panic of this thread was raised.
struct Place {
    location: Option<String>,
    backtrace: PanicTrace,
}

thread_local! {
    /// How many `caught` sections this thread is in; the hook ignores panics outside of them.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// The place of the last panic inside such a section.
    static LAST: RefCell<Option<Place>> = const { RefCell::new(None) };
}

/// Puts the hook in place, once in the life of the process.
pub(crate) fn install_hook() {
    static INSTALLED: Once = Once::new();
    // The hook cannot be changed from a thread that is panicking; the next spawn will do it.
    if std::thread::panicking() {
        return;
    }
    INSTALLED.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            note(info);
            previous(info);
        }));
    });
}

fn note(info: &std::panic::PanicHookInfo<'_>) {
    if DEPTH.try_with(Cell::get).unwrap_or(0) == 0 {
        return;
    }
    let place = Place {
        location: info.location().map(ToString::to_string),
        backtrace: PanicTrace::captured(Backtrace::force_capture()),
    };
    // A hook must not panic: a thread that is being torn down simply leaves no note.
    let noted = LAST.try_with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            *last = Some(place);
        }
    });
    if noted.is_err() {
        tracing::debug!("a panic while the thread ends: its place is not known");
    }
}

/// Marks this thread as being inside user code while it lives.
struct Section;

impl Section {
    fn enter() -> Self {
        DEPTH.with(|depth| depth.set(depth.get() + 1));
        Self
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        DEPTH.with(|depth| depth.set(depth.get() - 1));
    }
}

/// Runs a future, turning a panic inside it into a report.
///
/// The future is never polled again after a panic. What it borrowed may be in the middle of a change; the
/// caller decides whether to touch it.
///
/// Of the future itself there is no copy in the one that is returned.
pub(crate) fn caught<F: Future>(
    mut future: Pin<&mut F>,
) -> impl Future<Output = Result<F::Output, PanicReport>> {
    poll_fn(move |cx| match caught_sync(|| future.as_mut().poll(cx)) {
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(report) => Poll::Ready(Err(report)),
    })
}

/// The same for a plain call.
pub(crate) fn caught_sync<T>(call: impl FnOnce() -> T) -> Result<T, PanicReport> {
    caught_boxed(call).map_err(|report| *report)
}

/// The same, with an error that is small: for calls that are made for every message.
#[inline(always)]
pub(crate) fn caught_boxed<T>(call: impl FnOnce() -> T) -> Result<T, Box<PanicReport>> {
    let section = Section::enter();
    let result = catch_unwind(AssertUnwindSafe(call));
    drop(section);
    result.map_err(report_of)
}

#[cold]
fn report_of(payload: Box<dyn Any + Send>) -> Box<PanicReport> {
    // Gone when the thread is being torn down; then the place is not known.
    let place = LAST.try_with(RefCell::take).ok().flatten();
    let (location, backtrace) = match place {
        Some(place) => (place.location, Some(place.backtrace)),
        None => (None, None),
    };
    Box::new(PanicReport {
        message: text_of(payload),
        location,
        backtrace,
    })
}

fn text_of(payload: Box<dyn Any + Send>) -> String {
    let text = match payload.downcast::<&'static str>() {
        Ok(text) => return (*text).to_owned(),
        Err(payload) => payload.downcast::<String>(),
    };
    match text {
        Ok(text) => *text,
        Err(payload) => {
            // Dropping a foreign payload runs foreign code, which may panic in its turn.
            if catch_unwind(AssertUnwindSafe(move || drop(payload))).is_err() {
                tracing::warn!("the payload of a panic panicked when it was dropped");
            }
            "a panic whose payload is not a text".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_reported_with_its_text_place_and_stack() {
        install_hook();
        let report = caught_sync(|| panic!("broke {}", 7)).unwrap_err();
        assert_eq!(report.message, "broke 7");
        assert!(report.location.unwrap().contains("panics.rs:"));
        assert!(report.backtrace.is_some());
    }

    #[test]
    fn a_payload_that_is_no_text_is_named_as_such() {
        install_hook();
        let report = caught_sync(|| std::panic::panic_any(7_u8)).unwrap_err();
        assert_eq!(report.message, "a panic whose payload is not a text");
    }

    #[test]
    fn the_place_of_one_panic_is_not_kept_for_the_next() {
        install_hook();
        caught_sync(|| panic!("first")).unwrap_err();
        // `resume_unwind` runs no hook, so nothing is known of its place.
        let report = caught_sync(|| std::panic::resume_unwind(Box::new("second"))).unwrap_err();
        assert_eq!(report.message, "second");
        assert_eq!(report.location, None);
    }
}
