//! Rounds that mostly wait are run several at a time: what their lanes have in common.

use crate::report::{Context, Result};

/// How many rounds go on at the same time.
pub(crate) const LANES: u64 = 4;

/// The rounds of one lane.
pub(crate) fn rounds(lane: u64, all: u64) -> impl Iterator<Item = u64> {
    (lane..all).step_by(LANES as usize)
}

/// Runs lanes that block, each in a thread of its own.
pub(crate) fn run_blocking<T: Send>(lane: impl Fn(u64) -> Result<T> + Sync) -> Result<Vec<T>> {
    run_blocking_in(LANES, lane)
}

/// Runs so many lanes that block, each in a thread of its own.
pub(crate) fn run_blocking_in<T: Send>(
    lanes: u64,
    lane: impl Fn(u64) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let lanes: Vec<_> = std::thread::scope(|scope| {
        let lane = &lane;
        let threads: Vec<_> = (0..lanes)
            .map(|number| scope.spawn(move || lane(number).map_err(|error| error.to_string())))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    Ok(lanes.into_iter().collect::<std::result::Result<_, _>>()?)
}

/// Runs lanes that wait, all in this task.
pub(crate) async fn run<T, F: Future<Output = Result<T>>>(
    lane: impl FnMut(u64) -> F,
) -> Result<Vec<T>> {
    futures_util::future::try_join_all((0..LANES).map(lane)).await
}

/// A generator for one lane.
pub(crate) fn rng(context: &Context, lane: u64) -> hyperactor_testkit::Rng {
    context.seed.fork(&lane.to_string()).rng()
}
