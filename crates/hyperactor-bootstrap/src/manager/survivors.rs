//! Procs of an earlier life of the host, as the next one finds them: by their records, whose locks tell which of them live and
//! in which process. How the living come back is in `reception`.

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyperactor_host::{
    DeathCertificate, LogTail, OutputPolicy, ProcExit, ProcInfo, ProcSpawnError, Survivor,
};
use hyperactor_refs::ChannelAddr;
use tokio::sync::{mpsc, oneshot, watch};

use super::ChildProcess;
use super::owned::{self, OwnedChild};
use super::reception;
use super::supervise::{Control, Outbox, Supervisor};
use super::table::{Awaited, Shared};
use crate::limits;
use crate::record::Record;
use crate::socket_dir::{FoundRecord, Holder};

/// How long the name of a proc that is ending with its host may be in the way of the next: as long as its end takes.
const FORMER_TIMEOUT: Duration = limits::ORPHAN_GRACE.saturating_mul(3);

/// A record that can be read.
struct Found {
    file: String,
    record: Record,
    holder: Holder,
}

/// Takes over the procs that an earlier life of the host left.
pub(super) fn take_over(
    shared: &Arc<Shared>,
    frontend: &ChannelAddr,
    backend: &ChannelAddr,
) -> Result<Vec<Survivor>, ProcSpawnError> {
    if !shared.dir.is_kept() {
        return Ok(Vec::new());
    }
    let failed = |reason: String| ProcSpawnError::Serve {
        name: shared.dir.path().display().to_string(),
        reason,
    };
    let records = shared.dir.survivors();
    let records = records.map_err(|error| failed(error.to_string()))?;
    let found: Vec<Found> = records.into_iter().filter_map(read).collect();
    // First of all: nothing is touched when one of them cannot be this host's.
    for one in &found {
        belongs_to(one, frontend, backend)?;
    }
    let mut survivors = Vec::new();
    for one in found {
        let file = one.file.clone();
        match survivor(shared, one) {
            Ok(survivor) => survivors.push(survivor),
            Err(error) => {
                tracing::warn!(target: "hyperactor::bootstrap", file, %error, "a proc of an earlier life of this host is not taken over");
            }
        }
    }
    reception::open(shared).map_err(|error| failed(error.to_string()))?;
    Ok(survivors)
}

fn read(FoundRecord { file, text, holder }: FoundRecord) -> Option<Found> {
    match Record::parse(&text) {
        Ok(record) => Some(Found {
            file,
            record,
            holder,
        }),
        Err(reason) => {
            tracing::warn!(target: "hyperactor::bootstrap", file, reason, "the record of a proc cannot be read");
            None
        }
    }
}

/// A proc that lives knows where its host is, and is known by it.
fn belongs_to(
    one: &Found,
    frontend: &ChannelAddr,
    backend: &ChannelAddr,
) -> Result<(), ProcSpawnError> {
    let spec = &one.record.spec;
    let is_ours = spec.frontend == *frontend && spec.backend == *backend;
    if is_ours || matches!(one.holder, Holder::Nobody) {
        return Ok(());
    }
    Err(ProcSpawnError::Serve {
        name: spec.proc_id.name().to_owned(),
        reason: format!(
            "it lives on from a host at {} (for its procs {}), and this host is at {frontend} (for its procs \
             {backend}): serve the same addresses, or wait until it has ended",
            spec.frontend, spec.backend
        ),
    })
}

fn survivor(shared: &Arc<Shared>, one: Found) -> std::io::Result<Survivor> {
    match one.holder {
        Holder::Process { pid, pidfd } => living(shared, one.record, pid, pidfd),
        Holder::Nobody => {
            let left = shared.dir.remove_left_of(&one.file);
            left.map_err(std::io::Error::other)?;
            Ok(dead(shared, one.record))
        }
        Holder::OutOfSight => Err(std::io::Error::other(
            "its process has no number here: it lives in another namespace",
        )),
    }
}

