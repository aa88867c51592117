//! Looking for input for a moment before a thread of the runtime goes to sleep, so that a hot conversation does not pay for
//! wake-ups: [`Spin`] to choose, [`before_park`] for whoever builds a runtime.
//!
//! A connection that has just sent or received leaves its spot with the thread. When that thread has nothing else to do,
//! and only then, its runtime calls [`before_park`], which looks whether anything came in on any watched connection of the
//! process, until it did or the connection's budget is used up. Then the runtime sleeps as ever: where something came, its
//! sleep ends at once, without anybody having woken it. Nothing is read here, and no task is run or woken. When it pays is
//! `policy`'s matter, for how long `cost`'s, and whether the processor is offered to others between two looks `way`'s.

mod cost;
mod policy;
#[cfg(test)]
mod tests;
mod way;

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{Timespec, epoll};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::limits::{SPIN_LATE, SPIN_WARM_UP, SPIN_YIELD_LATE};
use policy::{Looked, Policy};
use way::Way;

/// Whether a thread that waits for a connection looks for input for a moment before it sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Spin {
    /// While it pays: in conversations whose next message comes sooner than a sleeping thread could be woken, with a processor
    /// to spare. Takes effect on runtimes that were built with [`before_park`].
    #[default]
    Adaptive,
    /// Never: the processor is left to others at once, and each message that finds nobody awake costs a wake-up.
    Never,
}

/// What a runtime is to call before one of its threads sleeps: `Builder::on_thread_park(before_park)`. Without it nobody looks,
/// and everything else is the same. The procs of a host and `#[hyperactor::main]` have it.
///
/// Where nothing is hot it returns at once. Otherwise it returns as soon as something came or is to be done on this runtime,
/// after [`SPIN_BUDGET_MAX`](crate::limits::SPIN_BUDGET_MAX) at the latest; only where somebody computes on the processor that it
/// offered meanwhile, it returns when it gets that back, after a slice of the scheduler. Such a processor is then not offered for
/// [`SPIN_YIELD_PAUSE`](crate::limits::SPIN_YIELD_PAUSE) times as long.
///
/// # Bounds
/// At most one thread fewer than there are processors looks at the same time, in the whole process; with one processor none
/// does.
pub fn before_park() {
    // A thread that ends has no spot any more.
    let waiting = WAITING.try_with(|waiting| waiting.borrow_mut().take());
    if let Ok(Some((spot, after))) = waiting {
        spot.look(after);
    }
}

/// How often the threads of this process have looked so far. A look is one system call that waits for nothing.
pub fn looks() -> u64 {
    LOOKS.load(Ordering::Relaxed)
}

thread_local! {
    /// The connection that was served last on this thread, and is to be looked for.
    static WAITING: RefCell<Option<(Arc<Spot>, After)>> = const { RefCell::new(None) };
}

/// What a connection did last: an answer comes at another pace than the next message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Sending,
    Receiving,
}

/// What is known of one connection, for whichever thread serves it.
#[derive(Debug, Default)]
pub(crate) struct Spot {
    policies: Mutex<[Policy; 2]>,
    looks: AtomicU64,
    /// Not kept by this: a thread may remember a connection that is gone.
    watch: Weak<OwnedFd>,
}

impl Spot {
    fn look(&self, after: After) {
        let Some(budget) = self.budget(after) else {
            return;
        };
        let spare = cost::cores().count.saturating_sub(1);
        let Some(_turn) = Turn::take(&LOOKING, spare) else {
            self.learn(after, Looked::Disturbed);
            return;
        };
        let Some(watch) = self.watch.upgrade() else {
            return;
        };
        let (looked, looks) = look_until(&watch, budget);
        self.looks.fetch_add(looks, Ordering::Relaxed);
        LOOKS.fetch_add(looks, Ordering::Relaxed);
        self.learn(after, looked);
    }

    /// How long to look before this sleep, if at all.
    fn budget(&self, after: After) -> Option<Duration> {
        let mut policies = self.policies.lock();
        let policy = &mut policies[after as usize];
        let full = if policy.is_warm() {
            WANTED.store(true, Ordering::Relaxed);
            cost::full_budget()?
        } else {
            Duration::ZERO
        };
        Some(policy.budget(full)).filter(|budget| !budget.is_zero())
    }

    fn learn(&self, after: After, looked: Looked) {
        self.policies.lock()[after as usize].learn(looked);
    }
}

