//! What a user implements: [`Actor`], [`Handler`], and, through the derive, [`Exports`] and [`Receives`]. How the
//! implementations are called is in `run.rs`.

use std::future::Future;

use hyperactor_mailbox::{Message, Undeliverable};

use crate::{ActorResult, Context, Escalation, Event, ExitReason, Ports, Relation};

/// A value with a life of its own: it is spawned in a proc, handles its messages one at a time, and ends.
///
/// Every hook has a default, so `#[derive(Actor)]` is usually enough; with `#[actor(hooks)]` the derive leaves
/// this trait to the user. The hooks are written as `async fn`.
///
/// # Ordering
/// `init` runs before everything else. Then, one at a time: a stop goes before the end of another actor
/// ([`on_supervision`](Self::on_supervision)), that before a message that came back
/// ([`on_undeliverable`](Self::on_undeliverable)), and that before the next message in the queue, but for every other one.
/// Messages of one sender are handled in the order sent. `cleanup` runs after the last message, when the actor's children
/// have ended.
///
/// ```
/// use hyperactor_proc::{Actor, ActorResult, Context, ExitReason};
///
/// struct Recorder {
///     lines: Vec<String>,
/// }
///
/// impl Actor for Recorder {
///     async fn cleanup(&mut self, _cx: &Context<Self>, reason: &ExitReason) -> ActorResult {
///         self.lines.push(format!("ended: {reason:?}"));
///         Ok(())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an actor",
    label = "not an actor",
    note = "put `#[derive(Actor)]` on `{Self}`; hooks of its own stand in an `impl Actor for {Self}`, with `#[actor(hooks)]` below the derive"
)]
pub trait Actor: Sized + Send + 'static {
    /// Runs first, in the actor's own task. Messages wait meanwhile.
    ///
    /// # Errors
    /// An error fails the actor; `cleanup` is not run for an actor that was never initialised.
    fn init(&mut self, cx: &Context<Self>) -> impl Future<Output = ActorResult> + Send {
        let _ = cx;
        async { Ok(()) }
    }

    /// Runs last, unless the actor panicked or was aborted: then its state cannot be trusted, or there is no
    /// time, and only its `Drop` runs.
    ///
    /// # Bounds
    /// It has [`limits::CLEANUP_DEADLINE`](crate::limits::CLEANUP_DEADLINE); an actor that takes longer is
    /// aborted.
    ///
    /// # Errors
    /// An error makes the exit `Failed`, unless it had failed before.
    fn cleanup(
        &mut self,
        cx: &Context<Self>,
        reason: &ExitReason,
    ) -> impl Future<Output = ActorResult> + Send {
        let _ = (cx, reason);
        async { Ok(()) }
    }

    /// A message that this actor posted came back, or what became of it is not known.
    ///
    /// By default it is logged with ids, reason and route, and the actor goes on. Called between messages.
    ///
    /// # Errors
    /// An error fails the actor.
    fn on_undeliverable(
        &mut self,
        cx: &Context<Self>,
        report: Undeliverable,
    ) -> impl Future<Output = ActorResult> + Send {
        crate::reports::warn(cx.actor_id(), &report);
        async { Ok(()) }
    }

    /// An actor ended that is a child of this one, linked with it, or monitored by it, here or in another proc.
    ///
    /// By default the event is passed up: a child or a linked actor that did not end in order fails this actor, with an
    /// [`Escalation`] as its error, so that whoever supervises this one finds the whole chain. An orderly end, and that of a
    /// monitored actor, is only logged. A [`Supervisor`](crate::Supervisor) starts its children again instead.
    ///
    /// Called between messages, before those that wait; not called for children that end because this actor does.
    ///
    /// # Errors
    /// An error fails the actor.
    fn on_supervision(
        &mut self,
        cx: &Context<Self>,
        event: Event,
    ) -> impl Future<Output = ActorResult> + Send {
        let is_passed_up = match event.relation {
            Relation::Child | Relation::Linked => !event.is_orderly(),
            Relation::Monitored(_) => false,
        };
        let result = if is_passed_up {
            Err(Escalation::new(event).into_error())
        } else {
            tracing::debug!(target: "hyperactor::actor", event = "supervision.event", actor = %cx.actor_id(), ended = %event.actor_id, code = event.cause.code(), "an actor ended");
            Ok(())
        };
        async { result }
    }
}

/// Handles one kind of message.
///
/// ```
/// use hyperactor_proc::{Actor, ActorResult, Context, Handler};
///
/// #[derive(Actor)]
/// struct Counter {
///     total: u64,
/// }
///
/// /// Not sent to other processes, so it needs no serde.
/// struct Add(u64);
///
/// impl Handler<Add> for Counter {
///     async fn handle(&mut self, _cx: &Context<Self>, Add(amount): Add) -> ActorResult {
///         self.total += amount;
///         Ok(())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "the actor `{Self}` has no handler for `{M}`",
    label = "no `impl Handler<{M}> for {Self}`",
    note = "write `impl Handler<{M}> for {Self} {{ async fn handle(&mut self, cx: &Context<Self>, message: {M}) -> ActorResult {{ … }} }}`"
)]
pub trait Handler<M: Send + 'static>: Actor {
    /// Handles one message; the next one waits until the future is done.
    ///
    /// # Errors
    /// An error ends the actor: it is reported by [`ActorHandle::join`](crate::ActorHandle::join), by its
    /// status and in the log. What concerns the sender alone belongs into a reply.
    fn handle(
        &mut self,
        cx: &Context<Self>,
        message: M,
    ) -> impl Future<Output = ActorResult> + Send;
}

/// The messages that an actor takes from everywhere. Written by `#[derive(Actor)]` from
/// `#[actor(messages(…))]`.
#[diagnostic::on_unimplemented(
    message = "the actor `{Self}` exports no messages",
    label = "has no list of exported messages",
    note = "put `#[derive(Actor)]` on `{Self}`, and list its messages with `#[actor(messages(A, B))]` below that, or write its methods in an `#[actor] impl`"
)]
pub trait Exports: Actor {
    /// Opens a port for each exported message.
    fn bind(ports: &mut Ports<Self>);

    /// The name under which a [`Registry`](crate::Registry) knows the type: by default its path in this program.
    fn type_name() -> &'static str {
        std::any::type_name::<Self>()
    }
}

/// The actor takes `M` from everywhere: it may be sent through an [`ActorRef`](crate::ActorRef).
#[diagnostic::on_unimplemented(
    message = "the actor `{Self}` does not export `{M}`",
    label = "`{M}` cannot be sent through a reference to `{Self}`",
    note = "add `{M}` to `#[actor(messages(…))]` below `#[derive(Actor)]` on `{Self}`; within the proc, an `ActorHandle` takes every handled message"
)]
pub trait Receives<M: Message>: Exports + Handler<M> {}

/// Stands for the exports of an `#[actor]` block where an actor has none: its inherent function of the same name goes
/// before this one.
#[doc(hidden)]
pub trait NoMethods: Exports {
    /// Opens no port.
    fn __export_methods(ports: &mut Ports<Self>) {
        let _ = ports;
    }
}

impl<A: Exports> NoMethods for A {}
