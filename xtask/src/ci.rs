//! All that a change has to pass, in order, each step timed. A step that fails does not hide the others.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::counts::Counts;
use crate::suites::{self, Group};
use crate::test::Selection;
use crate::workspace::Workspace;
use crate::{crash, examples, fuzz, it, layers, lint, mutants, shell, sim, spec, test};

/// The longest that the demo may take before it counts as hung.
const DEMO_LIMIT: Duration = Duration::from_secs(120);

/// The share of the messages between processes that must have gone past the host.
const DIRECT_SHARE: f64 = 0.9;

/// The longest that all tests may take, their build included.
const TEST_LIMIT: Duration = Duration::from_secs(25 * 60);

/// The longest that each group of suites over real sockets, and that in which processes die, may take on a machine that is
/// much slower than two cores: beyond, they run with fewer cases.
const CHAOS_BUDGET: Duration = Duration::from_secs(150);
const LIMITS_BUDGET: Duration = Duration::from_secs(75);
const SEC_BUDGET: Duration = Duration::from_secs(105);
const CRASH_BUDGET: Duration = Duration::from_secs(120);

/// A step gives back the tests it ran, if it is one that runs tests.
type Work = fn() -> Result<Option<Counts>>;

const STEPS: &[(&str, Work)] = &[
    ("fmt", || lint::fmt(true).map(|()| None)),
    ("lint", || lint::sources().map(|()| None)),
    ("layers", || layers::run().map(|()| None)),
    ("spec", || spec::run().map(|()| None)),
    ("test", || tests().map(Some)),
    ("it all", || {
        it::run_suites(&it::select("all")?, None).map(Some)
    }),
    ("sim", || {
        sim::Arguments::CI.iter().try_for_each(sim::run)?;
        Ok(None)
    }),
    ("fuzz", || {
        fuzz::Arguments::for_ci().try_for_each(|arguments| fuzz::run(&arguments))?;
        Ok(None)
    }),
    ("mutants", || {
        mutants::run(&mutants::Arguments::CI).map(|()| None)
    }),
    ("chaos", || suite(Group::Chaos, CHAOS_BUDGET)),
    ("limits", || suite(Group::Limits, LIMITS_BUDGET)),
    ("sec", || suite(Group::Sec, SEC_BUDGET)),
    ("crash", || {
        crash::run_suites(&crash::Arguments::ci(CRASH_BUDGET)).map(Some)
    }),
    ("examples", || examples::run_examples(None).map(Some)),
    ("demo", || demo().map(|()| None)),
];

/// What came of one step.
struct Done {
    name: &'static str,
    took: Duration,
    counts: Option<Counts>,
    error: Option<anyhow::Error>,
}

