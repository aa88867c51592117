//! Routes to a sibling over ways that the test holds in its hand: what was posted on each, and its outcome.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::AtomicBool;

use hyperactor_mailbox::{BoxFuture, OutcomeReceiver, Room, SendFailure, Unknown};
use hyperactor_refs::{ActorId, ChannelAddr, Incarnation, PortId};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::super::words::Fault;
use super::*;

/// A way whose messages stay where they are until the test settles them.
#[derive(Clone, Default)]
pub(super) struct Way(Arc<WayState>);

#[derive(Default)]
struct WayState {
    under_way: Mutex<VecDeque<(u64, MessageEnvelope, ReturnHandle)>>,
    closed: AtomicBool,
    received: AtomicU64,
    /// The next posts meet a full queue with this capacity.
    full: Mutex<Option<Capacity>>,
}

impl MailboxSender for Way {
    fn post_unchecked(&self, envelope: MessageEnvelope, handle: ReturnHandle) {
        if let Some(capacity) = self.0.full.lock().clone() {
            let port_id = envelope.dest().clone();
            let mut report = Undeliverable::new(
                envelope,
                NotDelivered::QueueFull {
                    port_id,
                    capacity: 1,
                },
            );
            report.capacity = Some(capacity);
            return handle.report(report);
        }
        let number = number_of(&envelope);
        self.0
            .under_way
            .lock()
            .push_back((number, envelope, handle));
    }
}

impl Link for Way {
    fn close(&self) {
        self.0.closed.store(true, Ordering::Relaxed);
    }

    fn closed(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }
}

impl Way {
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.0
            .under_way
            .lock()
            .iter()
            .map(|(number, ..)| *number)
            .collect()
    }

    /// Places the first message.
    pub(super) fn deliver(&self) -> Option<u64> {
        let (number, _, handle) = self.0.under_way.lock().pop_front()?;
        drop(handle.delivered());
        Some(number)
    }

    pub(super) fn deliver_all(&self) -> Vec<u64> {
        std::iter::from_fn(|| self.deliver()).collect()
    }

    /// Places the last two, in their order.
    pub(super) fn deliver_last_two(&self) -> Vec<u64> {
        let mut under_way = self.0.under_way.lock();
        let first = under_way.len() - 2;
        let last: Vec<_> = under_way.drain(first..).collect();
        drop(under_way);
        let placed = |(number, _, handle): (u64, MessageEnvelope, ReturnHandle)| {
            drop(handle.delivered());
            number
        };
        last.into_iter().map(placed).collect()
    }

    /// Gives the first message back.
    pub(super) fn fail(&self, failure: impl Into<Failure>) -> Option<u64> {
        let (number, envelope, handle) = self.0.under_way.lock().pop_front()?;
        handle.undeliverable(envelope, failure);
        Some(number)
    }

    /// Gives one of the messages back, chosen by a number.
    pub(super) fn fail_any(&self, failure: impl Into<Failure>, choice: u64) -> Option<u64> {
        let mut under_way = self.0.under_way.lock();
        let index = choice.checked_rem(under_way.len() as u64)?;
        let taken = under_way.remove(index as usize);
        drop(under_way);
        let (number, envelope, handle) = taken?;
        handle.undeliverable(envelope, failure);
        Some(number)
    }

    /// A message comes in over it.
    pub(super) fn receive(&self) {
        self.0.received.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Relaxed)
    }
}

pub(super) struct Ways {
    pub(super) relay: Way,
    pub(super) direct: Mutex<Vec<Way>>,
    /// What this side is called.
    pub(super) own: Mutex<Option<Incarnation>>,
    answers: AtomicBool,
    probes: AtomicU64,
    probed: Semaphore,
}

impl Connect for Arc<Ways> {
    fn runtime(&self) -> Option<Handle> {
        Handle::try_current().ok()
    }

    fn incarnation(&self) -> Option<Incarnation> {
        *self.own.lock()
    }

    fn addr(&self) -> Option<&ChannelAddr> {
        None
    }

