//! Watches of other procs: what counts as the loss of one, how soon it is known, and with what certificate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyperactor_mailbox::{
    DeathCertificate, MailboxSender, MessageEnvelope, NotDelivered, ProcExit, ReturnHandle,
};
use hyperactor_proc::{Proc, ProcLoss, limits};
use hyperactor_refs::{Incarnation, ProcId};
use tokio::time::Instant;

use crate::common::{Wire, polled_once, soon};

fn proc_id(name: &str) -> ProcId {
    format!("local:7,{name}").parse().unwrap()
}

fn certificate(proc: &Proc, exit: ProcExit) -> Arc<DeathCertificate> {
    let proc_id = Arc::new(proc.proc_id().clone());
    Arc::new(DeathCertificate::new(proc_id, proc.incarnation(), exit))
}

// V-01
#[tokio::test(start_paused = true)]
async fn a_proc_that_lives_is_not_lost_and_costs_one_message_a_period() {
    let wire = Wire::default();
    let (a, _b) = (wire.proc("a"), wire.proc("b"));
    let watches: Vec<_> = (0..100).map(|_| a.watch_proc(&proc_id("b"))).collect();
    let before = wire.carried();
    tokio::time::sleep(limits::BEAT_PERIOD * 20).await;
    let beats = wire.carried() - before;
    assert!((19..=21).contains(&beats), "{beats}");
    assert_eq!(watches[0].loss(), None);
}

