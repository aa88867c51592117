//! Posting, sending and feeding through references.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use common::{Cx, Event, actor, reason};
use hyperactor_mailbox::{Mailbox, MailboxMuxer, Message, NotDelivered, Outcome, Payload, PortRef};
use hyperactor_refs::PortId;

fn receiver_of(
    muxer: &MailboxMuxer,
    capacity: usize,
) -> (PortRef<u64>, hyperactor_mailbox::PortReceiver<u64>) {
    let mailbox = Mailbox::with_capacity(actor("receiver"), capacity);
    let (port, receiver) = mailbox.open_port();
    muxer.bind(mailbox).unwrap();
    (port.bind(), receiver)
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_post_tells_the_senders_own_handle_what_became_of_it() {
    let muxer = MailboxMuxer::new();
    let cx = Cx::new(&muxer, "sender");
    let (port, mut receiver) = receiver_of(&muxer, 1);
    port.post(&cx, 1);
    assert!(matches!(cx.event(), Some(Event::Delivered(0))));
    port.post(&cx, 2);
    let Some(Event::Undelivered(0, report)) = cx.event() else {
        panic!("it fitted")
    };
    assert_eq!(reason(&report).code(), "queue-full");
    // Within the process a message is never encoded.
    assert!(matches!(report.envelope.payload(), Payload::Typed(_)));
    assert_eq!(receiver.try_recv(), Some(1));
}

#[tokio::test]
async fn a_send_answers_with_the_outcome() {
    let muxer = MailboxMuxer::new();
    let cx = Cx::new(&muxer, "sender");
    let (port, receiver) = receiver_of(&muxer, 8);
    assert_eq!(port.send(&cx, 1).await, Outcome::Delivered);
    drop(receiver);
    let port_id = port.port_id().clone();
    assert_eq!(
        port.send(&cx, 2).await,
        Outcome::NotDelivered(Box::new(NotDelivered::UnknownPort { port_id }))
    );
    // The sender's own handle was not used.
    assert!(cx.event().is_none());
}

#[tokio::test]
async fn a_send_to_a_full_queue_waits_for_room() {
    let muxer = MailboxMuxer::new();
    let cx = Cx::new(&muxer, "sender");
    let (port, mut receiver) = receiver_of(&muxer, 1);
    assert!(port.send(&cx, 1).await.is_delivered());
    let mut sending = pin!(port.send(&cx, 2));
    assert!(poll_once(sending.as_mut()).is_pending());
    assert_eq!(receiver.recv().await, Some(1));
    assert!(sending.await.is_delivered());
    assert_eq!(receiver.recv().await, Some(2));
}

#[tokio::test]
async fn whoever_waits_for_room_learns_of_the_end() {
    let muxer = MailboxMuxer::new();
    let cx = Cx::new(&muxer, "sender");
    let (port, receiver) = receiver_of(&muxer, 1);
    port.feed(&cx, 1).await;
    let mut sending = pin!(port.send(&cx, 2));
    let mut feeding = pin!(port.feed(&cx, 3));
    assert!(poll_once(sending.as_mut()).is_pending());
    assert!(poll_once(feeding.as_mut()).is_pending());
    drop(receiver);
    let Outcome::NotDelivered(reason_of_send) = sending.await else {
        panic!("delivered")
    };
    assert_eq!(reason_of_send.code(), "unknown-port");
    feeding.await;
    assert!(matches!(cx.event(), Some(Event::Delivered(0))));
    let Some(Event::Undelivered(0, report)) = cx.event() else {
        panic!("not told")
    };
    assert_eq!(reason(&report).code(), "unknown-port");
}

#[tokio::test]
async fn feeding_keeps_the_order_through_many_waits() {
    let muxer = MailboxMuxer::new();
    let cx = Cx::new(&muxer, "sender");
    let (port, mut receiver) = receiver_of(&muxer, 3);
    const COUNT: u64 = 1_000;
    let feeder = tokio::spawn(async move {
        for number in 0..COUNT {
            port.feed(&cx, number).await;
        }
        cx
    });
    for number in 0..COUNT {
        assert_eq!(receiver.recv().await, Some(number));
    }
    let cx = feeder.await.unwrap();
    for _ in 0..COUNT {
        assert!(matches!(cx.event(), Some(Event::Delivered(0))));
    }
    assert!(cx.event().is_none());
}

#[tokio::test]
async fn a_feed_that_is_dropped_while_it_waits_gives_the_message_back() {
    let muxer = MailboxMuxer::new();
    let cx = Cx::new(&muxer, "sender");
    let (port, mut receiver) = receiver_of(&muxer, 1);
    port.feed(&cx, 1).await;
    assert!(matches!(cx.event(), Some(Event::Delivered(0))));
    {
        let mut feeding = pin!(port.feed(&cx, 2));
        assert!(poll_once(feeding.as_mut()).is_pending());
        assert!(cx.event().is_none());
    }
    let Some(Event::Undelivered(0, report)) = cx.event() else {
        panic!("not told")
    };
    assert_eq!(reason(&report).code(), "queue-full");
    assert_eq!(report.envelope.into_message::<u64>().unwrap(), 2);
    assert!(cx.event().is_none());
    assert_eq!((receiver.try_recv(), receiver.try_recv()), (Some(1), None));
}

#[tokio::test]
async fn a_reply_arrives_through_a_reference_that_was_sent_along() {
    type Request = (u64, hyperactor_mailbox::OncePortRef<u64>);
    let muxer = MailboxMuxer::new();
    let (client, server) = (Cx::new(&muxer, "client"), Cx::new(&muxer, "server"));
    let (port, mut requests) = server.mailbox.open_port::<Request>();
    let port = port.bind();
    let serve = tokio::spawn(async move {
        let (number, reply) = requests.recv().await.unwrap();
        reply.post(&server, number * 2);
    });
    let (reply, mut answer) = client.mailbox.open_once_port();
    assert!(port.send(&client, (21, reply.bind())).await.is_delivered());
    assert_eq!(answer.recv().await, Ok(42));
    serve.await.unwrap();
}

#[test]
fn a_message_type_has_the_same_port_everywhere() {
    let reference = PortRef::<u64>::attest(PortId::new(actor("a"), u64::port()));
    assert_eq!(reference.port_id().index(), u64::port());
    assert_ne!(<PortRef<u64>>::TYPE_HASH, <PortRef<u32>>::TYPE_HASH);
}