/// A proc that lives: its process is owned from here on, and its control stream is expected.
fn living(
    shared: &Arc<Shared>,
    record: Record,
    pid: u32,
    pidfd: OwnedFd,
) -> std::io::Result<Survivor> {
    let age = record.age();
    let spec = record.spec;
    let name = spec.proc_id.name().to_owned();
    let child = OwnedChild::of_another(pid, pidfd)?;
    let addr =
        ChannelAddr::unix_path(shared.dir.socket_path(&name)).map_err(std::io::Error::other)?;
    let (frames, outbox) = mpsc::channel(limits::CONTROL_QUEUE_MAX);
    let wish = watch::Sender::new(None);
    let wishes = wish.subscribe();
    let own_outbox = Outbox::new(frames, wish);
    shared
        .enter(&name, &spec, &own_outbox)
        .map_err(std::io::Error::other)?;
    let tail = LogTail::new();
    let output = spec.config.output;
    let (arrival, arrived) = oneshot::channel();
    let (back, is_back) = oneshot::channel();
    let awaited = Awaited {
        pid,
        output,
        tail: tail.clone(),
        arrival: Some(arrival),
    };
    shared.expect(&name, awaited);
    let supervisor = Supervisor {
        info: ProcInfo {
            proc_id: Arc::clone(&spec.proc_id),
            incarnation: spec.incarnation,
            addr,
            pid: Some(pid),
        },
        child,
        control: Control::Awaited {
            arrival: arrived,
            back,
        },
        stays: true,
        age,
        outbox,
        own_outbox,
        wish: wishes,
        start: None,
        tail: (output != OutputPolicy::Inherited).then(|| tail.clone()),
        readers: Vec::new(),
        shared: Arc::clone(shared),
    };
    Ok(Survivor {
        spec,
        handle: Box::new(ChildProcess::supervised(supervisor, tail)),
        back: Box::pin(async move { is_back.await.unwrap_or(false) }),
    })
}

/// A proc that died while it had no host: nobody saw how.
fn dead(shared: &Arc<Shared>, record: Record) -> Survivor {
    let lived = record.age();
    let spec = record.spec;
    let proc_id = Arc::clone(&spec.proc_id);
    let exit = ProcExit::Lost;
    let mut certificate = DeathCertificate::new(Arc::clone(&proc_id), spec.incarnation, exit);
    certificate.lived = lived;
    let certificate = Arc::new(certificate);
    shared.mourn(Arc::clone(&certificate));
    let (frames, _) = mpsc::channel(1);
    let process = ChildProcess {
        info: ProcInfo {
            proc_id,
            incarnation: spec.incarnation,
            addr: spec.backend.clone(),
            pid: None,
        },
        outbox: Outbox::new(frames, watch::Sender::new(None)),
        exited: watch::Sender::new(Some(exit)).subscribe(),
        certificate: Arc::new(OnceLock::from(certificate)),
        tail: LogTail::new(),
        shared: Arc::downgrade(shared),
    };
    Survivor {
        spec,
        handle: Box::new(process),
        back: Box::pin(std::future::ready(false)),
    }
}

impl Shared {
    /// Waits until a proc of an earlier life that ends with its host is out of the way of another of the same name.
    pub(super) async fn wait_for_former(&self, name: &str) -> Result<(), ProcSpawnError> {
        if !self.dir.is_kept() {
            return Ok(());
        }
        let refused = |reason: String| ProcSpawnError::Refused {
            name: name.to_owned(),
            code: "name-in-use".to_owned(),
            reason,
        };
        let holder = self.dir.holder_of(name);
        let pidfd = match holder.map_err(|error| refused(error.to_string()))? {
            Holder::Process { pidfd, .. } => pidfd,
            Holder::Nobody => return Ok(()),
            Holder::OutOfSight => {
                let reason = "a proc of an earlier life of this host has the name, in another namespace of processes";
                return Err(refused(reason.to_owned()));
            }
        };
        let pidfd = owned::watched(pidfd).map_err(|error| refused(error.to_string()))?;
        match tokio::time::timeout(FORMER_TIMEOUT, pidfd.readable()).await {
            Ok(Ok(_)) => {
                let left = self.dir.remove_socket(name);
                left.map(drop).map_err(|error| refused(error.to_string()))
            }
            Ok(Err(error)) => Err(refused(error.to_string())),
            Err(_) => {
                let reason = "a proc of an earlier life of this host has the name and does not end";
                Err(refused(reason.to_owned()))
            }
        }
    }
}
