//! What the benchmarks of all layers share: settings, runtimes and payloads. Each layer's own file is in
//! `benches/`; `cargo xtask bench <layer>` runs it. The comparison with what the machine can do is [`compare`].
//!
//! ```
//! use criterion::Throughput;
//! use hyperactor_benches::{SIZES, criterion, payload};
//!
//! # fn main() { if false {
//! let mut criterion = criterion();
//! let mut group = criterion.benchmark_group("copy");
//! for size in SIZES {
//!     let from = payload(size);
//!     group.throughput(Throughput::Bytes(size as u64));
//!     group.bench_function(size.to_string(), |bencher| bencher.iter(|| from.clone()));
//! }
//! group.finish();
//! # } }
//! ```

pub mod compare;

use std::time::Duration;

use criterion::Criterion;
use tokio::runtime::{Builder, Runtime};

/// The payload sizes that layers are compared at: nothing but the cost of a message, a usual message, a
/// large one.
pub const SIZES: [usize; 3] = [64, 4 * 1024, 1024 * 1024];

/// Set to any value, this makes each benchmark short: its figures only say that it runs.
pub const QUICK_VARIABLE: &str = "HYPERACTOR_BENCH_QUICK";

/// The settings of all benchmarks, with the command line's on top.
#[must_use]
pub fn criterion() -> Criterion {
    let criterion = Criterion::default();
    let criterion = if std::env::var_os(QUICK_VARIABLE).is_some() {
        criterion
            .sample_size(10)
            .warm_up_time(Duration::from_millis(20))
            .measurement_time(Duration::from_millis(100))
            .without_plots()
    } else {
        criterion
            .warm_up_time(Duration::from_secs(1))
            .measurement_time(Duration::from_secs(3))
    };
    criterion.configure_from_args()
}

/// Bytes that do not compress and are the same in every run.
#[must_use]
pub fn payload(size: usize) -> Vec<u8> {
    // A Weyl sequence: each step adds an odd constant, the high byte is kept.
    let bytes =
        (0..size as u64).map(|index| (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8);
    bytes.collect()
}

/// A runtime with as many worker threads as the machine has cores: what `#[hyperactor::main]` makes.
///
/// # Panics
///
/// When the system refuses its threads.
#[must_use]
pub fn runtime() -> Runtime {
    match Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => panic!("no runtime for the benchmark: {error}"),
    }
}

/// A runtime on the calling thread: no other thread takes part in what is measured.
///
/// # Panics
///
/// As [`runtime`].
#[must_use]
pub fn runtime_of_one_thread() -> Runtime {
    match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => panic!("no runtime for the benchmark: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_repeat_and_use_every_byte() {
        let bytes = payload(64 * 1024);
        assert_eq!(bytes, payload(64 * 1024));
        assert!((0..=u8::MAX).all(|byte| bytes.contains(&byte)));
        assert!(payload(0).is_empty());
    }

    #[test]
    fn runtimes_run() {
        assert_eq!(runtime().block_on(async { 1 }), 1);
        assert_eq!(runtime_of_one_thread().block_on(async { 2 }), 2);
    }
}