    fn probe(&self) -> BoxFuture<'static, io::Result<()>> {
        let ways = Arc::clone(self);
        Box::pin(async move {
            ways.probes.fetch_add(1, Ordering::Relaxed);
            ways.probed.add_permits(1);
            if ways.answers.load(Ordering::Relaxed) {
                Ok(())
            } else {
                Err(io::ErrorKind::NotFound.into())
            }
        })
    }

    fn connect(&self, _: Option<Incarnation>) -> Option<Arc<dyn Link>> {
        let way = Way::default();
        self.direct.lock().push(way.clone());
        Some(Arc::new(way))
    }

    fn fault(&self, failure: &Failure) -> Fault {
        match failure {
            Failure::NotDelivered(NotDelivered::Connect { .. }) => Fault::NeverSent,
            Failure::NotDelivered(NotDelivered::PeerClosed { .. }) => Fault::Closed,
            Failure::Unknown(Unknown::PeerDied { .. }) => Fault::Lost,
            _ => Fault::None,
        }
    }
}

pub(super) struct World {
    pub(super) sibling: Sibling,
    pub(super) ways: Arc<Ways>,
    outcomes: VecDeque<(u64, OutcomeReceiver)>,
    next: u64,
}

fn addr() -> ChannelAddr {
    "unix:@host".parse().unwrap()
}

pub(super) fn refused() -> NotDelivered {
    NotDelivered::Connect {
        addr: addr(),
        error: "refused".to_owned(),
    }
}

pub(super) fn closed() -> NotDelivered {
    NotDelivered::PeerClosed { addr: addr() }
}

pub(super) fn died() -> Unknown {
    Unknown::PeerDied { addr: addr() }
}

fn number_of(envelope: &MessageEnvelope) -> u64 {
    envelope.dest().index()
}

fn envelope(number: u64) -> MessageEnvelope {
    let proc_id = Arc::new(ProcId::Direct(addr(), "b".to_owned()));
    let dest = PortId::new(ActorId::root(Arc::clone(&proc_id), "actor"), number);
    MessageEnvelope::typed(ActorId::root(proc_id, "sender"), dest, number)
}

impl World {
    pub(super) fn new(policy: RoutePolicy) -> Self {
        let ways = Arc::new(Ways {
            relay: Way::default(),
            direct: Mutex::default(),
            own: Mutex::default(),
            answers: AtomicBool::new(true),
            probes: AtomicU64::new(0),
            probed: Semaphore::new(0),
        });
        let relay = ways.relay.clone().into_boxed();
        let proc_id = Arc::new(ProcId::Direct(addr(), "b".to_owned()));
        let sibling = Sibling::new(proc_id, policy, relay, Arc::new(Arc::clone(&ways)));
        Self {
            sibling,
            ways,
            outcomes: VecDeque::new(),
            next: 0,
        }
    }

    pub(super) fn post(&mut self) -> u64 {
        let (handle, outcome) = ReturnHandle::oneshot();
        self.next += 1;
        self.sibling.post(envelope(self.next), handle);
        self.outcomes.push_back((self.next, outcome));
        self.next
    }

    pub(super) fn announce(&self) {
        self.sibling.announce(Life::Up(Incarnation::new(1)));
    }

    pub(super) fn direct(&self) -> Way {
        self.ways
            .direct
            .lock()
            .last()
            .expect("a link was made")
            .clone()
    }

    pub(super) fn links(&self) -> usize {
        self.ways.direct.lock().len()
    }

    /// The outcomes of all messages, in the order posted; each must be there.
    pub(super) async fn outcomes(&mut self) -> Vec<(u64, Result<(), SendFailure>)> {
        let mut all = Vec::new();
        for (number, outcome) in self.outcomes.drain(..) {
            all.push((number, outcome.await));
        }
        all
    }
}

