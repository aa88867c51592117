//! What the actors of this proc have in hand, written down every now and then where it outlives the process: in a file
//! beside its socket, which its host reads and removes. The actors know nothing of it and pay nothing for it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use hyperactor_mailbox::Handling;
use hyperactor_proc::Proc;

use crate::limits;

/// The record of one process.
pub(super) struct Hands {
    path: PathBuf,
    /// Made when there is something to write down for the first time.
    file: Option<File>,
    written: Vec<Handling>,
}

impl Hands {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            written: Vec::new(),
        }
    }

    /// Writes down which messages have been in hand for a while, if they are others than before.
    pub(super) fn look(&mut self, proc: &Proc) {
        let held = in_hand(proc);
        if held == self.written {
            return;
        }
        match self.write(&held) {
            Ok(()) => self.written = held,
            Err(error) => {
                tracing::debug!(target: "hyperactor::bootstrap", path = %self.path.display(), %error, "what is in hand is not written down");
            }
        }
    }

    /// One write, so that whoever reads finds the one or the other.
    fn write(&mut self, held: &[Handling]) -> io::Result<()> {
        let record = postcard::to_allocvec(held).map_err(io::Error::other)?;
        let file = match &self.file {
            Some(file) => file,
            None => {
                let mut options = OpenOptions::new();
                let options = options.write(true).create(true).truncate(true).mode(0o600);
                self.file.insert(options.open(&self.path)?)
            }
        };
        // What a longer record left behind this one is not read: a record tells its own length.
        file.write_all_at(&record, 0)
    }
}

/// The messages that have been in hand for a while, those for the longest time first.
fn in_hand(proc: &Proc) -> Vec<Handling> {
    let mut busy: Vec<_> = proc
        .snapshot()
        .actors
        .into_iter()
        .filter_map(|actor| {
            let since = actor.busy_for.filter(|time| *time >= limits::HANDS_BUSY)?;
            Some((since, actor.actor_id, actor.message?))
        })
        .collect();
    busy.sort_by(|(one, ..), (other, ..)| other.cmp(one));
    busy.truncate(hyperactor_mailbox::limits::HANDLING_MAX);
    busy.into_iter()
        .map(|(_, actor, message)| {
            Handling {
                actor: format!("{}[{}]", actor.name(), actor.index()),
                message,
            }
            .bounded()
        })
        .collect()
}
