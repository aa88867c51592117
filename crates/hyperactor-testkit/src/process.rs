//! Other processes, as `/proc` shows them: for tests of what outlives whom.

use std::fs;

/// Whether a process runs. One that has ended and waits to be reaped by whoever adopted it does not.
pub fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().next());
    !matches!(state, Some("Z" | "X"))
}

/// The children of a process, whichever of its threads started them.
pub fn children_of(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_child_is_known_and_alive_until_it_ends() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .spawn()
            .expect("cat can be started");
        let pid = child.id();
        assert!(is_alive(pid));
        assert!(children_of(std::process::id()).contains(&pid));
        child.kill().expect("it runs");
        child.wait().expect("it is ours");
        assert!(!is_alive(pid));
        assert!(!children_of(std::process::id()).contains(&pid));
    }
}
