//! Running other programs: their output passes through untouched, their exit status is never hidden.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// How often a running program is looked at when it prints nothing.
const POLL: Duration = Duration::from_millis(100);

/// How long the output of a program may stay open after the program ended. Whoever still holds it was
/// started by the program and left behind.
const OUTPUT_GRACE: Duration = Duration::from_secs(5);

/// Cargo, as the cargo that runs this program named itself, in the root of the workspace.
pub(crate) fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(workspace::root());
    command
}

/// The program and its arguments as a person would type them.
pub(crate) fn line(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let name = program.rsplit('/').next().unwrap_or(&program).to_owned();
    command.get_args().fold(name, |text, argument| {
        text + " " + &argument.to_string_lossy()
    })
}

/// Runs a program with this program's own input and output.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    eprintln!("$ {}", line(command));
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

/// Runs a program and gives back what it wrote to standard output.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", line(command), output.status);
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed what is not text", line(command)))
}

/// Runs a program, passes its two outputs through and shows each line of them to `on_line`.
///
/// # Errors
///
/// When the program cannot be started, when it runs longer than `limit` (it is killed then), and when
/// something that it started still holds its output [`OUTPUT_GRACE`] after its end. That the program
/// itself failed is no error here: the status says it.
pub(crate) fn watch(
    command: &mut Command,
    limit: Duration,
    on_line: impl FnMut(&str),
) -> Result<ExitStatus> {
    watch_into(command, limit, (io::stdout(), io::stderr()), on_line)
}

/// As [`watch`], but passes nothing through: for a program that runs beside others.
pub(crate) fn watch_quietly(
    command: &mut Command,
    limit: Duration,
    on_line: impl FnMut(&str),
) -> Result<ExitStatus> {
    watch_into(command, limit, (io::sink(), io::sink()), on_line)
}

fn watch_into(
    command: &mut Command,
    limit: Duration,
    (out, error): (impl Write + Send + 'static, impl Write + Send + 'static),
    mut on_line: impl FnMut(&str),
) -> Result<ExitStatus> {
    eprintln!("$ {}", line(command));
    // At a terminal the program stays in our group, so that Ctrl-C reaches it. Without one it gets its
    // own, so that all of it can be killed at once when the time is up.
    let own_group = !io::stdin().is_terminal();
    if own_group {
        command.process_group(0);
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", line(command)))?;

    let (lines, received) = mpsc::channel();
    let stdout = child
        .stdout
        .take()
        .context("standard output was not piped")?;
    let stderr = child
        .stderr
        .take()
        .context("standard error was not piped")?;
    pass_through(stdout, out, lines.clone());
    pass_through(stderr, error, lines);

    let started = Instant::now();
    let mut ended: Option<(ExitStatus, Instant)> = None;
    loop {
        match received.recv_timeout(POLL) {
            Ok(text) => on_line(&text),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return child
                    .wait()
                    .with_context(|| format!("waiting for `{}`", line(command)));
            }
        }
        if ended.is_none() {
            ended = child.try_wait()?.map(|status| (status, Instant::now()));
        }
        if let Some((_, at)) = ended
            && at.elapsed() > OUTPUT_GRACE
        {
            bail!(
                "`{}` ended, but a process it started still holds its output",
                line(command)
            );
        }
        if ended.is_none() && started.elapsed() > limit {
            kill(&mut child, own_group);
            bail!(
                "`{}` was killed: it ran longer than {} s",
                line(command),
                limit.as_secs()
            );
        }
    }
}

/// Ends a program that ran out of time, with all that it started if it has a group of its own.
fn kill(child: &mut Child, own_group: bool) {
    let group = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let killed = match group {
        Some(group) if own_group => {
            rustix::process::kill_process_group(group, rustix::process::Signal::KILL)
                .map_err(io::Error::from)
        }
        _ => child.kill(),
    };
    if let Err(error) = killed.and_then(|()| child.wait().map(drop)) {
        eprintln!("could not end process {}: {error}", child.id());
    }
}

/// Copies `from` to `to` line by line from a thread of its own, and sends each line on.
fn pass_through(
    from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    lines: Sender<String>,
) {
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            match from.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            // If nobody reads us any more, the counts still matter: go on reading.
            let _ = to.write_all(&line).and_then(|()| to.flush());
            let text = String::from_utf8_lossy(&line);
            if lines.send(text.trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_outputs_are_seen_and_the_status_is_kept() {
        let mut seen = Vec::new();
        let status = watch(
            &mut shell("echo out; echo err >&2; exit 3"),
            Duration::from_secs(30),
            |line| seen.push(line.to_owned()),
        )
        .unwrap();
        seen.sort();
        assert_eq!(seen, ["err", "out"]);
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn a_program_that_hangs_is_killed_and_named() {
        let error = watch(&mut shell("sleep 600"), Duration::from_millis(200), |_| {}).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("sleep 600") && text.contains("longer"),
            "{text}"
        );
    }

    #[test]
    fn a_failure_names_the_command() {
        let error = run(&mut shell("exit 7")).unwrap_err().to_string();
        assert!(
            error.contains("sh -c exit 7") && error.contains('7'),
            "{error}"
        );
    }
}
