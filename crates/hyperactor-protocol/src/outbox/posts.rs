//! Which post each number of the log stands for. Numbers are given in the order of the log, posts in the order in which
//! they were taken; while both orders are the same, one run says it all.

use std::collections::VecDeque;

/// What a number of the log stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A message in one frame.
    Whole(u64),
    /// The last part of a message: its outcome is the message's.
    Last(u64),
    /// Any other part, or the withdrawal of a message: its outcome means nothing.
    Part,
}

/// Consecutive numbers that stand for consecutive posts, or for nothing.
#[derive(Clone, Copy, Debug)]
struct Run {
    seq: u64,
    count: u64,
    entry: Entry,
}

impl Run {
    #[inline]
    fn end(&self) -> u64 {
        self.seq + self.count
    }

    /// Whether the number after the run's last may stand for `entry` and the run still be one.
    #[inline]
    fn takes(&self, entry: Entry) -> bool {
        match (self.entry, entry) {
            (Entry::Whole(first), Entry::Whole(next)) => first + self.count == next,
            (Entry::Part, Entry::Part) => true,
            _ => false,
        }
    }

    /// What a part of the run stands for.
    fn from(&self, seq: u64) -> Entry {
        match self.entry {
            Entry::Whole(first) => Entry::Whole(first + (seq - self.seq)),
            entry => entry,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Posts {
    runs: VecDeque<Run>,
}

impl Posts {
    /// Notes what the next number stands for.
    #[inline]
    pub(super) fn push(&mut self, seq: u64, entry: Entry) {
        if let Some(last) = self.runs.back_mut()
            && last.takes(entry)
        {
            debug_assert_eq!(last.end(), seq);
            last.count += 1;
            return;
        }
        let count = 1;
        self.runs.push_back(Run { seq, count, entry });
    }

    /// Calls `each` with what the numbers of `from..to` stand for, run by run.
    pub(super) fn each(&self, from: u64, to: u64, mut each: impl FnMut(Entry, u64)) {
        let first = self.runs.partition_point(|run| run.end() <= from);
        for run in self.runs.range(first..) {
            if run.seq >= to {
                return;
            }
            let start = run.seq.max(from);
            each(run.from(start), run.end().min(to) - start);
        }
    }

    /// Returns what the number stands for.
    pub(super) fn find(&self, seq: u64) -> Option<Entry> {
        let at = self.runs.partition_point(|run| run.end() <= seq);
        let run = self.runs.get(at).filter(|run| run.seq <= seq)?;
        Some(run.from(seq))
    }

    /// Returns the number of a post.
    pub(super) fn number(&self, post: u64) -> Option<u64> {
        self.runs.iter().find_map(|run| match run.entry {
            Entry::Whole(first) if first <= post && post - first < run.count => {
                Some(run.seq + (post - first))
            }
            Entry::Last(last) if last == post => Some(run.seq),
            _ => None,
        })
    }

    pub(super) fn forget_below(&mut self, seq: u64) {
        while self.runs.front().is_some_and(|run| run.end() <= seq) {
            self.runs.pop_front();
        }
    }

    /// Forgets every number from `seq` on.
    pub(super) fn cut_from(&mut self, seq: u64) {
        while self.runs.back().is_some_and(|run| run.seq >= seq) {
            self.runs.pop_back();
        }
        if let Some(last) = self.runs.back_mut() {
            last.count = last.count.min(seq - last.seq);
        }
    }

    pub(super) fn clear(&mut self) {
        self.runs.clear();
    }

    /// Asserts that every number of `from..to` stands for something, once.
    pub(super) fn check(&self, from: u64, to: u64) {
        let mut expected = None;
        for run in &self.runs {
            assert!(run.count > 0 && expected.is_none_or(|seq| seq == run.seq));
            expected = Some(run.end());
        }
        if from < to {
            assert!(self.runs.front().is_some_and(|run| run.seq <= from));
            assert_eq!(expected, Some(to), "the log and its posts end apart");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_behave_like_a_list() {
        let mut posts = Posts::default();
        let mut model: Vec<(u64, Entry)> = Vec::new();
        let (mut x, mut next, mut low) = (7_u64, (1 << 62) - 5, (1 << 62) - 5);
        let mut post = 0;
        for step in 0..5000_u64 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            post += u64::from(x % 4 == 0);
            let entry = match x % 9 {
                0 => Entry::Part,
                1 => Entry::Last(post),
                _ => Entry::Whole(post),
            };
            post += u64::from(entry != Entry::Part);
            posts.push(next, entry);
            model.push((next, entry));
            next += 1;
            if step % 16 == 0 {
                low = (low + x % 40).min(next);
                posts.forget_below(low);
                model.retain(|(seq, _)| *seq >= low);
            }
            if step % 50 == 0 {
                next = next.saturating_sub(x % 10).max(low);
                posts.cut_from(next);
                model.retain(|(seq, _)| *seq < next);
            }
            posts.check(low, next);
            let at = low + x % 60;
            let expected = model.iter().find(|(seq, _)| *seq == at);
            assert_eq!(
                posts.find(at).filter(|_| at >= low),
                expected.map(|(_, entry)| *entry)
            );
            let mut seen = Vec::new();
            posts.each(low, next, |first, count| {
                for offset in 0..count {
                    seen.push(match first {
                        Entry::Whole(post) => Entry::Whole(post + offset),
                        entry => entry,
                    });
                }
            });
            let all: Vec<Entry> = model.iter().map(|(_, entry)| *entry).collect();
            assert_eq!(seen, all);
            if let Some((seq, Entry::Last(post) | Entry::Whole(post))) = model.last() {
                assert_eq!(posts.number(*post), Some(*seq));
            }
        }
    }
}