/// Looks until something came, something else is to be done, or the budget is used up; says how often it looked, too.
///
/// Between two looks it offers the processor to others, as long as those are others that give it back soon: of three processes
/// of a conversation that look on two processors, only one ever has anything to do.
fn look_until(watch: &OwnedFd, budget: Duration) -> (Looked, u64) {
    let runtime = Handle::try_current().ok().map(|handle| handle.metrics());
    let began = Instant::now();
    let gives_way = WAY.is_open(began);
    let late = if gives_way {
        SPIN_YIELD_LATE
    } else {
        SPIN_LATE
    };
    let mut last = began;
    let mut looks = 0;
    loop {
        let has_come = has_input(watch);
        looks += 1;
        let now = Instant::now();
        let away = now.duration_since(last);
        if away >= late {
            if gives_way {
                WAY.came_back_late(away, now);
            }
            return (Looked::Late, looks);
        }
        if has_come {
            return (Looked::Hit, looks);
        }
        if now.duration_since(began) >= budget {
            return (Looked::Miss, looks);
        }
        // Tasks that others woke: nobody is told of them while this thread counts as looking for work.
        if runtime
            .as_ref()
            .is_some_and(|runtime| runtime.global_queue_depth() != 0)
        {
            return (Looked::Disturbed, looks);
        }
        last = now;
        if gives_way {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}

/// What all connections that are looked for are watched by, one descriptor for as long as there is any connection: one look
/// finds input of any of them.
static WATCH: Mutex<Weak<OwnedFd>> = Mutex::new(Weak::new());

fn watch() -> Option<Arc<OwnedFd>> {
    let mut shared = WATCH.lock();
    if let Some(watch) = shared.upgrade() {
        return Some(watch);
    }
    match epoll::create(epoll::CreateFlags::CLOEXEC) {
        Ok(watch) => {
            let watch = Arc::new(watch);
            *shared = Arc::downgrade(&watch);
            Some(watch)
        }
        Err(error) => {
            tracing::debug!(%error, "connections cannot be watched; nobody looks for their input");
            None
        }
    }
}

fn has_input(watch: &OwnedFd) -> bool {
    const AT_ONCE: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut events = [MaybeUninit::<epoll::Event>::uninit(); 1];
    match epoll::wait(watch, &mut events, Some(&AT_ONCE)) {
        Ok((found, _)) => !found.is_empty(),
        Err(_) => false,
    }
}

/// The right to look, given back when dropped.
struct Turn<'a>(&'a AtomicUsize);

/// Some thread of this process looks, now and then: connections that are hot are to be watched.
static WANTED: AtomicBool = AtomicBool::new(false);

/// Whether those who look offer their processor to others.
static WAY: Way = Way::new();

/// The threads that look now.
static LOOKING: AtomicUsize = AtomicUsize::new(0);

/// All looks so far.
static LOOKS: AtomicU64 = AtomicU64::new(0);

impl<'a> Turn<'a> {
    fn take(taken: &'a AtomicUsize, most: usize) -> Option<Self> {
        let take = |taken| (taken < most).then(|| taken + 1);
        let took = taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        took.is_ok().then(|| Self(taken))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection's part in it: notes what it does, and leaves word with the thread when it waits.
#[derive(Debug)]
pub(crate) struct Spinner {
    spot: Option<Arc<Spot>>,
    watch: Option<Arc<OwnedFd>>,
    has_sent: bool,
    has_received: bool,
    /// How often it has waited for something in particular.
    rests: u32,
    is_watched: bool,
}

impl Spinner {
    pub(crate) fn new(spin: Spin) -> Self {
        Self::on(spin, cost::cores().count)
    }

    /// On a machine of so many processors.
    fn on(spin: Spin, cores: usize) -> Self {
        let may = spin == Spin::Adaptive && cores > 1;
        let watch = if may { watch() } else { None };
        let spot = watch.as_ref().map(|watch| {
            Arc::new(Spot {
                watch: Arc::downgrade(watch),
                ..Spot::default()
            })
        });
        Self {
            spot,
            watch,
            has_sent: false,
            has_received: false,
            rests: 0,
            is_watched: false,
        }
    }

    /// Bytes went out.
    pub(crate) fn note_sent(&mut self) {
        self.has_sent = true;
    }

    /// Messages came.
    pub(crate) fn note_received(&mut self) {
        self.has_received = true;
    }

    /// The connection waits: its thread may look for input, if nothing else is to be done. Whoever neither sent nor received a
    /// message since the last time waits for nothing in particular; nor is what went out `answered` when it was acknowledgements
    /// alone.
    pub(crate) fn rest(&mut self, is_answered: bool, descriptor: Option<BorrowedFd<'_>>) {
        let Some(spot) = &self.spot else { return };
        let has_sent = std::mem::take(&mut self.has_sent) && is_answered;
        let has_received = std::mem::take(&mut self.has_received);
        let after = match (has_sent, has_received) {
            (true, _) => After::Sending,
            (false, true) => After::Receiving,
            (false, false) => return,
        };
        // Whichever connection the thread leaves last: where each carries one direction, what was sent by one is answered by
        // another.
        self.rests = self.rests.saturating_add(1);
        if !self.is_watched && self.rests >= SPIN_WARM_UP && WANTED.load(Ordering::Relaxed) {
            self.is_watched = true;
            self.add(descriptor);
        }
        let spot = Arc::clone(spot);
        // Outside of a runtime's threads nobody looks there; a thread that ends keeps nothing.
        let _ended = WAITING.try_with(|waiting| *waiting.borrow_mut() = Some((spot, after)));
    }

    /// Watches the connection until its descriptor is closed.
    fn add(&self, descriptor: Option<BorrowedFd<'_>>) {
        let (Some(watch), Some(descriptor)) = (&self.watch, descriptor) else {
            return;
        };
        let data = epoll::EventData::new_u64(0);
        if let Err(error) = epoll::add(watch.as_fd(), descriptor, data, epoll::EventFlags::IN) {
            tracing::debug!(%error, "a connection cannot be watched; nobody looks for its input");
        }
    }
}
