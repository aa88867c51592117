//! An actor that sends without being asked again, as long as its process lives, and knows what became of each message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyperactor_mailbox::{
    Failure, MessageEnvelope, ReturnHandle, ReturnSink, Token, Undeliverable,
};
use hyperactor_proc::{
    Actor, ActorError, ActorRef, ActorResult, Client, Context, Handler, Message, OncePortRef,
    Outbox, RemoteSpawn,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::actors::{Item, Sink};

/// How many messages are under way at most.
const WINDOW: u64 = 200;
/// How many go at once, and the pause after them.
const BATCH: u64 = 10;
const PAUSE: Duration = Duration::from_millis(1);

#[derive(Actor, Default)]
#[actor(messages(Begin, Count, Finish))]
pub(crate) struct Stream {
    book: Arc<Book>,
}

/// Sends numbered items to a sink from now on. A line is printed with every batch, as careless code does.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Begin {
    pub(crate) to: ActorRef<Sink>,
    pub(crate) source: u64,
}

/// Asks what became of the items so far.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Count(pub(crate) OncePortRef<Counts>);

/// Sends no more, and asks what became of all items, once that is known.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Finish(pub(crate) OncePortRef<Counts>);

#[derive(Clone, Debug, Default, PartialEq, Message, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) posted: u64,
    pub(crate) delivered: u64,
    pub(crate) not_delivered: u64,
    pub(crate) unknown: u64,
    /// Items with more than one outcome.
    pub(crate) doubled: u64,
    pub(crate) first_failure: Option<String>,
}

impl Counts {
    fn settled(&self) -> u64 {
        self.delivered + self.not_delivered + self.unknown
    }
}

#[derive(Default)]
struct Book {
    pages: Mutex<Pages>,
    changed: Notify,
    is_over: AtomicBool,
}

#[derive(Default)]
struct Pages {
    settled: Vec<bool>,
    counts: Counts,
}

impl Book {
    fn note(&self, token: Token, count: impl FnOnce(&mut Counts)) {
        let mut pages = self.pages.lock();
        if std::mem::replace(&mut pages.settled[token.id as usize], true) {
            pages.counts.doubled += 1;
        } else {
            count(&mut pages.counts);
        }
        drop(pages);
        self.changed.notify_waiters();
    }

    fn fail(&self, token: Token, failure: &Failure, text: String) {
        self.note(token, |counts| {
            match failure {
                Failure::NotDelivered(_) => counts.not_delivered += 1,
                Failure::Unknown(_) => counts.unknown += 1,
            }
            counts.first_failure.get_or_insert(text);
        });
    }

    fn post(&self) -> u64 {
        let mut pages = self.pages.lock();
        pages.settled.push(false);
        pages.counts.posted += 1;
        pages.counts.posted - 1
    }

    fn counts(&self) -> Counts {
        self.pages.lock().counts.clone()
    }

    async fn until(&self, holds: impl Fn(&Counts) -> bool) {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if holds(&self.counts()) {
                return;
            }
            changed.await;
        }
    }
}

impl ReturnSink for Book {
    fn delivered(&self, token: Token) {
        self.note(token, |counts| counts.delivered += 1);
    }

    fn undelivered(&self, token: Token, report: Undeliverable) {
        self.fail(token, &report.failure, report.to_string());
    }

    fn abandoned(&self, token: Token) {
        self.note(token, |counts| counts.unknown += 1);
    }

    fn lost(&self, token: Token, failure: Failure) {
        self.fail(token, &failure, failure.to_string());
    }
}

impl RemoteSpawn for Stream {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self::default())
    }
}

impl Handler<Begin> for Stream {
    async fn handle(&mut self, cx: &Context<Self>, Begin { to, source }: Begin) -> ActorResult {
        let client = cx.proc()?.client("stream-client")?;
        tokio::spawn(send(client, to, source, Arc::clone(&self.book)));
        Ok(())
    }
}

async fn send(client: Client, to: ActorRef<Sink>, source: u64, book: Arc<Book>) {
    let dest = to.port::<Item>().port_id().clone();
    while !book.is_over.load(Ordering::Acquire) {
        book.until(|counts| counts.posted - counts.settled() < WINDOW)
            .await;
        for _ in 0..BATCH {
            let number = book.post();
            let body = Bytes::from_static(&[7; 64]);
            let item = Item {
                source,
                number,
                body,
            };
            let from = client.actor_id().clone();
            let envelope = MessageEnvelope::typed(from, dest.clone(), item);
            let token = Token {
                id: number,
                size: 0,
                to: 0,
            };
            client.post(envelope, ReturnHandle::new(Arc::clone(&book) as _, token));
        }
        println!("stream {source}");
        eprintln!("stream {source}");
        tokio::time::sleep(PAUSE).await;
    }
    book.changed.notify_waiters();
}

impl Handler<Count> for Stream {
    async fn handle(&mut self, cx: &Context<Self>, Count(reply): Count) -> ActorResult {
        cx.reply(reply, self.book.counts());
        Ok(())
    }
}

impl Handler<Finish> for Stream {
    async fn handle(&mut self, cx: &Context<Self>, Finish(reply): Finish) -> ActorResult {
        self.book.is_over.store(true, Ordering::Release);
        // The batch that is being sent counts as well.
        tokio::time::sleep(PAUSE * 100).await;
        self.book
            .until(|counts| counts.posted == counts.settled())
            .await;
        cx.reply(reply, self.book.counts());
        Ok(())
    }
}
