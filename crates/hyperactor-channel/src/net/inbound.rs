//! What the receiving application says of messages that came over a byte stream, gathered until the session's task brings
//! it into the session: settling a message takes no lock that the reading or writing of a connection holds.

use std::any::Any;
use std::cell::Cell;
use std::task::Waker;

use hyperactor_protocol::{Config, Label, Seq, Session, Verdict};
use parking_lot::Mutex;

use crate::Ticket;
use crate::inbound::Settlements;

/// The part of the window whose release is told at once: one destination alone may hold half of the window.
const RELEASE_FRACTION: u64 = 8;

/// The application's end of one session.
pub(crate) struct NetInbound(Mutex<Pending>);

struct Pending {
    /// A run of delivered messages, the ordinary case.
    first: u64,
    count: u64,
    /// Everything else, in the order said.
    others: Vec<(u64, Verdict)>,
    released: Vec<Released>,
    released_messages: u64,
    released_bytes: u64,
    /// Below this number someone waits for an outcome.
    urgent_below: u64,
    /// An acknowledgement of what is not urgent waits under a timer of the session already.
    timer_runs: bool,
    limits: Limits,
    /// The session's task, while it has nothing to do.
    parked: Option<Waker>,
    ended: bool,
}

/// How much may gather before the session's task is woken.
#[derive(Clone, Copy)]
struct Limits {
    settled: u64,
    released_messages: u64,
    released_bytes: u64,
}

/// Messages of one destination that left their queue.
struct Released {
    to: u32,
    messages: u64,
    bytes: u64,
}

/// Settlements and releases on their way into the session.
#[derive(Default)]
pub(crate) struct Gathered {
    first: u64,
    count: u64,
    others: Vec<(u64, Verdict)>,
    released: Vec<Released>,
}

impl Gathered {
    /// Tells the session; what it has to say then is written by the caller.
    pub(crate) fn bring_into(&mut self, session: &mut Session) {
        let count = std::mem::take(&mut self.count);
        if count != 0 {
            let _written_by_the_caller = session.settle_run(Seq(self.first), count);
        }
        for (seq, verdict) in self.others.drain(..) {
            let _written_by_the_caller = session.settle(Seq(seq), verdict);
        }
        for Released {
            to,
            messages,
            bytes,
        } in self.released.drain(..)
        {
            let _written_by_the_caller = session.release_run(Label::new(to), messages, bytes);
        }
    }
}

/// What a thread settles of the session that it delivers at the moment: the task that delivers brings it in when it is through,
/// so it needs no lock for each message.
#[derive(Clone, Copy)]
struct AtHand {
    /// The address of the session's end; nought for none.
    whose: usize,
    /// A run of delivered messages.
    first: u64,
    count: u64,
}

impl AtHand {
    const NONE: Self = Self {
        whose: 0,
        first: 0,
        count: 0,
    };
}

thread_local! {
    static AT_HAND: Cell<AtHand> = const { Cell::new(AtHand::NONE) };
}

/// As long as this is held, what this thread settles as delivered is gathered apart. It is told at the end, also after a panic.
pub(crate) struct Delivering<'a> {
    inbound: &'a NetInbound,
    /// One that this one is within, which an in-process hop may bring about.
    outer: AtHand,
}

impl Drop for Delivering<'_> {
    fn drop(&mut self) {
        let AtHand { first, count, .. } = AT_HAND.replace(self.outer);
        if count != 0 {
            self.inbound.settle_run(first, count);
        }
    }
}

