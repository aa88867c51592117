//! What hostile peers attack: a server, with an honest channel to it that must never notice. And the count of panics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyperactor_channel::{DialOptions, Outbound, ServeOptions, dial_with, serve_queue};
use hyperactor_refs::ChannelAddr;
use hyperactor_testkit::{Class, Stamped, SuiteReport};

use super::net::{Kind, Place};
use super::process::descriptors;
use super::traffic::{Books, Line, Receiver, Sender, codec};
use super::{BUSY, holds_within};

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Counts every panic of this process from now on, in whichever task.
pub(crate) fn count_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(panic);
    }));
}

/// How long a fresh honest peer may wait for its outcome: the aim of [`SuiteReport::times`].
const ADMITTED: Duration = Duration::from_millis(500);

/// A server under attack.
pub(crate) struct Victim {
    pub(crate) addr: ChannelAddr,
    books: Books,
    _place: Place,
    receiver: Receiver,
    honest: Outbound<Stamped, Line>,
    sender: Sender,
    /// Descriptors that were open before the attack.
    before: u64,
    /// How long each fresh honest peer had to wait.
    waits: Vec<Duration>,
}

impl Victim {
    pub(crate) async fn start(kind: Kind) -> Self {
        Self::with(kind, ServeOptions::default()).await
    }

    pub(crate) async fn with(kind: Kind, options: ServeOptions) -> Self {
        let books = Books::new(1);
        let place = Place::new(kind);
        let rx = serve_queue(place.bind.clone(), options, codec())
            .await
            .unwrap();
        let addr = rx.addr().clone();
        let receiver = Receiver::start(rx, books.clone(), 1);
        let honest = dial_with(addr.clone(), DialOptions::default(), codec());
        let mut sender = Sender::new(&books, 0);
        sender.awaited = true;
        sender.post(&honest, b"before".to_vec()).await;
        honest.flush().await.unwrap();
        Self {
            addr,
            books,
            _place: place,
            receiver,
            honest,
            sender,
            before: descriptors(),
            waits: Vec::new(),
        }
    }

    /// The honest channel goes on, and a fresh one gets in.
    pub(crate) async fn honest(&mut self) {
        self.sender.post(&self.honest, b"meanwhile".to_vec()).await;
        self.honest.flush().await.unwrap();
        let started = Instant::now();
        let fresh = dial_with(self.addr.clone(), DialOptions::default(), codec());
        self.sender.post(&fresh, b"fresh".to_vec()).await;
        fresh.flush().await.unwrap();
        self.waits.push(started.elapsed());
        fresh.close();
        fresh.closed().await;
    }

    /// Judges what the attack has done to everybody else.
    pub(crate) async fn judge(mut self, report: &mut SuiteReport) {
        self.honest().await;
        let back = holds_within(Duration::from_secs(10), || descriptors() <= self.before).await;
        let left = descriptors();
        report.check(
            "descriptors are back",
            back,
            format!("{left} instead of {}", self.before),
        );
        report.check(
            "the honest channel never ended",
            !self.honest.is_closed(),
            "it has",
        );
        self.honest.close();
        self.honest.closed().await;
        self.receiver.stop().await;
        self.books.judge("honest peers", report);
        let (posted, delivered) = (self.books.posted(), self.books.count(Class::Delivered));
        report.check(
            "honest peers: everything was delivered",
            posted == delivered,
            format!("{delivered} of {posted}"),
        );
        report.times(
            "wait of honest peers that came",
            &self.waits,
            ADMITTED,
            BUSY,
        );
        report.at_most("panics", PANICS.load(Ordering::Relaxed), 0);
    }
}
