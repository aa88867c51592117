//! Where the outcomes of messages to a sibling come back to, on their way to the senders. What is done about them is in
//! `sibling`.

use std::sync::Arc;

use hyperactor_mailbox::{BoxFuture, Failure, Lease, ReturnSink, Room, Token, Undeliverable};
use parking_lot::Mutex;

use super::sibling::Core;

/// Where the outcomes of messages under way come back to. A token's number says which message.
pub(super) struct Sink {
    core: Arc<Core>,
    urgent: bool,
}

impl Sink {
    pub(super) fn new(core: Arc<Core>, urgent: bool) -> Self {
        Self { core, urgent }
    }
}

impl ReturnSink for Sink {
    fn delivered(&self, token: Token) {
        // Nobody asked to be told when the message leaves its queue.
        drop(self.core.placed(token));
    }

    fn undelivered(&self, token: Token, report: Undeliverable) {
        self.core.came_back(token, report);
    }

    fn abandoned(&self, token: Token) {
        self.core.disappeared(token, None);
    }

    fn lost(&self, token: Token, failure: Failure) {
        self.core.disappeared(token, Some(failure));
    }

    fn wants_outcome(&self) -> bool {
        self.urgent
    }
}

/// The sink of one message that came from another process: it holds credit of its session until it is taken out of
/// its queue.
pub(super) struct Leased {
    sink: Sink,
    lease: Mutex<Option<Lease>>,
}

impl Leased {
    pub(super) fn new(sink: Sink) -> Self {
        Self {
            sink,
            lease: Mutex::new(None),
        }
    }
}

impl ReturnSink for Leased {
    fn delivered(&self, token: Token) {
        let lease = self.sink.core.placed(token);
        *self.lease.lock() = Some(lease);
    }

    fn undelivered(&self, token: Token, report: Undeliverable) {
        self.sink.undelivered(token, report);
    }

    fn abandoned(&self, token: Token) {
        self.sink.abandoned(token);
    }

    fn lost(&self, token: Token, failure: Failure) {
        self.sink.lost(token, failure);
    }

    fn released(&self, _: Token) {
        let lease = self.lease.lock().take();
        // Outside the lock: giving credit back calls into the session it came from.
        drop(lease);
    }

    fn wants_release(&self) -> bool {
        true
    }

    fn wants_outcome(&self) -> bool {
        self.sink.urgent
    }
}

/// The room behind a fence, for senders whose message was given back because there was none.
pub(super) struct HeldRoom(pub(super) Arc<Core>);

impl Room for HeldRoom {
    fn has_room(&self) -> bool {
        self.0.has_room()
    }

    fn available(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            loop {
                let notified = self.0.room().notified();
                let mut notified = std::pin::pin!(notified);
                // Registered before the look, so that room made between the look and the wait is not missed.
                notified.as_mut().enable();
                if self.has_room() {
                    return;
                }
                notified.await;
            }
        })
    }
}
