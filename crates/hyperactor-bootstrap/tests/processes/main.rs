//! Procs as real processes: this test binary is the program of its own children, so its `main` begins as every user's
//! does, with the bootstrap call. Then it runs its tests, or plays a role in one of them.

mod actors;
mod blocking;
mod bounds;
mod deaths;
mod ends;
mod groups;
mod keeps;
mod relayed;
mod roles;
mod routes;
mod starts;
mod stream;
mod worker;
mod world;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use world::{ROLE, trial};

fn main() -> ExitCode {
    let role = std::env::var(ROLE).ok();
    if let Some(role) = &role {
        roles::before_boot(role);
    }
    hyperactor_bootstrap::boot(
        actors::registry()
            .with::<stream::Stream>()
            .with::<blocking::Holder>(),
    );
    if let Some(role) = role {
        return match roles::after_boot(&role) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("role {role}: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let trials = [
        routes::trials(),
        relayed::trials(),
        starts::trials(),
        ends::trials(),
        groups::trials(),
        deaths::trials(),
        blocking::trials(),
        bounds::trials(),
        keeps::trials(),
    ]
    .concat_all();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

trait ConcatAll {
    fn concat_all(self) -> Vec<Trial>;
}

impl<const N: usize> ConcatAll for [Vec<Trial>; N] {
    fn concat_all(self) -> Vec<Trial> {
        self.into_iter().flatten().collect()
    }
}
