//! The limits of a child, set from outside before it runs anything of its own: it waits for its host's word until then.

use hyperactor_host::ProcLimits;
use rustix::process::{Pid, Resource, Rlimit};
use rustix::thread::CpuSet;

/// Why limits cannot be set.
#[derive(Debug, thiserror::Error)]
pub(super) enum BoundsError {
    #[error("its limit of {limit} {what} cannot be set: {source}")]
    Limit {
        what: &'static str,
        limit: u64,
        source: std::io::Error,
    },
    #[error("it cannot be kept to the processors {cpus:?}: {source}")]
    Cpus {
        cpus: Vec<usize>,
        source: std::io::Error,
    },
    #[error("there is no processor {cpu}: numbers go up to {max} at most")]
    NoSuchCpu { cpu: usize, max: usize },
    #[error("its process number is out of range")]
    Pid,
}

/// Bounds a process that is not reaped yet. It has one thread so far, and whatever it starts inherits the limits.
pub(super) fn apply(pid: u32, limits: &ProcLimits, with_memory: bool) -> Result<(), BoundsError> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(BoundsError::Pid)?;
    if let Some(bytes) = limits.memory.filter(|_| with_memory) {
        set(pid, Resource::As, "bytes of address space", bytes)?;
    }
    if let Some(count) = limits.descriptors {
        set(pid, Resource::Nofile, "open descriptors", count)?;
    }
    if limits.cpus.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for &cpu in &limits.cpus {
        let max = CpuSet::MAX_CPU - 1;
        if cpu > max {
            return Err(BoundsError::NoSuchCpu { cpu, max });
        }
        set.set(cpu);
    }
    rustix::thread::sched_setaffinity(Some(pid), &set).map_err(|errno| BoundsError::Cpus {
        cpus: limits.cpus.clone(),
        source: errno.into(),
    })
}

fn set(pid: Pid, resource: Resource, what: &'static str, limit: u64) -> Result<(), BoundsError> {
    let both = Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    match rustix::process::prlimit(Some(pid), resource, both) {
        Ok(_) => Ok(()),
        Err(errno) => Err(BoundsError::Limit {
            what,
            limit,
            source: errno.into(),
        }),
    }
}
