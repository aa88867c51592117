//! Ports: order, contramap, the end of a port, and ports for one message.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;

use common::{Recorder, actor, post_and_see, reason};
use hyperactor_mailbox::{
    BindError, InHand, Mailbox, MailboxSender, MessageEnvelope, Never, NotDelivered, PortRef,
    PortSink, ReturnHandle, limits,
};
use hyperactor_refs::PortId;

fn envelope(dest: &PortId, number: u64) -> MessageEnvelope {
    MessageEnvelope::typed(actor("sender"), dest.clone(), number)
}

#[tokio::test]
async fn messages_are_received_in_the_order_posted() {
    let mailbox = Mailbox::new(actor("a"));
    let (port, mut receiver) = mailbox.open_port::<u64>();
    let dest = port.bind().into_port_id();
    // Across several batches, and local posts between envelopes.
    let count = 5 * limits::RECV_BATCH as u64 + 3;
    for number in 0..count {
        if number % 2 == 0 {
            post_and_see(&mailbox, envelope(&dest, number)).unwrap();
        } else {
            port.post(number).unwrap();
        }
    }
    for number in 0..count {
        assert_eq!(receiver.recv().await, Some(number));
    }
    assert!(receiver.is_empty());
}

#[tokio::test]
async fn a_receiver_wakes_for_a_message_and_for_the_end() {
    let mailbox = Mailbox::new(actor("a"));
    let (port, mut receiver) = mailbox.open_port::<u64>();
    let dest = port.bind().into_port_id();
    let task = tokio::spawn(async move { (receiver.recv().await, receiver.recv().await) });
    tokio::task::yield_now().await;
    post_and_see(&mailbox, envelope(&dest, 3)).unwrap();
    tokio::task::yield_now().await;
    mailbox.close();
    assert_eq!(task.await.unwrap(), (Some(3), None));
}

#[test]
fn dropping_the_receiver_ends_the_port_and_frees_its_place() {
    let mailbox = Mailbox::new(actor("a"));
    let (port, receiver) = mailbox.open_port::<u64>();
    let dest = port.bind().into_port_id();
    let mapped = port.contramap(|text: String| text.len() as u64).bind();
    assert_eq!(mailbox.bound_ports(), 2);
    drop(receiver);
    assert_eq!(mailbox.bound_ports(), 0);
    let unknown = NotDelivered::UnknownPort {
        port_id: dest.clone(),
    };
    assert_eq!(port.post(1), Err(unknown.clone()));
    assert_eq!(
        *reason(&post_and_see(&mailbox, envelope(&dest, 1)).unwrap_err()),
        unknown
    );
    // Bound after the end, it leaves nothing behind either.
    assert_ne!(port.contramap(|_: u8| 1).bind().port_id(), mapped.port_id());
    assert_eq!(mailbox.bound_ports(), 0);
}

#[test]
fn binding_twice_gives_the_same_reference() {
    let mailbox = Mailbox::new(actor("a"));
    let (port, _receiver) = mailbox.open_port::<u64>();
    assert_eq!(port.bind(), port.clone().bind());
    assert_eq!(mailbox.bound_ports(), 1);
    assert!(port.port_id().index() >= limits::FIRST_EPHEMERAL_PORT);
}

#[test]
fn a_contramapped_port_turns_messages_and_keeps_the_bound() {
    let mailbox = Mailbox::with_capacity(actor("a"), 2);
    let (port, mut receiver) = mailbox.open_port::<u64>();
    let lengths = port.contramap(|text: String| text.len() as u64);
    let twice = lengths.contramap(|text: &'static str| format!("{text}{text}"));
    let dest = lengths.bind().into_port_id();
    let text = |text: &str| MessageEnvelope::typed(actor("s"), dest.clone(), text.to_string());
    post_and_see(&mailbox, text("abc")).unwrap();
    twice.post("ab").unwrap();
    // Full: the message comes back as it was posted, not as it would have been turned.
    let report = post_and_see(&mailbox, text("four")).unwrap_err();
    assert_eq!(reason(&report).code(), "queue-full");
    assert_eq!(report.envelope.into_message::<String>().unwrap(), "four");
    assert_eq!(
        (receiver.try_recv(), receiver.try_recv()),
        (Some(3), Some(4))
    );
    // From another process it fits beyond the bound.
    let (remote, _events) = Recorder::leased();
    for id in 0..5 {
        mailbox.post(text("x"), remote.handle(id));
    }
    assert_eq!(receiver.len(), 5);
}

#[test]
fn a_function_that_panics_holds_no_place() {
    let mailbox = Mailbox::with_capacity(actor("a"), 1);
    let (port, mut receiver) = mailbox.open_port::<u64>();
    let bad = port.contramap(|_: u8| panic!("user's own"));
    for _ in 0..3 {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bad.post(1)));
        assert!(caught.is_err());
    }
    port.post(7).unwrap();
    assert_eq!(receiver.try_recv(), Some(7));
}

