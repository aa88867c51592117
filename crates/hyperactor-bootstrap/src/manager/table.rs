//! What a manager knows of its procs: who they are, which of them are ready or awaited, and how to tell each of the others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hyperactor_host::{
    DeathCertificate, End, LogTail, OnHostLoss, OutputPolicy, ProcSpawnError, ProcSpec,
};
use hyperactor_refs::Incarnation;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::AbortHandle;

use super::memory::MemoryWatch;
use super::output::Printer;
use super::supervise::{Arrival, Outbox};
use crate::control::{Sibling, ToChild};
use crate::limits;
use crate::pulse::Pulse;
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
    /// What children that are stopped are woken by when the host has ended.
    pub(super) pulse: Option<Pulse>,
    /// How long procs that outlive their host live without one.
    pub(super) grace: Duration,
    /// Set when the host goes without having been stopped: procs that outlive it are let go.
    pub(super) let_go: watch::Sender<bool>,
    /// The task to which procs of an earlier life come back.
    pub(super) reception: Mutex<Option<AbortHandle>>,
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) stopping: bool,
    /// The host went without having been stopped.
    pub(super) abandoned: bool,
    pub(super) procs: HashMap<String, Entry>,
    /// Procs of an earlier life that have ended, for those that are not back yet and still believe them alive.
    mourned: Vec<Arc<DeathCertificate>>,
}

/// A proc of an earlier life that lives and is not back yet.
pub(super) struct Awaited {
    pub(super) pid: u32,
    pub(super) output: OutputPolicy,
    pub(super) tail: LogTail,
    /// Taken by the first that proves to be it.
    pub(super) arrival: Option<oneshot::Sender<Arrival>>,
}

pub(super) struct Entry {
    sibling: Sibling,
    ready: bool,
    stays: bool,
    pub(super) awaited: Option<Awaited>,
    pub(super) outbox: Outbox,
}

impl Entry {
    /// Which life of the proc this is.
    pub(super) fn incarnation(&self) -> Incarnation {
        self.sibling.incarnation
    }
}

impl Shared {
    pub(super) fn new(dir: SocketDir, grace: Duration) -> Self {
        Self {
            dir,
            table: Mutex::default(),
            living: watch::Sender::new(0),
            starting: Semaphore::new(limits::STARTING_MAX),
            memory: MemoryWatch::default(),
            printer: Printer::default(),
            pulse: Pulse::new()
                .inspect_err(|error| tracing::debug!(target: "hyperactor::bootstrap", %error, "procs that are stopped will not notice the end of this host before they go on"))
                .ok(),
            grace,
            let_go: watch::Sender::new(false),
            reception: Mutex::default(),
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
            stays: spec.config.on_host_loss == OnHostLoss::Stay,
            awaited: None,
            outbox: outbox.clone(),
        };
        table.procs.insert(name.to_owned(), entry);
        Ok(())
    }

    /// Notes a proc of an earlier life that is expected back.
    pub(super) fn expect(&self, name: &str, awaited: Awaited) {
        if let Some(entry) = self.table.lock().procs.get_mut(name) {
            entry.awaited = Some(awaited);
        }
    }

    /// Notes the end of a proc of an earlier life, for those of them that come back.
    pub(super) fn mourn(&self, certificate: Arc<DeathCertificate>) {
        self.table.lock().mourn(certificate);
    }

    /// Tells a proc that has just become ready of the others, and the others of it.
    pub(super) fn introduce(&self, name: &str) {
        let mut table = self.table.lock();
        let Some(newcomer) = table.procs.get_mut(name) else {
            return;
        };
        newcomer.ready = true;
        newcomer.awaited = None;
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
        // Before the living: one of them may be the next life of the same name.
        for gone in &table.mourned {
            outbox.send(&ToChild::Gone(Arc::clone(gone)));
        }
        for batch in others.chunks(limits::ANNOUNCE_BATCH_MAX) {
            let siblings = batch.iter().map(|entry| entry.sibling.clone()).collect();
            outbox.send(&ToChild::Up(siblings));
        }
        table.forget_the_mourned();
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
        if gone.ready || gone.awaited.is_some() {
            let announcement = ToChild::Gone(Arc::clone(certificate));
            for other in table.procs.values().filter(|entry| entry.ready) {
                other.outbox.send(&announcement);
            }
            table.mourn(Arc::clone(certificate));
            table.forget_the_mourned();
        }
    }

    /// Forgets a process that was never started.
    pub(super) fn forget(&self, name: &str) {
        self.table.lock().procs.remove(name);
    }

    /// Whether a proc is to live on when its handle is dropped: it outlives its host, which was not stopped.
    pub(super) fn is_let_go(&self, name: &str) -> bool {
        let table = self.table.lock();
        table.abandoned && table.procs.get(name).is_none_or(|entry| entry.stays)
    }

    /// The host goes without having been stopped. Procs that outlive it look for another; it may be in this very process.
    pub(super) fn abandon(&self) {
        let any_stays = {
            let mut table = self.table.lock();
            table.abandoned = true;
            table.procs.values().any(|entry| entry.stays)
        };
        self.close_reception();
        self.let_go.send_replace(true);
        if any_stays {
            self.dir.release();
        }
    }

    pub(super) fn close_reception(&self) {
        if let Some(task) = self.reception.lock().take() {
            task.abort();
        }
    }

    pub(super) fn kill_all(&self) {
        let mut table = self.table.lock();
        table.stopping = true;
        let abandoned = table.abandoned;
        for entry in table.procs.values() {
            if !(abandoned && entry.stays) {
                entry.outbox.wish(End::Kill);
            }
        }
    }
}

impl Table {
    /// Of each name the last end is remembered.
    fn mourn(&mut self, certificate: Arc<DeathCertificate>) {
        self.mourned
            .retain(|other| other.proc_id != certificate.proc_id);
        self.mourned.push(certificate);
    }

    /// Once all are back, all have been told.
    fn forget_the_mourned(&mut self) {
        if self.procs.values().all(|entry| entry.awaited.is_none()) {
            self.mourned.clear();
        }
    }
}
