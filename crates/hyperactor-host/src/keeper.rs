//! What a host does when one of its procs ends: tidy up, tell, and start it again if its policy says so. What a policy
//! says is in `restart`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use hyperactor_mailbox::{BoxFuture, DeathCertificate, ProcExit};
use hyperactor_refs::{ProcId, Reference};
use hyperactor_router::DialMailboxRouter;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::ProcConfig;
use crate::events::ProcEvent;
use crate::host::Inner;
use crate::hosted::HostedProc;
use crate::restart::{Lives, Next};
use crate::spec::EndedBy;

/// One life of a proc, watched until it has ended.
pub(crate) struct Watch {
    pub(crate) host: Weak<Inner>,
    pub(crate) router: DialMailboxRouter,
    pub(crate) hosted: HostedProc,
    pub(crate) config: ProcConfig,
    pub(crate) lives: Lives,
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) since: Instant,
}

impl Watch {
    /// Waits for the end of the proc, tidies up, and says so. Returns when nothing is left to do for it: after the start
    /// of its next life, if there is one.
    pub(crate) async fn run(mut self) {
        let exit = {
            let mut exited = self.hosted.inner.handle.exited();
            let exit = exited.wait_for(Option::is_some).await.map(|exit| *exit);
            match exit {
                Ok(exit) => exit.unwrap_or(ProcExit::Lost),
                // Left to live on: its host is gone, and nothing is to be said of an end.
                Err(_) if self.host.strong_count() == 0 => {
                    return self.hosted.inner.let_go();
                }
                Err(_) => ProcExit::Lost,
            }
        };
        let hosted = &self.hosted;
        let proc_id = Arc::clone(&hosted.info().proc_id);
        let certificate = self.certificate(exit);
        let next = self.config.restart.covers(&certificate).then(|| {
            self.lives
                .next(&self.config.restart, Instant::now(), chance())
        });
        let pause = match next {
            Some(Next::Restart { pause }) => Some(pause),
            _ => None,
        };
        if let Some(inner) = self.host.upgrade() {
            // Before the name is free: what is said of one life must not be taken for news of the next.
            inner.note_end(Arc::clone(&certificate));
        }
        self.router.unbind(&Reference::from(Arc::clone(&proc_id)));
        if let Some(inner) = self.host.upgrade() {
            inner.vacate(hosted.name(), pause.is_some());
        }
        log_end(&certificate, hosted.ended_by(), pause);
        hosted.inner.publish_end(Arc::clone(&certificate));
        if let Some(inner) = self.host.upgrade() {
            inner.tell(ProcEvent::Ended {
                certificate,
                restart_in: pause,
            });
        }
        match next {
            None => {}
            Some(next) => start_again(self, proc_id, next).await,
        }
    }

    /// What the proc's manager knows of the end, or else what is known here.
    fn certificate(&self, exit: ProcExit) -> Arc<DeathCertificate> {
        self.hosted.inner.handle.certificate().unwrap_or_else(|| {
            let info = self.hosted.info();
            let proc_id = Arc::clone(&info.proc_id);
            let mut certificate = DeathCertificate::new(proc_id, info.incarnation, exit);
            certificate.wanted = self.hosted.ended_by() != EndedBy::Itself;
            certificate.lived = self.since.elapsed();
            Arc::new(certificate)
        })
    }
}

fn log_end(certificate: &DeathCertificate, by: EndedBy, restart_in: Option<Duration>) {
    let proc_id = &certificate.proc_id;
    if certificate.wanted {
        tracing::info!(target: "hyperactor::host", event = "proc.ended", proc = %proc_id, exit = %certificate.exit, ?by, "a proc has ended");
    } else {
        // Not the certificate itself: what the proc printed does not belong into its host's log.
        tracing::warn!(target: "hyperactor::host", event = "proc.lost", proc = %proc_id, exit = %certificate.exit, out_of_memory = ?certificate.out_of_memory, ?restart_in, "a proc ended that nobody had asked to");
    }
}

/// Starts a proc again, as often as its policy allows. Boxed, because a start begins with the watch over the next life,
/// which ends with this.
fn start_again(watch: Watch, proc_id: Arc<ProcId>, first: Next) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let Watch {
            host,
            config,
            mut lives,
            mut stopping,
            ..
        } = watch;
        let mut next = first;
        loop {
            let pause = match next {
                Next::Restart { pause } => pause,
                Next::GiveUp { restarts } => {
                    tracing::error!(target: "hyperactor::host", event = "proc.given_up", proc = %proc_id, restarts, "a proc ends too often and is not started again");
                    if let Some(inner) = host.upgrade() {
                        inner.tell(ProcEvent::GaveUp { proc_id, restarts });
                    }
                    return;
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // The host stops, or is gone: either way nobody starts anything any more.
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
            let Some(inner) = host.upgrade() else { return };
            // Somebody may have given the proc up meanwhile.
            let Some(place) = inner.take_resting_place(proc_id.name()) else {
                return;
            };
            let started = inner.launch(place, config.clone(), lives.clone()).await;
            let Err(error) = started else { return };
            next = lives.next(&config.restart, Instant::now(), chance());
            let restart_in = match next {
                Next::Restart { pause } if inner.rest(proc_id.name()) => Some(pause),
                _ => None,
            };
            tracing::warn!(target: "hyperactor::host", event = "proc.restart_failed", proc = %proc_id, code = error.code(), %error, ?restart_in, "a proc could not be started again");
            inner.tell(ProcEvent::RestartFailed {
                proc_id: Arc::clone(&proc_id),
                reason: error.to_string(),
                restart_in,
            });
            if restart_in.is_none() && matches!(next, Next::Restart { .. }) {
                // Its name is taken by another, or the host stops.
                return;
            }
        }
    })
}

/// Anything from 0 to 1, as likely as any other; 1 where the system has no randomness to give.
fn chance() -> f64 {
    getrandom::u32().map_or(1.0, |bits| f64::from(bits) / f64::from(u32::MAX))
}
