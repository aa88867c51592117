//! The queue of an actor: lanes of runs. The rules that it follows are those of all queues, `hyperactor_mailbox`'s
//! [`Lanes`]; what a run is, `runs.rs` says.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyperactor_mailbox::{Both, Capacity, Class, Lane, Lanes, Overflow, Refusal};

use crate::runs::{AnyRun, Crash, Envelop, Inline, Kept, Meta, Run, Unhandled, is_inline};
use crate::{Actor, Handler, PanicReport, limits};

/// The queue of one actor. A clone is another handle of the same queue.
pub(crate) struct Inbox<A: Actor>(Arc<Lanes<Runs<A>>>);

impl<A: Actor> Clone for Inbox<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// The runs of one lane, none of them empty.
pub(crate) struct Runs<A: Actor> {
    runs: VecDeque<Box<dyn AnyRun<A>>>,
    /// Messages in all runs.
    len: usize,
    /// How many were ever put in by reference.
    by_reference: u64,
    /// Empty runs, for the next ones of their types.
    spares: Vec<Box<dyn AnyRun<A>>>,
}

impl<A: Actor> Default for Runs<A> {
    fn default() -> Self {
        Self {
            runs: VecDeque::new(),
            len: 0,
            by_reference: 0,
            spares: Vec::new(),
        }
    }
}

impl<A: Actor> Lane for Runs<A> {
    type Oldest = Box<Unhandled>;

    fn len(&self) -> usize {
        self.len
    }

    fn pop_oldest(&mut self) -> Option<(Box<Unhandled>, bool)> {
        let first = self.runs.front_mut()?;
        let oldest = first.pop_unhandled()?;
        if first.len() == 0 {
            self.runs.pop_front();
        }
        self.len -= 1;
        let is_local = oldest.lease.is_local();
        Some((oldest, is_local))
    }
}

impl<A: Actor> Runs<A> {
    #[inline(always)]
    fn push_kept<M: Send + 'static>(&mut self, message: M, meta: Meta, envelop: Option<Envelop<M>>)
    where
        A: Handler<M>,
    {
        match const { is_inline::<M>() } {
            true => self.push::<M, Inline<M>>(message, meta, envelop),
            false => self.push::<M, Box<M>>(message, meta, envelop),
        }
    }

    #[inline(always)]
    fn push<M, K>(&mut self, message: M, meta: Meta, envelop: Option<Envelop<M>>)
    where
        A: Handler<M>,
        M: Send + 'static,
        K: Kept<M>,
    {
        self.len += 1;
        if let Some(last) = self.runs.back_mut()
            && let Some(run) = last.of::<Run<A, M, K>>()
            && run.entries.len() < limits::RUN_MESSAGES_MAX
        {
            return run.push(message, meta, envelop);
        }
        self.begin::<M, K>(message, meta, envelop);
    }

    /// As [`push`](Self::push), in a run of its own.
    #[inline(never)]
    fn begin<M, K>(&mut self, message: M, meta: Meta, envelop: Option<Envelop<M>>)
    where
        A: Handler<M>,
        M: Send + 'static,
        K: Kept<M>,
    {
        // Behind a full run of its type there is likely to be another one.
        let is_stream = match self.runs.back_mut() {
            Some(last) => last.of::<Run<A, M, K>>().is_some(),
            None => false,
        };
        let at = self
            .spares
            .iter_mut()
            .rposition(|spare| spare.of::<Run<A, M, K>>().is_some());
        let spare = at.map(|at| self.spares.swap_remove(at));
        let capacity = match is_stream {
            true => limits::RUN_MESSAGES_MAX,
            false => 1,
        };
        let mut begun = spare.unwrap_or_else(|| Box::new(Run::<A, M, K>::with_capacity(capacity)));
        if let Some(run) = begun.of::<Run<A, M, K>>() {
            run.push(message, meta, envelop);
        }
        self.runs.push_back(begun);
    }

