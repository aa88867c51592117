//! What a manager knows of its children: who they are, which of them are ready, and how to tell each of the others.

use std::collections::HashMap;
use std::sync::Arc;

use hyperactor_host::{DeathCertificate, End, ProcSpawnError, ProcSpec};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::memory::MemoryWatch;
use super::output::Printer;
use super::supervise::Outbox;
use crate::control::{Sibling, ToChild};
use crate::limits;
use crate::socket_dir::SocketDir;

/// What the manager and the tasks that own its children share.
pub(super) struct Shared {
    pub(super) dir: SocketDir,
    pub(super) table: Mutex<Table>,
    /// How many children are not reaped yet.
    pub(super) living: watch::Sender<usize>,
    /// One permit for each child that may be on its way to ready.
    pub(super) starting: Semaphore,
    pub(super) memory: MemoryWatch,
    pub(super) printer: Printer,
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) stopping: bool,
    pub(super) procs: HashMap<String, Entry>,
}

pub(super) struct Entry {
    sibling: Sibling,
    ready: bool,
    pub(super) outbox: Outbox,
}

impl Shared {
    pub(super) fn new(dir: SocketDir) -> Self {
        Self {
            dir,
            table: Mutex::default(),
            living: watch::Sender::new(0),
            starting: Semaphore::new(limits::STARTING_MAX),
            memory: MemoryWatch::default(),
            printer: Printer::default(),
        }
    }

    /// Takes a name for a process that is about to start.
    pub(super) fn enter(
        &self,
        name: &str,
        spec: &ProcSpec,
        outbox: &Outbox,
    ) -> Result<(), ProcSpawnError> {
        let mut table = self.table.lock();
        if table.stopping {
            return Err(ProcSpawnError::Stopping {
                name: name.to_owned(),
            });
        }
        if table.procs.contains_key(name) {
            return Err(ProcSpawnError::Refused {
                name: name.to_owned(),
                code: "name-in-use".to_owned(),
                reason: "a proc of this name is running".to_owned(),
            });
        }
        let sibling = Sibling {
            name: name.to_owned(),
            incarnation: spec.incarnation,
        };
        let entry = Entry {
            sibling,
            ready: false,
            outbox: outbox.clone(),
        };
        table.procs.insert(name.to_owned(), entry);
        Ok(())
    }

    /// Tells a proc that has just become ready of the others, and the others of it.
    pub(super) fn introduce(&self, name: &str) {
        let mut table = self.table.lock();
        let Some(newcomer) = table.procs.get_mut(name) else {
            return;
        };
        newcomer.ready = true;
        let outbox = newcomer.outbox.clone();
        let announcement = ToChild::Up(vec![newcomer.sibling.clone()]);
        let others: Vec<&Entry> = table
            .procs
            .values()
            .filter(|entry| entry.ready && entry.sibling.name != name)
            .collect();
        for other in &others {
            other.outbox.send(&announcement);
        }
        for batch in others.chunks(limits::ANNOUNCE_BATCH_MAX) {
            let siblings = batch.iter().map(|entry| entry.sibling.clone()).collect();
            outbox.send(&ToChild::Up(siblings));
        }
    }

    /// Forgets a process that is reaped: its socket goes, its siblings are told, its name is free.
    pub(super) fn leave(&self, name: &str, certificate: &Arc<DeathCertificate>) {
        if let Err(error) = self.dir.remove_socket(name) {
            tracing::warn!(target: "hyperactor::bootstrap", proc = name, %error, "the socket of an ended proc stays behind");
        }
        let mut table = self.table.lock();
        let Some(gone) = table.procs.remove(name) else {
            return;
        };
        if gone.ready {
            let announcement = ToChild::Gone(Arc::clone(certificate));
            for other in table.procs.values().filter(|entry| entry.ready) {
                other.outbox.send(&announcement);
            }
        }
    }

    /// Forgets a process that was never started.
    pub(super) fn forget(&self, name: &str) {
        self.table.lock().procs.remove(name);
    }

    pub(super) fn kill_all(&self) {
        let mut table = self.table.lock();
        table.stopping = true;
        for entry in table.procs.values() {
            entry.outbox.wish(End::Kill);
        }
    }
}
