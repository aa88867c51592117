//! How a host comes to its end in the suites: by a signal from outside, or by its own deed.

use std::hint::black_box;
use std::io::BufRead;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, setrlimit};

use crate::report::Result;
use crate::world::{Role, signal};

/// How a host ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// A signal from outside.
    Signal(Signal),
    /// SIGSEGV from outside, until it works: the first one meets the standard library's guard of stacks.
    Segv,
    /// It reads where nothing is.
    Fault,
    /// It calls `abort`.
    Abort,
    /// It gets no more memory, and ends itself.
    NoMemory,
    /// It takes more memory than its control group may have, and the kernel ends it.
    Killed,
}

impl Deed {
    pub(crate) const ALL: [Self; 8] = [
        Self::Signal(Signal::KILL),
        Self::Signal(Signal::TERM),
        Self::Signal(Signal::ABORT),
        Self::Segv,
        Self::Fault,
        Self::Abort,
        Self::NoMemory,
        Self::Killed,
    ];

    /// The signal that ends it in the end.
    pub(crate) fn ends_by(self) -> Signal {
        match self {
            Self::Signal(signal) => signal,
            Self::Segv | Self::Fault => Signal::SEGV,
            Self::Abort | Self::NoMemory => Signal::ABORT,
            Self::Killed => Signal::KILL,
        }
    }

    /// Brings it about in a process that plays a host, and waits for its end. Returns the signal that ended it.
    pub(crate) fn bring_about(self, host: &mut Role, group: Option<&Group>) -> Result<Option<i32>> {
        use std::os::unix::process::ExitStatusExt;
        match self {
            Self::Signal(signal) => return Ok(host.end_by(signal)?.signal()),
            Self::Segv => {
                while host.process.try_wait()?.is_none() {
                    signal(host.process.id(), Signal::SEGV)?;
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            Self::Fault => host.tell("FAULT")?,
            Self::Abort => host.tell("ABORT")?,
            Self::NoMemory => host.tell("NO-MEMORY")?,
            Self::Killed => {
                group.ok_or("no control group")?.add(host.process.id())?;
                host.tell("EAT")?;
            }
        }
        Ok(host.process.wait()?.signal())
    }
}

/// Does in this process what it is told by its standard input, and ends it with whoever could tell.
pub(crate) fn obey() {
    std::thread::spawn(|| {
        for line in std::io::stdin().lock().lines() {
            match line.as_deref() {
                Ok("FAULT") => fault(),
                Ok("ABORT") => std::process::abort(),
                Ok("NO-MEMORY") => {
                    let none = Rlimit {
                        current: Some(0),
                        maximum: Some(0),
                    };
                    if let Err(error) = setrlimit(Resource::As, none) {
                        eprintln!("memory is not bounded: {error}");
                    }
                    black_box(vec![1u8; 1 << 26]);
                }
                Ok("EAT") => eat(),
                _ => break,
            }
        }
        std::process::exit(1);
    });
}

/// Reads through a reference that leads nowhere, as faulty foreign code may: the reference is overwritten from outside of the
/// language, by the file that is this process's memory.
fn fault() {
    let place: &mut &u64 = black_box(Box::leak(Box::new(&0)));
    let address = std::ptr::from_ref(place).addr();
    let nowhere = 16usize.to_ne_bytes();
    let written = std::fs::OpenOptions::new()
        .write(true)
        .open("/proc/self/mem")
        .and_then(|memory| memory.write_all_at(&nowhere, address as u64));
    if let Err(error) = written {
        eprintln!("no fault: {error}");
    }
    black_box(**black_box(place));
}

/// Takes memory until it is ended for it.
fn eat() {
    let mut eaten = Vec::new();
    loop {
        eaten.push(black_box(vec![1u8; 1 << 20]));
    }
}

/// A control group with a bound on memory. Removed when dropped.
pub(crate) struct Group {
    path: PathBuf,
}

/// What all processes of a group may have together.
const GROUP_BYTES: u64 = 64 << 20;

impl Group {
    /// Makes one below the group of this process.
    ///
    /// # Errors
    /// Here none can be made, or none with a bound on memory.
    pub(crate) fn new() -> Result<Self> {
        let groups = std::fs::read_to_string("/proc/self/cgroup")?;
        let mut last = "there is no control group".into();
        for line in groups.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
                continue;
            };
            let (root, bound) = match controllers {
                "" => ("/sys/fs/cgroup", "memory.max"),
                "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
                _ => continue,
            };
            let parent = Path::new(root).join(group.trim_start_matches('/'));
            let path = parent.join(format!("crash-{}", std::process::id()));
            if let Err(error) = std::fs::create_dir(&path) {
                last = format!("{}: {error}", path.display());
                continue;
            }
            let made = Self { path };
            match std::fs::write(made.path.join(bound), GROUP_BYTES.to_string()) {
                Ok(()) => return Ok(made),
                Err(error) => last = format!("{bound}: {error}"),
            }
        }
        Err(last.into())
    }

    fn add(&self, pid: u32) -> Result {
        Ok(std::fs::write(
            self.path.join("cgroup.procs"),
            pid.to_string(),
        )?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir(&self.path) {
            eprintln!("{}: {error}", self.path.display());
        }
    }
}
