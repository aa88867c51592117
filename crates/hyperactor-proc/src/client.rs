//! A mailbox that the caller drives: for code that is no actor.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use hyperactor_mailbox::{
    BoxFuture, Failure, Headers, Mailbox, MessageEnvelope, Outbox, ReturnHandle, ReturnSink, Token,
    Undeliverable,
};
use hyperactor_refs::{ActorId, ProcId};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::proc::WeakProc;
use crate::trace::{Carried, CurrentTrace};
use crate::{Delegate, TraceContext, limits, reports};

/// A sender and receiver of messages in a proc that is no actor: `main`, a test, a bridge to other code.
///
/// It is an [`Outbox`], so everything is sent with it as with an actor's context. Ports for receiving are opened in
/// its [`mailbox`](Outbox::mailbox). It does not keep its proc alive. Dropping it frees its name.
pub struct Client {
    mailbox: Mailbox,
    returned: Arc<Returned>,
    proc: WeakProc,
    /// Whether the proc's tables hold it.
    is_settled: bool,
    is_tracing: AtomicBool,
    trace: Carried,
}

impl Client {
    pub(crate) fn new(mailbox: Mailbox, proc: WeakProc) -> Self {
        let returned = Arc::new(Returned {
            client: mailbox.actor_id().clone(),
            queue: Mutex::default(),
            notify: Notify::new(),
        });
        Self {
            mailbox,
            returned,
            proc,
            is_settled: false,
            is_tracing: AtomicBool::new(false),
            trace: Carried::default(),
        }
    }

    pub(crate) fn sink(&self) -> Arc<dyn ReturnSink> {
        self.returned.clone()
    }

    pub(crate) fn settled(mut self) -> Self {
        self.is_settled = true;
        self
    }

    fn carried_trace<'a>(&'a self) -> CurrentTrace<'a, impl FnOnce() -> &'a Carried> {
        CurrentTrace {
            is_set: &self.is_tracing,
            carried: || &self.trace,
        }
    }

    /// The client's id.
    pub fn actor_id(&self) -> &ActorId {
        self.mailbox.actor_id()
    }

    /// Begins or leaves a trace: what is posted with this client from here on belongs to it.
    pub fn set_trace(&self, trace: Option<TraceContext>) {
        self.carried_trace().set(trace);
    }

    /// The client's mailbox, to open ports in.
    pub fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// An outbox that sends under this client's id from a task or a value of its own.
    pub fn delegate(&self) -> Delegate {
        Delegate::new(self.mailbox.clone(), self.proc.clone(), self.sink())
    }

    /// The next message of this client that could not be delivered, or of which it is not known; waits for one.
    ///
    /// Each is logged, too, since a client need not listen.
    ///
    /// # Bounds
    /// At most [`limits::REPORTS_MAX`] are kept.
    ///
    /// # Cancel safety
    /// Cancel safe: a report is taken only in the moment it is returned.
    pub async fn next_undeliverable(&self) -> Undeliverable {
        loop {
            // Made before the look; `notify_one` leaves a permit if nobody waits, so none is missed.
            let notified = self.returned.notify.notified();
            if let Some(report) = self.try_next_undeliverable() {
                return report;
            }
            notified.await;
        }
    }

    /// The next such message, if there is one already.
    pub fn try_next_undeliverable(&self) -> Option<Undeliverable> {
        let mut queue = self.returned.queue.lock();
        let report = queue.pop_front();
        if !queue.is_empty() {
            // Passed on, so that several who wait all come to theirs.
            self.returned.notify.notify_one();
        }
        report
    }
}

impl Outbox for Client {
    fn actor_id(&self) -> &ActorId {
        self.mailbox.actor_id()
    }

    fn return_handle(&self) -> ReturnHandle {
        ReturnHandle::new(self.returned.clone(), Token::default())
    }

    fn post(&self, mut envelope: MessageEnvelope, return_handle: ReturnHandle) {
        self.stamp(envelope.headers_mut());
        self.proc.post(envelope, return_handle);
    }

    fn is_stamping(&self) -> bool {
        self.carried_trace().is_set()
    }

    fn stamp(&self, headers: &mut Headers) {
        self.carried_trace().stamp(headers);
    }

    fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    fn delegate(&self) -> Option<Arc<dyn Outbox>> {
        Some(Arc::new(self.delegate()))
    }

    fn resolve(&self, actor_id: &ActorId) -> Option<Mailbox> {
        self.proc.resolve(actor_id)
    }

    fn post_into(
        &self,
        mailbox: &Mailbox,
        mut envelope: MessageEnvelope,
        return_handle: ReturnHandle,
    ) {
        self.stamp(envelope.headers_mut());
        self.proc.post_into(mailbox, envelope, return_handle);
    }

    fn placed(&self) -> Option<&AtomicU64> {
        Some(self.proc.placed())
    }

    fn outlives_borrows(&self) -> bool {
        true
    }

    fn proc_lost(&self, proc_id: &Arc<ProcId>) -> Option<BoxFuture<'static, String>> {
        self.proc.lost(proc_id)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.mailbox.close();
        if self.is_settled
            && let Ok(proc) = self.proc.upgrade()
        {
            proc.unbind(self.actor_id());
            proc.forget(self.actor_id());
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.actor_id())
    }
}

/// What came back to a client.
struct Returned {
    client: ActorId,
    queue: Mutex<VecDeque<Undeliverable>>,
    notify: Notify,
}

impl ReturnSink for Returned {
    fn undelivered(&self, _: Token, report: Undeliverable) {
        reports::warn(&self.client, &report);
        let kept = {
            let mut queue = self.queue.lock();
            let has_room = queue.len() < limits::REPORTS_MAX;
            if has_room {
                queue.push_back(report);
            }
            has_room
        };
        if kept {
            self.notify.notify_one();
        }
    }

    fn abandoned(&self, _: Token) {
        tracing::warn!(actor = %self.client, "a message was dropped on its way without a verdict");
    }

    fn lost(&self, _: Token, failure: Failure) {
        tracing::warn!(actor = %self.client, failure = %failure, "a message was lost");
    }
}
