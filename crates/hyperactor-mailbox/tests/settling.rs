//! Settling: once, truly, also when somebody drops the duty; and leases.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Event, Recorder, actor, dropped};
use hyperactor_mailbox::{
    Lease, Mailbox, MailboxSender, MessageEnvelope, NotDelivered, OutcomeReceiver, Queue,
    ReturnHandle, SendFailure, limits,
};
use hyperactor_refs::PortId;

fn envelope(dest: &PortId) -> MessageEnvelope {
    MessageEnvelope::typed(actor("sender"), dest.clone(), 5_u64)
}

#[test]
fn a_handle_dropped_without_a_verdict_reports_an_unknown_outcome() {
    let (sink, events) = Recorder::local();
    drop(sink.handle(9));
    assert!(matches!(events.try_recv(), Ok(Event::Abandoned(9))));
    assert!(events.try_recv().is_err());

    let (return_handle, mut outcome) = ReturnHandle::oneshot();
    drop(return_handle);
    let Some(Err(SendFailure::Lost(failure))) = outcome.try_take() else {
        panic!("not lost")
    };
    assert_eq!(failure, dropped());
}

#[test]
fn a_handle_settles_exactly_once() {
    let (sink, events) = Recorder::leased();
    drop(sink.handle(1).delivered());
    let dest = PortId::new(actor("a"), 1);
    sink.handle(2).undeliverable(
        envelope(&dest),
        NotDelivered::UnknownPort {
            port_id: dest.clone(),
        },
    );
    sink.handle(3).lost(dropped());
    let seen: Vec<_> = events.try_iter().collect();
    assert!(
        matches!(
            &seen[..],
            [
                Event::Delivered(1),
                Event::Released(1),
                Event::Undelivered(2, _),
                Event::Lost(3, _)
            ]
        ),
        "{seen:?}"
    );
}

#[test]
fn a_leased_message_gives_its_credit_back_when_it_leaves_the_queue() {
    let queue = Queue::new(1);
    let (sink, events) = Recorder::leased();
    // Beyond the capacity: credit bounds these.
    for id in 0..3 {
        queue.place(id, sink.handle(id)).unwrap();
    }
    let seen: Vec<_> = events.try_iter().collect();
    assert!(
        matches!(
            &seen[..],
            [
                Event::Delivered(0),
                Event::Delivered(1),
                Event::Delivered(2)
            ]
        ),
        "{seen:?}"
    );
    assert_eq!(queue.try_recv(), Some(0));
    assert!(matches!(events.try_recv(), Ok(Event::Released(0))));
    assert!(events.try_recv().is_err());
    // What is never received gives its credit back as well.
    assert_eq!(queue.close(), [1, 2]);
    let seen: Vec<_> = events.try_iter().collect();
    assert!(
        matches!(&seen[..], [Event::Released(1), Event::Released(2)]),
        "{seen:?}"
    );
}

#[test]
fn a_port_takes_leased_messages_beyond_its_capacity_and_gives_their_credit_back() {
    let mailbox = Mailbox::with_capacity(actor("a"), 1);
    let (port, mut receiver) = mailbox.open_port::<u64>();
    let dest = port.bind().into_port_id();
    let (sink, events) = Recorder::leased();
    let count = limits::RECV_BATCH as u64 + 5;
    for id in 0..count {
        mailbox.post(envelope(&dest), sink.handle(id));
    }
    assert_eq!(events.try_iter().count() as u64, count);
    // A receiver takes a batch at a time out of its queue.
    assert_eq!(receiver.try_recv(), Some(5));
    assert_eq!(events.try_iter().count(), limits::RECV_BATCH);
    drop(receiver);
    assert_eq!(events.try_iter().count(), 5);
}

#[test]
fn leased_messages_leave_the_room_of_local_senders_alone() {
    let mailbox = Mailbox::with_capacity(actor("a"), 1);
    let (port, _receiver) = mailbox.open_port::<u64>();
    let dest = port.bind().into_port_id();
    let (remote, _events) = Recorder::leased();
    mailbox.post(envelope(&dest), remote.handle(0));
    mailbox.post(envelope(&dest), remote.handle(1));
    assert_eq!(port.post(1), Ok(()));
    assert_eq!(
        port.post(2),
        Err(NotDelivered::QueueFull {
            port_id: dest,
            capacity: 1
        })
    );
}

#[test]
fn a_leased_message_that_is_refused_is_not_released() {
    let mailbox = Mailbox::new(actor("a"));
    let (port, receiver) = mailbox.open_port::<u64>();
    let dest = port.bind().into_port_id();
    drop(receiver);
    let (sink, events) = Recorder::leased();
    mailbox.post(envelope(&dest), sink.handle(4));
    let seen: Vec<_> = events.try_iter().collect();
    assert!(matches!(&seen[..], [Event::Undelivered(4, _)]), "{seen:?}");
}

#[test]
fn a_queue_gives_a_refused_handle_back_unsettled() {
    let queue = Queue::new(1);
    let (sink, events) = Recorder::local();
    queue.place("a", sink.handle(0)).unwrap();
    let (error, return_handle) = queue.place("b", sink.handle(1)).unwrap_err();
    assert_eq!(error.into_inner(), "b");
    assert!(matches!(events.try_recv(), Ok(Event::Delivered(0))));
    assert!(events.try_recv().is_err());
    drop(return_handle.delivered());
    assert!(matches!(events.try_recv(), Ok(Event::Delivered(1))));
    // A closed queue refuses leased items too, and then gives no credit back by itself.
    queue.close();
    let (remote, events) = Recorder::leased();
    let (error, return_handle) = queue.place("c", remote.handle(2)).unwrap_err();
    assert_eq!(format!("{error:?}"), "Closed(..)");
    assert!(events.try_recv().is_err());
    drop(return_handle);
    assert!(matches!(events.try_recv(), Ok(Event::Abandoned(2))));
}

#[tokio::test]
async fn an_outcome_wakes_whoever_waits_for_it() {
    let (return_handle, outcome) = ReturnHandle::oneshot();
    assert!(return_handle.wants_outcome());
    let waiting = tokio::spawn(outcome);
    tokio::task::yield_now().await;
    drop(return_handle.delivered());
    assert!(waiting.await.unwrap().is_ok());
}

#[test]
fn a_lease_of_nobody_is_local_and_costs_nothing() {
    assert!(Lease::none().is_local());
    assert_eq!(size_of::<OutcomeReceiver>(), size_of::<usize>());
    let (sink, _events) = Recorder::leased();
    let lease = sink.handle(0).delivered();
    assert!(!lease.is_local());
}

#[test]
fn a_monitored_handle_takes_every_verdict() {
    drop(ReturnHandle::monitored().delivered());
    ReturnHandle::monitored().lost(dropped());
    let handle = ReturnHandle::monitored();
    assert!(!handle.wants_outcome() && !handle.is_leased());
}
