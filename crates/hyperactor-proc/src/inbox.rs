//! The queue of an actor: lanes of runs. The rules that it follows are those of all queues, `hyperactor_mailbox`'s
//! [`Lanes`]; what a run is, `runs.rs` says.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyperactor_mailbox::{Asked, Both, Class, Lane, Lanes, Overflow, Refusal};

use crate::runs::{AnyRun, Crash, Envelop, Inline, Kept, Meta, Run, Unhandled, is_inline};
use crate::{Actor, Handler, PanicReport, limits};

/// The queue of one actor. It lies in the actor's cell, beside what whoever puts something in looks at first.
pub(crate) struct Inbox<A: Actor>(Lanes<Runs<A>>);

/// The runs of one lane. Of them only the last may be empty: it waits to be filled on.
// What every message changes comes last; see `Lanes`.
#[repr(C)]
pub(crate) struct Runs<A: Actor> {
    earlier: VecDeque<Box<dyn AnyRun<A>>>,
    /// Empty runs, for the next ones of their types.
    spares: Vec<Box<dyn AnyRun<A>>>,
    last: Option<Box<dyn AnyRun<A>>>,
    /// There may be more spares, or larger ones, than an actor at rest keeps.
    is_untidy: bool,
    /// Messages in all runs. So many as it cannot count fit into no memory.
    len: u32,
    /// How many were ever put in by reference.
    by_reference: u64,
}

impl<A: Actor> Default for Runs<A> {
    fn default() -> Self {
        Self {
            earlier: VecDeque::new(),
            spares: Vec::new(),
            is_untidy: false,
            last: None,
            len: 0,
            by_reference: 0,
        }
    }
}

impl<A: Actor> Lane for Runs<A> {
    type Oldest = Box<Unhandled>;

    #[inline(always)]
    fn len(&self) -> usize {
        self.len as usize
    }

    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn pop_oldest(&mut self) -> Option<(Box<Unhandled>, bool)> {
        let first = match self.earlier.front_mut() {
            Some(first) => first,
            None => self.last.as_mut()?,
        };
        let oldest = first.pop_unhandled()?;
        if first.len() == 0
            && let Some(spent) = self.earlier.pop_front()
        {
            self.spare(spent);
        }
        self.len -= 1;
        let is_local = oldest.lease.is_local();
        Some((oldest, is_local))
    }
}

