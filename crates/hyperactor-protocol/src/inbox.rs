//! The receiving half: what has come, what has an outcome, what may still come. Frames and times are the session's
//! matter.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::lanes::Amount;
use crate::limits::{CREDIT_FRACTION, SPAN_WINDOWS};
use crate::marks::Marks;
use crate::shares::Telling;
use crate::{Run, Seq, Verdict, Violation};

#[derive(Debug)]
pub(crate) struct Inbox {
    window_messages: u64,
    window_bytes: u64,
    /// The next number expected.
    next: u64,
    /// Body bytes received.
    bytes: u64,
    /// Everything below is settled.
    settled: u64,
    /// What is settled above.
    marks: Marks,
    /// Outcomes other than delivered that the peer may not know yet.
    records: BTreeMap<u64, Verdict>,
    /// Those of them not yet written on this connection.
    unsaid: BTreeSet<u64>,
    /// Ranges delivered out of order and not yet written on this connection.
    ranges: VecDeque<(u64, u32)>,
    released_messages: u64,
    released_bytes: u64,
    granted_messages: u64,
    granted_bytes: u64,
}

/// What a message is, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    New,
    Duplicate,
}

impl Inbox {
    /// A half that expects `first` next, with its credit granted.
    pub(crate) fn new(window_messages: u32, window_bytes: u64, first: u64) -> Self {
        let mut this = Self {
            window_messages: window_messages.into(),
            window_bytes,
            next: first,
            bytes: 0,
            settled: first,
            marks: Marks::default(),
            records: BTreeMap::new(),
            unsaid: BTreeSet::new(),
            ranges: VecDeque::new(),
            released_messages: first,
            released_bytes: 0,
            granted_messages: 0,
            granted_bytes: 0,
        };
        this.grant();
        this
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn settled(&self) -> u64 {
        self.settled
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.settled == self.next
    }

    pub(crate) fn unsettled(&self) -> u64 {
        self.next - self.settled - self.marks.count()
    }

    pub(crate) fn records(&self) -> usize {
        self.records.len()
    }

    #[inline]
    pub(crate) fn granted(&self) -> (u64, u64) {
        (self.granted_messages, self.granted_bytes)
    }

    /// Judges a frame by its number.
    #[inline]
    pub(crate) fn arrival(&self, seq: Seq) -> Result<Arrival, Violation> {
        // S-02: exactly the next one.
        if seq.0 < self.next {
            return Ok(Arrival::Duplicate);
        }
        if seq.0 > self.next {
            return Err(Violation::Gap {
                expected: Seq(self.next),
                got: seq,
            });
        }
        // S-13: a message may begin within the byte credit and end beyond it.
        if self.next >= self.granted_messages || self.bytes >= self.granted_bytes {
            return Err(Violation::BeyondCredit { seq });
        }
        Ok(Arrival::New)
    }

    /// Whether these messages are the next ones, and each of them within the credit, as [`arrival`](Self::arrival) judges.
    pub(crate) fn awaits(&self, run: &Run) -> bool {
        run.first().0 == self.next
            && self.next + run.count() <= self.granted_messages
            && self.bytes + run.bytes_before_last() < self.granted_bytes
    }

    /// Takes the next frame in.
    #[inline]
    pub(crate) fn receive(&mut self, size: u64) {
        self.receive_run(1, size);
    }

    /// Takes the next frames in.
    #[inline]
    pub(crate) fn receive_run(&mut self, count: u64, bytes: u64) {
        self.next += count;
        self.bytes += bytes;
    }

    /// Records an outcome; returns whether it was new. Strange numbers change nothing: they come from before a fresh
    /// start, or from an application that settles twice.
    #[inline]
    pub(crate) fn settle(&mut self, seq: u64, verdict: Verdict) -> bool {
        if seq < self.settled || seq >= self.next || self.marks.contains(seq) {
            return false;
        }
        // S-03: delivered is what the cumulative end says by itself; anything else needs a record.
        let delivered = verdict == Verdict::Delivered;
        if !delivered {
            self.records.insert(seq, verdict);
            self.unsaid.insert(seq);
        }
        // Deliberate faults for the test of the simulator's oracle: P3 counts outcomes instead of looking for the gap
        // before them, P9 never passes a refusal.
        let is_next = seq == self.settled && (delivered || !cfg!(planted = "P9"));
        if is_next || cfg!(planted = "P3") {
            self.settled += 1;
            if !self.marks.is_empty() {
                self.settled = self.marks.first_absent(self.settled);
                self.marks.forget_below(self.settled);
            }
        } else {
            self.marks.insert(seq);
            if delivered {
                self.note_range(seq);
            }
        }
        true
    }

    /// Records that messages were delivered, if they are the oldest without an outcome and no later one has any; returns how
    /// many of them.
    #[inline]
    pub(crate) fn settle_front(&mut self, first: u64, count: u64) -> u64 {
        if first != self.settled || !self.marks.is_empty() {
            return 0;
        }
        let run = count.min(self.next - first);
        self.settled += run;
        run
    }

    fn note_range(&mut self, seq: u64) {
        if let Some((first, count)) = self.ranges.back_mut()
            && *first + u64::from(*count) == seq
        {
            *count += 1;
            return;
        }
        // What the cumulative acknowledgement has overtaken needs no words of its own.
        while self
            .ranges
            .front()
            .is_some_and(|(first, count)| first + u64::from(*count) <= self.settled)
        {
            self.ranges.pop_front();
        }
        self.ranges.push_back((seq, 1));
    }

    /// Takes the next settlement to write: (first, count, verdict).
    pub(crate) fn next_settlement(&mut self) -> Option<(u64, u32, Verdict)> {
        if let Some(first) = self.unsaid.pop_first() {
            let verdict = self
                .records
                .get(&first)
                .cloned()
                .unwrap_or(Verdict::Delivered);
            let mut count = 1_u32;
            while let Some(next) = first.checked_add(count.into())
                && self.unsaid.first() == Some(&next)
                && self.records.get(&next) == Some(&verdict)
            {
                self.unsaid.pop_first();
                count += 1;
            }
            return Some((first, count, verdict));
        }
        while let Some((first, count)) = self.ranges.pop_front() {
            if first + u64::from(count) > self.settled {
                return Some((first, count, Verdict::Delivered));
            }
        }
        None
    }

    pub(crate) fn has_settlements(&self) -> bool {
        !self.unsaid.is_empty() || !self.ranges.is_empty()
    }

    /// A new connection: everything that is not cumulative is to be said again.
    pub(crate) fn repeat(&mut self) {
        self.unsaid = self.records.keys().copied().collect();
        self.ranges.clear();
        let mut at = self.settled;
        loop {
            let first = self.marks.first_present(at, self.next);
            if first >= self.next {
                break;
            }
            let end = self.marks.first_absent(first);
            let mut from = first;
            let exceptions: Vec<u64> = self
                .records
                .range(first..end)
                .map(|(seq, _)| *seq)
                .collect();
            for exception in exceptions.into_iter().chain([end]) {
                if exception > from {
                    // The span is bounded by SPAN_WINDOWS windows of 2^32 messages at most; a run this long does not
                    // occur, and a shorter range would still be true.
                    let count = u32::try_from(exception - from).unwrap_or(u32::MAX);
                    self.ranges.push_back((from, count));
                }
                from = exception + 1;
            }
            at = end;
        }
    }

    /// The peer knows every outcome below.
    pub(crate) fn resolved(&mut self, below: Seq) -> Result<(), Violation> {
        if below.0 > self.settled {
            return Err(Violation::ResolvedUnsettled {
                below,
                settled: Seq(self.settled),
            });
        }
        // Splitting takes time in proportion to what is kept, and this may be said again and again.
        let oldest = self.records.first_key_value();
        if oldest.is_some_and(|(oldest, _)| *oldest < below.0) {
            self.records = self.records.split_off(&below.0);
            self.unsaid = self.unsaid.split_off(&below.0);
        }
        Ok(())
    }

    /// The peer is another life: what the old one sent concerns nobody, and the numbers go on.
    pub(crate) fn forget(&mut self) {
        self.settled = self.next;
        self.marks.clear();
        self.records.clear();
        self.unsaid.clear();
        self.ranges.clear();
    }

    /// Messages left their queue. More is never released than came.
    #[inline]
    pub(crate) fn release(&mut self, messages: u64, bytes: u64) {
        self.released_messages = self
            .released_messages
            .saturating_add(messages)
            .min(self.next);
        self.released_bytes = self.released_bytes.saturating_add(bytes).min(self.bytes);
    }

    /// What the peer has left of the credit that it knows.
    #[inline]
    pub(crate) fn peer_free(&self) -> Amount {
        Amount {
            messages: self.granted_messages.saturating_sub(self.next),
            bytes: self.granted_bytes.saturating_sub(self.bytes),
        }
    }

    /// What the peer may send in all.
    #[inline]
    fn grantable(&self) -> (u64, u64) {
        // S-14: a kept record holds its message's credit, so records are bounded by the window; and one stuck message
        // stops credit after a span, so the marks are bounded too.
        let kept = self.records.len() as u64;
        let messages = (self.released_messages + self.window_messages)
            .saturating_sub(kept)
            .min(self.settled + SPAN_WINDOWS * self.window_messages);
        let bytes = self.released_bytes + self.window_bytes;
        (
            messages.max(self.granted_messages),
            bytes.max(self.granted_bytes),
        )
    }

    /// Whether there is more to grant than the peer knows.
    #[inline]
    pub(crate) fn has_credit(&self) -> bool {
        self.grantable() != self.granted()
    }

    /// S-15: when the peer is to know of what can be granted.
    #[inline]
    pub(crate) fn telling(&self) -> Telling {
        let (messages, bytes) = self.grantable();
        let messages = messages - self.granted_messages;
        let bytes = bytes - self.granted_bytes;
        if messages * CREDIT_FRACTION >= self.window_messages
            || bytes * CREDIT_FRACTION >= self.window_bytes
        {
            Telling::Now
        } else if (messages != 0 || bytes != 0) && self.is_peer_short() {
            Telling::Soon
        } else {
            Telling::Along
        }
    }

    /// Whether the peer may run out soon, so that small credit matters.
    #[inline]
    pub(crate) fn is_peer_short(&self) -> bool {
        let free = self.peer_free();
        free.messages * CREDIT_FRACTION <= self.window_messages
            || free.bytes * CREDIT_FRACTION <= self.window_bytes
    }

    /// Grants everything that can be.
    pub(crate) fn grant(&mut self) -> (u64, u64) {
        (self.granted_messages, self.granted_bytes) = self.grantable();
        self.granted()
    }

    pub(crate) fn check(&self) {
        assert!(self.settled <= self.next);
        assert!(self.released_messages <= self.next && self.released_bytes <= self.bytes);
        assert!(
            self.next <= self.granted_messages,
            "took in beyond the credit"
        );
        assert!(self.unsaid.iter().all(|seq| self.records.contains_key(seq)));
        assert!(
            !self.marks.contains(self.settled),
            "the settled end could move on"
        );
        assert!(self.marks.is_empty() || self.settled < self.next);
    }
}
