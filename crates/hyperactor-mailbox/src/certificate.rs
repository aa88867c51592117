//! [`DeathCertificate`]: what is known of a proc's end, as a value that travels. Who writes it and how each fact is
//! learnt is decided by whoever owns the process; nothing here looks at one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyperactor_refs::{Incarnation, ProcId};
use serde::{Deserialize, Serialize};

use crate::limits;

/// How a proc ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ProcExit {
    /// Its process exited with this status.
    Exited(i32),
    /// Its process was ended by this signal.
    Signalled(i32),
    /// It ran in the process of its host and was stopped.
    InProcess,
    /// It is over, and how it ended could not be learnt.
    Lost,
    /// Its process is over. It is no child of its host, which cannot read its status: this is the one that it announced last.
    Announced(i32),
}

impl ProcExit {
    /// Whether the proc ended in order: stopped in its host's process, or exit status 0, read or announced.
    #[must_use]
    pub fn is_orderly(&self) -> bool {
        matches!(self, Self::InProcess | Self::Exited(0) | Self::Announced(0))
    }
}

impl fmt::Display for ProcExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exited with status {status}"),
            Self::Signalled(signal) => write!(f, "was ended by signal {signal}"),
            Self::InProcess => f.write_str("was stopped"),
            Self::Lost => f.write_str("ended in an unknown way"),
            Self::Announced(status) => write!(f, "ended, having announced status {status}"),
        }
    }
}

/// Whether a process ended for lack of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum OutOfMemory {
    /// It did: the kernel says so, or the process itself with its last words.
    Yes,
    /// It did not: the kernel counted no such end.
    No,
    /// Nobody can tell.
    #[default]
    Unknown,
}

/// What a process had used when it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ResourceUse {
    /// Processor time in its own code.
    pub user: Duration,
    /// Processor time in the kernel on its behalf.
    pub system: Duration,
    /// The most memory that it had resident, in bytes.
    pub max_resident: u64,
}

impl ResourceUse {
    /// A report of these figures.
    #[must_use]
    pub fn new(user: Duration, system: Duration, max_resident: u64) -> Self {
        Self {
            user,
            system,
            max_resident,
        }
    }
}

/// A message that was being handled when a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handling {
    /// The actor, by its name and index in the proc.
    pub actor: String,
    /// The name of the message's type.
    pub message: String,
}

impl Handling {
    /// Cuts names that are longer than a certificate may have.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        for name in [&mut self.actor, &mut self.message] {
            name.truncate(name.floor_char_boundary(limits::HANDLING_NAME_BYTES));
        }
        self
    }
}