#[tokio::test]
async fn messages_to_an_announced_sibling_go_straight_from_the_first_on() {
    let mut world = World::new(RoutePolicy::Auto);
    world.announce();
    world.post();
    world.post();
    assert_eq!(world.direct().deliver_all(), [1, 2]);
    assert_eq!(world.ways.relay.numbers(), Vec::<u64>::new());
    assert_eq!(world.ways.probes.load(Ordering::Relaxed), 0);
    assert_eq!(world.sibling.counts(), (2, 0));
    assert!(
        world
            .outcomes()
            .await
            .iter()
            .all(|(_, outcome)| outcome.is_ok())
    );
}

#[tokio::test]
async fn an_unannounced_sibling_is_looked_for_and_the_switch_waits_for_the_relayed_messages() {
    let mut world = World::new(RoutePolicy::Auto);
    world.post();
    world.post();
    drop(world.ways.probed.acquire().await.unwrap());
    tokio::task::yield_now().await;
    world.post();
    assert_eq!(
        world.ways.relay.numbers(),
        [1, 2],
        "the fence must hold the third message"
    );
    assert_eq!(world.direct().numbers(), Vec::<u64>::new());
    world.ways.relay.deliver();
    assert_eq!(world.direct().numbers(), Vec::<u64>::new());
    world.ways.relay.deliver();
    assert_eq!(world.direct().deliver_all(), [3]);
    world.post();
    assert_eq!(world.direct().deliver_all(), [4]);
    assert_eq!(world.sibling.counts(), (2, 2));
    assert!(
        world
            .outcomes()
            .await
            .iter()
            .all(|(_, outcome)| outcome.is_ok())
    );
}

#[tokio::test]
async fn what_never_left_goes_by_the_host_in_the_order_posted() {
    let mut world = World::new(RoutePolicy::Auto);
    world.announce();
    for _ in 0..4 {
        world.post();
    }
    let direct = world.direct();
    direct.deliver();
    direct.fail(refused());
    assert!(direct.is_closed());
    world.post();
    assert_eq!(
        world.ways.relay.numbers(),
        Vec::<u64>::new(),
        "two are still under way"
    );
    direct.fail(refused());
    direct.fail(refused());
    assert_eq!(world.ways.relay.deliver_all(), [2, 3, 4, 5]);
    assert_eq!(world.sibling.counts(), (1, 4));
    assert!(
        world
            .outcomes()
            .await
            .iter()
            .all(|(_, outcome)| outcome.is_ok())
    );
}

#[tokio::test]
async fn what_may_have_arrived_is_reported_and_not_sent_again() {
    let mut world = World::new(RoutePolicy::Auto);
    world.announce();
    world.post();
    world.post();
    let direct = world.direct();
    direct.fail(died());
    direct.fail(refused());
    assert_eq!(world.ways.relay.deliver_all(), [2]);
    let outcomes = world.outcomes().await;
    let SendFailure::Returned(report) = outcomes[0].1.as_ref().unwrap_err() else {
        panic!()
    };
    assert_eq!(report.failure, died().into());
    assert_eq!(report.route[0].route, RouteKind::Direct);
    assert!(outcomes[1].1.is_ok());
}

#[tokio::test]
async fn a_failure_beyond_the_link_comes_back_and_changes_no_route() {
    let mut world = World::new(RoutePolicy::Auto);
    world.announce();
    world.post();
    let unknown = NotDelivered::UnknownActor {
        actor_id: envelope(1).dest().actor_id().clone(),
    };
    world.direct().fail(unknown.clone());
    world.post();
    assert_eq!(world.direct().deliver_all(), [2]);
    assert_eq!(world.links(), 1);
    let outcomes = world.outcomes().await;
    assert_eq!(
        *outcomes[0].1.as_ref().unwrap_err().failure(),
        unknown.into()
    );
}

