//! The ladder by which a child is ended: drain, stop, SIGTERM, SIGKILL, each with a deadline. A state machine: time is
//! an argument, and what it asks for is done by `supervise`.

use std::time::Duration;

use hyperactor_host::End;
use tokio::time::Instant;

use crate::limits;

/// What is to be done to the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Tell it to drain.
    Drain(Duration),
    /// Tell it to stop.
    Stop,
    /// Send SIGTERM.
    Terminate,
    /// Send SIGKILL.
    Kill,
}

/// How far up the ladder a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rung {
    Running,
    Draining,
    Stopping,
    Terminating,
    Killed,
}

/// The state of one child's end. Steps only ever become more forceful.
#[derive(Debug)]
pub(super) struct Ladder {
    rung: Rung,
    deadline: Option<Instant>,
}

impl Ladder {
    pub(super) fn new() -> Self {
        Self {
            rung: Rung::Running,
            deadline: None,
        }
    }

    /// When [`on_deadline`](Self::on_deadline) is to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Somebody wants the child to end. A second wish can only hasten it.
    pub(super) fn on_wish(&mut self, wish: End, now: Instant) -> Option<Step> {
        match wish {
            End::Drain { deadline } if self.rung == Rung::Running => {
                self.climb(Rung::Draining, Some(now + deadline));
                Some(Step::Drain(deadline))
            }
            End::Drain { deadline } => {
                if self.rung == Rung::Draining {
                    self.deadline = self.deadline.map(|old| old.min(now + deadline));
                }
                None
            }
            // A kill, and any way of ending that this version does not know.
            _ if self.rung < Rung::Killed => {
                self.climb(Rung::Killed, None);
                Some(Step::Kill)
            }
            _ => None,
        }
    }

    /// The child closed its control stream, yet runs. It cannot be asked any more, only told.
    pub(super) fn on_silence(&mut self, now: Instant) {
        if self.rung < Rung::Stopping {
            self.climb(Rung::Stopping, Some(now + limits::STOP_TIMEOUT));
        }
    }

    /// The deadline passed and the child still runs.
    pub(super) fn on_deadline(&mut self, now: Instant) -> Option<Step> {
        match self.rung {
            Rung::Running | Rung::Killed => {
                self.deadline = None;
                None
            }
            Rung::Draining => {
                self.climb(Rung::Stopping, Some(now + limits::STOP_TIMEOUT));
                Some(Step::Stop)
            }
            Rung::Stopping => {
                self.climb(Rung::Terminating, Some(now + limits::TERMINATE_TIMEOUT));
                Some(Step::Terminate)
            }
            Rung::Terminating => {
                self.climb(Rung::Killed, None);
                Some(Step::Kill)
            }
        }
    }

    fn climb(&mut self, rung: Rung, deadline: Option<Instant>) {
        debug_assert!(
            rung > self.rung,
            "{:?} is no step up from {:?}",
            rung,
            self.rung
        );
        self.rung = rung;
        self.deadline = deadline;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN: Duration = Duration::from_secs(3);

    #[test]
    fn a_child_that_ignores_everything_is_killed_in_bounded_time() {
        let start = Instant::now();
        let mut ladder = Ladder::new();
        let mut steps = vec![(
            Duration::ZERO,
            ladder
                .on_wish(End::Drain { deadline: DRAIN }, start)
                .unwrap(),
        )];
        while let Some(at) = ladder.deadline() {
            steps.extend(ladder.on_deadline(at).map(|step| (at - start, step)));
        }
        let stop = DRAIN;
        let terminate = stop + limits::STOP_TIMEOUT;
        let kill = terminate + limits::TERMINATE_TIMEOUT;
        let expected = [
            (Duration::ZERO, Step::Drain(DRAIN)),
            (stop, Step::Stop),
            (terminate, Step::Terminate),
            (kill, Step::Kill),
        ];
        assert_eq!(steps, expected);
    }

    #[test]
    fn a_kill_overtakes_a_drain_and_nothing_overtakes_a_kill() {
        let now = Instant::now();
        let mut ladder = Ladder::new();
        ladder.on_wish(End::Drain { deadline: DRAIN }, now);
        assert_eq!(ladder.on_wish(End::Kill, now), Some(Step::Kill));
        assert_eq!(ladder.on_wish(End::Drain { deadline: DRAIN }, now), None);
        assert_eq!(ladder.on_wish(End::Kill, now), None);
        assert_eq!(ladder.deadline(), None);
    }

    #[test]
    fn a_second_drain_can_shorten_the_deadline_and_not_lengthen_it() {
        let now = Instant::now();
        let mut ladder = Ladder::new();
        ladder.on_wish(End::Drain { deadline: DRAIN }, now);
        ladder.on_wish(
            End::Drain {
                deadline: DRAIN * 2,
            },
            now,
        );
        assert_eq!(ladder.deadline(), Some(now + DRAIN));
        ladder.on_wish(
            End::Drain {
                deadline: DRAIN / 2,
            },
            now,
        );
        assert_eq!(ladder.deadline(), Some(now + DRAIN / 2));
    }

    #[test]
    fn a_child_that_stopped_listening_is_terminated() {
        let now = Instant::now();
        let mut ladder = Ladder::new();
        ladder.on_silence(now);
        let at = ladder.deadline().unwrap();
        assert_eq!(ladder.on_deadline(at), Some(Step::Terminate));
    }
}
