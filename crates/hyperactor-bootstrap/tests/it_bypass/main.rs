//! The suite `bypass`: each row of the acceptance table of `LocalProcDialer` (in `docs/suites.md`), with real processes and
//! real sockets. The test binary is the program of its own children, as that of `tests/processes` is, from which it has
//! its host and its actors.

mod cost;
mod ends;
mod events;
mod flush;
mod keeper;
mod live;
mod names;
mod needs;
mod pairs;
mod peers;
mod places;
mod reach;
mod rig;
mod starts;

#[path = "../processes/actors.rs"]
#[allow(dead_code, reason = "this suite needs a part of it")]
mod actors;
#[path = "../processes/worker.rs"]
#[allow(dead_code, reason = "this suite needs a part of it")]
mod worker;
#[path = "../processes/world.rs"]
#[allow(dead_code, reason = "this suite needs a part of it")]
mod world;

use std::process::ExitCode;

use hyperactor_bootstrap::Bootstrap;
use libtest_mimic::Arguments;
use world::trial;

fn main() -> ExitCode {
    let role = std::env::var(world::ROLE).unwrap_or_default();
    if role == needs::STRANGER {
        return played(peers::listen());
    }
    Bootstrap::new()
        .registry(
            actors::registry()
                .with::<keeper::Keeper>()
                .with::<cost::Asker>(),
        )
        .on_child_start(starts::wait_at_the_barrier)
        .run_if_child();
    if role == pairs::PART {
        return played(alone(pairs::part()));
    }
    if role == needs::CROWDED {
        return played(alone(places::crowded_host()));
    }
    let trials = [
        live::trials(),
        reach::trials(),
        names::trials(),
        ends::trials(),
        peers::trials(),
        places::trials(),
        cost::trials(),
        flush::trials(),
        starts::trials(),
        pairs::trials(),
    ];
    let trials = trials.into_iter().flatten().collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Plays a role on a runtime of its own.
fn alone(role: impl Future<Output = world::TestResult>) -> world::TestResult {
    tokio::runtime::Runtime::new()?.block_on(role)
}

/// The end of a process that played a role in a test.
fn played(role: world::TestResult) -> ExitCode {
    match role {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
