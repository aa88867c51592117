//! The machine beneath a measurement: what a wake-up and a cache line between two cores cost at the moment, how busy it is,
//! and which cores a thread or a process may use.

use std::fs;
use std::hint;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

use crate::compare::row::nanos_since;
use crate::compare::stats::percentile;

/// What the probes found; printed beside every row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Processors that this process may use.
    pub cores: usize,
    /// Runnable tasks, averaged over the last minute.
    pub load: f64,
    /// Half the round trip of two threads that wake each other on different, idle cores, in microseconds (median).
    /// Nothing where there is one core.
    pub wake_us: Option<f64>,
    /// The same where both share a core.
    pub wake_same_core_us: f64,
    /// The round trip of a cache line between two cores, in nanoseconds (median of windows).
    pub bounce_ns: Option<f64>,
}

/// Round trips of one probe; few enough for some milliseconds.
const WAKES: usize = 200;
const BOUNCES: u64 = 2_000;
const BOUNCE_WINDOWS: usize = 9;

impl Machine {
    /// Looks at the machine for some ten milliseconds.
    ///
    /// # Errors
    ///
    /// When the system does not say which processors there are, or refuses a thread its place.
    pub fn probe() -> Result<Self> {
        let cores = cores()?;
        let (first, last) = ends(&cores)?;
        let two = (first != last).then_some((first, last));
        Ok(Self {
            cores: cores.len(),
            load: load()?,
            wake_us: two.map(|(a, b)| wake(a, b)).transpose()?,
            wake_same_core_us: wake(first, first)?,
            bounce_ns: two.map(|(a, b)| bounce(a, b)).transpose()?,
        })
    }
}

/// The processors that this thread may use.
pub(crate) fn cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None).context("which processors may be used")?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|cpu| set.is_set(*cpu))
        .collect())
}

/// Two different processors, or one twice where there is one.
pub(crate) fn ends(cores: &[usize]) -> Result<(usize, usize)> {
    match cores {
        [] => Err(anyhow!("there is no processor to use")),
        [only] => Ok((*only, *only)),
        [first, .., last] => Ok((*first, *last)),
    }
}

fn set_of(cores: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    set
}

/// Does `work` with the calling thread on one processor. Threads that are started meanwhile stay there.
pub(crate) fn on_core<T>(core: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = cores()?;
    pin_thread(core)?;
    let done = work();
    sched_setaffinity(None, &set_of(&before)).context("giving a thread its processors back")?;
    done
}

/// Leaves the calling thread one processor.
pub(crate) fn pin_thread(core: usize) -> Result<()> {
    sched_setaffinity(None, &set_of(&[core]))
        .with_context(|| format!("pinning a thread to processor {core}"))
}

/// Leaves all present threads of a process these processors. It has counted the cores it started with by then, so it goes on
/// believing in all of them.
pub(crate) fn pin_process(pid: u32, cores: &[usize]) -> Result<()> {
    let set = set_of(cores);
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("the threads of a process")?;
    for task in tasks {
        let name = task?.file_name();
        let id = name.to_string_lossy().parse().ok().and_then(Pid::from_raw);
        let id = id.with_context(|| format!("`{}` is no thread", name.to_string_lossy()))?;
        sched_setaffinity(Some(id), &set).context("pinning a process")?;
    }
    Ok(())
}

fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("the load of the machine")?;
    let first = text.split_whitespace().next().unwrap_or_default();
    first
        .parse()
        .with_context(|| format!("the load of the machine is `{first}`"))
}

/// Microseconds of one wake-up: two threads that sleep until the other woke them.
fn wake(here: usize, there: usize) -> Result<f64> {
    let turn = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicBool::new(false));
    let times = thread::scope(|scope| -> Result<Vec<u64>> {
        let waker = thread::Builder::new();
        let (their_turn, over) = (Arc::clone(&turn), Arc::clone(&done));
        let main = scope.spawn(move || -> Result<Vec<u64>> {
            pin_thread(here)?;
            let me = thread::current();
            let other = waker.spawn(move || {
                // Unpinned it measures something else, and the pin cannot fail where the first one did not.
                let pinned = pin_thread(there);
                while !over.load(Ordering::Acquire) {
                    if their_turn.swap(false, Ordering::AcqRel) {
                        me.unpark();
                    } else {
                        thread::park();
                    }
                }
                pinned
            })?;
            let mut times = Vec::with_capacity(WAKES);
            for _ in 0..WAKES {
                let started = Instant::now();
                turn.store(true, Ordering::Release);
                other.thread().unpark();
                // Its token says that the turn was taken.
                thread::park();
                times.push(nanos_since(started));
            }
            done.store(true, Ordering::Release);
            other.thread().unpark();
            other
                .join()
                .map_err(|_| anyhow!("a probe of the machine panicked"))??;
            Ok(times)
        });
        main.join()
            .map_err(|_| anyhow!("a probe of the machine panicked"))?
    })?;
    let mut times = times;
    times.sort_unstable();
    Ok(percentile(&times, 50) as f64 / 2_000.0)
}

