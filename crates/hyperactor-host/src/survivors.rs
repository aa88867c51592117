//! What a host does about procs that an earlier life of it made: they are in its tables from its first moment, and watched
//! as if it had made them. How they are found, owned and reached is their manager's.

use std::sync::Arc;

use tokio::time::Instant;

use crate::error::HostError;
use crate::events::ProcEvent;
use crate::host::{Inner, Place};
use crate::hosted::{Hosted, HostedProc};
use crate::limits;
use crate::manager::Survivor;
use crate::restart::Lives;

impl Inner {
    /// Takes over what an earlier life of this host left. Called before anybody can ask for a proc: no name is given away
    /// that one of them has.
    pub(crate) fn take_back_survivors(self: &Arc<Self>) -> Result<(), HostError> {
        let survivors = self
            .manager
            .survivors(self.addrs.canonical(), &self.backend)?;
        if survivors.len() > limits::PROCS_MAX {
            return Err(self.leave_alone(HostError::too_many()));
        }
        if !survivors.is_empty() {
            *self.first_events.lock() = Some(self.events.subscribe());
        }
        for Survivor { spec, handle, back } in survivors {
            let hosted = HostedProc {
                inner: Arc::new(Hosted::new(handle)),
            };
            let name = spec.proc_id.name().to_owned();
            let was_alive = hosted.inner.handle.exited().borrow().is_none();
            if was_alive {
                // It serves its socket all the time: messages for it go there at once.
                let addr = hosted.info().addr.clone();
                let bound = self.router.bind(Arc::clone(&spec.proc_id), addr);
                bound.map_err(|error| self.leave_alone(error.into()))?;
            }
            let place = Place::Running(hosted.clone());
            self.procs.lock().by_name.insert(name, place);
            tracing::info!(target: "hyperactor::host", event = "proc.survived", proc = %spec.proc_id, pid = hosted.info().pid, was_alive, "a proc of an earlier life of this host was found");
            if was_alive {
                let (host, hosted) = (Arc::downgrade(self), hosted.clone());
                tokio::spawn(async move {
                    let is_back = back.await;
                    if let Some(inner) = host.upgrade().filter(|_| is_back) {
                        inner.tell_taken_back(&hosted);
                    }
                });
            }
            // Restarts of its earlier lives are not remembered.
            self.watch(hosted, spec.config, Lives::default(), Instant::now());
        }
        Ok(())
    }

    /// This host does not start: nobody is to end because of that when the handles are dropped.
    fn leave_alone(&self, error: HostError) -> HostError {
        self.manager.abandoned();
        error
    }

    fn tell_taken_back(&self, hosted: &HostedProc) {
        tracing::info!(target: "hyperactor::host", event = "proc.taken_back", proc = %hosted.proc_id(), pid = hosted.info().pid, "a proc listens to this host again");
        self.tell(ProcEvent::Ready {
            info: hosted.info().clone(),
            restarts: 0,
            taken_back: true,
        });
    }
}