impl fmt::Display for Handling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` in `{}`", self.message, self.actor)
    }
}

/// What is known of the end of one life of a proc.
///
/// A host writes it when it has reaped the proc's process, and hands it to whoever is concerned: the siblings of the proc
/// with the news of its end, supervisors, and the senders of messages that come back because of it.
///
/// # Bounds
/// At most [`limits::LAST_WORDS_BYTES`] of last words and [`limits::HANDLING_MAX`] messages in hand, so that it fits one
/// small frame; see [`bounded`](Self::bounded).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeathCertificate {
    /// Whose end.
    pub proc_id: Arc<ProcId>,
    /// Of which life.
    pub incarnation: Incarnation,
    /// Exit status, or signal.
    pub exit: ProcExit,
    /// Whether its host had asked it to end, or ended it. An end that nobody wanted is a failure, whatever its status.
    pub wanted: bool,
    /// Whether it ended for lack of memory.
    pub out_of_memory: OutOfMemory,
    /// The last lines of its standard error, oldest first; empty where that is not captured.
    pub last_words: Vec<String>,
    /// What was being handled; empty where nobody keeps that record.
    pub handling: Vec<Handling>,
    /// What it had used, where the system tells.
    pub usage: Option<ResourceUse>,
    /// How long it lived.
    pub lived: Duration,
}

impl DeathCertificate {
    /// A certificate that says how the proc ended and nothing more.
    #[must_use]
    pub fn new(proc_id: Arc<ProcId>, incarnation: Incarnation, exit: ProcExit) -> Self {
        Self {
            proc_id,
            incarnation,
            exit,
            wanted: false,
            out_of_memory: OutOfMemory::Unknown,
            last_words: Vec::new(),
            handling: Vec::new(),
            usage: None,
            lived: Duration::ZERO,
        }
    }

    /// Whether the end was a failure: disorderly, or wanted by nobody.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        !self.wanted || !self.exit.is_orderly()
    }

    /// Cuts what is longer than a certificate may be: the oldest words go first.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let mut room = limits::LAST_WORDS_BYTES;
        let kept = self.last_words.iter().rev().take_while(|line| {
            // The line's end counts too, so that empty lines are no way around the limit.
            let fits = line.len() < room;
            room = room.saturating_sub(line.len() + 1);
            fits
        });
        let from = self.last_words.len() - kept.count();
        self.last_words.drain(..from);
        self.handling.truncate(limits::HANDLING_MAX);
        let handling = std::mem::take(&mut self.handling);
        self.handling = handling.into_iter().map(Handling::bounded).collect();
        self
    }
}

/// One line: how it ended, why as far as it is known, and the last thing it said.
impl fmt::Display for DeathCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proc `{}` {}", self.proc_id, self.exit)?;
        if self.out_of_memory == OutOfMemory::Yes {
            f.write_str(" for lack of memory")?;
        }
        if self.wanted {
            f.write_str(", as it was asked to")?;
        }
        for (at, handling) in self.handling.iter().enumerate() {
            let before = if at == 0 { ", while handling" } else { " and" };
            write!(f, "{before} {handling}")?;
        }
        if let Some(line) = self.last_words.last() {
            write!(f, "; its last words: {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> DeathCertificate {
        let proc_id = ProcId::Direct("unix:@host".parse().unwrap(), "worker".to_owned());
        DeathCertificate::new(
            Arc::new(proc_id),
            Incarnation::new(7),
            ProcExit::Signalled(9),
        )
    }

    #[test]
    fn only_a_zero_status_or_a_stop_is_orderly() {
        assert!(ProcExit::Exited(0).is_orderly());
        assert!(ProcExit::InProcess.is_orderly());
        assert!(ProcExit::Announced(0).is_orderly());
        for exit in [
            ProcExit::Exited(1),
            ProcExit::Signalled(9),
            ProcExit::Lost,
            ProcExit::Announced(1),
        ] {
            assert!(!exit.is_orderly(), "{exit:?}");
        }
    }

    #[test]
    fn an_end_that_nobody_wanted_is_a_failure_whatever_its_status() {
        let mut certificate = certificate();
        certificate.exit = ProcExit::Exited(0);
        assert!(certificate.is_failure());
        certificate.wanted = true;
        assert!(!certificate.is_failure());
        certificate.exit = ProcExit::Exited(1);
        assert!(certificate.is_failure());
    }

    #[test]
    fn it_prints_what_is_known_in_one_line() {
        let mut certificate = certificate();
        assert_eq!(
            certificate.to_string(),
            "proc `unix:@host,worker` was ended by signal 9"
        );
        certificate.out_of_memory = OutOfMemory::Yes;
        let handling = |actor: &str, message: &str| Handling {
            actor: actor.to_owned(),
            message: message.to_owned(),
        };
        certificate.handling = vec![handling("a[0]", "Load"), handling("b[0]", "Save")];
        certificate.last_words = vec!["one".to_owned(), "two".to_owned()];
        assert_eq!(
            certificate.to_string(),
            "proc `unix:@host,worker` was ended by signal 9 for lack of memory, while handling `Load` in `a[0]` and \
             `Save` in `b[0]`; its last words: two"
        );
    }

    #[test]
    fn however_much_a_process_said_its_certificate_is_small_and_keeps_the_end() {
        let mut long = certificate();
        long.last_words = (0..100_000)
            .map(|number| format!("line {number}"))
            .collect();
        long.last_words.extend(vec![String::new(); 10]);
        long.handling = vec![
            Handling {
                actor: "ä".repeat(1_000),
                message: "m".repeat(1_000),
            };
            1_000
        ];
        let short = long.bounded();
        assert_eq!(short.last_words.last(), Some(&String::new()));
        assert!(short.last_words.contains(&"line 99999".to_owned()));
        let bytes = postcard::to_allocvec(&short).unwrap();
        assert!(bytes.len() < 16 * 1024, "{} bytes", bytes.len());
        let back: DeathCertificate = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(back, short);
        assert_eq!(short.clone().bounded(), short);
    }
}
