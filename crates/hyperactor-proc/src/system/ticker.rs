//! The one task of a proc that does what has to be done again and again: heartbeats, and messages that must be sent again.
//! It exists only while there is something to do.

use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::Proc;
use crate::limits;
use crate::proc::WeakProc;

#[derive(Default)]
pub(crate) struct Ticker {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_running: bool,
    /// The runtime of the last actor that was spawned, for calls from threads that are on none.
    runtime: Option<Handle>,
}

impl Ticker {
    /// Remembers a runtime to run on.
    pub(crate) fn on(&self, runtime: &Handle) {
        let mut state = self.state.lock();
        if state.runtime.is_none() {
            state.runtime = Some(runtime.clone());
        }
    }

    /// A runtime for what has to be waited for.
    pub(super) fn runtime(&self) -> Option<Handle> {
        Handle::try_current()
            .ok()
            .or_else(|| self.state.lock().runtime.clone())
    }

    /// Sees to it that the task runs. Called after something was put where the task looks.
    pub(crate) fn ensure(&self, proc: &Proc) {
        let mut state = self.state.lock();
        if state.is_running {
            return;
        }
        let runtime = Handle::try_current().ok().or_else(|| state.runtime.clone());
        let Some(runtime) = runtime else {
            tracing::warn!(proc = %proc.proc_id(), "no tokio runtime here: other procs are not watched until an actor is spawned");
            return;
        };
        state.is_running = true;
        drop(state);
        // The task is spawned with no lock held: where the runtime is shut down, it is dropped at once.
        runtime.spawn(tick(Running {
            proc: proc.downgrade(),
            is_armed: true,
        }));
    }
}

/// Says when it is dropped that the task is gone, also if its runtime was shut down.
struct Running {
    proc: WeakProc,
    is_armed: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_armed
            && let Ok(proc) = self.proc.upgrade()
        {
            proc.system().ticker.state.lock().is_running = false;
        }
    }
}

async fn tick(mut running: Running) {
    loop {
        // The proc is let go before the wait: this task must not keep it alive.
        let is_idle = match running.proc.upgrade() {
            Ok(proc) => round(&proc),
            Err(_) => return,
        };
        if is_idle && is_finished(&running) {
            // From here on another task may run.
            running.is_armed = false;
            return;
        }
        tokio::time::sleep(limits::BEAT_PERIOD).await;
    }
}

/// One round; whether nothing is left to do.
fn round(proc: &Proc) -> bool {
    let system = proc.system();
    system.courier.round(proc);
    system.watches.round(proc);
    system.is_idle()
}

/// Looks again, with the lock that whoever brings something new takes after it.
fn is_finished(running: &Running) -> bool {
    let Ok(proc) = running.proc.upgrade() else {
        return true;
    };
    let system = proc.system();
    let mut state = system.ticker.state.lock();
    let is_idle = system.is_idle();
    if is_idle {
        state.is_running = false;
    }
    is_idle
}

impl super::System {
    fn is_idle(&self) -> bool {
        self.watches.is_empty() && self.courier.is_empty()
    }
}
