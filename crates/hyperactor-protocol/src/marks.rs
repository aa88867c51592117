//! A set of sequence numbers just above a moving lower end: the messages whose outcome came out of order.
//! Costs nothing while empty, and one bit a number when not.

use std::collections::VecDeque;

const BITS: u64 = u64::BITS as u64;

/// Numbers at or above a base; the caller keeps the span bounded.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// A multiple of 64: the number of the first word's first bit.
    base: u64,
    words: VecDeque<u64>,
    count: u64,
}

impl Marks {
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Adds `seq`, which is not below what was forgotten; returns whether it was new.
    pub(crate) fn insert(&mut self, seq: u64) -> bool {
        if self.is_empty() {
            self.words.clear();
            self.base = seq - seq % BITS;
        }
        while seq < self.base {
            self.words.push_front(0);
            self.base -= BITS;
        }
        let word = ((seq - self.base) / BITS) as usize;
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let bit = 1 << (seq % BITS);
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += u64::from(new);
        new
    }

    pub(crate) fn contains(&self, seq: u64) -> bool {
        self.word_from(seq) & 1 == 1
    }

    /// The bits from `seq` to the end of its word, lowest first.
    fn word_from(&self, seq: u64) -> u64 {
        if seq < self.base {
            return 0;
        }
        let word = ((seq - self.base) / BITS) as usize;
        self.words.get(word).map_or(0, |bits| bits >> (seq % BITS))
    }

    /// Returns the first number from `seq` on that is absent.
    pub(crate) fn first_absent(&self, mut seq: u64) -> u64 {
        loop {
            let ones = u64::from(self.word_from(seq).trailing_ones());
            seq += ones;
            if ones == 0 || !seq.is_multiple_of(BITS) {
                return seq;
            }
        }
    }

    /// Returns the first number in `seq..end` that is present, else `end`.
    pub(crate) fn first_present(&self, mut seq: u64, end: u64) -> u64 {
        if self.is_empty() {
            return end;
        }
        while seq < end {
            let bits = self.word_from(seq);
            if bits != 0 {
                return end.min(seq + u64::from(bits.trailing_zeros()));
            }
            // The next word begins at the next multiple of 64.
            seq = (seq - seq % BITS).saturating_add(BITS);
        }
        end
    }

    /// Forgets every number below `below`.
    pub(crate) fn forget_below(&mut self, below: u64) {
        while !self.words.is_empty() && below >= self.base + BITS {
            let gone = self.words.pop_front().unwrap_or(0);
            self.count -= u64::from(gone.count_ones());
            self.base += BITS;
        }
        if below > self.base
            && let Some(word) = self.words.front_mut()
        {
            let low = *word & ((1 << (below - self.base)) - 1);
            self.count -= u64::from(low.count_ones());
            *word ^= low;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.words.clear();
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn marks_behave_like_a_set() {
        let mut marks = Marks::default();
        let mut model = BTreeSet::new();
        let mut x = 7_u64;
        let mut low = 1000;
        for step in 0..20_000_u64 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            let seq = low + x % 300;
            assert_eq!(marks.insert(seq), model.insert(seq));
            if step % 16 == 0 {
                low += x % 40;
                marks.forget_below(low);
                model.retain(|each| *each >= low);
            }
            assert_eq!(marks.count(), model.len() as u64);
            let mut absent = seq;
            while model.contains(&absent) {
                absent += 1;
            }
            assert_eq!(marks.first_absent(seq), absent);
            let present = model
                .range(low..low + 300)
                .next()
                .copied()
                .unwrap_or(low + 300);
            assert_eq!(marks.first_present(low, low + 300), present);
            assert_eq!(marks.contains(low), model.contains(&low));
        }
    }
}
