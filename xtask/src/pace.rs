//! How much of a group of suites fits into a time: what each costs on the machine of the tables, how fast this one has been
//! so far, and the share of the figures that is left to run.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The least share of the full figures, in percent, that still proves something.
const SCALE_MIN: u64 = 25;

/// Seconds of one run at the full figures on two cores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// What no scale shortens: timeouts that have to pass.
    pub(crate) waits: f64,
    /// What grows with the figures.
    pub(crate) works: f64,
}

pub(crate) const fn cost(waits: f64, works: f64) -> Cost {
    Cost { waits, works }
}

/// What is left of a budget while the suites are run.
pub(crate) struct Pace {
    ends: Option<Instant>,
    /// Seconds that the work of the suites so far should have taken, and those that it took.
    expected: f64,
    took: f64,
    /// The least percentage that the budget allowed.
    least: f64,
}

impl Pace {
    pub(crate) fn new(budget: Option<Duration>) -> Self {
        Self {
            ends: budget.map(|budget| Instant::now() + budget),
            expected: 0.0,
            took: 0.0,
            least: 100.0,
        }
    }

    /// Percent of the wanted figures for which the time left is enough, on a machine as fast as this one has been.
    pub(crate) fn allows(&mut self, rest: &[(Cost, u64)]) -> f64 {
        let Some(ends) = self.ends else { return 100.0 };
        let left = ends.saturating_duration_since(Instant::now()).as_secs_f64();
        let sum = |part: fn(&Cost) -> f64| -> f64 {
            rest.iter()
                .map(|(cost, times)| part(cost) * *times as f64)
                .sum()
        };
        let works = sum(|cost| cost.works) * self.slowness();
        let percent = if works > 0.0 {
            (left - sum(|cost| cost.waits)) / works * 100.0
        } else {
            100.0
        };
        let percent = percent.clamp(0.0, 100.0);
        self.least = self.least.min(percent);
        percent.max(SCALE_MIN as f64)
    }

    /// How many times slower than the machine of the table this one is.
    fn slowness(&self) -> f64 {
        if self.expected < 1.0 {
            return 1.0;
        }
        (self.took / self.expected).max(1.0)
    }

    pub(crate) fn ran(&mut self, cost: Cost, scale: u64, took: Duration) {
        self.expected += cost.works * scale as f64 / 100.0;
        self.took += (took.as_secs_f64() - cost.waits).max(0.0);
    }

    /// Fails when the budget was too small for what has been run.
    pub(crate) fn judge(&self) -> Result<()> {
        if self.least < SCALE_MIN as f64 {
            bail!(
                "the budget leaves time for {:.0} % of the figures on this machine; less than {SCALE_MIN} % proves too little",
                self.least
            );
        }
        Ok(())
    }
}

/// Reads `90s` or `5m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        _ => return Err("expected a number of seconds or minutes, such as 90s or 5m".to_owned()),
    };
    let number: u64 = number.parse().map_err(|error| format!("{error}"))?;
    Ok(Duration::from_secs(number.saturating_mul(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_scales_the_figures_and_never_below_a_quarter() {
        let of_suite = cost(10.0, 100.0);
        let percent = |budget, slowness: f64| {
            let mut pace = Pace::new(Some(Duration::from_secs(budget)));
            (pace.expected, pace.took) = (10.0, 10.0 * slowness);
            let allowed = pace.allows(&[(of_suite, 1)]);
            (allowed.round() as u64, pace.least.round() as u64)
        };
        assert_eq!(percent(500, 1.0), (100, 100));
        assert_eq!(percent(60, 1.0), (50, 50));
        assert_eq!(percent(110, 2.0), (50, 50));
        assert_eq!(percent(30, 2.0), (25, 10));
        assert_eq!(percent(5, 1.0), (25, 0));
        assert!((Pace::new(None).allows(&[(of_suite, 9)]) - 100.0).abs() < f64::EPSILON);
    }

    #[test]
    fn durations_are_read() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        for wrong in ["", "5", "m", "5h", "-1s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
