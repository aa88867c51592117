//! What an actor is doing, kept small for the many of whom nobody asks: the channel through which it is followed is made for
//! the first who does.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering, fence};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{ActorExit, ActorStatus};

const STARTING: u8 = 0;
const RUNNING: u8 = 1;
const ENDING: u8 = 2;
const ENDED: u8 = 3;
/// Beside the others: it was [`RUNNING`] once.
const HAS_RUN: u8 = 4;

/// The present status of one actor.
#[derive(Default)]
pub(crate) struct Stage(AtomicU8);

/// What is beside the stage: how it ended, and who follows it.
#[derive(Default)]
pub(crate) struct Followed(Mutex<State>);

#[derive(Default)]
struct State {
    exit: Option<ActorExit>,
    sender: Option<watch::Sender<ActorStatus>>,
}

impl Stage {
    pub(crate) fn now(&self, followed: Option<&Followed>) -> ActorStatus {
        match self.0.load(Ordering::Acquire) & !HAS_RUN {
            STARTING => ActorStatus::Starting,
            RUNNING => ActorStatus::Running,
            ENDING => ActorStatus::Ending,
            _ => {
                let exit = followed.and_then(|followed| followed.0.lock().exit.clone());
                // The exit is there before the stage.
                ActorStatus::Ended(exit.unwrap_or(ActorExit::Aborted))
            }
        }
    }

    /// Whether it was ever [`Running`](ActorStatus::Running).
    pub(crate) fn has_run(&self) -> bool {
        self.0.load(Ordering::Acquire) & HAS_RUN != 0
    }

    /// The present status, and those that come.
    pub(crate) fn follow(&self, followed: &Followed) -> watch::Receiver<ActorStatus> {
        // The caller has made `followed` before the stage is read here; `set` does it the other way round. So one of the two
        // sees what the other has done.
        fence(Ordering::SeqCst);
        let mut state = followed.0.lock();
        let stage = self.0.load(Ordering::Acquire) & !HAS_RUN;
        let now = match (&state.exit, stage) {
            (Some(exit), _) => ActorStatus::Ended(exit.clone()),
            (None, STARTING) => ActorStatus::Starting,
            (None, RUNNING) => ActorStatus::Running,
            (None, _) => ActorStatus::Ending,
        };
        let sender = state.sender.get_or_insert_with(|| watch::Sender::new(now));
        sender.subscribe()
    }

    /// Changes it. Called by one task at a time; `followed` is there at the end, and before if anybody follows.
    pub(crate) fn set<T>(
        &self,
        status: ActorStatus,
        followed: &OnceLock<T>,
        of: impl Fn(&T) -> &Followed,
    ) where
        T: Default,
    {
        let stage = match &status {
            ActorStatus::Starting => STARTING,
            ActorStatus::Running => RUNNING | HAS_RUN,
            ActorStatus::Ending => ENDING,
            ActorStatus::Ended(exit) => {
                of(followed.get_or_init(T::default)).0.lock().exit = Some(exit.clone());
                ENDED
            }
        };
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(stage | before & HAS_RUN, Ordering::Release);
        fence(Ordering::SeqCst);
        let sender = followed
            .get()
            .and_then(|followed| of(followed).0.lock().sender.clone());
        // Wakes those who wait, without the lock.
        if let Some(sender) = sender {
            sender.send_replace(status);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Actor {
        stage: Stage,
        followed: OnceLock<Followed>,
    }

    impl Actor {
        fn set(&self, status: ActorStatus) {
            self.stage.set(status, &self.followed, |followed| followed);
        }

        fn follow(&self) -> watch::Receiver<ActorStatus> {
            self.stage
                .follow(self.followed.get_or_init(Followed::default))
        }

        fn now(&self) -> ActorStatus {
            self.stage.now(self.followed.get())
        }
    }

    #[test]
    fn who_follows_late_sees_the_present_status_and_every_later_one() {
        let actor = Actor::default();
        assert!(matches!(actor.now(), ActorStatus::Starting));
        actor.set(ActorStatus::Running);
        assert!(actor.followed.get().is_none(), "nobody follows");
        let mut late = actor.follow();
        assert!(matches!(*late.borrow_and_update(), ActorStatus::Running));
        let mut later = actor.follow();
        actor.set(ActorStatus::Ended(ActorExit::Stopped));
        assert!(late.has_changed().unwrap());
        assert!(later.borrow_and_update().exit().is_some());
        assert!(actor.now().exit().is_some());
        assert!(actor.stage.has_run());
    }

    #[test]
    fn the_end_is_seen_by_those_who_follow_although_the_actor_is_gone() {
        let actor = Actor::default();
        let last = actor.follow();
        actor.set(ActorStatus::Ended(ActorExit::Stopped));
        drop(actor);
        let status = last.borrow().clone();
        assert!(matches!(status, ActorStatus::Ended(ActorExit::Stopped)));
    }

    /// Whichever is first, the change or the follower: nobody waits for what has been.
    #[test]
    fn a_change_at_the_moment_in_which_somebody_begins_to_follow_is_not_missed() {
        for _ in 0..2_000 {
            let actor = Actor::default();
            let seen = std::thread::scope(|scope| {
                let follower = scope.spawn(|| actor.follow());
                actor.set(ActorStatus::Running);
                follower.join().unwrap()
            });
            assert!(matches!(*seen.borrow(), ActorStatus::Running));
        }
    }
}
