//! Calls by method: what the client traits that `#[actor]` writes are made of. The traits themselves are the macro's;
//! the facades that narrow a reference are in `restricted.rs`.

use std::future::{Future, IntoFuture};
use std::time::Duration;

use hyperactor_mailbox::{
    Failure, InHand, Mailbox, Message, MessageEnvelope, OncePortRef, Outbox, Outcome, ReturnHandle,
    Undeliverable, limits as mailbox_limits,
};
use hyperactor_refs::{ActorId, PortId};

use crate::ask::{self, AskError};
use crate::{Actor, ActorHandle, ActorRef, Context, Receives, cell, limits};

/// A reference through which `M` may be sent: an [`ActorRef`], an [`ActorHandle`], a
/// [`RestrictedRef`](crate::RestrictedRef).
///
/// The references have methods of their own for all of this; the trait is for code that takes any of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not accept `{M}`",
    label = "`{M}` cannot be sent through this",
    note = "`{M}` goes through an `ActorRef` or `ActorHandle` of the actor that exports it, or through a `RestrictedRef` whose facade lists it in `#[facade(messages(…))]`"
)]
pub trait Accepts<M: Message>: Send + Sync {
    /// Posts a message and goes on. If it cannot be delivered, it comes back to the sender.
    fn post(&self, cx: &(impl Outbox + ?Sized), message: M);

    /// Sends a message to its outcome.
    ///
    /// # Cancel safety
    /// A dropped future leaves open whether the message was sent.
    fn send(&self, cx: &(impl Outbox + ?Sized), message: M)
    -> impl Future<Output = Outcome> + Send;

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    /// As [`ActorRef::ask`].
    ///
    /// # Cancel safety
    /// As [`ActorRef::ask`].
    fn ask_within<R: Message>(
        &self,
        cx: &(impl Outbox + ?Sized),
        deadline: Duration,
        request: impl FnOnce(OncePortRef<R>) -> M + Send,
    ) -> impl Future<Output = Result<R, AskError>> + Send;
}

impl<A: Receives<M>, M: Message> Accepts<M> for ActorRef<A> {
    fn post(&self, cx: &(impl Outbox + ?Sized), message: M) {
        self.post(cx, message);
    }

    fn send(
        &self,
        cx: &(impl Outbox + ?Sized),
        message: M,
    ) -> impl Future<Output = Outcome> + Send {
        self.send(cx, message)
    }

    fn ask_within<R: Message>(
        &self,
        cx: &(impl Outbox + ?Sized),
        deadline: Duration,
        request: impl FnOnce(OncePortRef<R>) -> M + Send,
    ) -> impl Future<Output = Result<R, AskError>> + Send {
        self.ask_within(cx, deadline, request)
    }
}

impl<A: Receives<M>, M: Message> Accepts<M> for ActorHandle<A> {
    /// Nothing is encoded, and no port is looked up.
    fn post(&self, cx: &(impl Outbox + ?Sized), message: M) {
        if let Err(error) = self.post(cx, message) {
            let (reason, capacity) = (error.reason().clone(), error.capacity().cloned());
            let dest = PortId::new(self.actor_id().clone(), M::port());
            let envelope =
                MessageEnvelope::typed(cx.actor_id().clone(), dest, error.into_message());
            let mut report = Undeliverable::new(envelope, reason);
            report.capacity = capacity;
            cx.return_handle().report(report);
        }
    }

    fn send(
        &self,
        cx: &(impl Outbox + ?Sized),
        message: M,
    ) -> impl Future<Output = Outcome> + Send {
        self.send(cx, message)
    }

    async fn ask_within<R: Message>(
        &self,
        cx: &(impl Outbox + ?Sized),
        deadline: Duration,
        request: impl FnOnce(OncePortRef<R>) -> M + Send,
    ) -> Result<R, AskError> {
        if self.cell().shares_proc(cx.actor_id()) {
            return ask::ask_near(cx, self.cell(), deadline, request).await;
        }
        let dest = PortId::new(self.actor_id().clone(), M::port());
        let cx = Straight {
            cx,
            deliver: |envelope, return_handle| {
                cell::deliver::<A, M>(self.cell(), envelope, return_handle);
            },
        };
        ask::ask(&cx, dest, deadline, request).await
    }
}

/// Somebody's way out that ends at one actor of this process, whether its ports are open or not.
struct Straight<'a, O: ?Sized, D> {
    cx: &'a O,
    deliver: D,
}

impl<O, D> Outbox for Straight<'_, O, D>
where
    O: Outbox + ?Sized,
    D: Fn(MessageEnvelope, ReturnHandle) + Send + Sync,
{
    fn actor_id(&self) -> &ActorId {
        self.cx.actor_id()
    }

    fn return_handle(&self) -> ReturnHandle {
        self.cx.return_handle()
    }

    fn post(&self, mut envelope: MessageEnvelope, return_handle: ReturnHandle) {
        // A notice is for the mailbox itself.
        if envelope.dest().index() == mailbox_limits::NOTICE_PORT {
            self.cx.post(envelope, return_handle);
        } else {
            self.cx.stamp(envelope.headers_mut());
            (self.deliver)(envelope, return_handle);
        }
    }

    fn mailbox(&self) -> &Mailbox {
        self.cx.mailbox()
    }

    fn in_hand(&self) -> InHand {
        self.cx.in_hand()
    }
}

