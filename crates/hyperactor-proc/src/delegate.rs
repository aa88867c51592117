//! Somebody who sends under an actor's id from outside of its handlers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use hyperactor_mailbox::{
    BoxFuture, Mailbox, MessageEnvelope, Outbox, ReturnHandle, ReturnSink, Token,
};
use hyperactor_refs::{ActorId, ProcId};

use crate::proc::WeakProc;

/// An outbox of its own under the id of an actor or a client, for a task or a value that lives longer than a handler.
///
/// What cannot be delivered comes back to the actor. Unlike its context, a delegate is not in the middle of anything:
/// while it waits for a reply the actor goes on with its messages, so its questions are part of no chain of waiting
/// actors. It keeps neither the actor nor its proc alive.
///
/// ```
/// # use hyperactor_proc::{Actor, ActorRef, ActorResult, Context, Handler, Message, OncePortRef, Proc};
/// # use serde::{Deserialize, Serialize};
/// #[derive(Message, Serialize, Deserialize)]
/// struct Total(OncePortRef<u64>);
///
/// #[derive(Actor)]
/// #[actor(messages(Total))]
/// struct Counter(u64);
/// # impl Handler<Total> for Counter {
/// #     async fn handle(&mut self, cx: &Context<Self>, Total(reply): Total) -> ActorResult {
/// #         cx.reply(reply, self.0);
/// #         Ok(())
/// #     }
/// # }
///
/// #[derive(Actor)]
/// struct Watcher(ActorRef<Counter>);
///
/// impl Handler<()> for Watcher {
///     async fn handle(&mut self, cx: &Context<Self>, (): ()) -> ActorResult {
///         let (me, counter) = (cx.delegate(), self.0.clone());
///         tokio::spawn(async move {
///             let total = counter.ask(&me, Total).await;
///             println!("{total:?}");
///         });
///         Ok(())
///     }
/// }
/// ```
#[derive(Clone)]
pub struct Delegate {
    mailbox: Mailbox,
    proc: WeakProc,
    reports: Arc<dyn ReturnSink>,
}

impl Delegate {
    pub(crate) fn new(mailbox: Mailbox, proc: WeakProc, reports: Arc<dyn ReturnSink>) -> Self {
        Self {
            mailbox,
            proc,
            reports,
        }
    }
}

impl Outbox for Delegate {
    fn actor_id(&self) -> &ActorId {
        self.mailbox.actor_id()
    }

    fn return_handle(&self) -> ReturnHandle {
        ReturnHandle::new(Arc::clone(&self.reports), Token::default())
    }

    fn post(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        self.proc.post(envelope, return_handle);
    }

    fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    fn delegate(&self) -> Option<Arc<dyn Outbox>> {
        Some(Arc::new(self.clone()))
    }

    fn resolve(&self, actor_id: &ActorId) -> Option<Mailbox> {
        self.proc.resolve(actor_id)
    }

    fn post_into(&self, mailbox: &Mailbox, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        self.proc.post_into(mailbox, envelope, return_handle);
    }

    fn placed(&self) -> Option<&AtomicU64> {
        Some(self.proc.placed())
    }

    fn proc_lost(&self, proc_id: &Arc<ProcId>) -> Option<BoxFuture<'static, String>> {
        self.proc.lost(proc_id)
    }
}

impl fmt::Debug for Delegate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Delegate({})", self.actor_id())
    }
}
