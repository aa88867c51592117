//! What an actor is doing, kept small for the many of whom nobody asks: the channel through which it is followed is made for
//! the first who does.

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{ActorExit, ActorStatus};

/// The present status of one actor.
#[derive(Default)]
pub(crate) struct Status(Mutex<State>);

#[derive(Default)]
struct State {
    stage: Stage,
    has_run: bool,
    /// Set at the end.
    exit: Option<Box<ActorExit>>,
    followed: Option<watch::Sender<ActorStatus>>,
}

#[derive(Clone, Copy, Default)]
enum Stage {
    #[default]
    Starting,
    Running,
    Ending,
}

impl Status {
    pub(crate) fn now(&self) -> ActorStatus {
        self.0.lock().now()
    }

    /// Whether it was ever [`Running`](ActorStatus::Running).
    pub(crate) fn has_run(&self) -> bool {
        self.0.lock().has_run
    }

    /// The present status, and those that come.
    pub(crate) fn follow(&self) -> watch::Receiver<ActorStatus> {
        let mut state = self.0.lock();
        let now = state.now();
        let followed = state
            .followed
            .get_or_insert_with(|| watch::Sender::new(now));
        followed.subscribe()
    }

    /// Changes it. Called by one task at a time.
    pub(crate) fn set(&self, status: ActorStatus) {
        let followed = {
            let mut state = self.0.lock();
            match &status {
                ActorStatus::Starting => state.stage = Stage::Starting,
                ActorStatus::Running => {
                    state.stage = Stage::Running;
                    state.has_run = true;
                }
                ActorStatus::Ending => state.stage = Stage::Ending,
                ActorStatus::Ended(exit) => state.exit = Some(Box::new(exit.clone())),
            }
            state.followed.clone()
        };
        // Wakes those who wait, without the lock.
        if let Some(followed) = followed {
            followed.send_replace(status);
        }
    }
}

impl State {
    fn now(&self) -> ActorStatus {
        if let Some(exit) = &self.exit {
            return ActorStatus::Ended((**exit).clone());
        }
        match self.stage {
            Stage::Starting => ActorStatus::Starting,
            Stage::Running => ActorStatus::Running,
            Stage::Ending => ActorStatus::Ending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_follows_late_sees_the_present_status_and_every_later_one() {
        let status = Status::default();
        status.set(ActorStatus::Running);
        let mut late = status.follow();
        assert!(matches!(*late.borrow_and_update(), ActorStatus::Running));
        let mut later = status.follow();
        status.set(ActorStatus::Ended(ActorExit::Aborted));
        assert!(late.has_changed().unwrap());
        assert!(later.borrow_and_update().exit().is_some());
        assert!(status.now().exit().is_some());
        assert!(status.has_run());
    }

    #[test]
    fn the_end_is_seen_by_those_who_follow_although_the_status_is_gone() {
        let status = Status::default();
        let last = status.follow();
        status.set(ActorStatus::Ended(ActorExit::Stopped));
        drop(status);
        assert!(matches!(
            *last.borrow(),
            ActorStatus::Ended(ActorExit::Stopped)
        ));
    }
}