impl NetInbound {
    /// Gathers what this thread settles until the result is dropped.
    pub(crate) fn deliver(&self) -> Delivering<'_> {
        let outer = AT_HAND.replace(AtHand {
            whose: self.address(),
            ..AtHand::NONE
        });
        Delivering {
            inbound: self,
            outer,
        }
    }

    #[inline]
    fn address(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    /// Gathers a delivered message apart, if this thread delivers this session at the moment.
    #[inline]
    fn gather(&self, seq: u64) -> bool {
        let AtHand {
            whose,
            first,
            count,
        } = AT_HAND.get();
        if whose != self.address() {
            return false;
        }
        let follows = count != 0 && first + count == seq;
        AT_HAND.replace(AtHand {
            whose,
            first: if follows { first } else { seq },
            count: if follows { count + 1 } else { 1 },
        });
        if !follows && count != 0 {
            self.settle_run(first, count);
        }
        true
    }

    pub(crate) fn new(config: &Config) -> Self {
        let limits = Limits {
            settled: config.ack_every.into(),
            released_messages: (u64::from(config.window_messages) / RELEASE_FRACTION).max(1),
            released_bytes: (config.window_bytes / RELEASE_FRACTION).max(1),
        };
        Self(Mutex::new(Pending {
            first: 0,
            count: 0,
            others: Vec::new(),
            released: Vec::new(),
            released_messages: 0,
            released_bytes: 0,
            urgent_below: 0,
            timer_runs: false,
            limits,
            parked: None,
            ended: false,
        }))
    }

    /// Someone waits for the outcomes of all messages below this one's end.
    pub(crate) fn expect_urgent(&self, below: u64) {
        self.0.lock().urgent_below = below;
    }

    /// Takes what has gathered, to be brought into the session; says whether there is anything.
    pub(crate) fn take(&self, gathered: &mut Gathered) -> bool {
        let mut pending = self.0.lock();
        // What follows is written by the caller, or waits for the session's own timer, which the caller keeps.
        pending.timer_runs = true;
        if pending.count == 0 && pending.others.is_empty() && pending.released_messages == 0 {
            return false;
        }
        pending.released_messages = 0;
        pending.released_bytes = 0;
        gathered.first = pending.first;
        gathered.count = std::mem::take(&mut pending.count);
        // What was brought in before left these empty.
        std::mem::swap(&mut pending.others, &mut gathered.others);
        std::mem::swap(&mut pending.released, &mut gathered.released);
        true
    }

    /// Keeps the waker of the session's task, unless there is something for it; says whether it did.
    pub(crate) fn park(&self, waker: &Waker, timer_runs: bool) -> bool {
        let mut pending = self.0.lock();
        pending.timer_runs = timer_runs;
        if pending.is_pressing() {
            pending.parked = None;
            return false;
        }
        match &mut pending.parked {
            Some(parked) => parked.clone_from(waker),
            None => pending.parked = Some(waker.clone()),
        }
        true
    }

    /// The session's task runs, and looks here before it rests: what is said until then need not wake it.
    pub(crate) fn unpark(&self) {
        self.0.lock().parked = None;
    }

    /// Whether the session's task is parked, and nothing has woken it.
    pub(crate) fn is_parked(&self) -> bool {
        self.0.lock().parked.is_some()
    }

    /// The session ended: what is said from now on is not kept.
    pub(crate) fn end(&self) {
        let mut pending = self.0.lock();
        pending.ended = true;
        pending.others = Vec::new();
        pending.released = Vec::new();
    }

    fn change(&self, change: impl FnOnce(&mut Pending)) {
        let mut pending = self.0.lock();
        if pending.ended {
            return;
        }
        change(&mut pending);
        // A task that runs anyway looks again before it rests.
        let waker = if pending.parked.is_some() && pending.is_pressing() {
            pending.parked.take()
        } else {
            None
        };
        drop(pending);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Pending {
    fn deliver(&mut self, seq: u64) {
        if self.count == 0 {
            self.first = seq;
        }
        if self.first + self.count == seq {
            self.count += 1;
        } else {
            self.others.push((seq, Verdict::Delivered));
        }
    }

    fn release(&mut self, to: u32, messages: u64, bytes: u64) {
        self.released_messages += messages;
        self.released_bytes += bytes;
        match self.released.last_mut() {
            Some(last) if last.to == to => {
                last.messages += messages;
                last.bytes += bytes;
            }
            _ => self.released.push(Released {
                to,
                messages,
                bytes,
            }),
        }
    }

    /// Whether the session's task must be woken for what has gathered.
    fn is_pressing(&self) -> bool {
        let settled = self.count + self.others.len() as u64;
        let is_urgent = (self.count != 0 && self.first < self.urgent_below)
            || self.others.iter().any(|(seq, _)| *seq < self.urgent_below);
        is_urgent
            || settled >= self.limits.settled
            || (settled != 0 && !self.timer_runs)
            || self.released_messages >= self.limits.released_messages
            || self.released_bytes >= self.limits.released_bytes
            || (self.released_messages != 0 && !self.timer_runs)
    }
}

impl Settlements for NetInbound {
    fn settle(&self, ticket: Ticket, verdict: Verdict, message: Option<Box<dyn Any + Send>>) {
        // The sender has its own copy in its log.
        drop(message);
        if verdict == Verdict::Delivered && self.gather(ticket.seq) {
            return;
        }
        self.change(|pending| {
            if verdict == Verdict::Delivered {
                return pending.deliver(ticket.seq);
            }
            pending.release(ticket.to, 1, u64::from(ticket.size));
            pending.others.push((ticket.seq, verdict));
        });
    }

    fn settle_and_release(&self, ticket: Ticket) {
        self.change(|pending| {
            pending.deliver(ticket.seq);
            pending.release(ticket.to, 1, u64::from(ticket.size));
        });
    }

    fn settle_run(&self, first: u64, count: u64) {
        self.change(|pending| {
            if pending.count == 0 {
                pending.first = first;
            }
            if pending.first + pending.count == first {
                pending.count += count;
                return;
            }
            let run = first..first + count;
            pending
                .others
                .extend(run.map(|seq| (seq, Verdict::Delivered)));
        });
    }

    fn release(&self, to: u32, messages: u64, bytes: u64) {
        self.change(|pending| pending.release(to, messages, bytes));
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_settlement_wakes_a_task_that_rests_and_not_one_that_runs() {
        let inbound = NetInbound::new(&Config::default());
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let settle = |seq| {
            let ticket = Ticket {
                seq,
                size: 1,
                to: 0,
            };
            inbound.settle(ticket, Verdict::Delivered, None);
        };
        assert!(inbound.park(&waker, false));
        inbound.unpark();
        settle(0);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
        assert!(!inbound.park(&waker, false), "it looks before it rests");
        assert!(inbound.take(&mut Gathered::default()) && inbound.park(&waker, false));
        settle(1);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_is_settled_while_it_is_delivered_is_told_at_the_end_as_it_would_be_one_by_one() {
        let (one, other) = (
            NetInbound::new(&Config::default()),
            NetInbound::new(&Config::default()),
        );
        let settle = |inbound: &NetInbound, seq| {
            let ticket = Ticket {
                seq,
                size: 1,
                to: 0,
            };
            inbound.settle(ticket, Verdict::Delivered, None);
        };
        let told = |inbound: &NetInbound| {
            let mut gathered = Gathered::default();
            inbound.take(&mut gathered);
            let run = gathered.first..gathered.first + gathered.count;
            let others = gathered.others.iter().map(|(seq, _)| *seq);
            run.chain(others).collect::<Vec<_>>()
        };
        let delivering = one.deliver();
        for seq in [0, 1, 2, 7, 8, 4] {
            settle(&one, seq);
        }
        // Another session is another one's matter, also within.
        settle(&other, 5);
        let within = other.deliver();
        settle(&other, 6);
        settle(&one, 3);
        drop(within);
        assert_eq!(told(&other), [5, 6]);
        // Another thread does not deliver.
        std::thread::scope(|scope| scope.spawn(|| settle(&one, 9)).join().unwrap());
        drop(delivering);
        let mut all = told(&one);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4, 7, 8, 9]);
        settle(&one, 10);
        assert_eq!(told(&one), [10]);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _delivering = one.deliver();
            settle(&one, 11);
            panic!("a receiver that panics");
        }));
        assert!(panicked.is_err());
        assert_eq!(told(&one), [11]);
    }
}
