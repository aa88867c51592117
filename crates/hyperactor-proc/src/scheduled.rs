//! What an actor has done later and told to itself: delayed and periodic messages, and the results of futures. Each is a
//! small task that ends with the actor.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyperactor_mailbox::Refusal;
use hyperactor_refs::ActorId;
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use crate::cell::Cell;
use crate::inbox::Refused;
use crate::panics::caught;
use crate::runs::Meta;
use crate::{Actor, Context, Handler, PanicReport, limits};

impl<A: Actor> Context<A> {
    /// Has this actor sent a message by itself after a while.
    ///
    /// Time is tokio's, so it stands still where a test pauses it. The message takes its place in the queue when the time
    /// has come, and waits for room if there is none.
    ///
    /// # Errors
    /// [`TooManyTasks`]; nothing is scheduled then.
    ///
    /// # Panics
    /// Outside of a tokio runtime, or in one without a timer, as tokio's own timers do.
    pub fn post_after<M: Send + 'static>(
        &self,
        delay: Duration,
        message: M,
    ) -> Result<Scheduled, TooManyTasks>
    where
        A: Handler<M>,
    {
        let cell = Arc::downgrade(self.cell());
        self.schedule(async move {
            tokio::time::sleep(delay).await;
            tell(&cell, message, &Arc::default()).await;
        })
    }

    /// Has this actor sent a message by itself again and again, the first one after one period.
    ///
    /// While the message before still waits in the queue none is added: a slow actor finds one, not a heap of them.
    ///
    /// # Errors
    /// [`TooManyTasks`]; nothing is scheduled then.
    ///
    /// # Panics
    /// As [`post_after`](Self::post_after), and if the period is zero.
    pub fn post_every<M: Clone + Send + Sync + 'static>(
        &self,
        period: Duration,
        message: M,
    ) -> Result<Scheduled, TooManyTasks>
    where
        A: Handler<M>,
    {
        let cell = Arc::downgrade(self.cell());
        let first = tokio::time::Instant::now() + period;
        let mut ticks = tokio::time::interval_at(first, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.schedule(async move {
            // Everybody who holds it beside this task is a message that waits.
            let token = Arc::new(());
            loop {
                ticks.tick().await;
                if Arc::strong_count(&token) == 1 && !tell(&cell, message.clone(), &token).await {
                    return;
                }
            }
        })
    }

    /// Runs a future beside this actor, and has its result sent to it as a message.
    ///
    /// The actor goes on with its messages meanwhile. A panic in the future fails the actor when it comes to the message
    /// that would have been.
    ///
    /// # Errors
    /// [`TooManyTasks`]; the future is dropped then.
    pub fn pipe<M: Send + 'static>(
        &self,
        future: impl Future<Output = M> + Send + 'static,
    ) -> Result<Scheduled, TooManyTasks>
    where
        A: Handler<M>,
    {
        let cell = Arc::downgrade(self.cell());
        self.schedule(async move {
            match caught(pin!(future)).await {
                Ok(message) => {
                    tell(&cell, message, &Arc::default()).await;
                }
                Err(report) => {
                    place_crash(&cell, report).await;
                }
            }
        })
    }

    fn schedule(
        &self,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Scheduled, TooManyTasks> {
        let place = Place::take(self.control().tasks()).ok_or_else(|| TooManyTasks {
            actor_id: self.actor_id().clone(),
            max: limits::TASKS_PER_ACTOR_MAX,
        })?;
        let control = self.any_cell();
        let task = tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                biased;
                _ = control.ended() => {}
                () = work => {}
            }
        });
        Ok(Scheduled(task.abort_handle()))
    }
}

/// Puts a message of the actor to itself into its queue, as soon as there is room. False when the actor has ended.
async fn tell<A: Handler<M>, M: Send + 'static>(
    cell: &Weak<Cell<A>>,
    message: M,
    token: &Arc<()>,
) -> bool {
    let mut message = Some(message);
    loop {
        let capacity = {
            let Some(cell) = cell.upgrade() else {
                return false;
            };
            let Some(content) = message.take() else {
                return false;
            };
            let class = cell.class_of::<M>();
            let meta = Meta::own(Arc::clone(token));
            match cell.inbox.push(class, content, meta, None) {
                Ok(None) => return true,
                Ok(Some(oldest)) => {
                    cell.displaced(*oldest);
                    return true;
                }
                Err(Refused {
                    why: Refusal::Closed,
                    ..
                }) => return false,
                Err(refused) => message = Some(refused.message),
            }
            // One that does not wait for its senders has to for itself: nobody else could be told.
            cell.capacity_of(class).unwrap_or_else(|| cell.capacity())
        };
        capacity.available().await;
    }
}

/// The same for a failure, to which the actor comes as to a message.
async fn place_crash<A: Actor>(cell: &Weak<Cell<A>>, mut report: PanicReport) {
    loop {
        let capacity = {
            let Some(cell) = cell.upgrade() else { return };
            match cell.inbox.push_crash(report) {
                Ok(displaced) => {
                    if let Some(oldest) = displaced {
                        cell.displaced(*oldest);
                    }
                    return;
                }
                Err((Refusal::Closed, _)) => return,
                Err((Refusal::Full | Refusal::Shed, again)) => report = again,
            }
            cell.capacity()
        };
        capacity.available().await;
    }
}

/// A place among the tasks of an actor.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(tasks: &Arc<AtomicUsize>) -> Option<Self> {
        tasks
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < limits::TASKS_PER_ACTOR_MAX).then_some(count + 1)
            })
            .ok()?;
        Some(Self(Arc::clone(tasks)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Something that an actor has scheduled. It goes on when this is dropped, and ends with the actor.
#[derive(Clone, Debug)]
pub struct Scheduled(AbortHandle);

impl Scheduled {
    /// Takes it back. A message that is in the queue already stays there.
    pub fn cancel(&self) {
        self.0.abort();
    }

    /// Whether it is over: done, cancelled, or its actor has ended.
    pub fn is_over(&self) -> bool {
        self.0.is_finished()
    }
}

/// An actor has scheduled as much as it may.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{actor_id}` has {max} timers and futures, which is the limit; cancel those no longer needed"
)]
pub struct TooManyTasks {
    /// Which actor.
    pub actor_id: ActorId,
    /// The limit.
    pub max: usize,
}
