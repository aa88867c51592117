//! What the suites share: how they are told what to do and report what came of it. Sockets and peers that speak by hand
//! are in `net`, messages with their ledgers in `traffic`, with names for destinations in
//! `named`, the observer of connections in `tap`, what is attacked in
//! `victim`, `/proc` in `process`, counted log lines in `log`, one process for each transport in `apart`, a server in a
//! process of its own in `served`.

pub(crate) mod apart;
pub(crate) mod log;
pub(crate) mod named;
pub(crate) mod net;
pub(crate) mod process;
pub(crate) mod served;
pub(crate) mod tap;
pub(crate) mod traffic;
pub(crate) mod victim;

use std::fmt::Display;
use std::time::Duration;

use hyperactor_testkit::{Scale, Seed};
use net::Kind;
use tokio::runtime::{Builder, Runtime};

/// What a suite is asked to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    pub(crate) seed: Seed,
    pub(crate) scale: Scale,
    /// The only transport to use, where a suite gives each a process of its own.
    pub(crate) kind: Option<Kind>,
}

impl Context {
    /// A full figure, scaled; at least 1.
    pub(crate) fn scaled(&self, figure: u64) -> u64 {
        self.scale.of(figure)
    }

    /// As [`scaled`](Self::scaled), for things that are counted in memory.
    pub(crate) fn count(&self, figure: usize) -> usize {
        usize::try_from(self.scaled(figure as u64)).unwrap_or(usize::MAX)
    }
}

/// What came of a suite, printed as it is found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Report {
    /// Prints a number that is not judged.
    pub(crate) fn figure(&self, name: &str, value: impl Display) {
        println!("        {name:<58} {value}");
    }

    /// Judges one expectation; the detail is printed when it is not met.
    pub(crate) fn check(&mut self, name: &str, holds: bool, detail: impl Display) {
        if holds {
            self.passed += 1;
            println!("ok      {name}");
        } else {
            self.failed += 1;
            println!("FAILED  {name}: {detail}");
        }
    }

    /// A count that shows that something really took place.
    pub(crate) fn at_least(&mut self, name: &str, seen: u64, minimum: u64) {
        let name = format!("{name:<50} {seen} (at least {minimum})");
        self.check(&name, seen >= minimum, "it hardly took place");
    }

    /// A count or size that has a limit.
    pub(crate) fn at_most(&mut self, name: &str, value: u64, limit: u64) {
        let name = format!("{name:<50} {value} (at most {limit})");
        self.check(&name, value <= limit, "beyond the limit");
    }

    /// Times of the same kind of thing. Half of them keep to the aim, whatever else the machine does meanwhile; the
    /// longest may take ten times as long, which is still far from a time that passed because of a fault (a timeout, a
    /// retry). What they really took is printed.
    pub(crate) fn times(&mut self, name: &str, times: &mut [Duration], aim: Duration) {
        let [median, p99, longest] = [500, 990, 1000].map(|share| quantile(times, share));
        self.figure(
            name,
            format!(
                "median {median:.1?}, 99 of 100 {p99:.1?}, longest {longest:.1?} of {}",
                times.len()
            ),
        );
        self.at_least(&format!("{name}: measured"), times.len() as u64, 1);
        self.within(&format!("{name}: median"), median, aim);
        self.within(&format!("{name}: longest"), longest, aim * 10);
    }

    /// A time that has a limit.
    pub(crate) fn within(&mut self, name: &str, took: Duration, limit: Duration) {
        let name = format!("{name:<50} {took:.1?} (at most {limit:?})");
        self.check(&name, took <= limit, "it took too long");
    }
}

/// The runtime that a suite runs on: as many workers as a small machine has cores.
pub(crate) fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// Waits until a condition holds; says whether it came to hold in time.
pub(crate) async fn holds_within(limit: Duration, condition: impl Fn() -> bool) -> bool {
    let waited = tokio::time::timeout(limit, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.is_ok()
}

/// The value that the given share, in thousandths, of all values does not exceed.
pub(crate) fn quantile(values: &mut [Duration], thousandths: usize) -> Duration {
    values.sort_unstable();
    let at = (values.len() * thousandths / 1000).min(values.len().saturating_sub(1));
    values.get(at).copied().unwrap_or_default()
}