    /// Keeps spent runs for use, as far as there is room for them.
    fn give_spares(
        &mut self,
        spent: &mut Vec<Box<dyn AnyRun<A>>>,
        useless: &mut Vec<Box<dyn AnyRun<A>>>,
    ) {
        let room = limits::SPARE_RUNS_MAX.saturating_sub(self.spares.len());
        if spent.len() > room {
            useless.extend(spent.drain(room..));
        }
        self.spares.append(spent);
    }

    /// Gives memory back that an actor at rest does not need.
    fn rest(&mut self, useless: &mut Vec<Box<dyn AnyRun<A>>>) {
        if self.spares.len() > limits::SPARE_RUNS_AT_REST {
            useless.extend(self.spares.drain(limits::SPARE_RUNS_AT_REST..));
        }
        if self.spares.iter().any(|spare| spare.is_large()) {
            useless.extend(self.spares.extract_if(.., |spare| spare.is_large()));
        }
    }

    /// Moves runs to the end of `out` until it has at least `max` messages more, and tells how many local ones went.
    fn take(&mut self, out: &mut VecDeque<Box<dyn AnyRun<A>>>, max: usize) -> usize {
        let mut local = 0;
        let mut taken = 0;
        while taken < max
            && let Some(run) = self.runs.pop_front()
        {
            taken += run.len();
            local += run.local();
            out.push_back(run);
        }
        self.len -= taken;
        local
    }
}

/// A message that a queue did not take.
pub(crate) struct Refused<M> {
    pub(crate) why: Refusal,
    pub(crate) message: M,
    pub(crate) meta: Meta,
}

/// Runs that the actor has taken out and not handled yet.
pub(crate) struct Taken<A: Actor> {
    urgent: VecDeque<Box<dyn AnyRun<A>>>,
    user: VecDeque<Box<dyn AnyRun<A>>>,
    /// Runs whose messages are all handled.
    spent: Vec<Box<dyn AnyRun<A>>>,
}

impl<A: Actor> Inbox<A> {
    pub(crate) fn new(capacity: usize, overflow: Overflow) -> Self {
        Self(Arc::new(Lanes::new(capacity, overflow)))
    }

    /// Puts a message at the end of its lane; gives the one that was given up for it, if one was.
    ///
    /// `envelop` makes the envelope again that it came in, if it came in one.
    // The error is the message that was passed in; boxing it would cost an allocation to save a copy.
    #[allow(clippy::result_large_err)]
    #[inline(always)]
    pub(crate) fn push<M: Send + 'static>(
        &self,
        class: Class,
        message: M,
        meta: Meta,
        envelop: Option<Envelop<M>>,
    ) -> Result<Option<Box<Unhandled>>, Refused<M>>
    where
        A: Handler<M>,
    {
        match self.0.admit(class, meta.is_local()) {
            Ok(place) => Ok(place.put(|runs| runs.push_kept(message, meta, envelop))),
            Err(why) => Err(Refused { why, message, meta }),
        }
    }

    /// As [`push`](Self::push), for a message that its sender posted by reference; they are counted.
    #[allow(clippy::result_large_err)]
    #[inline(always)]
    pub(crate) fn push_by_reference<M: Send + 'static>(
        &self,
        class: Class,
        message: M,
        meta: Meta,
        envelop: Envelop<M>,
    ) -> Result<Option<Box<Unhandled>>, Refused<M>>
    where
        A: Handler<M>,
    {
        match self.0.admit(class, meta.is_local()) {
            Ok(place) => Ok(place.put(|runs| {
                runs.by_reference += 1;
                runs.push_kept(message, meta, Some(envelop));
            })),
            Err(why) => Err(Refused { why, message, meta }),
        }
    }

    /// Puts a failure at the end, to which the actor comes as to a message.
    pub(crate) fn push_crash(
        &self,
        report: PanicReport,
    ) -> Result<Option<Box<Unhandled>>, (Refusal, PanicReport)> {
        match self.0.admit(Class::User, true) {
            Ok(place) => Ok(place.put(|runs| {
                runs.len += 1;
                runs.runs.push_back(Box::new(Crash(Some(report))));
            })),
            Err(why) => Err((why, report)),
        }
    }

    /// Takes messages out: ready with `true` when there were some, with `false` when there will be none.
    pub(crate) fn poll_take(&self, task: &mut Context<'_>, out: &mut Taken<A>) -> Poll<bool> {
        // Freed without the lock.
        let mut useless = Vec::new();
        let taken = self.0.poll_take(Some(task), |lanes| {
            lanes.user.give_spares(&mut out.spent, &mut useless);
            if lanes.is_empty() {
                lanes.user.rest(&mut useless);
                return None;
            }
            take_urgent(lanes, out);
            lanes.user_local -= lanes.user.take(&mut out.user, limits::BATCH_MESSAGES_MAX);
            Some(())
        });
        taken.map(|taken| taken.is_some())
    }

    /// Takes out the messages that go first.
    pub(crate) fn take_urgent(&self, out: &mut Taken<A>) {
        self.0.with(|lanes| take_urgent(lanes, out));
    }

    /// Whether messages wait that go first.
    #[inline]
    pub(crate) fn is_urgent(&self) -> bool {
        self.0.is_urgent()
    }

    /// Refuses everything from now on; what is inside is still handled.
    pub(crate) fn seal(&self) {
        self.0.close(|_| ());
    }

    /// Refuses everything from now on, and moves what is inside to the end of `out`.
    pub(crate) fn close(&self, out: &mut Taken<A>) {
        self.0.close(|lanes| {
            take_urgent(lanes, out);
            lanes.user_local -= lanes.user.take(&mut out.user, usize::MAX);
            lanes.user.spares = Vec::new();
        });
    }

    pub(crate) fn capacity(&self) -> Capacity {
        self.0.capacity()
    }

    pub(crate) fn capacity_of(&self, class: Class) -> Option<Capacity> {
        self.0.capacity_of(class)
    }

    pub(crate) fn max_local(&self) -> usize {
        self.0.max_local()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many messages came by reference from within the proc.
    pub(crate) fn by_reference(&self) -> u64 {
        self.0
            .with(|lanes| lanes.user.by_reference + lanes.urgent.by_reference)
    }
}

