//! What a handler is given beside its message: who it is, its way out, and its life.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use hyperactor_mailbox::{
    BoxFuture, Headers, InHand, Mailbox, Message, MessageEnvelope, OncePortRef, Outbox,
    ReturnHandle, Token,
};
use hyperactor_refs::{ActorId, ProcId};

use crate::cell::Cell;
use crate::control::{AnyCell, Control, End};
use crate::{Actor, ActorHandle, Delegate, Proc, ProcGone, SpawnError, TraceContext};

/// An actor's view of itself and of its proc, given to every handler and hook.
///
/// It is an [`Outbox`]: what is posted with it is sent by this actor, and what cannot be delivered comes back to
/// its [`on_undeliverable`](Actor::on_undeliverable).
pub struct Context<A: Actor> {
    cell: Arc<Cell<A>>,
}

impl<A: Actor> Context<A> {
    pub(crate) fn new(cell: Arc<Cell<A>>) -> Self {
        Self { cell }
    }

    pub(crate) fn cell(&self) -> &Arc<Cell<A>> {
        &self.cell
    }

    pub(crate) fn control(&self) -> &Control {
        &self.cell.control
    }

    pub(crate) fn any_cell(&self) -> Arc<dyn AnyCell> {
        self.cell.clone()
    }

    /// The actor's own id.
    pub fn actor_id(&self) -> &ActorId {
        self.cell.actor_id()
    }

    /// The actor's own mailbox, to open further ports in.
    pub fn mailbox(&self) -> &Mailbox {
        &self.cell.mailbox
    }

    /// The proc that the actor runs in.
    ///
    /// An actor does not keep its proc alive, or the two would hold each other for ever.
    ///
    /// # Errors
    /// [`ProcGone`] when the last [`Proc`] was dropped; the actor is about to be stopped then.
    pub fn proc(&self) -> Result<Proc, ProcGone> {
        self.cell.proc.upgrade()
    }

    /// A handle to this actor.
    pub fn handle(&self) -> ActorHandle<A> {
        ActorHandle::new(Arc::clone(&self.cell))
    }

    /// An outbox that sends under this actor's id from a task or a value of its own.
    pub fn delegate(&self) -> Delegate {
        let cell = &self.cell;
        Delegate::new(cell.mailbox.clone(), cell.proc.clone(), self.cell.clone())
    }

    /// Spawns a child: an actor that ends when this one does, and whose end this one is told by
    /// [`on_supervision`](Actor::on_supervision).
    ///
    /// Its id has this actor's name and a new index.
    ///
    /// # Errors
    /// As [`Proc::spawn`].
    pub fn spawn<C: Actor>(&self, child: C) -> Result<ActorHandle<C>, SpawnError> {
        self.proc()?.spawn_child(&self.any_cell(), child)
    }

    /// Asks this actor to stop: the message in hand is finished, what waits in the queue is not handled.
    pub fn stop(&self) {
        self.control().end(End::Stop);
    }

    /// Asks this actor to handle what is in its queue already, and then to stop.
    pub fn drain(&self) {
        self.control().end(End::Drain);
    }

    /// The trace that the message in hand belongs to, as a step of its own, if it belongs to one.
    pub fn trace(&self) -> Option<TraceContext> {
        self.control().trace().get()
    }

    /// Begins or leaves a trace: what this actor posts from here on, until the message in hand is handled, belongs to it.
    pub fn set_trace(&self, trace: Option<TraceContext>) {
        self.control().trace().set(trace);
    }

    /// Answers a request. What becomes of the answer is told as for every other message.
    pub fn reply<R: Message>(&self, to: OncePortRef<R>, reply: R) {
        to.post(self, reply);
    }
}

impl<A: Actor> Outbox for Context<A> {
    fn actor_id(&self) -> &ActorId {
        self.cell.actor_id()
    }

    fn return_handle(&self) -> ReturnHandle {
        ReturnHandle::new(self.cell.clone(), Token::default())
    }

    fn post(&self, mut envelope: MessageEnvelope, return_handle: ReturnHandle) {
        self.stamp(envelope.headers_mut());
        self.cell.proc.post(envelope, return_handle);
    }

    fn is_stamping(&self) -> bool {
        self.control().trace().is_set()
    }

    fn stamp(&self, headers: &mut Headers) {
        self.control().trace().stamp(headers);
    }

    fn mailbox(&self) -> &Mailbox {
        &self.cell.mailbox
    }

    fn in_hand(&self) -> InHand {
        InHand::Busy(self.cell.in_hand.lock().clone())
    }

    fn delegate(&self) -> Option<Arc<dyn Outbox>> {
        Some(Arc::new(self.delegate()))
    }

    fn resolve(&self, actor_id: &ActorId) -> Option<Mailbox> {
        self.cell.proc.resolve(actor_id)
    }

    fn post_into(
        &self,
        mailbox: &Mailbox,
        mut envelope: MessageEnvelope,
        return_handle: ReturnHandle,
    ) {
        self.stamp(envelope.headers_mut());
        self.cell.proc.post_into(mailbox, envelope, return_handle);
    }

    fn placed(&self) -> Option<&AtomicU64> {
        Some(self.cell.proc.placed())
    }

    fn outlives_borrows(&self) -> bool {
        true
    }

    fn proc_lost(&self, proc_id: &Arc<ProcId>) -> Option<BoxFuture<'static, String>> {
        self.cell.proc.lost(proc_id)
    }
}

impl<A: Actor> fmt::Debug for Context<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({})", self.actor_id())
    }
}