// V-02
#[tokio::test(start_paused = true)]
async fn a_proc_that_is_not_there_is_found_missing_within_three_periods() {
    let wire = Wire::default();
    let a = wire.proc("a");
    let start = Instant::now();
    let loss = soon(a.watch_proc(&proc_id("nobody")).lost()).await;
    assert_eq!(loss.code(), "proc-died");
    assert_eq!(**loss.proc_id(), proc_id("nobody"));
    assert!(
        start.elapsed() <= limits::BEAT_PERIOD * 3,
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_proc_that_ends_is_found_lost_within_three_periods() {
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    let watch = a.watch_proc(b.proc_id());
    tokio::time::sleep(limits::BEAT_PERIOD * 4).await;
    assert_eq!(watch.loss(), None);
    let start = Instant::now();
    wire.cut("b");
    assert!(matches!(soon(watch.lost()).await, ProcLoss::Died { .. }));
    assert!(
        start.elapsed() <= limits::BEAT_PERIOD * 3,
        "{:?}",
        start.elapsed()
    );
    // Whoever watches from now on watches the next life.
    let _next = wire.proc("b");
    let watch = a.watch_proc(b.proc_id());
    tokio::time::sleep(limits::BEAT_PERIOD * 8).await;
    assert_eq!(watch.loss(), None);
}

#[tokio::test(start_paused = true)]
async fn a_proc_that_was_started_again_between_two_beats_is_lost() {
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    let watch = a.watch_proc(b.proc_id());
    tokio::time::sleep(limits::BEAT_PERIOD / 2).await;
    wire.cut("b");
    let next = wire.proc("b");
    match soon(watch.lost()).await {
        ProcLoss::Restarted { now, .. } => assert_eq!(now, next.incarnation()),
        loss => panic!("{loss}"),
    }
}

#[tokio::test]
async fn what_the_host_says_is_known_at_once_and_names_how_it_ended() {
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    let watch = a.watch_proc(b.proc_id());
    let told = certificate(&b, ProcExit::Signalled(9));
    // From a thread without a runtime, as the one that reads what the host says.
    let (proc, noted) = (a.clone(), Arc::clone(&told));
    std::thread::spawn(move || proc.note_proc_end(noted))
        .join()
        .unwrap();
    let loss = watch.loss().unwrap();
    assert_eq!(loss.certificate(), Some(&told));
    assert!(loss.to_string().contains("was ended by signal 9"), "{loss}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_former_life_is_no_loss_of_the_next() {
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    let watch = a.watch_proc(b.proc_id());
    // The life that answers is known then.
    tokio::time::sleep(limits::BEAT_PERIOD).await;
    let former = Incarnation::new(b.incarnation().get() ^ 1);
    let former = DeathCertificate::new(Arc::new(b.proc_id().clone()), former, ProcExit::Exited(1));
    a.note_proc_end(Arc::new(former));
    tokio::time::sleep(limits::BEAT_PERIOD * 4).await;
    assert_eq!(watch.loss(), None);
}

// V-03
#[tokio::test(start_paused = true)]
async fn a_certificate_that_comes_a_little_late_is_waited_for() {
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    let watch = a.watch_proc(b.proc_id());
    tokio::time::sleep(limits::BEAT_PERIOD / 2).await;
    wire.cut("b");
    // Past the beat that finds it missing, by half a period.
    tokio::time::sleep(limits::BEAT_PERIOD).await;
    assert_eq!(watch.loss(), None);
    a.note_proc_end(certificate(&b, ProcExit::Exited(3)));
    let loss = watch.loss().unwrap();
    assert_eq!(loss.certificate().unwrap().exit, ProcExit::Exited(3));
}

/// A way to another host, which cannot reach a proc of its own that has just ended, and then finds out why.
#[derive(Clone)]
struct Elsewhere {
    given: Arc<AtomicU64>,
    knows_from: u64,
}

impl MailboxSender for Elsewhere {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let proc_id = envelope.dest().actor_id().proc().clone();
        let reason = match self.given.fetch_add(1, Ordering::Relaxed) >= self.knows_from {
            true => NotDelivered::ProcGone { proc_id },
            false => NotDelivered::Connect {
                addr: proc_id.addr().clone(),
                error: "connection refused".to_owned(),
            },
        };
        return_handle.undeliverable(envelope, reason);
    }
}

async fn lost_elsewhere(knows_from: u64) -> ProcLoss {
    let given = Arc::default();
    let a = Proc::new(proc_id("a"), Elsewhere { given, knows_from }.boxed());
    let watch = a.watch_proc(&"local:8,b".parse().unwrap());
    soon(watch.lost()).await
}

#[tokio::test(start_paused = true)]
async fn a_proc_of_another_host_that_cannot_be_reached_is_asked_for_once_more() {
    // The host has found out by the next beat.
    assert_eq!(lost_elsewhere(1).await.code(), "proc-died");
    // It never does.
    let began = Instant::now();
    assert_eq!(lost_elsewhere(u64::MAX).await.code(), "connection-lost");
    assert!(began.elapsed() <= limits::BEAT_PERIOD * 3);
}

#[tokio::test]
async fn the_own_proc_is_never_lost() {
    let proc = Proc::isolated("p");
    let watch = proc.watch_proc(proc.proc_id());
    let mut lost = std::pin::pin!(watch.lost());
    assert!(polled_once(lost.as_mut()).await.is_pending());
    proc.note_proc_end(certificate(&proc, ProcExit::InProcess));
    assert!(polled_once(lost.as_mut()).await.is_pending());
}

#[tokio::test(start_paused = true)]
async fn the_beats_end_with_the_last_watch() {
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    let watch = a.watch_proc(b.proc_id());
    tokio::time::sleep(limits::BEAT_PERIOD * 2).await;
    drop(watch);
    tokio::time::sleep(limits::WATCH_LINGER + limits::BEAT_PERIOD * 3).await;
    let before = wire.carried();
    tokio::time::sleep(limits::BEAT_PERIOD * 40).await;
    assert_eq!(wire.carried(), before);
    // And begin again with the next.
    let watch = a.watch_proc(b.proc_id());
    wire.cut("b");
    assert_eq!(soon(watch.lost()).await.code(), "proc-died");
}

#[tokio::test(start_paused = true)]
async fn a_proc_that_nobody_owns_is_not_kept_alive_by_its_watches() {
    let wire = Wire::default();
    let b = wire.proc("b");
    let a = wire.proc("a");
    let watch = a.watch_proc(b.proc_id());
    let id = a.proc_id().clone();
    wire.cut("a");
    drop(a);
    tokio::time::sleep(limits::BEAT_PERIOD * 2).await;
    assert_eq!(soon(b.watch_proc(&id).lost()).await.code(), "proc-died");
    // And whoever waits on one of them is told that nobody watches any more.
    let loss = soon(watch.lost()).await;
    assert_eq!(loss.code(), "connection-lost");
    assert!(loss.to_string().contains("was dropped"), "{loss}");
}