#[tokio::test]
async fn relay_never_dials_and_direct_never_relays() {
    let mut relay = World::new(RoutePolicy::Relay);
    relay.announce();
    relay.post();
    assert_eq!(relay.ways.relay.deliver_all(), [1]);
    assert_eq!(
        (relay.links(), relay.ways.probes.load(Ordering::Relaxed)),
        (0, 0)
    );

    let mut direct = World::new(RoutePolicy::Direct);
    direct.post();
    direct.direct().fail(refused());
    direct.post();
    assert_eq!(
        direct.links(),
        2,
        "an error is not kept: the next message dials anew"
    );
    direct.direct().deliver();
    assert_eq!(direct.ways.relay.numbers(), Vec::<u64>::new());
    let outcomes = direct.outcomes().await;
    assert_eq!(
        *outcomes[0].1.as_ref().unwrap_err().failure(),
        refused().into()
    );
    assert!(outcomes[1].1.is_ok());
}

#[tokio::test]
async fn messages_to_a_sibling_that_is_gone_are_not_dialled_and_end_as_gone() {
    let mut world = World::new(RoutePolicy::Auto);
    world.announce();
    world.sibling.announce(Life::Gone(Incarnation::new(1)));
    world.post();
    assert_eq!(world.links(), 0);
    let known = Vec::new();
    let proc_id = Arc::clone(world.sibling.proc_id());
    world.ways.relay.fail(NotDelivered::UnknownProc {
        proc_id,
        host: addr(),
        known,
    });
    let outcomes = world.outcomes().await;
    assert_eq!(
        outcomes[0].1.as_ref().unwrap_err().failure().code(),
        "proc-gone"
    );

    world.sibling.announce(Life::Up(Incarnation::new(2)));
    world.post();
    assert_eq!(
        world.direct().deliver_all(),
        [2],
        "the next life is dialled at once"
    );
}

#[tokio::test]
async fn late_news_of_an_earlier_life_does_not_end_the_present_one() {
    let mut world = World::new(RoutePolicy::Auto);
    world.sibling.announce(Life::Up(Incarnation::new(2)));
    world.sibling.announce(Life::Gone(Incarnation::new(1)));
    world.post();
    assert_eq!(world.direct().deliver_all(), [1]);
}

#[tokio::test]
async fn behind_a_fence_messages_are_bounded_and_their_senders_can_wait() {
    let mut world = World::new(RoutePolicy::Auto);
    world.post();
    drop(world.ways.probed.acquire().await.unwrap());
    tokio::task::yield_now().await;
    for _ in 0..limits::HELD_MESSAGES_MAX {
        world.post();
    }
    let (handle, outcome) = ReturnHandle::oneshot();
    world.sibling.post(envelope(0), handle);
    let Err(SendFailure::Returned(report)) = outcome.await else {
        panic!("it was taken")
    };
    assert_eq!(report.failure.code(), "queue-full");
    let capacity = report.capacity.expect("a capacity to wait on");
    assert!(!capacity.has_room());
    world.ways.relay.deliver();
    capacity.available().await;
    assert_eq!(
        world.direct().deliver_all().len(),
        limits::HELD_MESSAGES_MAX
    );
}

#[tokio::test]
async fn a_held_message_that_meets_a_full_queue_waits_for_it_in_its_place() {
    let mut world = World::new(RoutePolicy::Auto);
    world.post();
    drop(world.ways.probed.acquire().await.unwrap());
    tokio::task::yield_now().await;
    world.post();
    world.post();
    let direct = world.direct();
    let gate = Arc::new(Gate::default());
    *direct.0.full.lock() = Some(Capacity::new(gate.clone()));
    world.ways.relay.deliver();
    assert_eq!(direct.numbers(), Vec::<u64>::new());
    world.post();
    *direct.0.full.lock() = None;
    gate.open.store(true, Ordering::Relaxed);
    let flushed = world.sibling.flush();
    while direct.numbers().len() < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(direct.deliver_all(), [2, 3, 4]);
    flushed.await;
    assert_eq!(world.sibling.counts(), (3, 1));
}

#[derive(Default)]
struct Gate {
    open: AtomicBool,
}

impl Room for Gate {
    fn has_room(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    fn available(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            while !self.has_room() {
                tokio::task::yield_now().await;
            }
        })
    }
}

