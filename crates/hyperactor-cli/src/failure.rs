//! What can go wrong in the program, in words a person can act on, and the exit status of each.

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

/// Why the program ends with something else than success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line or an input is wrong: nothing was started.
    Input(String),
    /// The job failed; what was started has been ended.
    Job(anyhow::Error),
    /// The job ran to its end and its result is printed, and the result is not right. Says why.
    Result(String),
    /// Nobody answered.
    Unreachable(String),
    /// The host understood, and does not do it.
    Refused(String),
    /// A signal ended the program before its job was done.
    Interrupted(Signal),
}

/// A signal that asks the program to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// The usual request of another program.
    Terminate,
    /// The terminal was closed.
    HangUp,
}

impl Failure {
    /// An input that cannot be used: what it is, why, and what to do.
    pub(crate) fn input(path: &Path, why: impl Display) -> Self {
        Self::Input(format!("input {}: {why}", path.display()))
    }

    /// Adds what is still there after a failure. A failure of the job says it; where the text and the status are fixed, the
    /// log does.
    pub(crate) fn with_left_behind(self, left_behind: &[String]) -> Self {
        if left_behind.is_empty() {
            return self;
        }
        match self {
            Self::Job(error) => Self::Job(anyhow::anyhow!(
                "{}; left behind: {}",
                one_line(&error),
                left_behind.join(", ")
            )),
            other => {
                tracing::warn!("left behind: {}", left_behind.join(", "));
                other
            }
        }
    }

    /// The status that the program exits with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Input(_) => ExitCode::from(2),
            Self::Unreachable(_) => ExitCode::from(3),
            Self::Refused(_) => ExitCode::from(4),
            Self::Job(_) | Self::Result(_) => ExitCode::FAILURE,
            // As a shell reports a program that a signal ended: 128 and the signal's number.
            Self::Interrupted(Signal::Interrupt) => ExitCode::from(130),
            Self::Interrupted(Signal::Terminate) => ExitCode::from(143),
            Self::Interrupted(Signal::HangUp) => ExitCode::from(129),
        }
    }

    /// The line for standard error, without the program's name.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Input(text)
            | Self::Result(text)
            | Self::Unreachable(text)
            | Self::Refused(text) => text.clone(),
            Self::Job(error) => one_line(error),
            Self::Interrupted(Signal::Interrupt) => "ended by Ctrl-C".to_owned(),
            Self::Interrupted(Signal::Terminate) => "ended by SIGTERM".to_owned(),
            Self::Interrupted(Signal::HangUp) => "ended, as its terminal was closed".to_owned(),
        }
    }
}

/// The whole chain in one line: what was tried, then why it failed. Errors that quote their cause are not made to say it
/// twice.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.ends_with(&cause) {
            line.push_str(": ");
            line.push_str(&cause);
        }
    }
    line
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Job(error)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn an_input_error_names_the_path() {
        let failure = Failure::input(Path::new("no/such"), "no such file or folder");
        assert_eq!(failure.text(), "input no/such: no such file or folder");
    }

    #[test]
    fn a_cause_that_is_quoted_is_not_said_twice() {
        #[derive(Debug)]
        struct Quoting(std::io::Error);

        impl Display for Quoting {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "cannot start: {}", self.0)
            }
        }

        impl std::error::Error for Quoting {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }

        let error = anyhow::Error::new(Quoting(std::io::Error::other("too many files")));
        assert_eq!(
            Failure::from(error.context("no processes")).text(),
            "no processes: cannot start: too many files"
        );
    }

    #[test]
    fn what_is_left_behind_is_told_with_the_failure() {
        let failure = Failure::from(anyhow::anyhow!("it broke"));
        let left = ["process 7".to_owned()];
        assert_eq!(
            failure.with_left_behind(&left).text(),
            "it broke; left behind: process 7"
        );
    }

    #[test]
    fn a_failed_job_is_told_with_its_cause_in_one_line() {
        let error = Err::<(), _>(std::io::Error::other("pipe broke"))
            .context("proc 2 did not start")
            .unwrap_err();
        assert_eq!(
            Failure::from(error).text(),
            "proc 2 did not start: pipe broke"
        );
    }
}
