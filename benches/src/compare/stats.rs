//! The statistics of a comparison: percentiles, quartiles, and the verdict over the ratios of pairs.
//! Knows nothing of what was measured.

use serde::{Deserialize, Serialize};

/// Fewer pairs than this prove nothing.
pub const PAIRS_MIN: usize = 7;

/// The spread (the quartile range over the median) above which a result counts only if all pairs agree.
pub const SPREAD_MAX: f64 = 0.3;

/// The value that `percent` of the sorted values do not exceed (nearest rank); zero of nothing.
#[must_use]
pub fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// The middle half of a set of values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quartiles {
    /// A quarter of the values is not above it.
    pub q1: f64,
    /// Half of the values are not above it.
    pub median: f64,
    /// Three quarters of the values are not above it.
    pub q3: f64,
}

impl Quartiles {
    /// The quartiles, between two values by linear interpolation (Hyndman and Fan's seventh definition, 1996); `None` of
    /// nothing.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |share: f64| {
            let place = last as f64 * share;
            let (below, above) = (place.floor() as usize, place.ceil() as usize);
            sorted[below] + (sorted[above] - sorted[below]) * (place - place.floor())
        };
        Some(Self {
            q1: at(0.25),
            median: at(0.5),
            q3: at(0.75),
        })
    }

    /// The quartile range as a share of the median.
    #[must_use]
    pub fn spread(&self) -> f64 {
        if self.median == 0.0 {
            return 0.0;
        }
        (self.q3 - self.q1) / self.median.abs()
    }
}

/// What a value has to reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Target {
    fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

/// What the pairs say about a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The target is reached.
    Met,
    /// The target is not reached.
    Missed,
    /// These pairs cannot say.
    Inconclusive,
}

impl Verdict {
    /// Judges values that vary from pair to pair.
    ///
    /// Met or missed: the whole quartile range is on that side of the target, and the spread is at most [`SPREAD_MAX`] or every
    /// single pair is on that side. Anything else, and fewer than [`PAIRS_MIN`] pairs, is inconclusive.
    #[must_use]
    pub fn of(values: &[f64], target: Target) -> Self {
        let Some(quartiles) = Quartiles::of(values).filter(|_| values.len() >= PAIRS_MIN) else {
            return Self::Inconclusive;
        };
        let is_met = target.is_met_by(quartiles.median);
        let range_agrees = [quartiles.q1, quartiles.q3]
            .iter()
            .all(|end| target.is_met_by(*end) == is_met);
        let all_agree = values
            .iter()
            .all(|value| target.is_met_by(*value) == is_met);
        if !range_agrees || (quartiles.spread() > SPREAD_MAX && !all_agree) {
            return Self::Inconclusive;
        }
        if is_met { Self::Met } else { Self::Missed }
    }

    /// Judges a value that is counted and does not vary: one is enough, and all have to agree.
    #[must_use]
    pub fn of_counts(values: &[f64], target: Target) -> Self {
        let met = values
            .iter()
            .filter(|value| target.is_met_by(**value))
            .count();
        match met {
            _ if values.is_empty() => Self::Inconclusive,
            all if all == values.len() => Self::Met,
            0 => Self::Missed,
            _ => Self::Inconclusive,
        }
    }

    /// The word for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::Inconclusive => "inconclusive",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let values: Vec<u64> = (1..=200).collect();
        assert_eq!(percentile(&values, 50), 100);
        assert_eq!(percentile(&values, 99), 198);
        assert_eq!(percentile(&values[..1], 99), 1);
        assert_eq!(percentile(&[], 50), 0);
    }

    #[test]
    fn quartiles_lie_between_values_where_they_must() {
        let odd = Quartiles::of(&[5.0, 1.0, 3.0, 2.0, 4.0]).unwrap();
        assert_eq!((odd.q1, odd.median, odd.q3), (2.0, 3.0, 4.0));
        let even = Quartiles::of(&[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!((even.q1, even.median, even.q3), (1.75, 2.5, 3.25));
        let one = Quartiles::of(&[7.0]).unwrap();
        assert_eq!((one.q1, one.median, one.q3), (7.0, 7.0, 7.0));
        assert_eq!(Quartiles::of(&[]), None);
    }

    #[test]
    fn one_wild_pair_of_seven_changes_no_verdict() {
        let mut ratios = [1.60, 1.62, 1.58, 1.61, 1.59, 1.63, 1.57];
        assert_eq!(Verdict::of(&ratios, Target::AtLeast(1.5)), Verdict::Met);
        ratios[3] = 0.2;
        assert_eq!(Verdict::of(&ratios, Target::AtLeast(1.5)), Verdict::Met);
        assert_eq!(Verdict::of(&ratios, Target::AtLeast(1.7)), Verdict::Missed);
        assert_eq!(Verdict::of(&ratios, Target::AtMost(1.7)), Verdict::Met);
    }

    #[test]
    fn a_quartile_range_across_the_target_is_inconclusive() {
        let ratios = [1.4, 1.45, 1.48, 1.5, 1.52, 1.55, 1.6];
        assert_eq!(
            Verdict::of(&ratios, Target::AtLeast(1.5)),
            Verdict::Inconclusive
        );
    }

    #[test]
    fn noise_counts_unless_every_pair_is_on_one_side() {
        let wild = [2.0, 2.1, 3.5, 4.0, 5.0, 6.0, 7.0];
        assert_eq!(Verdict::of(&wild, Target::AtLeast(1.9)), Verdict::Met);
        assert_eq!(
            Verdict::of(&wild, Target::AtLeast(2.05)),
            Verdict::Inconclusive,
            "the quartiles agree, one pair does not, and the spread is wide"
        );
    }

    #[test]
    fn few_pairs_prove_nothing_but_counts_do() {
        let few = [9.0; PAIRS_MIN - 1];
        assert_eq!(
            Verdict::of(&few, Target::AtLeast(1.0)),
            Verdict::Inconclusive
        );
        assert_eq!(
            Verdict::of_counts(&[1.0], Target::AtMost(1.0)),
            Verdict::Met
        );
        assert_eq!(
            Verdict::of_counts(&[1.1], Target::AtMost(1.0)),
            Verdict::Missed
        );
        assert_eq!(
            Verdict::of_counts(&[1.0, 1.1], Target::AtMost(1.0)),
            Verdict::Inconclusive
        );
        assert_eq!(
            Verdict::of_counts(&[], Target::AtMost(1.0)),
            Verdict::Inconclusive
        );
    }
}
