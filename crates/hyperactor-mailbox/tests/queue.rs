//! The queue on its own.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use hyperactor_mailbox::{Lease, PushError, Queue};

fn push<T: Send + 'static>(queue: &Queue<T>, item: T) -> Result<(), PushError<T>> {
    queue.try_push(item, Lease::none())
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl std::task::Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_sleeping_receiver_is_woken_once_and_a_busy_one_never() {
    let queue = Queue::new(8);
    let wakes = Arc::new(Wakes::default());
    let waker = wakes.clone().into();
    let mut cx = Context::from_waker(&waker);
    assert!(queue.poll_recv(&mut cx).is_pending());
    for item in 0..4 {
        push(&queue, item).unwrap();
    }
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    assert_eq!(queue.poll_recv(&mut cx), Poll::Ready(Some(0)));
    push(&queue, 4).unwrap();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn items_come_in_batches_and_in_order() {
    let queue = Queue::new(10);
    (0..10).for_each(|item| push(&queue, item).unwrap());
    let mut out = vec![99];
    assert_eq!(queue.recv_many(&mut out, 4).await, 4);
    assert_eq!(out, [99, 0, 1, 2, 3]);
    out.clear();
    assert_eq!(queue.recv_many(&mut out, 100).await, 6);
    assert_eq!(out, [4, 5, 6, 7, 8, 9]);
    assert_eq!(queue.recv_many(&mut out, 0).await, 0);
    queue.seal();
    assert_eq!(queue.recv_many(&mut out, 1).await, 0);
}

#[test]
fn a_queue_holds_at_least_one_item() {
    let queue = Queue::new(0);
    push(&queue, 1).unwrap();
    assert!(matches!(push(&queue, 2), Err(PushError::Full(2))));
    assert_eq!(queue.max_local(), 1);
}

#[tokio::test]
async fn a_sealed_queue_gives_what_it_has_and_a_closed_one_gives_it_at_once() {
    let queue = Queue::new(4);
    push(&queue, 1).unwrap();
    queue.seal();
    assert!(matches!(push(&queue, 2), Err(PushError::Closed(2))));
    assert_eq!(queue.recv().await, Some(1));
    assert_eq!(queue.recv().await, None);

    let queue = Queue::new(4);
    push(&queue, 1).unwrap();
    push(&queue, 2).unwrap();
    assert_eq!(queue.close(), [1, 2]);
    assert_eq!(queue.try_recv(), None);
    assert!(queue.is_closed() && queue.is_empty());
}

#[tokio::test]
async fn everybody_who_waits_for_room_is_woken_and_all_get_in() {
    let queue = Queue::new(2);
    push(&queue, 0_u32).unwrap();
    push(&queue, 0).unwrap();
    let waiters: Vec<_> = (1..=20)
        .map(|item| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let mut item = item;
                while let Err(error) = push(&queue, item) {
                    item = error.into_inner();
                    queue.capacity().available().await;
                }
            })
        })
        .collect();
    let mut seen = Vec::new();
    while seen.len() < 22 {
        seen.push(queue.recv().await.unwrap());
    }
    for waiter in waiters {
        waiter.await.unwrap();
    }
    seen.sort_unstable();
    assert_eq!(seen[2..], (1..=20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producers_and_a_consumer_on_two_threads_lose_nothing_and_keep_the_bound() {
    const PRODUCERS: u64 = 4;
    const EACH: u64 = 5_000;
    let queue = Queue::new(16);
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|producer| {
            let queue = queue.clone();
            tokio::spawn(async move {
                for number in 0..EACH {
                    let mut item = (producer, number);
                    while let Err(error) = push(&queue, item) {
                        item = error.into_inner();
                        queue.capacity().available().await;
                    }
                }
            })
        })
        .collect();
    let mut next = [0; PRODUCERS as usize];
    let mut batch = Vec::new();
    while next.iter().sum::<u64>() < PRODUCERS * EACH {
        assert!(queue.recv_many(&mut batch, 64).await <= 16);
        for (producer, number) in batch.drain(..) {
            assert_eq!(number, next[producer as usize]);
            next[producer as usize] += 1;
        }
    }
    for producer in producers {
        producer.await.unwrap();
    }
    assert!(queue.is_empty());
}

#[tokio::test]
async fn a_receive_that_is_dropped_loses_nothing() {
    let queue = Queue::new(4);
    {
        let mut receiving = std::pin::pin!(queue.recv());
        let waker = std::task::Waker::noop();
        assert!(
            receiving
                .as_mut()
                .poll(&mut Context::from_waker(waker))
                .is_pending()
        );
        push(&queue, 1).unwrap();
    }
    assert_eq!(queue.recv().await, Some(1));
}
