//! Whether other procs live: watches of them, kept up by a small message every now and then, and by what their host says of
//! them. What an actor's end means is in `supervision`.

mod beat;
mod loss;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use hyperactor_mailbox::{DeathCertificate, NotDelivered};
use hyperactor_refs::{Incarnation, ProcId};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::{Proc, limits};

pub(crate) use beat::bind;
pub use loss::ProcLoss;
pub(crate) use loss::Sign;

/// A watch of another proc: tells when that life of the proc is over, or it cannot be reached any more.
///
/// Made by [`Proc::watch_proc`]; dropping it gives the watch up.
#[derive(Clone)]
pub struct ProcWatch {
    /// Nothing for the own proc, which outlives whoever watches from within.
    watched: Option<Arc<Watched>>,
}

impl ProcWatch {
    /// Why the proc is lost, if it is.
    pub fn loss(&self) -> Option<ProcLoss> {
        self.watched.as_ref()?.loss.borrow().clone()
    }

    /// Waits until the proc is lost. Never resolves for the own proc.
    ///
    /// # Bounds
    /// For a proc of the same host: at once when the host announces the end, else within
    /// [`limits::BEAT_PERIOD`] three times. For a proc that stands still: as long as its channel waits for an
    /// acknowledgement.
    ///
    /// # Cancel safety
    /// Cancel safe; it only watches.
    pub async fn lost(&self) -> ProcLoss {
        let Some(watched) = &self.watched else {
            return std::future::pending().await;
        };
        let mut loss = watched.loss.subscribe();
        let told = match loss.wait_for(Option::is_some).await {
            Ok(loss) => loss.clone(),
            Err(_) => None,
        };
        match told {
            Some(loss) => loss,
            // The sender lives in the watch itself and holds a loss when the wait ends.
            None => std::future::pending().await,
        }
    }
}

impl fmt::Debug for ProcWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcWatch")
            .field(
                "proc_id",
                &self
                    .watched
                    .as_ref()
                    .map(|watched| watched.proc_id.to_string()),
            )
            .field("loss", &self.loss())
            .finish()
    }
}

/// One life of another proc that somebody here watches.
pub(crate) struct Watched {
    proc_id: Arc<ProcId>,
    loss: watch::Sender<Option<ProcLoss>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The life that answered.
    incarnation: Option<Incarnation>,
    /// A beat has no outcome yet.
    is_beating: bool,
    /// Beats in a row that tell nothing for certain.
    doubts: u32,
    /// The proc seems dead, and its host may be about to say how it ended.
    suspicion: Option<(ProcLoss, Instant)>,
    /// Since when nobody watches.
    unused_since: Option<Instant>,
}

impl Watched {
    /// Holds a loss back for its host to say more (V-03).
    fn suspect(&self, loss: ProcLoss) {
        let mut state = self.state.lock();
        match &mut state.suspicion {
            None => state.suspicion = Some((loss, Instant::now() + limits::CERTIFICATE_GRACE)),
            // That it has ended says more than that it cannot be reached.
            Some((held @ ProcLoss::Unreachable { .. }, _))
                if matches!(loss, ProcLoss::Died { .. }) =>
            {
                *held = loss;
            }
            Some(_) => {}
        }
    }
}

/// All procs that are watched from one, and how others ended.
#[derive(Default)]
pub(crate) struct Watches {
    table: Mutex<HashMap<Arc<ProcId>, Arc<Watched>>>,
    certificates: Mutex<VecDeque<Arc<DeathCertificate>>>,
}

impl Watches {
    pub(crate) fn is_empty(&self) -> bool {
        self.table.lock().is_empty()
    }

    /// The procs that are watched.
    pub(crate) fn proc_ids(&self) -> Vec<Arc<ProcId>> {
        self.table.lock().keys().cloned().collect()
    }

    fn find(&self, proc_id: &ProcId) -> Option<Arc<Watched>> {
        self.table.lock().get(proc_id).cloned()
    }

    /// What the host said of the end of a proc, the latest that fits.
    fn certificate(
        &self,
        proc_id: &ProcId,
        life: Option<Incarnation>,
    ) -> Option<Arc<DeathCertificate>> {
        let kept = self.certificates.lock();
        kept.iter()
            .rev()
            .find(|kept| {
                *kept.proc_id == *proc_id && life.is_none_or(|life| life == kept.incarnation)
            })
            .cloned()
    }

