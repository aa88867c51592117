//! What a proxy does to each connection, as a value with a text form that parses back to itself.
//!
//! `up[cut@1042] down[]; up[] down[stall@88=50000us delay@200=10us]`: the first connection breaks after
//! the dialler sent 1,042 bytes; on the second, what comes back waits once for 50 ms after 88 bytes, and
//! from the 200th byte on each piece is 10 µs late. Further connections pass.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::Seed;

/// One of the two directions of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the end that dialled the proxy to the target.
    Up,
    /// From the target back.
    Down,
}

/// What is done to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// Breaks the connection, both directions at once. Over TCP both ends see a reset.
    Cut,
    /// Ends this direction in order; what still comes is thrown away. The other direction goes on.
    HalfClose,
    /// Passes nothing and reads nothing for this long, then goes on.
    Stall(Duration),
    /// Passes nothing and reads nothing from here on, without closing: a half-open connection.
    Freeze,
    /// From here on passes each piece this much later.
    Delay(Duration),
}

/// An act, and how many bytes of its direction pass before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// The count of bytes: with 0 it happens before the first.
    pub at: u64,
    /// What happens.
    pub act: Act,
}

/// What happens to one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Plan {
    up: Vec<Step>,
    down: Vec<Step>,
}

/// The plans of the first connections, in the order in which they are accepted. Later ones pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Script {
    plans: Vec<Plan>,
}

/// What a seeded script may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// How many connections get a plan.
    pub connections: usize,
    /// Steps happen below this many bytes; small counts are drawn more often.
    pub span: u64,
    /// The longest stall; delays are at most a hundredth of it.
    pub longest: Duration,
    /// How often each act is drawn, relative to the others: cut, half-close, stall, freeze, delay.
    pub weights: [u64; 5],
}

/// A text that is no script.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{piece}` is no part of a script: expected {expected}")]
pub struct ScriptError {
    piece: String,
    expected: &'static str,
}

impl Plan {
    /// Everything passes.
    #[must_use]
    pub fn pass() -> Self {
        Self::default()
    }

    /// Adds a step. Steps happen in the order of their bytes, at the same byte in the order added.
    #[must_use]
    pub fn step(mut self, direction: Direction, at: u64, act: Act) -> Self {
        let steps = match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        };
        let place = steps.partition_point(|step| step.at <= at);
        steps.insert(place, Step { at, act });
        self
    }

    /// The steps of one direction, in order.
    #[must_use]
    pub fn steps(&self, direction: Direction) -> &[Step] {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }
}

impl Script {
    /// Every connection passes.
    #[must_use]
    pub fn pass() -> Self {
        Self::default()
    }

    /// Adds the plan of the next connection.
    #[must_use]
    pub fn then(mut self, plan: Plan) -> Self {
        self.plans.push(plan);
        self
    }

    /// Draws a script: one step for each connection, in either direction.
    ///
    /// # Panics
    ///
    /// When all weights are 0.
    #[must_use]
    pub fn seeded(seed: Seed, faults: &Faults) -> Self {
        let mut rng = seed.fork("chaos").rng();
        let plans = (0..faults.connections).map(|_| {
            let direction = if rng.chance(1, 2) {
                Direction::Up
            } else {
                Direction::Down
            };
            // A span drawn by its size first: as many steps below 64 bytes as in the last half.
            let sizes = u64::from(u64::BITS - faults.span.leading_zeros()).max(1);
            let span = (1_u64 << rng.below(sizes)).min(faults.span).max(1);
            let at = rng.below(span.saturating_mul(2).min(faults.span.max(1)));
            let mut time = |longest: Duration| {
                let most = u64::try_from(longest.as_micros())
                    .unwrap_or(u64::MAX)
                    .max(1);
                Duration::from_micros(rng.below(most) + 1)
            };
            let stall = time(faults.longest);
            let delay = time(faults.longest / 100);
            let acts = [
                Act::Cut,
                Act::HalfClose,
                Act::Stall(stall),
                Act::Freeze,
                Act::Delay(delay),
            ];
            let mut draw = rng.below(faults.weights.iter().sum());
            let chosen = faults.weights.iter().position(|weight| {
                let hit = draw < *weight;
                draw = draw.saturating_sub(*weight);
                hit
            });
            Plan::pass().step(direction, at, acts[chosen.unwrap_or(0)])
        });
        Self {
            plans: plans.collect(),
        }
    }

    /// The plan of the connection that is accepted as this one, counted from 0.
    #[must_use]
    pub fn plan(&self, connection: usize) -> Plan {
        self.plans.get(connection).cloned().unwrap_or_default()
    }

    /// How many connections have a plan.
    #[must_use]
    pub fn len(&self) -> usize {
        self.plans.len()
    }

    /// Whether no connection has a plan.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }
}

impl Default for Faults {
    /// A hundred connections, most of them cut somewhere in their first 64 KiB.
    fn default() -> Self {
        Self {
            connections: 100,
            span: 64 * 1024,
            longest: Duration::from_millis(50),
            weights: [6, 1, 2, 0, 1],
        }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, plan) in self.plans.iter().enumerate() {
            if index > 0 {
                to.write_str("; ")?;
            }
            write!(to, "{plan}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "up[{}] down[{}]", Steps(&self.up), Steps(&self.down))
    }
}

struct Steps<'a>(&'a [Step]);

