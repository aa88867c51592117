//! The system mailbox of a proc: ports whose messages are handled in the task that delivers them, so that a proc answers
//! whatever its actors do. What the messages mean is in `watch`, `supervision`, `names`, `groups` and `snapshot`; here is
//! how they come in and go out.

mod courier;
mod ticker;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use hyperactor_mailbox::{
    EnvelopeHead, Mailbox, Message, MessageEnvelope, NotDelivered, Outbox, PortSink, ReturnHandle,
    ReturnSink, Token, Undeliverable,
};
use hyperactor_refs::{ActorId, PortId, ProcId};

use crate::groups::{self, Groups};
use crate::names::{self, NameTable};
use crate::proc::WeakProc;
use crate::supervision::{self, Supervision};
use crate::watch::{self, Watches};
use crate::{Proc, cell, snapshot};

pub(crate) use courier::Courier;
pub(crate) use ticker::Ticker;

/// The name of the mailbox through which procs talk to one another about their actors. No actor can have it.
pub const SYSTEM_NAME: &str = "system";

/// What a proc knows of other procs, and what others asked of it.
pub(crate) struct System {
    mailbox: Mailbox,
    pub(crate) watches: Watches,
    pub(crate) supervision: Supervision,
    pub(crate) names: NameTable,
    pub(crate) groups: Groups,
    pub(crate) courier: Courier,
    pub(crate) ticker: Ticker,
}

impl System {
    pub(crate) fn new(proc: &WeakProc) -> Self {
        let id = ActorId::root(Arc::clone(proc.proc_id()), SYSTEM_NAME);
        let system = Self {
            mailbox: Mailbox::new(id),
            watches: Watches::default(),
            supervision: Supervision::default(),
            names: NameTable::default(),
            groups: Groups::default(),
            courier: Courier::default(),
            ticker: Ticker::default(),
        };
        watch::bind(&system, proc);
        supervision::bind(&system, proc);
        names::bind(&system, proc);
        groups::bind(&system, proc);
        snapshot::bind(&system, proc);
        system
    }

    pub(crate) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    pub(crate) fn actor_id(&self) -> &ActorId {
        self.mailbox.actor_id()
    }

    /// Puts a handler behind the port of a message.
    pub(crate) fn on<M: Message>(&self, proc: &WeakProc, handle: fn(&Proc, &EnvelopeHead, M)) {
        let sink = Arc::new(Inline {
            proc: proc.clone(),
            handle,
            message: PhantomData,
        });
        if let Err(error) = self.mailbox.bind_sink(M::port(), sink) {
            // Two system messages of one hash, which a test of this crate would meet at the first proc it makes.
            tracing::error!(actor = %self.actor_id(), message = %M::type_name(), "a system message has no port: {error}");
        }
    }
}

/// The port at which the system of a proc takes `M`.
pub(crate) fn port<M: Message>(proc_id: &Arc<ProcId>) -> PortId {
    PortId::new(ActorId::root(Arc::clone(proc_id), SYSTEM_NAME), M::port())
}

impl Proc {
    /// The runtime of the caller, or else that of the proc's actors.
    pub(crate) fn runtime(&self) -> Option<tokio::runtime::Handle> {
        self.system().ticker.runtime()
    }

    /// An envelope from this proc's system to that of another.
    pub(crate) fn system_envelope<M: Message>(
        &self,
        to: &Arc<ProcId>,
        message: M,
    ) -> MessageEnvelope {
        let sender = self.system().actor_id().clone();
        MessageEnvelope::typed(sender, port::<M>(to), message)
    }
}

/// Sends in the name of a proc's system: answers, of which nobody has to be told if they are lost.
pub(crate) struct FromSystem(pub(crate) Proc);

impl Outbox for FromSystem {
    fn actor_id(&self) -> &ActorId {
        self.0.system().actor_id()
    }

    fn return_handle(&self) -> ReturnHandle {
        ReturnHandle::new(Arc::new(Unheard), Token::default())
    }

    fn post(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        self.0.post_from_here(envelope, return_handle);
    }

    fn mailbox(&self) -> &Mailbox {
        self.0.system().mailbox()
    }
}

/// For messages that are asked for again, or given up by whoever waits for them, if they are lost.
pub(crate) struct Unheard;

impl ReturnSink for Unheard {
    fn undelivered(&self, _: Token, report: Undeliverable) {
        tracing::debug!(dest = %report.envelope.dest(), failure = %report.failure, "an answer of a proc's system was not delivered");
    }

    fn abandoned(&self, _: Token) {
        tracing::debug!("an answer of a proc's system was dropped on its way");
    }
}

/// A port that handles its messages where they are delivered.
struct Inline<M> {
    proc: WeakProc,
    handle: fn(&Proc, &EnvelopeHead, M),
    message: PhantomData<fn(M)>,
}

impl<M: Message> PortSink for Inline<M> {
    fn deliver(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let Ok(proc) = self.proc.upgrade() else {
            let proc_id = Arc::clone(self.proc.proc_id());
            return return_handle.undeliverable(envelope, NotDelivered::ProcGone { proc_id });
        };
        let (head, payload) = envelope.into_parts();
        match payload.into_message::<M>() {
            Ok(message) => {
                // Nothing is queued, so the credit of the message is free at once.
                drop(return_handle.delivered());
                (self.handle)(&proc, &head, message);
            }
            Err((payload, error)) => {
                let reason = cell::refusal(head.dest(), error);
                return_handle.undeliverable(head.with_payload(payload), reason);
            }
        }
    }
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("System")
            .field("actor_id", &format_args!("{}", self.actor_id()))
            .finish_non_exhaustive()
    }
}
