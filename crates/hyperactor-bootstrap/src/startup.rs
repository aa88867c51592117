//! What a process does at the top of `main`, while it still has one thread: finds out whether it is a child,
//! takes its instructions out of the environment and its control stream off descriptor 0.
//!
//! The only unsafe code of the crate is here: two calls that are sound in a process of one thread, which is checked
//! first, and two requests of `fcntl` that no safe function makes. What the child does with what was found is in `child`.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Dir, Mode, OFlags};
use rustix::process::{Pid, Signal};

use crate::error::BootError;
use crate::instructions::Instructions;

/// The environment variable that carries a child's instructions.
pub(crate) const VARIABLE: &str = "HYPERACTOR_BOOTSTRAP";

/// Whether the call at the top of `main` was made in this process.
static BOOTED: AtomicBool = AtomicBool::new(false);

/// What a child starts with.
#[derive(Debug)]
pub(crate) struct ChildStart {
    pub(crate) instructions: Instructions,
    pub(crate) control: UnixStream,
}

/// Whether this process made the call at the top of `main`.
pub(crate) fn has_booted() -> bool {
    BOOTED.load(Ordering::Relaxed)
}

/// Whether this process was started as a child and has not taken its instructions.
pub(crate) fn is_unbooted_child() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Why a child cannot start, and the stream on which its host waits to be told.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: BootError,
    pub(crate) control: Option<UnixStream>,
}

/// Returns `None` in a process that nobody started as a child. In a child, takes everything that was meant for it
/// out of the reach of the code that runs later, and of the child's own children.
pub(crate) fn begin() -> Result<Option<ChildStart>, Refusal> {
    BOOTED.store(true, Ordering::Relaxed);
    if !is_unbooted_child() {
        return Ok(None);
    }
    let control = take_control().map_err(|error| Refusal {
        error,
        control: None,
    })?;
    match take_instructions() {
        Ok(instructions) => Ok(Some(ChildStart {
            instructions,
            control,
        })),
        Err(error) => Err(Refusal {
            error,
            control: Some(control),
        }),
    }
}

fn take_instructions() -> Result<Instructions, BootError> {
    require_one_thread()?;
    let text = take_variable()?;
    close_inherited().map_err(BootError::io("close descriptors inherited from the host"))?;
    Instructions::parse(&text)
}

/// The environment may only be changed, and descriptors only be closed by number, where no other thread can be
/// reading or opening them.
fn require_one_thread() -> Result<(), BootError> {
    let threads = std::fs::read_dir("/proc/self/task")
        .map_err(|source| BootError::Io {
            what: "count the threads of this process",
            source,
        })?
        .count();
    if threads == 1 {
        Ok(())
    } else {
        Err(BootError::TooLate { threads })
    }
}

fn take_variable() -> Result<String, BootError> {
    let value = std::env::var_os(VARIABLE);
    // SAFETY: `require_one_thread` has just counted one thread, this one, so nobody else can read or change the
    // environment during the call.
    unsafe { std::env::remove_var(VARIABLE) };
    value
        .unwrap_or_default()
        .into_string()
        .map_err(|_| BootError::Instructions {
            reason: "they are not valid UTF-8".to_owned(),
        })
}

/// Closes what an `exec` left open beyond the three standard descriptors. Such a descriptor cannot have the
/// close-on-exec flag, and whatever Rust code opened since then always has it: that tells the two apart.
fn close_inherited() -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listing = rustix::fs::open("/proc/self/fd", flags, Mode::empty())?;
    let own = listing.as_raw_fd();
    let mut found: Vec<RawFd> = Vec::new();
    for entry in Dir::new(listing)? {
        let number: Option<RawFd> = entry?
            .file_name()
            .to_str()
            .ok()
            .and_then(|name| name.parse().ok());
        found.extend(number.filter(|fd| *fd > 2 && *fd != own));
    }
    for fd in found {
        // SAFETY: the descriptor was listed as open a moment ago, and the only thread of the process, this one, has
        // closed nothing but the listing since, which is not in the list. The borrow ends with the statement.
        let flags = rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(fd) })?;
        if !flags.contains(rustix::io::FdFlags::CLOEXEC) {
            // SAFETY: a descriptor without the close-on-exec flag was inherited: no value in this process owns
            // it, so nothing can use or close it later.
            unsafe { rustix::io::close(fd) };
        }
    }
    Ok(())
}

/// Moves the control stream from descriptor 0 to one of its own, which the child's children do not inherit, and
/// puts `/dev/null` where it was.
fn take_control() -> Result<UnixStream, BootError> {
    let stdin = rustix::stdio::stdin();
    let is_stream =
        rustix::net::sockopt::socket_domain(stdin) == Ok(rustix::net::AddressFamily::UNIX);
    if !is_stream {
        return Err(BootError::NoControlStream);
    }
    let control: OwnedFd = rustix::io::fcntl_dupfd_cloexec(stdin, 3)
        .map_err(BootError::io("take the control stream off descriptor 0"))?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(BootError::io("open /dev/null"))?;
    rustix::stdio::dup2_stdin(&null).map_err(BootError::io("put /dev/null on descriptor 0"))?;
    Ok(UnixStream::from(control))
}

/// Which signal stands for an event: the same number in every architecture of Linux that Rust has.
const F_SETSIG: libc::c_int = 10;

/// Whom the kernel tells of events on a descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Told {
    Process(Pid),
    /// All that are in the group.
    Group(Pid),
}

/// Has the kernel send a signal whenever something happens on a descriptor. The kernel remembers the process or the group
/// itself and not its number, which may be another's later.
pub(crate) fn signal_on_events(
    descriptor: BorrowedFd<'_>,
    told: Told,
    signal: Signal,
) -> std::io::Result<()> {
    let number = descriptor.as_raw_fd();
    let owner = match told {
        Told::Process(pid) => pid.as_raw_nonzero().get(),
        Told::Group(pid) => -pid.as_raw_nonzero().get(),
    };
    for (request, argument) in [(libc::F_SETOWN, owner), (F_SETSIG, signal.as_raw())] {
        // SAFETY: the descriptor is open for as long as it is borrowed, and both requests take a number and no pointer.
        if unsafe { libc::fcntl(number, request, argument) } == -1 {
            return Err(std::io::Error::last_os_error());
        }
    }
    let flags = rustix::fs::fcntl_getfl(descriptor)?;
    Ok(rustix::fs::fcntl_setfl(descriptor, flags | OFlags::ASYNC)?)
}
