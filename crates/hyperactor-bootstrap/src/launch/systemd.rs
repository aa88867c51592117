//! [`SystemdScope`]: each proc in a transient scope of systemd, a group of processes of its own that `systemctl` shows and
//! that can be bounded as a whole.

use std::ffi::OsString;
use std::process::{Child, Command, Stdio};

use super::{LaunchOrder, Launcher};

/// The program that makes transient units.
const SYSTEMD_RUN: &str = "systemd-run";

/// Starts each proc in a transient scope of systemd, by `systemd-run --scope`.
///
/// The scope is called `hyperactor-`, the number of this process, and a number that grows; `systemctl status` shows it, with
/// the proc's name as its description. [`ProcLimits::memory`](hyperactor_host::ProcLimits::memory) bounds the memory that all
/// processes of the scope have resident, and the kernel ends the proc beyond it. `systemd-run` becomes the proc by `exec`, so
/// that the host's control stream and the process number are those of the proc.
#[derive(Clone, Copy, Debug)]
pub struct SystemdScope {
    user: bool,
}

impl SystemdScope {
    /// Scopes of the user's own service manager.
    #[must_use]
    pub fn user() -> Self {
        Self { user: true }
    }

    /// Scopes of the system's service manager, for programs that run as root.
    #[must_use]
    pub fn system() -> Self {
        Self { user: false }
    }

    /// Finds out whether scopes can be made here: by making one for a program that ends at once.
    ///
    /// # Errors
    /// What `systemd-run` says, or that there is none.
    ///
    /// # Bounds
    /// Blocks for as long as `systemd-run` takes.
    pub fn check(&self) -> std::io::Result<()> {
        let mut command = Command::new(SYSTEMD_RUN);
        command.args(self.arguments()).args(["--", "true"]);
        let output = command.stdin(Stdio::null()).output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(std::io::Error::other(format!(
            "{SYSTEMD_RUN} {}: {}",
            output.status,
            said.trim()
        )))
    }

    fn arguments(&self) -> Vec<OsString> {
        let manager = if self.user { "--user" } else { "--system" };
        [
            "--scope",
            manager,
            "--quiet",
            "--collect",
            "--no-ask-password",
        ]
        .map(OsString::from)
        .to_vec()
    }

    /// The whole command line after the program's name.
    fn command_line(&self, order: &LaunchOrder, number: u64) -> Vec<OsString> {
        let mut line = self.arguments();
        let unit = format!("hyperactor-{}-{number}.scope", std::process::id());
        line.push(format!("--unit={unit}").into());
        // The name may be anything; a description holds one line of text, and no specifier is expanded in it.
        let name: String = order.name.escape_debug().take(200).collect();
        line.push(format!("--description=hyperactor proc {name}").into());
        if let Some(bytes) = order.limits.memory {
            line.push(format!("--property=MemoryMax={bytes}").into());
            line.push("--property=MemorySwapMax=0".into());
        }
        line.push("--".into());
        line.push(order.program().into());
        line
    }
}

impl Launcher for SystemdScope {
    fn launch(&self, order: LaunchOrder) -> std::io::Result<Child> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let line = self.command_line(&order, NEXT.fetch_add(1, Ordering::Relaxed));
        order.into_command(SYSTEMD_RUN).args(line).spawn()
    }

    fn bounds_memory(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use hyperactor_host::ProcLimits;

    use super::super::Program;
    use super::*;

    fn order(name: &str, limits: ProcLimits) -> LaunchOrder {
        let null = std::fs::File::open("/dev/null").unwrap();
        LaunchOrder {
            name: name.to_owned(),
            program: Program::At("/usr/bin/worker".into()),
            environment: Vec::new(),
            limits,
            control: null.into(),
            stdout: None,
            stderr: None,
        }
    }

    #[test]
    fn the_command_line_bounds_memory_and_ends_with_the_program() {
        let order = order("work\ner", ProcLimits::new().with_memory(1 << 20));
        let line = SystemdScope::user().command_line(&order, 7);
        let line: Vec<_> = line.iter().map(|word| word.to_str().unwrap()).collect();
        let unit = format!("--unit=hyperactor-{}-7.scope", std::process::id());
        assert!(line.starts_with(&["--scope", "--user"]), "{line:?}");
        assert!(line.contains(&unit.as_str()), "{line:?}");
        assert!(line.contains(&"--property=MemoryMax=1048576"), "{line:?}");
        assert!(
            line.contains(&"--description=hyperactor proc work\\ner"),
            "{line:?}"
        );
        assert!(line.ends_with(&["--", "/usr/bin/worker"]), "{line:?}");
    }

    #[test]
    fn a_proc_without_limits_gets_none() {
        let line = SystemdScope::system().command_line(&order("a", ProcLimits::new()), 1);
        assert!(
            line.iter()
                .all(|word| !word.to_str().unwrap().contains("--property"))
        );
    }
}