#[tokio::test]
async fn a_flush_waits_for_held_relayed_and_direct_messages_posted_before_it() {
    let mut world = World::new(RoutePolicy::Auto);
    world.post();
    drop(world.ways.probed.acquire().await.unwrap());
    tokio::task::yield_now().await;
    world.post();
    let flush = tokio::spawn(world.sibling.flush());
    tokio::task::yield_now().await;
    world.ways.relay.deliver();
    tokio::task::yield_now().await;
    assert!(!flush.is_finished(), "the held message has no outcome yet");
    world.post();
    world.direct().deliver();
    flush.await.unwrap();
    assert_eq!(
        world.direct().numbers(),
        [3],
        "what was posted later is not waited for"
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_look_for_a_socket_is_repeated_later_and_never_held_against_it() {
    let mut world = World::new(RoutePolicy::Auto);
    world.ways.answers.store(false, Ordering::Relaxed);
    world.post();
    world.ways.probed.acquire().await.unwrap().forget();
    tokio::task::yield_now().await;
    world.ways.relay.deliver();
    world.post();
    assert_eq!(
        world.ways.probes.load(Ordering::Relaxed),
        1,
        "within the backoff nothing is tried"
    );
    world.ways.relay.deliver();
    world.ways.answers.store(true, Ordering::Relaxed);
    tokio::time::advance(limits::PROBE_BACKOFF_MIN).await;
    world.post();
    world.ways.probed.acquire().await.unwrap().forget();
    tokio::task::yield_now().await;
    world.ways.relay.deliver();
    world.post();
    assert_eq!(world.direct().deliver_all(), [4]);
}

#[test]
fn without_a_runtime_everything_goes_by_the_host() {
    let mut world = World::new(RoutePolicy::Auto);
    world.post();
    world.post();
    assert_eq!(world.ways.relay.deliver_all(), [1, 2]);
}

#[tokio::test]
async fn credit_of_a_message_from_elsewhere_is_given_back_when_it_leaves_its_queue() {
    #[derive(Default)]
    struct Credit(AtomicU64);
    impl ReturnSink for Credit {
        fn undelivered(&self, _: Token, _: Undeliverable) {}
        fn abandoned(&self, _: Token) {}
        fn released(&self, _: Token) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn wants_release(&self) -> bool {
            true
        }
    }
    let world = World::new(RoutePolicy::Relay);
    let credit = Arc::new(Credit::default());
    let handle = ReturnHandle::new(credit.clone(), Token::default());
    world.sibling.post(envelope(1), handle);
    let (_, _, handle) = world.ways.relay.0.under_way.lock().pop_front().unwrap();
    assert!(
        handle.is_leased(),
        "the queue must know that credit bounds the message"
    );
    let lease = handle.delivered();
    assert_eq!(credit.0.load(Ordering::Relaxed), 0);
    drop(lease);
    assert_eq!(credit.0.load(Ordering::Relaxed), 1);
}

/// Forgets every message: for counting what the way to it costs.
struct Nowhere;

impl MailboxSender for Nowhere {
    fn post_unchecked(&self, _: MessageEnvelope, handle: ReturnHandle) {
        drop(handle.delivered());
    }
}

#[test]
fn a_post_and_its_outcome_allocate_nothing() {
    let ways = Arc::new(Ways {
        relay: Way::default(),
        direct: Mutex::default(),
        own: Mutex::default(),
        answers: AtomicBool::new(false),
        probes: AtomicU64::new(0),
        probed: Semaphore::new(0),
    });
    let proc_id = Arc::new(ProcId::Direct(addr(), "b".to_owned()));
    let sibling = Sibling::new(
        proc_id,
        RoutePolicy::Relay,
        Nowhere.into_boxed(),
        Arc::new(ways),
    );
    let post = |envelope| sibling.post(envelope, ReturnHandle::monitored());
    post(envelope(0));
    let envelopes: Vec<_> = (0..100).map(envelope).collect();
    let cost = allocation_counter::measure(|| envelopes.into_iter().for_each(post));
    assert_eq!(cost.count_total, 0, "{cost:?}");
    assert_eq!(sibling.counts(), (0, 101));
}
