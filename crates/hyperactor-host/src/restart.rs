//! Whether, and how soon, a proc that ended is started again: [`RestartPolicy`] is what a caller chooses, [`Lives`]
//! remembers the restarts of one name. Time and chance are arguments; who acts on the answers is in `keeper`.

use std::collections::VecDeque;
use std::time::Duration;

use hyperactor_mailbox::DeathCertificate;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::limits;

/// Which ends of a proc are followed by a new start. An end that somebody asked for never is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RestartWhen {
    /// None.
    #[default]
    Never,
    /// Those by a signal or with a status other than 0.
    OnFailure,
    /// All that nobody asked for.
    Always,
}

/// Whether a proc is started again when it ends, how often and how soon.
///
/// The new process has the same name and another incarnation; its actors are those that somebody spawns in it. Before the
/// n-th restart within the window there is a pause of random length, at most `backoff_min` · 2ⁿ⁻¹ and at most `backoff_max`:
/// so many procs that fail together do not come back together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct RestartPolicy {
    /// Which ends are followed by a new start.
    pub when: RestartWhen,
    /// How many restarts there may be within the window; one more end, and the proc stays gone.
    pub max: u32,
    /// How far back restarts count.
    pub window: Duration,
    /// The longest pause before the first restart within the window.
    pub backoff_min: Duration,
    /// The longest pause before any restart.
    pub backoff_max: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            when: RestartWhen::Never,
            max: limits::RESTARTS_MAX,
            window: limits::RESTART_WINDOW,
            backoff_min: limits::RESTART_BACKOFF_MIN,
            backoff_max: limits::RESTART_BACKOFF_MAX,
        }
    }
}

impl RestartPolicy {
    /// No restarts: the default.
    #[must_use]
    pub fn never() -> Self {
        Self::default()
    }

    /// A restart after each failure.
    #[must_use]
    pub fn on_failure() -> Self {
        Self {
            when: RestartWhen::OnFailure,
            ..Self::default()
        }
    }

    /// A restart after each end that nobody asked for.
    #[must_use]
    pub fn always() -> Self {
        Self {
            when: RestartWhen::Always,
            ..Self::default()
        }
    }

    /// Changes how many restarts there may be within how long. The default is [`limits::RESTARTS_MAX`] within
    /// [`limits::RESTART_WINDOW`].
    #[must_use]
    pub fn at_most(mut self, max: u32, window: Duration) -> Self {
        self.max = max;
        self.window = window;
        self
    }

    /// Changes the pauses. The defaults are [`limits::RESTART_BACKOFF_MIN`] and [`limits::RESTART_BACKOFF_MAX`].
    #[must_use]
    pub fn with_backoff(mut self, min: Duration, max: Duration) -> Self {
        self.backoff_min = min;
        self.backoff_max = max;
        self
    }

    /// Whether an end is to be followed by a new start.
    pub(crate) fn covers(&self, end: &DeathCertificate) -> bool {
        match self.when {
            _ if end.wanted => false,
            RestartWhen::Never => false,
            RestartWhen::OnFailure => !end.exit.is_orderly(),
            RestartWhen::Always => true,
        }
    }
}

/// What follows the end of a proc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is started again after this pause.
    Restart { pause: Duration },
    /// It has been started again too often.
    GiveUp { restarts: u32 },
}

/// The restarts of one name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lives {
    /// When the restarts within the window were decided.
    restarts: VecDeque<Instant>,
    /// All restarts there ever were.
    total: u32,
}

impl Lives {
    /// How often the proc was started again so far.
    pub(crate) fn total(&self) -> u32 {
        self.total
    }

    /// Decides what follows an end that the policy covers. `chance` is anything from 0 to 1.
    pub(crate) fn next(&mut self, policy: &RestartPolicy, now: Instant, chance: f64) -> Next {
        while let Some(first) = self.restarts.front() {
            if now.duration_since(*first) < policy.window {
                break;
            }
            self.restarts.pop_front();
        }
        let recent = u32::try_from(self.restarts.len()).unwrap_or(u32::MAX);
        if recent >= policy.max {
            return Next::GiveUp {
                restarts: self.total,
            };
        }
        self.restarts.push_back(now);
        self.total = self.total.saturating_add(1);
        // Far beyond any maximum after 31 doublings.
        let longest = policy
            .backoff_min
            .saturating_mul(1 << recent.min(31))
            .min(policy.backoff_max);
        Next::Restart {
            pause: longest.mul_f64(chance.clamp(0.0, 1.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hyperactor_mailbox::ProcExit;
    use hyperactor_refs::{Incarnation, ProcId};

    use super::*;

    fn end(exit: ProcExit, wanted: bool) -> DeathCertificate {
        let proc_id = ProcId::Direct("local:1".parse().unwrap(), "a".to_owned());
        let mut end = DeathCertificate::new(Arc::new(proc_id), Incarnation::new(1), exit);
        end.wanted = wanted;
        end
    }

    #[test]
    fn a_policy_covers_the_ends_that_its_name_says() {
        let (failure, success) = (ProcExit::Signalled(9), ProcExit::Exited(0));
        let table = [
            (RestartPolicy::never(), false, false),
            (RestartPolicy::on_failure(), true, false),
            (RestartPolicy::always(), true, true),
        ];
        for (policy, after_failure, after_success) in table {
            assert_eq!(
                policy.covers(&end(failure, false)),
                after_failure,
                "{policy:?}"
            );
            assert_eq!(
                policy.covers(&end(success, false)),
                after_success,
                "{policy:?}"
            );
            assert!(!policy.covers(&end(failure, true)), "{policy:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_chance_shortens_them() {
        let ms = Duration::from_millis;
        let policy = RestartPolicy::always()
            .at_most(6, Duration::from_secs(60))
            .with_backoff(ms(100), ms(1_000));
        let (mut lives, now) = (Lives::default(), Instant::now());
        for longest in [100, 200, 400, 800, 1_000, 1_000] {
            let mut other = lives.clone();
            let pause = ms(longest);
            assert_eq!(lives.next(&policy, now, 1.0), Next::Restart { pause });
            assert_eq!(
                other.next(&policy, now, 0.5),
                Next::Restart { pause: pause / 2 }
            );
        }
        assert_eq!(lives.next(&policy, now, 1.0), Next::GiveUp { restarts: 6 });
    }

    #[test]
    fn restarts_that_are_long_past_do_not_count() {
        let window = Duration::from_secs(60);
        let policy = RestartPolicy::always().at_most(1, window);
        let (mut lives, now) = (Lives::default(), Instant::now());
        assert!(matches!(
            lives.next(&policy, now, 0.0),
            Next::Restart { .. }
        ));
        assert!(matches!(
            lives.next(&policy, now + window / 2, 0.0),
            Next::GiveUp { .. }
        ));
        assert!(matches!(
            lives.next(&policy, now + window, 0.0),
            Next::Restart { .. }
        ));
        assert_eq!(lives.total(), 2);
    }

    #[test]
    fn no_number_of_restarts_overflows() {
        let policy = RestartPolicy::always()
            .at_most(u32::MAX, Duration::MAX)
            .with_backoff(Duration::MAX, Duration::from_secs(1));
        let (mut lives, now) = (Lives::default(), Instant::now());
        for _ in 0..100 {
            assert!(matches!(
                lives.next(&policy, now, f64::NAN.max(1.0)),
                Next::Restart { .. }
            ));
        }
    }
}
