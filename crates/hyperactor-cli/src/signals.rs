//! The signals that ask the program to end, as something that can be awaited.

use std::future::Future;
use std::io;

use tokio::signal::unix::{self, SignalKind};

use crate::failure::{Failure, Signal};

/// Catches Ctrl-C, SIGTERM and SIGHUP from the moment it is made; before that they end the process as usual.
pub(crate) struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hang_up: unix::Signal,
}

impl Signals {
    /// # Errors
    ///
    /// What the system says when a handler cannot be installed.
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hang_up: unix::signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    ///
    /// # Cancel safety
    ///
    /// A dropped future loses no signal.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.hang_up.recv() => Signal::HangUp,
        }
    }

    /// Does `work`, unless a signal comes first.
    ///
    /// # Errors
    ///
    /// Those of `work`, or [`Failure::Interrupted`].
    pub(crate) async fn unless<T>(
        &mut self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            outcome = work => outcome,
            signal = self.next() => Err(Failure::Interrupted(signal)),
        }
    }
}
