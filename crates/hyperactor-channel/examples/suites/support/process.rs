//! What the kernel says of a process: memory, descriptors, processor time. And this program, started again.

use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Context;
use super::net::Kind;

/// Resident memory of this process, in KiB.
pub(crate) fn resident_kib() -> u64 {
    status_kib("self", "VmRSS:")
}

/// The most resident memory that this process ever had since [`reset_peak`], in KiB.
pub(crate) fn peak_kib() -> u64 {
    status_kib("self", "VmHWM:")
}

/// The most resident memory that another process ever had, in KiB.
pub(crate) fn peak_kib_of(pid: u32) -> u64 {
    status_kib(&pid.to_string(), "VmHWM:")
}

/// Resident memory of another process, in KiB.
pub(crate) fn resident_kib_of(pid: u32) -> u64 {
    status_kib(&pid.to_string(), "VmRSS:")
}

/// Makes the present memory the peak.
pub(crate) fn reset_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

fn status_kib(process: &str, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// How many descriptors this process has open.
pub(crate) fn descriptors() -> u64 {
    // One of them reads the folder.
    std::fs::read_dir("/proc/self/fd").unwrap().count() as u64 - 1
}

/// Processor time that a process has used, in its own code and the kernel's.
pub(crate) fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// Processor time that this thread has used.
pub(crate) fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap(),
        u32::try_from(time.tv_nsec).unwrap(),
    )
}

/// This program as another process, for the part of that name.
pub(crate) fn child(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--child", name]).args(arguments);
    command
}

/// This program as another process, for one suite on one transport.
pub(crate) fn suite(name: &str, kind: Kind, context: &Context) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([name, "--transport", kind.word()])
        .args(["--scale", &context.scale.to_string()])
        .args(["--seed", &context.seed.to_string()]);
    command
}

/// Takes as many descriptors as this user may have: a suite of many connections needs more than a shell hands out.
pub(crate) fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        println!("        the limit of descriptors stays as it is: {error}");
    }
}