impl<A: Actor> Runs<A> {
    #[inline(always)]
    fn push_kept<M: Send + 'static>(
        &mut self,
        message: &mut Option<M>,
        meta: Meta,
        envelop: Option<Envelop<M>>,
    ) where
        A: Handler<M>,
    {
        match const { is_inline::<M>() } {
            true => self.push::<M, Inline<M>>(message, meta, envelop),
            false => self.push::<M, Box<M>>(message, meta, envelop),
        }
    }

    #[inline(always)]
    fn push<M, K>(&mut self, message: &mut Option<M>, meta: Meta, envelop: Option<Envelop<M>>)
    where
        A: Handler<M>,
        M: Send + 'static,
        K: Kept<M>,
    {
        self.len += 1;
        if let Some(last) = &mut self.last
            && let Some(run) = last.of::<Run<A, M, K>>()
            && run.has_place()
        {
            return run.push(message, meta, envelop);
        }
        if let Some(run) = self.begin::<M, K>().of::<Run<A, M, K>>()
            && run.has_place()
        {
            run.push(message, meta, envelop);
        }
    }

    /// As [`push_kept`](Self::push_kept), for a message of which nothing but its sender is known. What lies beside it is made where it
    /// is put: a pair of words that is copied before both have come to memory makes the processor wait for them.
    #[inline(always)]
    fn push_plain<M: Send + 'static>(
        &mut self,
        message: &mut Option<M>,
        sender_hash: u64,
        by_reference: Option<Envelop<M>>,
    ) where
        A: Handler<M>,
    {
        match const { is_inline::<M>() } {
            true => self.push_plain_as::<M, Inline<M>>(message, sender_hash, by_reference),
            false => self.push_plain_as::<M, Box<M>>(message, sender_hash, by_reference),
        }
    }

    #[inline(always)]
    fn push_plain_as<M, K>(
        &mut self,
        message: &mut Option<M>,
        sender_hash: u64,
        by_reference: Option<Envelop<M>>,
    ) where
        A: Handler<M>,
        M: Send + 'static,
        K: Kept<M>,
    {
        self.len += 1;
        if let Some(last) = &mut self.last
            && let Some(run) = last.of::<Run<A, M, K>>()
            && run.has_place()
        {
            return run.push_plain(message, sender_hash, by_reference);
        }
        if let Some(run) = self.begin::<M, K>().of::<Run<A, M, K>>()
            && run.has_place()
        {
            run.push_plain(message, sender_hash, by_reference);
        }
    }

    /// As [`push_kept`](Self::push_kept), for a request from within the proc.
    #[inline(always)]
    fn push_request<M: Send + 'static>(
        &mut self,
        message: &mut Option<M>,
        asked: Arc<dyn Asked>,
        envelop: Envelop<M>,
    ) where
        A: Handler<M>,
    {
        match const { is_inline::<M>() } {
            true => self.push_request_as::<M, Inline<M>>(message, asked, envelop),
            false => self.push_request_as::<M, Box<M>>(message, asked, envelop),
        }
    }

    #[inline(always)]
    fn push_request_as<M, K>(
        &mut self,
        message: &mut Option<M>,
        asked: Arc<dyn Asked>,
        envelop: Envelop<M>,
    ) where
        A: Handler<M>,
        M: Send + 'static,
        K: Kept<M>,
    {
        self.by_reference += 1;
        self.len += 1;
        if let Some(last) = &mut self.last
            && let Some(run) = last.of::<Run<A, M, K>>()
            && run.has_place()
        {
            return run.push_request(message, asked, envelop);
        }
        if let Some(run) = self.begin::<M, K>().of::<Run<A, M, K>>()
            && run.has_place()
        {
            run.push_request(message, asked, envelop);
        }
    }

    /// A last run of this type, with room.
    #[inline(never)]
    fn begin<M, K>(&mut self) -> &mut Box<dyn AnyRun<A>>
    where
        A: Handler<M>,
        M: Send + 'static,
        K: Kept<M>,
    {
        let mut is_stream = false;
        if let Some(mut last) = self.last.take() {
            // Behind a full run of its type there is likely to be another one.
            is_stream = last.of::<Run<A, M, K>>().is_some();
            match last.len() {
                0 => self.spare(last),
                _ => self.earlier.push_back(last),
            }
        }
        let mut spares = self.spares.iter_mut();
        let at = spares.rposition(|spare| spare.of::<Run<A, M, K>>().is_some());
        let spare = at.map(|at| self.spares.swap_remove(at));
        let begun = spare.unwrap_or_else(|| {
            let capacity = if is_stream {
                limits::RUN_MESSAGES_MAX
            } else {
                1
            };
            Box::new(Run::<A, M, K>::with_capacity(capacity))
        });
        self.last.insert(begun)
    }

    /// Keeps an empty run for use, as far as there is room for it.
    fn spare(&mut self, mut run: Box<dyn AnyRun<A>>) {
        if self.spares.len() < limits::SPARE_RUNS_MAX {
            run.spend();
            self.spares.push(run);
            self.is_untidy = true;
        }
    }

    fn spares(&mut self, spent: &mut Vec<Box<dyn AnyRun<A>>>) {
        for run in spent.drain(..) {
            self.spare(run);
        }
    }

    /// Lets the last run have the buffer of an empty one, if it has none.
    #[inline(always)]
    fn lend<M, K>(&mut self, run: &mut Run<A, M, K>)
    where
        A: Handler<M>,
        M: Send + 'static,
        K: Kept<M>,
    {
        if let Some(last) = &mut self.last
            && let Some(last) = last.of::<Run<A, M, K>>()
            && last.is_bare()
        {
            std::mem::swap(last, run);
        }
    }

    /// Gives memory back that an actor at rest does not need.
    #[inline]
    fn rest(&mut self, useless: &mut Vec<Box<dyn AnyRun<A>>>) {
        useless.extend(self.last.take_if(|last| last.is_large()));
        if self.is_untidy {
            self.give_back(useless);
        }
    }

    fn give_back(&mut self, useless: &mut Vec<Box<dyn AnyRun<A>>>) {
        self.is_untidy = false;
        if self.spares.len() > limits::SPARE_RUNS_AT_REST {
            useless.extend(self.spares.drain(limits::SPARE_RUNS_AT_REST..));
        }
        if self.spares.iter().any(|spare| spare.is_large()) {
            useless.extend(self.spares.extract_if(.., |spare| spare.is_large()));
        }
    }

    /// Takes the first run out.
    fn pop(&mut self) -> Option<Box<dyn AnyRun<A>>> {
        if self.len == 0 {
            return None;
        }
        let first = match self.earlier.pop_front() {
            Some(first) => first,
            None => self.last.take()?,
        };
        self.len -= first.len() as u32;
        Some(first)
    }

    /// Takes the messages of the first run out, into one that is empty, if they are of its type; no message is moved by this.
    #[inline(always)]
    fn exchange<R: AnyRun<A>>(&mut self, run: &mut R) -> bool {
        let first = match self.earlier.front_mut() {
            None => &mut self.last,
            Some(_) => return self.exchange_earlier(run),
        };
        let Some(first) = first.as_mut().and_then(|first| first.of::<R>()) else {
            return false;
        };
        std::mem::swap(first, run);
        self.len -= run.len() as u32;
        true
    }

    #[inline(never)]
    fn exchange_earlier<R: AnyRun<A>>(&mut self, run: &mut R) -> bool {
        let Some(first) = self.earlier.front_mut().and_then(|first| first.of::<R>()) else {
            return false;
        };
        std::mem::swap(first, run);
        self.len -= run.len() as u32;
        if let Some(spent) = self.earlier.pop_front() {
            self.spare(spent);
        }
        true
    }
}

