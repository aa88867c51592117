//! Where procs of an earlier life of the host come back to: a socket in the directory that both know. Who may come back is
//! decided by the table; what follows is the supervisor's.
//!
//! ```text
//! proc                                   host
//!   Claim { name, incarnation }  ──▶       is it awaited, in this life, and is the peer the process that holds its record?
//!          ◀──  Welcome, with the pipes for its output      or Refused, and it ends
//!   Back                         ──▶       from here on the stream is the control stream
//! ```
//!
//! Until `Back` has come the proc is still awaited, so that either side may die or give up anywhere, and it begins again.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::output::{self, Capture};
use super::supervise::Arrival;
use super::table::Shared;
use crate::control::{self, Frames, FromChild, ToChild};
use crate::limits;

/// How long nobody is let in when the system has no descriptors left.
const REST: Duration = Duration::from_millis(100);

/// Begins to listen. Must be called on a runtime, by the host that has the directory.
pub(super) fn open(shared: &Arc<Shared>) -> io::Result<()> {
    let path = shared.dir.adopt_path();
    // Of an earlier life: nobody else listens here, because nobody else has the directory.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    let task = tokio::spawn(receive_all(listener, Arc::downgrade(shared)));
    *shared.reception.lock() = Some(task.abort_handle());
    Ok(())
}

async fn receive_all(listener: UnixListener, shared: Weak<Shared>) {
    let places = Arc::new(Semaphore::new(limits::ADOPTING_MAX));
    loop {
        // Never closed; written so that nothing can panic.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(target: "hyperactor::bootstrap", %error, "a proc of an earlier life could not be let in");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        let Some(shared) = shared.upgrade() else {
            return;
        };
        tokio::spawn(async move {
            let received = tokio::time::timeout(limits::ADOPT_TIMEOUT, receive(stream, &shared));
            match received.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(target: "hyperactor::bootstrap", %error, "a claim came to nothing");
                }
                Err(_) => {
                    tracing::debug!(target: "hyperactor::bootstrap", "a claim took too long");
                }
            }
            drop(place);
        });
    }
}

/// Hears one claim.
async fn receive(stream: UnixStream, shared: &Arc<Shared>) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    if peer.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok());
    let mut claimant = Claimant {
        stream,
        frames: Frames::default(),
    };
    let FromChild::Claim { name, incarnation } = claimant.next().await? else {
        return Err(io::Error::other("it began with something else"));
    };
    let expected = {
        let table = shared.table.lock();
        if table.abandoned {
            return Err(io::Error::other(
                "this host is gone, and another is not here yet",
            ));
        }
        let entry = table.procs.get(&name);
        let same_life = entry.filter(|entry| entry.incarnation() == incarnation);
        let awaited = same_life.and_then(|entry| entry.awaited.as_ref());
        awaited
            .filter(|awaited| Some(awaited.pid) == pid)
            .map(|awaited| (awaited.output, awaited.tail.clone()))
    };
    let Some((policy, tail)) = expected else {
        let reason =
            format!("it does not expect life {incarnation} of `{name}` in process {pid:?}");
        tracing::warn!(target: "hyperactor::bootstrap", event = "proc.refused", proc = name, reason, "a proc is not taken back and ends");
        return claimant.say(&ToChild::Refused { reason }).await;
    };
    let capture = output::capture(&shared.printer, &name, policy, &tail)?;
    claimant.welcome(&capture).await?;
    match claimant.next().await? {
        FromChild::Back => {}
        other => return Err(io::Error::other(format!("it said {other:?}"))),
    }
    // Its connection has outlived the look at who it is: that is who it is.
    let told = {
        let mut table = shared.table.lock();
        let entry = table.procs.get_mut(&name);
        let same_life = entry.filter(|entry| entry.incarnation() == incarnation);
        let awaited = same_life.and_then(|entry| entry.awaited.as_mut());
        awaited.and_then(|awaited| awaited.arrival.take())
    };
    let Some(told) = told else {
        return Err(io::Error::other("it came twice, or has just ended"));
    };
    let Claimant { stream, frames } = claimant;
    let arrival = Arrival {
        stream,
        frames,
        readers: capture.readers,
    };
    // Not heard when the process has just ended.
    drop(told.send(arrival));
    Ok(())
}

/// Who came.
struct Claimant {
    stream: UnixStream,
    frames: Frames,
}

impl Claimant {
    async fn next(&mut self) -> io::Result<FromChild> {
        loop {
            if let Some(frame) = self.frames.next().map_err(io::Error::other)? {
                return Ok(frame);
            }
            let mut bytes = [0u8; 1024];
            match self.stream.read(&mut bytes).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.frames.push(&bytes[..count]),
            }
        }
    }

    async fn say(&mut self, frame: &ToChild) -> io::Result<()> {
        let bytes = control::encode(frame).map_err(io::Error::other)?;
        self.stream.write_all(&bytes).await
    }

    /// Sends the welcome, and with its first byte the pipes for the proc's output, if it is read.
    async fn welcome(&mut self, capture: &Capture) -> io::Result<()> {
        let bytes = control::encode(&ToChild::Welcome).map_err(io::Error::other)?;
        let pipes: Vec<_> = [&capture.stdout, &capture.stderr]
            .into_iter()
            .flatten()
            .map(AsFd::as_fd)
            .collect();
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !pipes.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(&pipes));
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let sent =
                rustix::net::sendmsg(&self.stream, &[IoSlice::new(&bytes)], &mut control, flags);
            Ok(sent?)
        };
        let sent = self.stream.async_io(Interest::WRITABLE, send).await?;
        // The rest, if a few bytes did not fit at once.
        self.stream.write_all(&bytes[sent..]).await
    }
}