pub(crate) fn run() -> Result<()> {
    let mut done = Vec::with_capacity(STEPS.len());
    for (name, work) in STEPS {
        eprintln!("\n== {name}");
        let started = Instant::now();
        let (counts, error) = match work() {
            Ok(counts) => (counts, None),
            Err(error) => {
                eprintln!("error: {error:#}");
                (None, Some(error))
            }
        };
        done.push(Done {
            name,
            took: started.elapsed(),
            counts,
            error,
        });
    }
    print!("\n{}", table(&done));
    let counts = sum(&done);
    println!("{} passed, {} failed", counts.passed, counts.failed);
    let failed: Vec<_> = done
        .iter()
        .filter(|step| !step.is_good())
        .map(|step| step.name)
        .collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

impl Done {
    fn is_good(&self) -> bool {
        self.error.is_none() && self.counts.is_none_or(|counts| counts.failed == 0)
    }
}

/// The tests of all steps. A step that could not run at all counts as one failure, so that the closing
/// line never looks better than the exit status.
fn sum(done: &[Done]) -> Counts {
    done.iter().fold(Counts::default(), |sum, step| {
        let broken = if step.error.is_some() {
            Counts::one(false)
        } else {
            Counts::default()
        };
        sum + step.counts.unwrap_or_default() + broken
    })
}

fn table(done: &[Done]) -> String {
    let mut text = format!("{:<9} {:>8}  result\n", "step", "seconds");
    for step in done {
        let result = match (&step.error, step.counts) {
            (Some(error), _) => format!("FAILED: {}", first_line(&error.to_string())),
            (None, Some(counts)) if counts.failed > 0 => format!("FAILED: {counts}"),
            (None, Some(counts)) => counts.to_string(),
            (None, None) => "ok".to_owned(),
        };
        text += &format!(
            "{:<9} {:>8.1}  {result}\n",
            step.name,
            step.took.as_secs_f64()
        );
    }
    let total: Duration = done.iter().map(|step| step.took).sum();
    text + &format!("{:<9} {:>8.1}\n", "total", total.as_secs_f64())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or(text)
}

/// All tests but the integration suites, which are the next step.
fn tests() -> Result<Counts> {
    let workspace = Workspace::load()?;
    let counts = test::run_selection(&Selection::all_but_suites(&workspace), TEST_LIMIT)?;
    Ok(counts + test::run_doctests()?)
}

fn suite(group: Group, budget: Duration) -> Result<Option<Counts>> {
    suites::run_group(group, &suites::Arguments::ci(budget)).map(Some)
}

/// What `hyperactor demo --json` says of its run, as far as it is checked here.
#[derive(Debug, Deserialize)]
struct Demo {
    procs: u64,
    words: u64,
    verified: bool,
    messages: Messages,
    undeliverable: u64,
    left_behind: u64,
}

#[derive(Debug, Deserialize)]
struct Messages {
    direct: u64,
    relay: u64,
}

/// Builds the program as users do, runs its demo and checks what it reports of itself.
fn demo() -> Result<()> {
    shell::run(shell::cargo().args(["build", "--release", "--package", "hyperactor-cli"]))?;
    let mut report = String::new();
    let mut command = shell::cargo();
    command.args([
        "run",
        "--quiet",
        "--release",
        "--package",
        "hyperactor-cli",
        "--",
    ]);
    command.args(["demo", "--json"]);
    let status = shell::watch(&mut command, DEMO_LIMIT, |line| {
        if line.starts_with('{') {
            report = line.to_owned();
        }
    })?;
    ensure!(status.success(), "the demo ended with {status}");
    check_demo(&report)
}

fn check_demo(report: &str) -> Result<()> {
    let demo: Demo =
        serde_json::from_str(report).with_context(|| format!("the demo printed `{report}`"))?;
    ensure!(
        demo.procs > 1 && demo.words > 0,
        "the demo did no work between processes: {report}"
    );
    ensure!(demo.verified, "the demo counted wrong: {report}");
    ensure!(demo.undeliverable == 0, "the demo lost messages: {report}");
    ensure!(
        demo.left_behind == 0,
        "the demo left processes or sockets behind: {report}"
    );
    let between = demo.messages.direct + demo.messages.relay;
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share of messages needs no 53 bits"
    )]
    let share = demo.messages.direct as f64 / between.max(1) as f64;
    ensure!(
        share > DIRECT_SHARE,
        "only {:.1} % of the messages between processes went directly: {report}",
        share * 100.0
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verified: bool, undeliverable: u64, left_behind: u64, relay: u64) -> String {
        format!(
            r#"{{"procs":4,"files":9,"words":100,"distinct":10,"verified":{verified},"messages":{{"in_process":50,"direct":90,"relay":{relay}}},"undeliverable":{undeliverable},"seconds":0.1,"messages_per_second":9,"left_behind":{left_behind}}}"#
        )
    }

    #[test]
    fn a_good_report_passes() {
        check_demo(&report(true, 0, 0, 5)).unwrap();
    }

    #[test]
    fn each_flaw_of_a_report_fails_in_its_own_words() {
        for (report, word) in [
            (report(false, 0, 0, 5), "counted wrong"),
            (report(true, 1, 0, 5), "lost messages"),
            (report(true, 0, 1, 5), "left processes"),
            (report(true, 0, 0, 90), "50.0 %"),
            (
                report(true, 0, 0, 5).replace(r#""words":100"#, r#""words":0"#),
                "no work",
            ),
            (String::new(), "printed"),
        ] {
            let error = format!("{:#}", check_demo(&report).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn the_closing_sum_counts_a_broken_step() {
        let done = [
            Done {
                name: "test",
                took: Duration::from_secs(2),
                counts: Some(Counts {
                    passed: 5,
                    failed: 0,
                    skipped: 1,
                }),
                error: None,
            },
            Done {
                name: "lint",
                took: Duration::from_secs(1),
                counts: None,
                error: Some(anyhow::anyhow!("a warning\nmore")),
            },
        ];
        let counts = sum(&done);
        assert_eq!((counts.passed, counts.failed), (5, 1));
        let table = table(&done);
        assert!(table.contains("5 passed, 0 failed, 1 skipped"), "{table}");
        assert!(
            table.contains("FAILED: a warning\n") && !table.contains("more"),
            "{table}"
        );
        assert!(table.contains("total          3.0"), "{table}");
    }
}
