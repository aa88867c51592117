//! Supervision: the tables of cases, each in one proc, across two procs over Unix sockets, and across two processes; the
//! deaths of whole processes; and two hosts over TCP.
//!
//! The binary is the program of its own children, so its `main` begins with the bootstrap call.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers too: a test's panic is its report"
)]

mod links;
mod nodes;
mod processes;
mod supervisors;
mod worlds;

use std::future::Future;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use worlds::{Kind, World};

fn main() -> ExitCode {
    hyperactor::boot(nodes::registry());
    let mut trials = links::trials();
    trials.extend(supervisors::trials());
    trials.extend(processes::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The cases of a table: each in one proc and across two, and all of them across one pair of processes.
fn table<C: Sync>(
    group: &str,
    cases: &'static [C],
    name_of: fn(&C) -> &'static str,
    play: impl AsyncFn(&mut World, &C, &str) + Copy + Send + 'static,
) -> Vec<Trial> {
    let mut trials = Vec::new();
    for kind in [Kind::OneProc, Kind::TwoProcs] {
        for case in cases {
            let name = format!("{group}::{}::{}", kind.name(), name_of(case));
            trials.push(trial(name, move || async move {
                let mut world = World::new(kind).await;
                play(&mut world, case, "x").await;
                world.end().await;
            }));
        }
    }
    // One pair of processes for all: what one case leaves must not disturb the next either.
    let name = format!("{group}::{}::all_cases", Kind::TwoProcesses.name());
    trials.push(trial(name, move || async move {
        let mut world = World::new(Kind::TwoProcesses).await;
        for (at, case) in cases.iter().enumerate() {
            eprintln!("case {}", name_of(case));
            play(&mut world, case, &at.to_string()).await;
        }
        world.end().await;
    }));
    trials
}

/// A test on a runtime of its own.
fn trial<F>(name: impl Into<String>, test: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()> + 'static,
{
    Trial::test(name, move || {
        let runtime = tokio::runtime::Runtime::new()?;
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(test());
        }));
        result.map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Failed::from(text.unwrap_or_default())
        })
    })
}
