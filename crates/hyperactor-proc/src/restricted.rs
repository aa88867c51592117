//! References that accept only some of an actor's messages: facades, named by types. The derive of [`Facade`] is in
//! `hyperactor-macros`; how messages are sent is `hyperactor-mailbox`'s and `ask.rs`'s matter.

use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use hyperactor_mailbox::{
    KnownMailbox, Message, OncePortRef, Outbox, Outcome, PortRef, feed, post_by, send,
};
use hyperactor_refs::{ActorId, PortId};

use crate::ask::{self, AskError};
use crate::claim::is_an_id_with_a_claim;
use crate::{Accepts, ActorRef, limits};

/// A list of messages with a name, for a [`RestrictedRef`]. Derived.
///
/// One facade serves every actor that exports its messages: whoever holds the reference need not know which it is.
///
/// ```
/// use hyperactor_proc::{Actor, ActorRef, ActorResult, Context, Facade, RestrictedRef, actor};
///
/// #[derive(Actor, Default)]
/// struct Counter {
///     total: i64,
/// }
///
/// #[actor]
/// impl Counter {
///     async fn add(&mut self, _cx: &Context<Self>, amount: i64) -> ActorResult {
///         self.total += amount;
///         Ok(())
///     }
///
///     async fn reset(&mut self, _cx: &Context<Self>) -> ActorResult {
///         self.total = 0;
///         Ok(())
///     }
/// }
///
/// /// May add, and not reset.
/// #[derive(Facade)]
/// #[facade(messages(CounterAdd))]
/// struct Adder;
///
/// fn for_a_guest(counter: &ActorRef<Counter>) -> RestrictedRef<Adder> {
///     counter.restrict()
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a facade",
    label = "not a facade",
    note = "put `#[derive(Facade)]` and `#[facade(messages(A, B))]` on `{Self}`"
)]
pub trait Facade: Sized + 'static {}

/// The facade has `M` in its list.
#[diagnostic::on_unimplemented(
    message = "the facade `{Self}` leaves out `{M}`",
    label = "`{M}` cannot be sent through a reference that is restricted to `{Self}`",
    note = "add `{M}` to `#[facade(messages(…))]` on `{Self}`, or use a reference that is not restricted"
)]
pub trait Includes<M: Message>: Facade {}

/// The facade can be put before the reference `T`, which accepts all of its messages.
#[diagnostic::on_unimplemented(
    message = "`{T}` cannot be restricted to `{Self}`",
    label = "not a facade of `{T}`",
    note = "put `#[derive(Facade)]` and `#[facade(messages(A, B))]` on `{Self}`, with messages that `{T}` accepts"
)]
pub trait FacadeOf<T>: Facade {}

/// A reference to an actor anywhere, which accepts the messages of the facade `F` and no others.
///
/// It says what a program may do by mistake, not what a hostile one can: the actor's id is in it.
///
/// Its text is the actor's id; it is encoded as the id.
pub struct RestrictedRef<F> {
    actor_id: ActorId,
    known: KnownMailbox,
    claim: PhantomData<fn(F)>,
}

impl<A> ActorRef<A> {
    /// The same actor, for somebody who shall send it the messages of `F` only.
    pub fn restrict<F: FacadeOf<Self>>(&self) -> RestrictedRef<F> {
        RestrictedRef::attest(self.actor_id().clone())
    }
}

impl<F> RestrictedRef<F> {
    /// A reference to an actor of which the caller knows that it takes the messages of `F`. A wrong claim is found out
    /// when a message arrives: it comes back because there is no such port.
    pub fn attest(actor_id: ActorId) -> Self {
        Self {
            actor_id,
            known: KnownMailbox::default(),
            claim: PhantomData,
        }
    }

    /// Who it refers to.
    pub fn actor_id(&self) -> &ActorId {
        &self.actor_id
    }

    /// The same actor, for somebody who shall send it fewer messages still.
    pub fn restrict<G: FacadeOf<Self>>(&self) -> RestrictedRef<G> {
        RestrictedRef::attest(self.actor_id.clone())
    }
}

impl<F: Facade> RestrictedRef<F> {
    /// The port at which the actor receives `M`.
    pub fn port<M: Message>(&self) -> PortRef<M>
    where
        F: Includes<M>,
    {
        PortRef::attest(self.port_id::<M>())
    }

    fn port_id<M: Message>(&self) -> PortId {
        PortId::new(self.actor_id.clone(), M::port())
    }

    /// As [`ActorRef::post`].
    pub fn post<M: Message>(&self, cx: &(impl Outbox + ?Sized), message: M)
    where
        F: Includes<M>,
    {
        post_by(cx, &self.known, self.port_id::<M>(), message);
    }

    /// As [`ActorRef::send`].
    ///
    /// # Cancel safety
    /// As [`ActorRef::send`].
    pub async fn send<M: Message>(&self, cx: &(impl Outbox + ?Sized), message: M) -> Outcome
    where
        F: Includes<M>,
    {
        send(cx, &self.port_id::<M>(), message).await
    }

    /// As [`ActorRef::feed`].
    ///
    /// # Cancel safety
    /// As [`ActorRef::feed`].
    pub async fn feed<M: Message>(&self, cx: &(impl Outbox + ?Sized), message: M)
    where
        F: Includes<M>,
    {
        feed(cx, &self.port_id::<M>(), message).await;
    }

    /// As [`ActorRef::ask`].
    ///
    /// # Errors
    /// As [`ActorRef::ask`].
    ///
    /// # Cancel safety
    /// As [`ActorRef::ask`].
    pub async fn ask<R: Message, M: Message>(
        &self,
        cx: &(impl Outbox + ?Sized),
        request: impl FnOnce(OncePortRef<R>) -> M,
    ) -> Result<R, AskError>
    where
        F: Includes<M>,
    {
        self.ask_within(cx, limits::ASK_DEADLINE, request).await
    }

    /// As [`ActorRef::ask_within`].
    ///
    /// # Errors
    /// As [`ActorRef::ask`].
    ///
    /// # Cancel safety
    /// As [`ActorRef::ask`].
    pub async fn ask_within<R: Message, M: Message>(
        &self,
        cx: &(impl Outbox + ?Sized),
        deadline: Duration,
        request: impl FnOnce(OncePortRef<R>) -> M,
    ) -> Result<R, AskError>
    where
        F: Includes<M>,
    {
        ask::ask(cx, self.port_id::<M>(), deadline, request).await
    }
}

impl<F: Includes<M>, M: Message> Accepts<M> for RestrictedRef<F> {
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

is_an_id_with_a_claim!(RestrictedRef<F>);
