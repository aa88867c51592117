//! The return handle of a reply to another process: whoever waits there is told if the reply will not arrive.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::asked::Asked;
use crate::failure::Failure;
use crate::settle::{ReturnHandle, ReturnSink, Token};
use crate::undeliverable::Undeliverable;

/// Passes on what becomes of a reply, and tells `port` of a failure.
pub(crate) fn watch(inner: ReturnHandle, port: Arc<dyn Asked>) -> ReturnHandle {
    let inner = Mutex::new(Some(inner));
    ReturnHandle::new(Arc::new(ReplyReturn { inner, port }), Token::default())
}

struct ReplyReturn {
    inner: Mutex<Option<ReturnHandle>>,
    port: Arc<dyn Asked>,
}

impl ReplyReturn {
    fn settle(&self, with: impl FnOnce(ReturnHandle)) {
        let handle = self.inner.lock().take();
        if let Some(handle) = handle {
            with(handle);
        }
    }
}

impl ReturnSink for ReplyReturn {
    fn delivered(&self, _: Token) {
        self.settle(|handle| drop(handle.delivered()));
    }

    fn undelivered(&self, _: Token, report: Undeliverable) {
        if let Failure::NotDelivered(reason) = &report.failure {
            self.port.undelivered(reason);
        }
        self.settle(|handle| handle.report(report));
    }

    fn abandoned(&self, _: Token) {
        // Dropped unsettled, the inner handle reports the same.
        self.settle(drop);
    }

    fn lost(&self, _: Token, failure: Failure) {
        if let Failure::NotDelivered(reason) = &failure {
            self.port.undelivered(reason);
        }
        self.settle(|handle| handle.lost(failure));
    }
}