#[tokio::test]
async fn a_once_port_takes_one_message_and_gives_the_second_back() {
    let mailbox = Mailbox::new(actor("a"));
    let (handle, mut receiver) = mailbox.open_once_port::<u64>();
    let dest = handle.bind().into_port_id();
    assert_eq!(mailbox.bound_ports(), 1);
    // What is no such message does not use the port up.
    let wrong = MessageEnvelope::typed(actor("s"), dest.clone(), true);
    assert_eq!(
        reason(&post_and_see(&mailbox, wrong).unwrap_err()).code(),
        "type-mismatch"
    );
    post_and_see(&mailbox, envelope(&dest, 1)).unwrap();
    assert_eq!(mailbox.bound_ports(), 0);
    let report = post_and_see(&mailbox, envelope(&dest, 2)).unwrap_err();
    assert_eq!(
        *reason(&report),
        NotDelivered::UnknownPort {
            port_id: dest.clone()
        }
    );
    assert_eq!(receiver.recv().await, Ok(1));
    assert_eq!(receiver.recv().await.unwrap_err().port_id, dest);
}

#[tokio::test]
async fn a_once_port_ends_with_its_handle_its_mailbox_or_its_receiver() {
    let mailbox = Mailbox::new(actor("a"));
    let (handle, mut receiver) = mailbox.open_once_port::<u64>();
    drop(handle);
    assert!(receiver.recv().await.is_err());

    let (handle, receiver) = mailbox.open_once_port::<u64>();
    drop(receiver);
    assert_eq!(handle.send(1), Err(1));

    let (handle, receiver) = mailbox.open_once_port::<u64>();
    let _reference = handle.bind();
    drop(receiver);
    assert_eq!(mailbox.bound_ports(), 0);

    let (handle, mut receiver) = mailbox.open_once_port::<u64>();
    let _reference = handle.bind();
    let task = tokio::spawn(async move { receiver.recv().await });
    tokio::task::yield_now().await;
    mailbox.close();
    assert!(task.await.unwrap().is_err());

    // Bound to a closed mailbox it ends at once, rather than wait for what cannot come.
    let (handle, mut receiver) = mailbox.open_once_port::<u64>();
    let _reference = handle.bind();
    assert!(receiver.recv().await.is_err());
}

#[tokio::test]
async fn a_message_that_came_before_the_mailbox_closed_is_received() {
    let mailbox = Mailbox::new(actor("a"));
    let (once, mut once_receiver) = mailbox.open_once_port::<u64>();
    let (port, mut receiver) = mailbox.open_port::<u64>();
    let dest = port.bind().into_port_id();
    once.send(1).unwrap();
    post_and_see(&mailbox, envelope(&dest, 2)).unwrap();
    mailbox.close();
    assert_eq!(once_receiver.recv().await, Ok(1));
    assert_eq!(
        (receiver.recv().await, receiver.recv().await),
        (Some(2), None)
    );
}

#[test]
fn a_sink_is_bound_once_for_each_number() {
    struct Take;
    impl PortSink for Take {
        fn deliver(&self, _: MessageEnvelope, return_handle: ReturnHandle) {
            drop(return_handle.delivered());
        }
    }
    let mailbox = Mailbox::new(actor("a"));
    let port_id = PortId::new(actor("a"), 1 << 63);
    mailbox.bind_sink(1 << 63, Arc::new(Take)).unwrap();
    assert_eq!(
        mailbox.bind_sink(1 << 63, Arc::new(Take)),
        Err(BindError::PortTaken {
            port_id: port_id.clone()
        })
    );
    post_and_see(&mailbox, envelope(&port_id, 1)).unwrap();
    assert!(mailbox.unbind_sink(1 << 63).is_some());
    assert!(post_and_see(&mailbox, envelope(&port_id, 1)).is_err());
    mailbox.close();
    assert!(matches!(
        mailbox.bind_sink(2, Arc::new(Take)),
        Err(BindError::Closed { .. })
    ));
}

#[test]
fn a_reference_prints_and_serialises_as_its_port() {
    let port_id = PortId::new(actor("a"), 1_024);
    let reference = PortRef::<u64>::attest(port_id.clone());
    assert_eq!(reference.to_string(), "local:7,here,a[0][1024]");
    let bytes = postcard::to_stdvec(&reference).unwrap();
    assert_eq!(bytes, postcard::to_stdvec(&port_id).unwrap());
    assert_eq!(
        postcard::from_bytes::<PortRef<u64>>(&bytes).unwrap(),
        reference
    );
}

/// A reply that comes through the very reference needs no entry; whoever reads the id may post by that alone.
#[tokio::test]
async fn a_port_that_is_bound_when_it_is_named_is_in_its_mailbox_from_then_on_until_it_ends() {
    let mailbox = Mailbox::new(actor("receiver"));
    let (reply, mut receiver) = mailbox.open_unnamed_reply_port::<u64>(InHand::Free);
    assert_eq!(mailbox.bound_ports(), 0);
    let dest = reply.port_id().clone();
    assert_eq!(mailbox.bound_ports(), 1);
    let envelope = MessageEnvelope::typed(actor("sender"), dest, 7_u64);
    mailbox.post_unchecked(envelope, ReturnHandle::monitored());
    assert_eq!(receiver.recv().await.unwrap(), 7);
    assert_eq!(mailbox.bound_ports(), 0);
    // The receiver of one that nobody named is told all the same that its reference was dropped.
    let (reply, mut receiver) = mailbox.open_unnamed_reply_port::<u64>(InHand::Free);
    let copy = reply.clone();
    drop(reply);
    assert!(copy.is_wanted());
    drop(copy);
    let closed = receiver.recv().await.unwrap_err();
    assert_eq!(closed.never, Some(Never::Dropped));
    assert_eq!(mailbox.bound_ports(), 0);
}
