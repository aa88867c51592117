//! How a server goes on when it cannot accept: pauses that grow, a descriptor kept back so that there is one to refuse
//! with, and no more than one line in the log each second.

use std::fs::File;
use std::io;

use hyperactor_protocol::{FrameDecoder, HelloCode};
use hyperactor_refs::ChannelAddr;
use rustix::io::Errno;
use tokio::time::{Instant, timeout};

use crate::ServeOptions;
use crate::backoff::Backoff;
use crate::limits::{ACCEPT_LOG_EVERY, REFUSAL_DEADLINE};
use crate::net::handshake::read_hello;
use crate::net::session::Greeted;
use crate::transport::Connected;

/// What a server does about accepts that fail.
pub(crate) struct Admission {
    backoff: Backoff,
    /// Nothing is accepted before.
    until: Option<Instant>,
    /// An open file of no use: closed when descriptors run out, it makes room for one connection that can be refused.
    reserve: Option<File>,
    log: Log,
}

impl Admission {
    /// Keeps a descriptor back from now on.
    pub(crate) fn new() -> Self {
        Self {
            backoff: Backoff::new(),
            until: None,
            reserve: open_reserve(),
            log: Log::default(),
        }
    }

    /// Until when nothing is to be accepted.
    pub(super) fn pause(&self) -> Option<Instant> {
        self.until
    }

    pub(super) fn pause_is_over(&mut self) {
        self.until = None;
    }

    /// A connection was accepted.
    pub(super) fn succeeded(&mut self) {
        self.backoff.reset();
        if self.reserve.is_none() {
            self.reserve = open_reserve();
        }
    }

    /// An accept failed. True when the next one may be tried at once with the reserve, to refuse whoever waits.
    pub(super) fn failed(&mut self, addr: &ChannelAddr, error: &io::Error) -> bool {
        // One connection that was gone before it was accepted is no reason to wait; a lack of descriptors is.
        if error.kind() == io::ErrorKind::ConnectionAborted {
            return false;
        }
        let lacks_descriptors = [Errno::MFILE, Errno::NFILE]
            .iter()
            .any(|errno| Some(errno.raw_os_error()) == error.raw_os_error());
        let has_room = lacks_descriptors && self.reserve.take().is_some();
        if !has_room {
            self.wait();
        }
        if let Some(unsaid) = self.log.may_say(Instant::now()) {
            tracing::warn!(%addr, %error, refuses = has_room, unsaid, "cannot accept");
        }
        has_room
    }

    /// Whoever the reserve was given up for has been refused: keeps one back again, if there is one.
    pub(super) fn refused(&mut self) {
        self.backoff.reset();
        self.reserve = open_reserve();
        if self.reserve.is_none() {
            self.wait();
        }
    }

    /// The reserve was given up in vain: somebody else was faster, or nobody waited.
    pub(super) fn failed_again(&mut self) {
        self.reserve = open_reserve();
        self.wait();
    }

    fn wait(&mut self) {
        let pause = self.backoff.next_whole();
        // A deliberate fault for the test of this: accepts that fail are tried again without a pause.
        if !cfg!(planted = "P14") {
            self.until = Some(Instant::now() + pause);
        }
    }
}

fn open_reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Tells a connection that there is no room for it, if it says hello soon.
pub(super) async fn refuse(connected: Connected, options: ServeOptions) {
    let Connected {
        mut stream,
        identity,
    } = connected;
    if !identity.is_ours() {
        return;
    }
    let mut decoder = FrameDecoder::new(options.config().max_frame);
    match timeout(REFUSAL_DEADLINE, read_hello(&mut stream, &mut decoder)).await {
        Ok(Ok(hello)) => {
            let greeted = Greeted {
                stream,
                decoder,
                hello,
                identity,
            };
            greeted.refuse(&options, HelloCode::TooMany).await;
        }
        Ok(Err(error)) => tracing::debug!(?error, "a connection without room ended first"),
        Err(_) => tracing::debug!("a connection without room said nothing"),
    }
}

/// Lets through one line each [`ACCEPT_LOG_EVERY`].
#[derive(Default)]
struct Log {
    said: Option<Instant>,
    unsaid: u64,
}

impl Log {
    /// How many lines were not said since the last one; none when this one is not to be said either.
    fn may_say(&mut self, now: Instant) -> Option<u64> {
        let is_soon = |said| now.saturating_duration_since(said) < ACCEPT_LOG_EVERY;
        if self.said.is_some_and(is_soon) {
            self.unsaid += 1;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use hyperactor_refs::ChannelAddr;
    use tokio::sync::watch;

    use super::*;
    use crate::limits::BACKOFF_MAX;
    use crate::net::acceptor;
    use crate::rx::Feed;
    use crate::serve::Phase;
    use crate::transport::Listen;
    use crate::tx::BoxFuture;
    use crate::{Postcard, limits};

    /// Accepts nothing, ever, and counts how often it was asked to.
    struct Failing {
        addr: ChannelAddr,
        errno: Errno,
        asked: Arc<AtomicU64>,
    }

    impl Listen for Failing {
        fn addr(&self) -> &ChannelAddr {
            &self.addr
        }

        fn accept(&mut self) -> BoxFuture<'_, io::Result<Connected>> {
            Box::pin(async {
                let asked = self.asked.fetch_add(1, Ordering::Relaxed);
                assert!(asked < 10_000, "it asks without a pause");
                Err(self.errno.into())
            })
        }
    }

    async fn asked_within(errno: Errno, time: Duration) -> u64 {
        let asked = Arc::new(AtomicU64::new(0));
        let listener = Failing {
            addr: "unix:@nobody".parse().unwrap(),
            errno,
            asked: Arc::clone(&asked),
        };
        let (control, phase) = watch::channel(Phase::Serving);
        let feed = Feed::<u8>::new();
        let options = ServeOptions::default();
        let server = tokio::spawn(acceptor::run(
            Box::new(listener),
            options,
            Postcard,
            feed.acceptor(),
            phase,
            Admission::new(),
        ));
        tokio::time::sleep(time).await;
        drop(control);
        server.await.unwrap();
        asked.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn accepts_that_fail_are_tried_again_after_pauses_that_grow_to_a_second() {
        for errno in [Errno::NOMEM, Errno::NOBUFS, Errno::MFILE] {
            let asked = asked_within(errno, Duration::from_secs(100)).await;
            // 10 ms, doubled seven times, then one each second; with a reserve it may be tried once more each time.
            assert!((95..=215).contains(&asked), "{errno}: asked {asked} times");
        }
        assert_eq!(limits::BACKOFF_FIRST, Duration::from_millis(10));
        assert_eq!(BACKOFF_MAX, Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_cannot_accept_says_so_once_a_second() {
        let mut log = Log::default();
        let mut lines = 0;
        let mut unsaid = 0;
        for _ in 0..1_000 {
            if let Some(before) = log.may_say(Instant::now()) {
                lines += 1;
                unsaid += before;
            }
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        assert_eq!((lines, unsaid), (10, 990 - 99));
    }
}
