//! For tests of actors, users' own included: a probe that stands in for an actor, and a way out that fails on purpose.
//! With [`Proc::isolated`](crate::Proc::isolated) and tokio's paused time they need no network and no waiting.
//!
//! ```
//! use std::time::Duration;
//! use hyperactor_proc::testing::TestProbe;
//! use hyperactor_proc::{Actor, ActorResult, Context, Handler, PortRef, Proc};
//!
//! /// Says everything twice.
//! #[derive(Actor)]
//! struct Echo(PortRef<String>);
//!
//! impl Handler<String> for Echo {
//!     async fn handle(&mut self, cx: &Context<Self>, text: String) -> ActorResult {
//!         self.0.post(cx, format!("{text} {text}"));
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let proc = Proc::isolated("test");
//! let mut probe = TestProbe::<String>::new(&proc, "probe")?;
//! let echo = proc.spawn("echo", Echo(probe.port()))?;
//! echo.post(probe.client(), "ho".to_owned())?;
//! assert_eq!(probe.expect_within(Duration::from_secs(1)).await, "ho ho");
//! probe.expect_none_within(Duration::from_secs(60)).await;
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyperactor_mailbox::{
    BoxFuture, BoxedMailboxSender, Failure, FlushError, MailboxSender, Message, MessageEnvelope,
    NotDelivered, PortReceiver, PortRef, ReturnHandle, Undeliverable,
};
use tokio::time::timeout;

use crate::{Client, Proc, SpawnError};

/// A port that the test looks into, with a client to send with.
///
/// Deadlines are of tokio's time: where a test pauses it, waiting for nothing costs nothing.
pub struct TestProbe<M: Message> {
    port: PortRef<M>,
    receiver: PortReceiver<M>,
    client: Client,
}

impl<M: Message> TestProbe<M> {
    /// A probe of this name in a proc.
    ///
    /// # Errors
    /// As [`Proc::client`].
    pub fn new(proc: &Proc, name: &str) -> Result<Self, SpawnError> {
        let client = proc.client(name)?;
        let (handle, receiver) = client.mailbox().open_port();
        Ok(Self {
            port: handle.bind(),
            receiver,
            client,
        })
    }

    /// Where the actor under test sends to, from this proc or any other.
    pub fn port(&self) -> PortRef<M> {
        self.port.clone()
    }

    /// The client that the probe receives as; the test sends with it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The next message.
    ///
    /// # Panics
    /// When none comes within the time.
    ///
    /// # Cancel safety
    /// Cancel safe: a message is taken only in the moment it is returned.
    pub async fn expect_within(&mut self, time: Duration) -> M {
        match timeout(time, self.receiver.recv()).await {
            Ok(Some(message)) => message,
            Ok(None) => panic!("`{}` is closed: its proc has ended", self.port),
            Err(_) => panic!(
                "no `{}` came to `{}` within {time:?}",
                M::type_name(),
                self.port
            ),
        }
    }

    /// The next message that satisfies a condition; those before it are dropped.
    ///
    /// # Panics
    /// When none comes within the time, counted for all of it.
    pub async fn expect_that_within(
        &mut self,
        time: Duration,
        mut is_wanted: impl FnMut(&M) -> bool,
    ) -> M {
        let wanted = async {
            loop {
                match self.receiver.recv().await {
                    Some(message) if is_wanted(&message) => return Some(message),
                    Some(_) => {}
                    None => return None,
                }
            }
        };
        match timeout(time, wanted).await {
            Ok(Some(message)) => message,
            Ok(None) => panic!("`{}` is closed: its proc has ended", self.port),
            Err(_) => panic!("no such `{}` came within {time:?}", M::type_name()),
        }
    }

    /// Waits for the whole of the time, and sees to it that nothing comes.
    ///
    /// # Panics
    /// When a message comes.
    pub async fn expect_none_within(&mut self, time: Duration) {
        if let Ok(Some(_)) = timeout(time, self.receiver.recv()).await {
            panic!(
                "a `{}` came to `{}`, and none was expected",
                M::type_name(),
                self.port
            );
        }
    }

    /// The next message of the probe's own client that came back.
    ///
    /// # Panics
    /// When none comes back within the time.
    pub async fn expect_undeliverable_within(&self, time: Duration) -> Undeliverable {
        match timeout(time, self.client.next_undeliverable()).await {
            Ok(report) => report,
            Err(_) => panic!(
                "nothing came back to `{}` within {time:?}",
                self.client.actor_id()
            ),
        }
    }
}

impl<M: Message> fmt::Debug for TestProbe<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TestProbe({})", self.port)
    }
}

/// A sender that gives every so many-th message back with a failure, and passes the others on: put it before a proc's
/// forwarder to see what an actor makes of it. A clone counts along.
#[derive(Clone)]
pub struct FailingSender {
    inner: BoxedMailboxSender,
    every: NonZero<u64>,
    failure: Failure,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    seen: AtomicU64,
    failed: AtomicU64,
}

impl FailingSender {
    /// Fails every `every`-th message as if its connection were refused; with 1, all of them.
    #[must_use]
    pub fn new(inner: impl MailboxSender, every: NonZero<u64>) -> Self {
        let failure = NotDelivered::Other {
            code: "injected".to_owned(),
            detail: "this message fails because a test wants it".to_owned(),
        };
        Self {
            inner: inner.into_boxed(),
            every,
            failure: failure.into(),
            counts: Arc::default(),
        }
    }

    /// With another failure.
    #[must_use]
    pub fn with_failure(mut self, failure: impl Into<Failure>) -> Self {
        self.failure = failure.into();
        self
    }

    /// How many messages it gave back.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.counts.failed.load(Ordering::Relaxed)
    }
}

impl MailboxSender for FailingSender {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let number = self.counts.seen.fetch_add(1, Ordering::Relaxed) + 1;
        if number.is_multiple_of(self.every.get()) {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
            return_handle.undeliverable(envelope, self.failure.clone());
        } else {
            self.inner.post_unchecked(envelope, return_handle);
        }
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        self.inner.flush()
    }
}

impl fmt::Debug for FailingSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailingSender")
            .field("every", &self.every)
            .field("failed", &self.failed())
            .finish_non_exhaustive()
    }
}
