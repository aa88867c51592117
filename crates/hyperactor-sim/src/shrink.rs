//! Finds the parts of a failing scenario that matter: first of its faults, then of its messages, then of its world.
//!
//! The method for lists is delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing
//! input", 2002): leave out halves, then quarters, and so on, as long as the same promise breaks.

use std::fmt::Write;

use crate::batch::judge;
use crate::fault::Nanos;
use crate::ledger::Flaw;
use crate::scenario::{Scenario, World};

/// Runs after which shrinking stops with what it has.
const RUNS_MAX: u32 = 4000;
/// Lines of a report; what does not fit is counted.
const LINES_MAX: usize = 20;

/// A scenario that still fails, and how.
#[derive(Debug)]
pub struct Shrunk {
    /// What is left of it.
    pub scenario: Scenario,
    /// The flaw that it still shows.
    pub flaw: Flaw,
    /// How many runs it took.
    pub runs: u32,
}

struct Shrinker {
    best: Scenario,
    flaw: Flaw,
    runs: u32,
}

/// Shrinks a scenario that shows `flaw` to a smaller one that breaks the same promise.
pub fn shrink(scenario: &Scenario, flaw: &Flaw) -> Shrunk {
    let mut this = Shrinker {
        best: scenario.clone(),
        flaw: flaw.clone(),
        runs: 0,
    };
    // Fewer messages may make more faults needless, and the other way round.
    loop {
        let before = this.best.faults.len() + this.best.posts.len();
        this.thin(
            |scenario, part| scenario.faults = part,
            |scenario| &scenario.faults,
        );
        this.thin(
            |scenario, part| scenario.posts = part,
            |scenario| &scenario.posts,
        );
        if this.best.faults.len() + this.best.posts.len() == before {
            break;
        }
    }
    this.plain_world();
    Shrunk {
        scenario: this.best,
        flaw: this.flaw,
        runs: this.runs,
    }
}

impl Shrinker {
    /// Keeps the candidate if it breaks the same promise.
    fn accept(&mut self, candidate: Scenario) -> bool {
        if self.runs >= RUNS_MAX {
            return false;
        }
        self.runs += 1;
        let outcome = judge(&candidate, false);
        let kind = self.flaw.kind;
        let Some(flaw) = outcome.flaws.into_iter().find(|flaw| flaw.kind == kind) else {
            return false;
        };
        self.best = candidate;
        self.flaw = flaw;
        true
    }

    fn thin<T: Clone>(
        &mut self,
        put: impl Fn(&mut Scenario, Vec<T>),
        take: impl Fn(&Scenario) -> &Vec<T>,
    ) {
        let mut parts = 1;
        loop {
            let all = take(&self.best).clone();
            if all.is_empty() {
                return;
            }
            let size = all.len().div_ceil(parts);
            let shorter = (0..all.len()).step_by(size).any(|start| {
                let mut rest = all.clone();
                rest.drain(start..(start + size).min(all.len()));
                let mut candidate = self.best.clone();
                put(&mut candidate, rest);
                self.accept(candidate)
            });
            if shorter {
                parts = parts.saturating_sub(1).max(1);
            } else if size == 1 {
                return;
            } else {
                parts = (parts * 2).min(all.len());
            }
        }
    }

    fn plain_world(&mut self) {
        let steps: [fn(&mut World); 6] = [
            |world| world.drift_ppm.fill(0),
            |world| world.disorder = false,
            |world| world.refusals = false,
            |world| world.service = 0,
            |world| world.socket_bytes = 256 * 1024,
            |world| world.chunk = 64 * 1024,
        ];
        for step in steps {
            let mut candidate = self.best.clone();
            step(&mut candidate.world);
            self.accept(candidate);
        }
    }
}

impl Shrunk {
    /// Says in at most 20 lines what is needed to see the flaw.
    pub fn report(&self) -> String {
        let mut lines = vec![
            format!(
                "seed {}: {}: {}",
                self.scenario.seed, self.flaw.kind, self.flaw.detail
            ),
            format!("world: {}", self.scenario.world),
        ];
        let mut script: Vec<(Nanos, String)> = Vec::new();
        script.extend(
            self.scenario
                .faults
                .iter()
                .map(|fault| (fault.at, fault.to_string())),
        );
        script.extend(
            self.scenario
                .posts
                .iter()
                .map(|post| (post.at, post.to_string())),
        );
        script.sort();
        let room = LINES_MAX - lines.len() - 2;
        let more = script.len().saturating_sub(room);
        lines.extend(script.into_iter().take(room).map(|(_, line)| line));
        if more != 0 {
            lines.push(format!("and {more} more"));
        }
        lines.push(format!(
            "{} faults and {} messages are left, after {} runs",
            self.scenario.faults.len(),
            self.scenario.posts.len(),
            self.runs
        ));
        lines.iter().fold(String::new(), |mut text, line| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{line}");
            text
        })
    }
}