    fn keep(&self, certificate: Arc<DeathCertificate>) {
        let mut kept = self.certificates.lock();
        kept.retain(|other| {
            other.proc_id != certificate.proc_id || other.incarnation != certificate.incarnation
        });
        if kept.len() >= limits::CERTIFICATES_KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(certificate);
    }
}

/// Nobody sends beats any more, and nobody may wait for their outcome.
impl Drop for Watches {
    fn drop(&mut self) {
        for (proc_id, watched) in self.table.get_mut().drain() {
            let failure = NotDelivered::Other {
                code: "watcher-gone".to_owned(),
                detail: "the proc that watched was dropped".to_owned(),
            };
            watched.loss.send_replace(Some(ProcLoss::Unreachable {
                proc_id,
                failure: failure.into(),
            }));
        }
    }
}

impl Proc {
    /// Watches another proc, in this process or any other, until the watch is dropped.
    ///
    /// A watch is of the life of the proc that answers first: when the proc is started again under the same name, that life
    /// is lost. Watching a proc that is not there finds that out with the first beat.
    ///
    /// # Bounds
    /// One small message each [`limits::BEAT_PERIOD`] for each watched proc, however many watches of it there are. After the
    /// last watch of a proc it goes on for [`limits::WATCH_LINGER`].
    ///
    /// It works on the tokio runtime of the caller, or on that of the proc's actors, which must have a timer.
    pub fn watch_proc(&self, proc_id: &ProcId) -> ProcWatch {
        if self.proc_id() == proc_id {
            return ProcWatch { watched: None };
        }
        let watches = &self.system().watches;
        let (watched, is_new) = {
            let mut table = watches.table.lock();
            match table.get(proc_id) {
                Some(watched) => (Arc::clone(watched), false),
                None => {
                    let proc_id = Arc::new(proc_id.clone());
                    let watched = Arc::new(Watched {
                        proc_id: Arc::clone(&proc_id),
                        loss: watch::Sender::new(None),
                        state: Mutex::default(),
                    });
                    table.insert(proc_id, Arc::clone(&watched));
                    (watched, true)
                }
            }
        };
        if is_new {
            // At once, so that it is soon known which life answers.
            beat::beat(self, &watched);
            self.system().ticker.ensure(self);
        }
        ProcWatch {
            watched: Some(watched),
        }
    }

    /// Notes that one life of a proc is over, as its host says. Whoever watches that life is told at once, with the
    /// certificate.
    ///
    /// May be called from any thread. Kept are the last [`limits::CERTIFICATES_KEPT_MAX`] certificates, for ends that are
    /// noticed in other ways first.
    pub fn note_proc_end(&self, certificate: Arc<DeathCertificate>) {
        let proc_id = Arc::clone(&certificate.proc_id);
        if *proc_id == *self.proc_id() {
            return;
        }
        let watches = &self.system().watches;
        watches.keep(Arc::clone(&certificate));
        let Some(watched) = watches.find(&proc_id) else {
            return;
        };
        let is_same_life = {
            let state = watched.state.lock();
            // Where no life has answered yet, it is the one that was addressed.
            state
                .incarnation
                .is_none_or(|life| life == certificate.incarnation)
        };
        if is_same_life {
            let loss = ProcLoss::Died {
                proc_id,
                certificate: Some(certificate),
                seen: "its host said so".to_owned(),
            };
            self.lose(&watched, &loss);
        }
    }

    /// Ends a watch, once.
    fn lose(&self, watched: &Arc<Watched>, loss: &ProcLoss) {
        let system = self.system();
        let was_watched = {
            let mut table = system.watches.table.lock();
            let is_same = table
                .get(&*watched.proc_id)
                .is_some_and(|other| Arc::ptr_eq(other, watched));
            if is_same {
                table.remove(&*watched.proc_id);
            }
            is_same
        };
        if !was_watched {
            return;
        }
        tracing::info!(target: "hyperactor::proc", event = "proc.lost", proc = %self.proc_id(), lost = %watched.proc_id, code = loss.code(), "{loss}");
        watched.loss.send_replace(Some(loss.clone()));
        system.courier.forget(&watched.proc_id);
        self.proc_lost(loss);
    }
}
