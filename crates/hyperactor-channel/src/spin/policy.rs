//! When it pays to look for input before sleeping, and for how long: a pure state machine over what earlier looks found.
//! There is no clock and no input here; durations and results are arguments.

use std::time::Duration;

use crate::limits::{SPIN_PROBE_EVERY, SPIN_PROBE_EVERY_MAX, SPIN_WARM_UP};

/// What came of looking before one sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looked {
    /// Something came within the budget.
    Hit,
    /// Nothing came within the budget.
    Miss,
    /// One look came much later than the one before: the thread was taken off its processor, so somebody else wants it. What
    /// came meanwhile would have come without looking.
    Late,
    /// Something else was to be done: says nothing of whether looking pays.
    Disturbed,
}

/// How long to look before a sleep of one kind. Full while it pays; halved with each time that it did not, down to none; then one
/// sleep in [`SPIN_PROBE_EVERY`] finds out whether it would pay again, and ever fewer while it would not.
///
/// A hit counts whenever it comes within the budget, also late: that a peer has to be woken first takes a wake-up, and only
/// who looks for longer than that makes it worth the peer's while to look in its turn.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    budget: Budget,
    /// The sleeps from one probe to the next.
    pause: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Budget {
    /// So many halvings below the full one.
    Halved(u32),
    /// None, for so many sleeps yet.
    None(u32),
}

/// A budget halved once is still longer than it takes to wake a peer that fell asleep in a moment's hitch; halved again, it would
/// find nothing.
const HALVINGS_MAX: u32 = 1;

impl Default for Policy {
    /// Begins without: an exchange of a few messages is not worth finding out what a wake-up costs.
    fn default() -> Self {
        Self {
            budget: Budget::None(SPIN_WARM_UP),
            pause: SPIN_PROBE_EVERY,
        }
    }
}

impl Policy {
    /// Whether the next sleep needs to know the full budget.
    pub(crate) fn is_warm(&self) -> bool {
        !matches!(self.budget, Budget::None(left) if left > 1)
    }

    /// How long to look before the sleep that comes now, of `full` at most. Each answer but zero is to be followed by
    /// [`learn`](Self::learn).
    pub(crate) fn budget(&mut self, full: Duration) -> Duration {
        match &mut self.budget {
            Budget::Halved(times) => full / 2_u32.pow(*times),
            Budget::None(left) => {
                *left = left.saturating_sub(1);
                if *left != 0 {
                    return Duration::ZERO;
                }
                *left = self.pause;
                full
            }
        }
    }

    /// Learns what came of it.
    pub(crate) fn learn(&mut self, looked: Looked) {
        self.budget = match (looked, self.budget) {
            (Looked::Disturbed, budget) => budget,
            (Looked::Hit, _) => {
                self.pause = SPIN_PROBE_EVERY;
                Budget::Halved(0)
            }
            (Looked::Miss | Looked::Late, Budget::Halved(times)) if times < HALVINGS_MAX => {
                Budget::Halved(times + 1)
            }
            (Looked::Miss | Looked::Late, Budget::Halved(_)) => Budget::None(self.pause),
            (Looked::Miss | Looked::Late, Budget::None(_)) => {
                self.pause = (self.pause * 2).min(SPIN_PROBE_EVERY_MAX);
                Budget::None(self.pause)
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FULL: Duration = Duration::from_micros(100);

    fn warm() -> Policy {
        let mut policy = Policy::default();
        while policy.budget(FULL).is_zero() {}
        policy.learn(Looked::Hit);
        policy
    }

    fn looked() -> impl Strategy<Value = Looked> {
        prop_oneof![
            Just(Looked::Hit),
            Just(Looked::Miss),
            Just(Looked::Late),
            Just(Looked::Disturbed)
        ]
    }

    #[test]
    fn the_first_sleeps_are_without_and_then_one_finds_out() {
        let mut policy = Policy::default();
        for _ in 1..SPIN_WARM_UP {
            assert_eq!(policy.budget(FULL), Duration::ZERO);
        }
        assert!(policy.is_warm());
        assert_eq!(policy.budget(FULL), FULL);
    }

    #[test]
    fn misses_bring_it_to_nothing_by_halves() {
        let mut policy = warm();
        let mut budgets = Vec::new();
        loop {
            let budget = policy.budget(FULL);
            if budget.is_zero() {
                break;
            }
            budgets.push(budget);
            policy.learn(Looked::Miss);
        }
        assert_eq!(budgets, [FULL, FULL / 2]);
    }

    #[test]
    fn one_hit_of_a_probe_brings_the_full_budget_back() {
        let mut policy = warm();
        for _ in 0..=HALVINGS_MAX {
            policy.budget(FULL);
            policy.learn(Looked::Late);
        }
        let mut sleeps = 1;
        while policy.budget(FULL).is_zero() {
            sleeps += 1;
        }
        assert_eq!(sleeps, SPIN_PROBE_EVERY);
        policy.learn(Looked::Hit);
        assert_eq!(policy.budget(FULL), FULL);
    }

    proptest! {
        #[test]
        fn no_budget_is_above_the_full_one(results in prop::collection::vec(looked(), 0..500), full in 0_u64..1_000_000) {
            let full = Duration::from_nanos(full);
            let mut policy = Policy::default();
            for result in results {
                let budget = policy.budget(full);
                prop_assert!(budget <= full);
                if !budget.is_zero() {
                    policy.learn(result);
                }
            }
        }

        #[test]
        fn where_nothing_comes_one_sleep_in_many_is_preceded_by_looks(before in prop::collection::vec(looked(), 0..200)) {
            let mut policy = Policy::default();
            for result in before {
                if !policy.budget(FULL).is_zero() {
                    policy.learn(result);
                }
            }
            let mut looks = Vec::new();
            for sleep in 0..10 * SPIN_PROBE_EVERY_MAX {
                if !policy.budget(FULL).is_zero() {
                    policy.learn(Looked::Miss);
                    looks.push(sleep);
                }
            }
            let settled: Vec<_> = looks.iter().filter(|sleep| **sleep > HALVINGS_MAX).collect();
            prop_assert!((9..20).contains(&settled.len()), "{looks:?}");
            let pauses: Vec<_> = settled.windows(2).map(|pair| pair[1] - pair[0]).collect();
            prop_assert!(pauses.iter().all(|pause| (SPIN_PROBE_EVERY..=SPIN_PROBE_EVERY_MAX).contains(pause)), "{pauses:?}");
            prop_assert!(pauses.is_sorted(), "{pauses:?}");
        }

        #[test]
        fn a_conversation_that_pays_keeps_the_full_budget(disturbed in prop::collection::vec(any::<bool>(), 0..200)) {
            let mut policy = warm();
            for disturbed in disturbed {
                prop_assert_eq!(policy.budget(FULL), FULL);
                policy.learn(if disturbed { Looked::Disturbed } else { Looked::Hit });
            }
        }
    }
}
