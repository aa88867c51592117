//! The testing kit: what it expects, what it refuses, and what it breaks.

use std::num::NonZero;
use std::time::Duration;

use crate::common::{Add, Counter, Total, Wire};
use hyperactor_mailbox::{MailboxSender, NotDelivered};
use hyperactor_proc::Proc;
use hyperactor_proc::testing::{FailingSender, TestProbe};
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_probe_takes_messages_in_order_and_sees_that_none_comes() {
    let proc = Proc::isolated("p");
    let mut probe = TestProbe::<u64>::new(&proc, "probe").unwrap();
    let main = proc.client("main").unwrap();
    for number in 1..=5 {
        probe.port().post(&main, number);
    }
    assert_eq!(probe.expect_within(MINUTE).await, 1);
    assert_eq!(
        probe.expect_that_within(MINUTE, |number| *number > 3).await,
        4
    );
    assert_eq!(probe.expect_within(MINUTE).await, 5);
    let start = Instant::now();
    probe.expect_none_within(MINUTE).await;
    // On paused time that cost nothing.
    assert_eq!(start.elapsed(), MINUTE);
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "no `u64` came to")]
async fn a_probe_complains_when_nothing_comes() {
    let proc = Proc::isolated("p");
    let mut probe = TestProbe::<u64>::new(&proc, "probe").unwrap();
    probe.expect_within(MINUTE).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "none was expected")]
async fn a_probe_complains_when_something_comes_that_should_not() {
    let proc = Proc::isolated("p");
    let mut probe = TestProbe::<u64>::new(&proc, "probe").unwrap();
    probe.port().post(probe.client(), 7);
    probe.expect_none_within(MINUTE).await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_sender_gives_every_nth_message_back_and_passes_on_the_others() {
    let wire = Wire::default();
    let far = wire.proc("far");
    let counter = far.spawn("counter", Counter::default()).unwrap().bind();
    let third = NonZero::new(3).unwrap();
    let failing = FailingSender::new(wire.clone(), third);
    let proc_id = "local:7,test".parse().unwrap();
    let proc = Proc::new(proc_id, failing.boxed());
    let probe = TestProbe::<u64>::new(&proc, "probe").unwrap();
    for number in 1..=9 {
        counter.post(probe.client(), Add(number));
    }
    for number in [3, 6, 9] {
        let report = probe.expect_undeliverable_within(MINUTE).await;
        assert!(report.failure.to_string().contains("a test wants it"));
        assert_eq!(report.envelope.into_message::<Add>().unwrap(), Add(number));
    }
    assert_eq!(failing.failed(), 3);
    let main = far.client("main").unwrap();
    assert_eq!(counter.ask(&main, Total).await, Ok(1 + 2 + 4 + 5 + 7 + 8));
}

#[tokio::test(start_paused = true)]
async fn a_failing_sender_fails_as_it_is_told() {
    let proc_id: hyperactor_refs::ProcId = "local:7,test".parse().unwrap();
    let gone = "local:7,far".parse::<hyperactor_refs::ProcId>().unwrap();
    let all = NonZero::new(1).unwrap();
    let reason = NotDelivered::ProcGone {
        proc_id: gone.clone().into(),
    };
    let failing = FailingSender::new(Wire::default(), all).with_failure(reason);
    let proc = Proc::new(proc_id, failing.boxed());
    let main = proc.client("main").unwrap();
    let far = hyperactor_refs::ActorId::root(gone, "counter");
    let counter = hyperactor_proc::ActorRef::<Counter>::attest(far);
    let error = counter.ask(&main, Total).await.unwrap_err();
    assert_eq!(error.code(), "proc-gone");
}
