//! The child's end of the control stream, for writing. The stream may end and be replaced by that of another host.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::control::{self, Frames, FromChild, ToChild};
use crate::error::BootError;
use crate::limits;

/// What the child says to its host. A clone is another handle of the same link.
#[derive(Clone)]
pub(super) struct HostLink {
    /// `None` while there is no host.
    stream: Arc<Mutex<Option<Arc<UnixStream>>>>,
}

impl HostLink {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream: Arc::new(Mutex::new(Some(Arc::new(stream)))),
        }
    }

    /// Goes on with another host, or without one.
    pub(super) fn replace(&self, stream: Option<UnixStream>) {
        *self.stream.lock() = stream.map(Arc::new);
    }

    /// Waits for the host's word that this process may run: its limits are set then, and every thread that is started from
    /// here on has them. Returns `false` when the host went before.
    pub(super) fn wait_for_go(&self) -> bool {
        let Some(stream) = self.current() else {
            return false;
        };
        let mut frames = Frames::default();
        // One byte at a time: whatever follows is for the thread that reads later.
        let mut byte = [0u8];
        loop {
            match (&*stream).read(&mut byte) {
                Ok(1) => frames.push(&byte),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Ok(_) | Err(_) => return false,
            }
            match frames.next() {
                Ok(None) => {}
                Ok(Some(ToChild::Go)) => return true,
                Ok(Some(_)) | Err(_) => return false,
            }
        }
    }

    /// The same stream, for the thread that reads it.
    pub(super) fn reader(&self) -> Result<UnixStream, BootError> {
        let cloned = match self.current() {
            Some(stream) => stream.try_clone(),
            None => Err(std::io::ErrorKind::NotConnected.into()),
        };
        cloned.map_err(|source| BootError::Io {
            what: "duplicate the control stream",
            source,
        })
    }

    /// Says something to the host. Frames are small and few, so this does not wait unless the host does not read; then it
    /// gives up. Returns whether the frame was written.
    pub(super) fn tell(&self, frame: &FromChild) -> bool {
        self.current().is_some_and(|stream| tell(&stream, frame))
    }

    fn current(&self) -> Option<Arc<UnixStream>> {
        self.stream.lock().clone()
    }
}

/// As [`HostLink::tell`], to whoever is at the other end of a stream.
pub(super) fn tell(mut stream: &UnixStream, frame: &FromChild) -> bool {
    let timeout: Duration = limits::CONTROL_WRITE_TIMEOUT;
    let Ok(bytes) = control::encode(frame) else {
        return false;
    };
    stream.set_write_timeout(Some(timeout)).is_ok() && stream.write_all(&bytes).is_ok()
}