/// A message that can be told where its reply goes. Written by `#[actor]` for each method that replies.
pub trait Request: Message {
    /// What is replied.
    type Reply: Message;

    /// The same message, with the port that takes the reply.
    #[must_use]
    fn with_reply(self, reply: OncePortRef<Self::Reply>) -> Self;
}

/// A call of a method that replies: await it for the reply, or [`post`](Self::post) it to have none.
///
/// Awaited, it waits for [`limits::ASK_DEADLINE`], or as [`within`](Self::within) says. Nothing is sent before.
///
/// # Cancel safety
/// As [`ActorRef::ask`].
#[must_use = "nothing is sent until a call is awaited or posted"]
pub trait Ask:
    IntoFuture<Output = Result<<Self as Ask>::Reply, AskError>, IntoFuture: Send> + Send + Sized
{
    /// What is replied.
    type Reply: Message;

    /// The same call with a deadline of its own.
    #[must_use = "nothing is sent until a call is awaited or posted"]
    fn within(self, deadline: Duration) -> Self;

    /// Sends the message and goes on. There will be no reply; if the message cannot be delivered, it comes back to the
    /// sender.
    fn post(self);
}

/// A call of a method that does not reply: await it for its outcome, or [`post`](Self::post) it.
///
/// Awaited, it waits for room where a queue of this process is full, and is done when the message is in the actor's
/// queue; the error says that it is not, or that this is not known. Nothing is sent before.
///
/// # Cancel safety
/// A dropped future leaves open whether the message was sent.
#[must_use = "nothing is sent until a call is awaited or posted"]
pub trait Tell: IntoFuture<Output = Result<(), Failure>, IntoFuture: Send> + Send + Sized {
    /// Sends the message and goes on. If it cannot be delivered, it comes back to the sender.
    fn post(self);
}

/// A call that has not been made. `S` is the function that makes it: through it the future has a name, and no box.
struct Call<'t, 'c, T: ?Sized, O: ?Sized, M, S> {
    target: &'t T,
    cx: &'c O,
    message: M,
    deadline: Duration,
    start: S,
}

/// The call of a method that replies, for the code that `#[actor]` writes.
pub fn ask<'t, 'c, T, O, M>(
    target: &'t T,
    cx: &'c O,
    message: M,
) -> impl Ask<Reply = M::Reply> + use<'t, 'c, T, O, M>
where
    T: Accepts<M> + ?Sized,
    O: Outbox + ?Sized,
    M: Request,
{
    Call {
        target,
        cx,
        message,
        deadline: limits::ASK_DEADLINE,
        start: |target: &'t T, cx: &'c O, message: M, deadline: Duration| {
            target.ask_within(cx, deadline, |reply| message.with_reply(reply))
        },
    }
}

/// The call of a method that does not reply, for the code that `#[actor]` writes.
pub fn tell<'t, 'c, T, O, M>(
    target: &'t T,
    cx: &'c O,
    message: M,
) -> impl Tell + use<'t, 'c, T, O, M>
where
    T: Accepts<M> + ?Sized,
    O: Outbox + ?Sized,
    M: Message,
{
    Telling(Call {
        target,
        cx,
        message,
        deadline: Duration::MAX,
        start: |target: &'t T, cx: &'c O, message: M, _: Duration| {
            let outcome = target.send(cx, message);
            async { outcome.await.into_result() }
        },
    })
}

impl<'t, 'c, T: ?Sized, O: ?Sized, M, S, F> IntoFuture for Call<'t, 'c, T, O, M, S>
where
    S: FnOnce(&'t T, &'c O, M, Duration) -> F,
    F: Future,
{
    type Output = F::Output;
    type IntoFuture = F;

    fn into_future(self) -> F {
        (self.start)(self.target, self.cx, self.message, self.deadline)
    }
}

impl<'t, 'c, T, O, M, S, F> Ask for Call<'t, 'c, T, O, M, S>
where
    T: Accepts<M> + ?Sized,
    O: Outbox + ?Sized,
    M: Request,
    S: FnOnce(&'t T, &'c O, M, Duration) -> F + Send,
    F: Future<Output = Result<M::Reply, AskError>> + Send,
{
    type Reply = M::Reply;

    fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    fn post(self) {
        self.target.post(self.cx, self.message);
    }
}

/// Apart from [`Call`], whose output is the reply's.
struct Telling<C>(C);

impl<C: IntoFuture> IntoFuture for Telling<C> {
    type Output = C::Output;
    type IntoFuture = C::IntoFuture;

    fn into_future(self) -> C::IntoFuture {
        self.0.into_future()
    }
}

impl<'t, 'c, T, O, M, S, F> Tell for Telling<Call<'t, 'c, T, O, M, S>>
where
    T: Accepts<M> + ?Sized,
    O: Outbox + ?Sized,
    M: Message,
    S: FnOnce(&'t T, &'c O, M, Duration) -> F + Send,
    F: Future<Output = Result<(), Failure>> + Send,
{
    fn post(self) {
        self.0.target.post(self.0.cx, self.0.message);
    }
}

/// Replies, if somebody waits.
pub fn answer<A: Actor, R: Message>(cx: &Context<A>, to: Option<OncePortRef<R>>, reply: R) {
    if let Some(to) = to {
        cx.reply(to, reply);
    }
}