/// Nanoseconds until a cache line went to the other core and came back.
fn bounce(here: usize, there: usize) -> Result<f64> {
    let (ping, pong) = (AtomicU64::new(0), AtomicU64::new(0));
    let total = BOUNCES * BOUNCE_WINDOWS as u64;
    thread::scope(|scope| {
        let echo = scope.spawn(|| -> Result<()> {
            pin_thread(there)?;
            for number in 1..=total {
                wait_for(&ping, number)?;
                pong.store(number, Ordering::Release);
            }
            Ok(())
        });
        let main = scope.spawn(|| -> Result<f64> {
            pin_thread(here)?;
            let mut windows = Vec::with_capacity(BOUNCE_WINDOWS);
            let mut number = 0;
            for _ in 0..BOUNCE_WINDOWS {
                let started = Instant::now();
                for _ in 0..BOUNCES {
                    number += 1;
                    ping.store(number, Ordering::Release);
                    wait_for(&pong, number)?;
                }
                windows.push(nanos_since(started) / BOUNCES);
            }
            windows.sort_unstable();
            Ok(percentile(&windows, 50) as f64)
        });
        let ended = main
            .join()
            .map_err(|_| anyhow!("a probe of the machine panicked"))?;
        echo.join()
            .map_err(|_| anyhow!("a probe of the machine panicked"))??;
        ended
    })
}

/// Longer than any time slice: the other thread is gone.
const BOUNCE_PATIENCE: Duration = Duration::from_secs(10);

fn wait_for(cell: &AtomicU64, number: u64) -> Result<()> {
    let mut spins = 0_u32;
    let started = Instant::now();
    while cell.load(Ordering::Acquire) < number {
        hint::spin_loop();
        spins = spins.wrapping_add(1);
        if spins.is_multiple_of(1 << 20) && started.elapsed() > BOUNCE_PATIENCE {
            return Err(anyhow!("the other side of a probe of the machine is gone"));
        }
    }
    Ok(())
}

/// Threads that keep processors busy until this is dropped.
pub(crate) struct Hog {
    over: Arc<AtomicBool>,
}

impl Hog {
    /// One busy loop, wherever the system puts it.
    pub(crate) fn start() -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        thread::Builder::new()
            .name("busy-loop".to_owned())
            .spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            })
            .context("a busy loop")?;
        Ok(Self { over })
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// A figure of a process's memory in bytes: a line of its status such as `VmRSS` or `RssAnon`.
pub(crate) fn memory(pid: u32, field: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("the memory of process {pid}"))?;
    memory_in(&text, field).with_context(|| format!("the memory of process {pid}: no {field}"))
}

fn memory_in(status: &str, field: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_finds_costs_that_can_be() {
        let machine = Machine::probe().unwrap();
        assert!(machine.cores >= 1);
        assert!(machine.load >= 0.0);
        assert!(machine.wake_same_core_us > 0.0);
        assert_eq!(machine.wake_us.is_some(), machine.cores > 1);
        assert_eq!(machine.bounce_ns.is_some(), machine.cores > 1);
    }

    #[test]
    fn a_pinned_thread_gets_its_processors_back() {
        let before = cores().unwrap();
        let within = on_core(before[0], cores).unwrap();
        assert_eq!(within, [before[0]]);
        assert_eq!(cores().unwrap(), before);
    }

    #[test]
    fn memory_is_read_by_its_whole_name() {
        let status = "Name:\tx\nVmRSSx:\t9 kB\nVmRSS:\t   12 kB\n";
        assert_eq!(memory_in(status, "VmRSS"), Some(12 * 1024));
        assert_eq!(memory_in(status, "RssAnon"), None);
        assert!(memory(std::process::id(), "RssAnon").unwrap() > 0);
    }
}