fn take_urgent<A: Actor>(lanes: &mut Both<Runs<A>>, out: &mut Taken<A>) {
    lanes.urgent_local -= lanes.urgent.take(&mut out.urgent, usize::MAX);
}

impl<A: Actor> Default for Taken<A> {
    fn default() -> Self {
        Self {
            urgent: VecDeque::new(),
            user: VecDeque::new(),
            spent: Vec::new(),
        }
    }
}

impl<A: Actor> Taken<A> {
    pub(crate) fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.user.is_empty()
    }

    /// The lane whose runs come next.
    fn first_lane(&mut self) -> &mut VecDeque<Box<dyn AnyRun<A>>> {
        match self.urgent.is_empty() {
            true => &mut self.user,
            false => &mut self.urgent,
        }
    }

    /// The run that comes next.
    #[inline]
    pub(crate) fn front(&self) -> Option<&dyn AnyRun<A>> {
        let front = self.urgent.front().or_else(|| self.user.front());
        front.map(|run| &**run)
    }

    /// Takes the run out that comes next, if it is one of this type, and tells whether it goes before others.
    pub(crate) fn pop_run<R: Any>(&mut self) -> Option<(Box<dyn AnyRun<A>>, bool)> {
        let is_urgent = !self.urgent.is_empty();
        let lane = self.first_lane();
        lane.front_mut()?.of::<R>()?;
        Some((lane.pop_front()?, is_urgent))
    }

    /// Puts a run back that was taken out, or lays it aside for use if it is empty.
    pub(crate) fn put_back(&mut self, mut run: Box<dyn AnyRun<A>>, is_urgent: bool) {
        if run.len() == 0 {
            run.spend();
            self.spent.push(run);
        } else if is_urgent {
            self.urgent.push_front(run);
        } else {
            self.user.push_front(run);
        }
    }

    /// Takes the first message out without handling it.
    pub(crate) fn pop_unhandled(&mut self) -> Option<Box<Unhandled>> {
        loop {
            let lane = self.first_lane();
            match lane.front_mut()?.pop_unhandled() {
                Some(unhandled) => return Some(unhandled),
                None => lane.pop_front(),
            };
        }
    }
}