impl fmt::Display for Steps<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            if index > 0 {
                to.write_str(" ")?;
            }
            write!(to, "{step}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at;
        match self.act {
            Act::Cut => write!(to, "cut@{at}"),
            Act::HalfClose => write!(to, "half-close@{at}"),
            Act::Stall(time) => write!(to, "stall@{at}={}us", time.as_micros()),
            Act::Freeze => write!(to, "freeze@{at}"),
            Act::Delay(time) => write!(to, "delay@{at}={}us", time.as_micros()),
        }
    }
}

impl FromStr for Script {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, ScriptError> {
        if text.trim().is_empty() {
            return Ok(Self::pass());
        }
        let plans = text
            .split(';')
            .map(|plan| plan.trim().parse())
            .collect::<Result<_, _>>()?;
        Ok(Self { plans })
    }
}

impl FromStr for Plan {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, ScriptError> {
        let shape = || error(text, "up[STEPS] down[STEPS]");
        let (up, down) = text
            .strip_prefix("up[")
            .and_then(|rest| rest.strip_suffix(']'))
            .and_then(|rest| rest.split_once("] down["))
            .ok_or_else(shape)?;
        let mut plan = Self::pass();
        for (direction, steps) in [(Direction::Up, up), (Direction::Down, down)] {
            for step in steps.split_whitespace() {
                let Step { at, act } = step.parse()?;
                plan = plan.step(direction, at, act);
            }
        }
        Ok(plan)
    }
}

impl FromStr for Step {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, ScriptError> {
        let wrong = || {
            error(
                text,
                "cut@N, half-close@N, freeze@N, stall@N=Tus or delay@N=Tus",
            )
        };
        let (act, rest) = text.split_once('@').ok_or_else(wrong)?;
        let (at, time) = match rest.split_once('=') {
            Some((at, time)) => {
                let micros = time
                    .strip_suffix("us")
                    .and_then(|number| number.parse().ok());
                (at, Some(Duration::from_micros(micros.ok_or_else(wrong)?)))
            }
            None => (rest, None),
        };
        let at = at.parse().map_err(|_| wrong())?;
        let act = match (act, time) {
            ("cut", None) => Act::Cut,
            ("half-close", None) => Act::HalfClose,
            ("freeze", None) => Act::Freeze,
            ("stall", Some(time)) => Act::Stall(time),
            ("delay", Some(time)) => Act::Delay(time),
            _ => return Err(wrong()),
        };
        Ok(Self { at, act })
    }
}

fn error(piece: &str, expected: &'static str) -> ScriptError {
    ScriptError {
        piece: piece.to_owned(),
        expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_print_as_they_parse() {
        for text in [
            "",
            "up[] down[]",
            "up[cut@1042] down[]; up[] down[stall@88=50000us delay@200=10us]",
            "up[half-close@0 freeze@0] down[cut@18446744073709551615]",
        ] {
            assert_eq!(text.parse::<Script>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn seeded_scripts_repeat_and_print_as_they_parse() {
        let faults = Faults {
            weights: [1; 5],
            ..Faults::default()
        };
        let script = Script::seeded(Seed::new(5), &faults);
        assert_eq!(script, Script::seeded(Seed::new(5), &faults));
        assert_ne!(script, Script::seeded(Seed::new(6), &faults));
        assert_eq!(script.to_string().parse(), Ok(script.clone()));
        assert_eq!(script.len(), 100);
        let text = script.to_string();
        for act in [
            "cut@",
            "half-close@",
            "stall@",
            "freeze@",
            "delay@",
            "up[] ",
            "down[]",
        ] {
            assert!(text.contains(act), "{act} is never drawn");
        }
    }

    #[test]
    fn weights_of_zero_are_never_drawn() {
        let faults = Faults {
            weights: [0, 0, 3, 0, 0],
            connections: 50,
            ..Faults::default()
        };
        let text = Script::seeded(Seed::new(1), &faults).to_string();
        assert_eq!(text.matches("stall@").count(), 50);
    }

    #[test]
    fn bytes_stay_within_their_span_and_small_ones_are_common() {
        let faults = Faults {
            connections: 2_000,
            span: 1_000,
            ..Faults::default()
        };
        let script = Script::seeded(Seed::new(9), &faults);
        let at: Vec<u64> = script
            .plans
            .iter()
            .flat_map(|plan| [&plan.up, &plan.down])
            .flatten()
            .map(|step| step.at)
            .collect();
        assert_eq!(at.len(), 2_000);
        assert!(at.iter().all(|at| *at < 1_000));
        assert!(at.iter().filter(|at| **at < 16).count() > 500);
        assert!(at.iter().any(|at| *at > 900));
    }

    #[test]
    fn a_wrong_piece_is_named_with_what_was_expected() {
        for (text, piece) in [
            ("up[] down[]; nonsense", "nonsense"),
            ("up[cut] down[]", "cut"),
            ("up[cut@x] down[]", "cut@x"),
            ("up[stall@1] down[]", "stall@1"),
            ("up[cut@1=5us] down[]", "cut@1=5us"),
            ("up[] down[stall@1=5]", "stall@1=5"),
        ] {
            let error = text.parse::<Script>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{piece}`")) && error.contains("expected"),
                "{error}"
            );
        }
    }

    #[test]
    fn steps_are_kept_in_the_order_of_their_bytes() {
        let plan = Plan::pass()
            .step(Direction::Up, 9, Act::Cut)
            .step(Direction::Up, 3, Act::Freeze)
            .step(Direction::Up, 9, Act::HalfClose);
        assert_eq!(plan.to_string(), "up[freeze@3 cut@9 half-close@9] down[]");
    }
}