/// A message that a queue did not take.
pub(crate) struct Refused<M> {
    pub(crate) why: Refusal,
    pub(crate) message: M,
    pub(crate) meta: Meta,
}

/// What an actor that looked for messages of the type that it handled last has found.
pub(crate) enum Found<A: Actor> {
    /// Such messages; they are in its run.
    Same { is_urgent: bool },
    /// Others.
    Other(Taken<A>),
    /// None, and there will be none.
    Nothing,
}

/// A run that was taken out.
pub(crate) struct Taken<A: Actor> {
    pub(crate) run: Box<dyn AnyRun<A>>,
    pub(crate) is_urgent: bool,
}

impl<A: Actor> Inbox<A> {
    pub(crate) fn new(capacity: usize, overflow: Overflow) -> Self {
        Self(Lanes::new(capacity, overflow))
    }

    /// Puts a message from within the proc at the end of the user messages, if the queue is open and has room, and does nothing
    /// out of the ordinary when it has none; else the message stays where it is.
    ///
    /// `by_reference` makes the envelope again that it would have come in, and counts; without it the message came by a handle.
    #[inline(always)]
    pub(crate) fn push_plain<M: Send + 'static>(
        &self,
        message: &mut Option<M>,
        sender_hash: u64,
        by_reference: Option<Envelop<M>>,
    ) where
        A: Handler<M>,
    {
        if message.is_none() {
            return;
        }
        let Some(mut place) = self.0.admit_plain() else {
            return;
        };
        let runs = place.lane();
        if by_reference.is_some() {
            runs.by_reference += 1;
        }
        runs.push_plain(message, sender_hash, by_reference);
        place.filled();
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
            Ok(mut place) => {
                place.lane().push_kept(&mut Some(message), meta, envelop);
                Ok(place.filled())
            }
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
            Ok(mut place) => {
                let runs = place.lane();
                runs.by_reference += 1;
                runs.push_kept(&mut Some(message), meta, Some(envelop));
                Ok(place.filled())
            }
            Err(why) => Err(Refused { why, message, meta }),
        }
    }

    /// As [`push_by_reference`](Self::push_by_reference), for a request from within the proc: `message` and `asked` stay where they
    /// are if they are refused.
    #[inline(always)]
    pub(crate) fn push_request<M: Send + 'static>(
        &self,
        class: Class,
        message: &mut Option<M>,
        asked: &mut Option<Arc<dyn Asked>>,
        envelop: Envelop<M>,
    ) -> Result<Option<Box<Unhandled>>, Refusal>
    where
        A: Handler<M>,
    {
        if message.is_none() || asked.is_none() {
            return Ok(None);
        }
        let mut place = self.0.admit(class, true)?;
        if let Some(asked) = asked.take() {
            place.lane().push_request(message, asked, envelop);
        }
        Ok(place.filled())
    }

    /// Puts a failure at the end, to which the actor comes as to a message.
    pub(crate) fn push_crash(
        &self,
        report: PanicReport,
    ) -> Result<Option<Box<Unhandled>>, (Refusal, PanicReport)> {
        match self.0.admit(Class::User, true) {
            Ok(place) => Ok(place.put(|runs| {
                runs.len += 1;
                let crash = Box::new(Crash(Some(report)));
                if let Some(last) = runs.last.replace(crash) {
                    match last.len() {
                        0 => runs.spare(last),
                        _ => runs.earlier.push_back(last),
                    }
                }
            })),
            Err(why) => Err((why, report)),
        }
    }

    /// Takes the messages out that come next: into `run`, which is empty, if they are of its type.
    ///
    /// `spent` are empty runs, for use.
    #[inline(always)]
    pub(crate) fn poll_exchange<M, K>(
        &self,
        task: &Context<'_>,
        run: &mut Run<A, M, K>,
        spent: &mut Vec<Box<dyn AnyRun<A>>>,
    ) -> Poll<Found<A>>
    where
        A: Handler<M>,
        M: Send + 'static,
        K: Kept<M>,
    {
        // Freed without the lock.
        let (mut useless, mut large) = (Vec::new(), None);
        let found = self.0.poll_take(Some(task), |lanes| {
            if !spent.is_empty() {
                lanes.user.spares(spent);
            }
            if lanes.is_empty() {
                if let Some(urgent) = &mut lanes.urgent {
                    urgent.rest(&mut useless);
                }
                lanes.user.rest(&mut useless);
                if run.is_large() {
                    large = Some(std::mem::replace(run, Run::with_capacity(0)));
                } else {
                    // Of one small buffer at rest the sender has the use.
                    lanes.user.lend(run);
                }
                return None;
            }
            if let Some(urgent) = lanes.urgent.as_mut().filter(|urgent| !urgent.is_empty()) {
                if urgent.exchange(run) {
                    lanes.urgent_local -= run.local();
                    return Some(Found::Same { is_urgent: true });
                }
            } else if lanes.user.exchange(run) {
                lanes.user_local -= run.local();
                return Some(Found::Same { is_urgent: false });
            }
            pop(lanes).map(Found::Other)
        });
        found.map(|found| found.unwrap_or(Found::Nothing))
    }

    /// As [`poll_exchange`](Self::poll_exchange), in the usual case: there are messages of the type, and all that wait are one
    /// run. Else nothing has changed.
    ///
    /// Tells whether the actor is asleep with what it took: of a message that came alone it need not look behind it, because
    /// the next one wakes it. With `may_sleep` only, and if there is nothing to be given back.
    #[inline(always)]
    pub(crate) fn exchange_plain<M, K>(
        &self,
        task: &Context<'_>,
        run: &mut Run<A, M, K>,
        may_sleep: bool,
    ) -> Option<bool>
    where
        A: Handler<M>,
        M: Send + 'static,
        K: Kept<M>,
    {
        let mut receiving = self.0.receive();
        let lanes = receiving.lanes();
        let user = &mut lanes.user;
        if lanes.urgent.is_some() || !user.earlier.is_empty() || user.is_empty() {
            return None;
        }
        let last = user.last.as_mut()?.of::<Run<A, M, K>>()?;
        std::mem::swap(last, run);
        let is_small = !last.is_large() && !run.is_large();
        let count = run.len();
        let local = run.local();
        user.len -= count as u32;
        lanes.user_local -= local;
        let is_last = may_sleep && count == 1 && is_small && !user.is_untidy;
        Some(receiving.done(local > 0, is_last.then_some(task)))
    }

    /// See [`Lanes::stay_awake`].
    #[cold]
    pub(crate) fn stay_awake(&self) {
        self.0.stay_awake();
    }

    /// Takes the run out that comes next.
    pub(crate) fn poll_take(
        &self,
        task: &Context<'_>,
        spent: &mut Vec<Box<dyn AnyRun<A>>>,
    ) -> Poll<Option<Taken<A>>> {
        // Freed without the lock.
        let mut useless = Vec::new();
        self.0.poll_take(Some(task), |lanes| {
            lanes.user.spares(spent);
            if lanes.is_empty() {
                if let Some(urgent) = &mut lanes.urgent {
                    urgent.rest(&mut useless);
                }
                lanes.user.rest(&mut useless);
                return None;
            }
            pop(lanes)
        })
    }

    /// Takes out the next run of those that go first.
    pub(crate) fn take_urgent(&self) -> Option<Taken<A>> {
        self.0.with(|lanes| match lanes.is_urgent() {
            true => pop(lanes),
            false => None,
        })
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

    /// Refuses everything from now on, and gives what is inside, in order.
    pub(crate) fn close(&self) -> Vec<Taken<A>> {
        self.0.close(|lanes| {
            lanes.user.spares = Vec::new();
            if let Some(urgent) = &mut lanes.urgent {
                urgent.spares = Vec::new();
            }
            std::iter::from_fn(|| pop(lanes)).collect()
        })
    }

    /// Whether there is use in waiting when a message of this class was refused.
    pub(crate) fn waits(&self, class: Class) -> bool {
        self.0.waits(class)
    }

    pub(crate) fn has_room(&self, class: Class) -> bool {
        self.0.has_room(class)
    }

    /// See [`Lanes::available`].
    pub(crate) async fn available(&self, class: Class) {
        self.0.available(class).await;
    }

    pub(crate) fn max_local(&self) -> usize {
        self.0.max_local()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many messages came by reference from within the proc.
    pub(crate) fn by_reference(&self) -> u64 {
        self.0.with(|lanes| {
            let urgent = lanes.urgent.as_ref();
            lanes.user.by_reference + urgent.map_or(0, |urgent| urgent.by_reference)
        })
    }
}

/// Takes out the first run of all.
fn pop<A: Actor>(lanes: &mut Both<Runs<A>>) -> Option<Taken<A>> {
    if let Some(run) = lanes.urgent.as_mut().and_then(|urgent| urgent.pop()) {
        lanes.urgent_local -= run.local();
        let is_urgent = true;
        return Some(Taken { run, is_urgent });
    }
    let run = lanes.user.pop()?;
    lanes.user_local -= run.local();
    let is_urgent = false;
    Some(Taken { run, is_urgent })
}
