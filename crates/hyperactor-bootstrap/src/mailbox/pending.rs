//! Which messages to one sibling have no outcome yet, told apart by when they were posted, so that a flush can wait
//! for the earlier ones without waiting for the later.

use std::collections::VecDeque;

/// Counts of open messages, in groups that each end with a flush.
#[derive(Debug)]
pub(super) struct Groups {
    /// Number of the first group in `open`; all groups before it are settled.
    first: u64,
    /// Open messages of each group; the last one takes the posts of today.
    open: VecDeque<u64>,
}

impl Groups {
    pub(super) fn new() -> Self {
        Self {
            first: 0,
            open: VecDeque::from([0]),
        }
    }

    /// Counts one message and returns its group.
    pub(super) fn enter(&mut self) -> u64 {
        if let Some(last) = self.open.back_mut() {
            *last += 1;
        }
        self.last()
    }

    /// Counts one outcome.
    pub(super) fn leave(&mut self, group: u64) {
        if let Some(count) = self.open.get_mut((group - self.first) as usize) {
            *count -= 1;
        }
        while self.open.len() > 1 && self.open.front() == Some(&0) {
            self.open.pop_front();
            self.first += 1;
        }
    }

    /// Ends the present group and returns the number that [`settled_below`](Self::settled_below) must reach for all
    /// its messages, and all earlier ones, to have an outcome; `None` when they have one now.
    pub(super) fn mark(&mut self) -> Option<u64> {
        if self.open.iter().all(|count| *count == 0) {
            return None;
        }
        if self.open.back() != Some(&0) {
            self.open.push_back(0);
        }
        Some(self.last())
    }

    /// All groups below this number are settled.
    pub(super) fn settled_below(&self) -> u64 {
        self.first
    }

    fn last(&self) -> u64 {
        self.first + self.open.len() as u64 - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_waits_for_earlier_messages_only() {
        let mut groups = Groups::new();
        assert_eq!(groups.mark(), None);
        let early = groups.enter();
        let mark = groups.mark().unwrap();
        let late = groups.enter();
        assert!(groups.settled_below() < mark);
        groups.leave(early);
        assert!(groups.settled_below() >= mark);
        groups.leave(late);
        assert_eq!(groups.mark(), None);
    }

    #[test]
    fn marks_without_messages_between_them_share_a_group() {
        let mut groups = Groups::new();
        let message = groups.enter();
        let first = groups.mark();
        assert_eq!(first, groups.mark());
        assert_eq!(groups.open.len(), 2);
        groups.leave(message);
        assert!(groups.settled_below() >= first.unwrap());
        assert_eq!(groups.open.len(), 1);
    }

    #[test]
    fn outcomes_in_another_order_settle_a_mark_with_the_last_of_them() {
        let mut groups = Groups::new();
        let a = groups.enter();
        groups.mark();
        let b = groups.enter();
        let mark = groups.mark().unwrap();
        groups.leave(b);
        assert!(groups.settled_below() < mark);
        groups.leave(a);
        assert!(groups.settled_below() >= mark);
    }
}
