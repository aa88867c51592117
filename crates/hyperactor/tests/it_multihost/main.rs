//! Hosts on several machines: each machine is a network namespace with an address of its own, all are joined by a bridge in
//! one more, where links are cut that no end sees break.
//!
//! The binary is the program of everybody: of the children, whose `main` begins with the bootstrap call; of the machines'
//! hosts; and of the observer in the middle, who plays a scenario. All of it needs `ip`, `unshare` and `nsenter`, and the right to
//! make namespaces, as root or as a user. Where that is missing, the tests are skipped and say so.
//!
//! Nothing has a name outside of the namespaces: they, and all that is in them, are gone when their last process is. Each
//! process ends with the one that started it.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers too: a test's panic is its report"
)]

mod actors;
mod lab;
mod machine;
mod namespace;
mod partitions;
mod streams;
mod talk;
mod vanish;
mod weather;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use namespace::Absence;

/// The variable that makes the test binary play a role instead of running tests, and the role's argument.
const ROLE: &str = "HYPERACTOR_TEST_ROLE";
const ARGUMENT: &str = "HYPERACTOR_TEST_ARGUMENT";

type Scenario = fn() -> lab::Played;

/// The scenarios, each played by an observer in a process of its own.
const SCENARIOS: &[(&str, Scenario)] = &[
    ("probe", || Box::pin(lab::probe())),
    ("talk", || Box::pin(talk::play())),
    ("short-partition", || Box::pin(partitions::short())),
    ("long-partition", || Box::pin(partitions::long())),
    ("vanish", || Box::pin(vanish::play())),
    ("weather", || Box::pin(weather::play())),
];

fn main() -> ExitCode {
    hyperactor::boot(actors::registry());
    if let Ok(role) = std::env::var(ROLE) {
        return play(&role);
    }
    let arguments = Arguments::from_args();
    let absence = namespace::absence();
    let weather = match absence {
        None => namespace::weather_absence(),
        Some(_) => None,
    };
    let trials = vec![
        trial("actors_of_three_machines_talk", &["talk"], absence.as_ref()),
        // They wait more than they work, and each has machines of its own.
        trial(
            "partitions_heal_and_a_machine_comes_back",
            &["short-partition", "long-partition", "vanish"],
            absence.as_ref(),
        ),
        trial(
            "loss_delay_and_disorder_on_the_way_change_nothing",
            &["weather"],
            absence.as_ref().or(weather.as_ref()),
        ),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A test that plays scenarios at the same time, or is skipped because the machine lacks something.
fn trial(name: &str, scenarios: &'static [&'static str], absence: Option<&Absence>) -> Trial {
    if let Some(absence) = absence {
        eprintln!("SKIPPED: {name}: {absence}");
    }
    let test = Trial::test(name, move || {
        let observers: Vec<_> = scenarios
            .iter()
            .map(|scenario| (scenario, namespace::observer(scenario)))
            .collect();
        let mut failed = Vec::new();
        for (scenario, observer) in observers {
            let status = observer?.end()?;
            if !status.success() {
                failed.push(format!("scenario {scenario}: {status}"));
            }
        }
        if failed.is_empty() {
            Ok(())
        } else {
            Err(Failed::from(failed.join("; ")))
        }
    });
    test.with_ignored_flag(absence.is_some())
}

/// Plays a role to its end.
fn play(role: &str) -> ExitCode {
    namespace::end_with_the_parent();
    let argument = std::env::var(ARGUMENT).unwrap_or_default();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match role {
        // Keeps a namespace there until it is ended.
        "hold" => loop {
            std::thread::park();
        },
        "machine" => runtime.block_on(machine::serve(&argument)),
        "observe" => {
            let (_, scenario) = SCENARIOS
                .iter()
                .find(|(name, _)| *name == argument)
                .expect("a scenario of this name");
            runtime.block_on(scenario());
        }
        other => panic!("no such role: {other}"),
    }
    ExitCode::SUCCESS
}
