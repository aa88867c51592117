//! What a sending half keeps for each message until its outcome is told: numbered in the order posted, settled in any
//! order. Few messages that wait for long cost no room for the many that passed them.

use std::collections::{BTreeMap, VecDeque};

/// Places beyond those in use that may gather before the old ones are set apart.
const SLACK: usize = 1_024;

/// Values by consecutive numbers.
///
/// # Bounds
///
/// In proportion to the values kept, whatever lies between their numbers.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    /// Values from `floor` on; none where it was taken out.
    recent: VecDeque<Option<T>>,
    floor: u64,
    /// Values below it, left over from when there were many beside them.
    old: BTreeMap<u64, T>,
    /// Values in `recent`.
    count: usize,
}

impl<T> Slots<T> {
    /// No values; the first one gets this number.
    pub(crate) fn new(first: u64) -> Self {
        Self {
            recent: VecDeque::new(),
            floor: first,
            old: BTreeMap::new(),
            count: 0,
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.old.len() + self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of the next value.
    pub(crate) fn next(&self) -> u64 {
        self.floor + self.recent.len() as u64
    }

    /// Everything below this number was taken out.
    pub(crate) fn taken_below(&self) -> u64 {
        match self.old.first_key_value() {
            Some((oldest, _)) => *oldest,
            None => self.floor,
        }
    }

    /// Adds a value with the next number.
    #[inline]
    pub(crate) fn push(&mut self, value: T) {
        self.recent.push_back(Some(value));
        self.count += 1;
        // Paid for by those that were taken out since the last time.
        if self.recent.len() > SLACK && self.recent.len() - SLACK > 4 * self.count {
            self.set_apart();
        }
    }

    /// Sets the old ones apart: they hold the room of many that were taken out.
    #[cold]
    #[inline(never)]
    fn set_apart(&mut self) {
        while self.recent.len() > self.count {
            if let Some(Some(value)) = self.recent.pop_front() {
                self.count -= 1;
                self.old.insert(self.floor, value);
            }
            self.floor += 1;
        }
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        match number.checked_sub(self.floor) {
            Some(index) => self.recent.get_mut(usize::try_from(index).ok()?)?.as_mut(),
            None => self.old.get_mut(&number),
        }
    }

    /// Takes a value out.
    pub(crate) fn take(&mut self, number: u64) -> Option<T> {
        let Some(index) = number.checked_sub(self.floor) else {
            return self.old.remove(&number);
        };
        let taken = self.recent.get_mut(usize::try_from(index).ok()?)?.take()?;
        self.count -= 1;
        self.pass_taken();
        Some(taken)
    }

    /// Takes those of `count` numbers out that there are, in their order, and adds of each what `of` makes of it.
    pub(crate) fn take_run<U>(
        &mut self,
        first: u64,
        count: u64,
        of: impl Fn(T) -> U,
        taken: &mut Vec<U>,
    ) {
        if first != self.floor {
            let numbers = first..first.saturating_add(count).min(self.next());
            taken.extend(numbers.filter_map(|number| self.take(number)).map(of));
            return;
        }
        // The oldest, as a rule.
        let run =
            usize::try_from(count).map_or(self.recent.len(), |run| run.min(self.recent.len()));
        let before = taken.len();
        taken.reserve(run.min(self.count));
        // Both ends of the ring: whole slices are gone through with less than a queue's own iterator.
        let (front, back) = self.recent.as_mut_slices();
        let split = run.min(front.len());
        for places in [&mut front[..split], &mut back[..run - split]] {
            taken.extend(places.iter_mut().filter_map(Option::take).map(&of));
        }
        self.recent.drain(..run);
        self.count -= taken.len() - before;
        self.floor += run as u64;
        self.pass_taken();
    }

    /// Lets go of the places in front that are empty.
    fn pass_taken(&mut self) {
        while let Some(None) = self.recent.front() {
            self.recent.pop_front();
            self.floor += 1;
        }
    }

    /// The numbers that there are, in their order.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let recent = (self.floor..).zip(&self.recent);
        let recent = recent.filter_map(|(number, value)| value.as_ref().map(|_| number));
        self.old.keys().copied().chain(recent).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_numbers_until_they_are_taken_out() {
        let mut slots = Slots::new(7);
        for value in 7..20_u64 {
            assert_eq!(slots.next(), value);
            slots.push(value);
        }
        assert_eq!(slots.take(9), Some(9));
        assert_eq!(
            (slots.take(9), slots.take(6), slots.take(20)),
            (None, None, None)
        );
        assert_eq!(slots.taken_below(), 7);
        assert_eq!((slots.take(7), slots.take(8)), (Some(7), Some(8)));
        assert_eq!((slots.taken_below(), slots.len()), (10, 10));
        assert_eq!(slots.numbers(), (10..20).collect::<Vec<_>>());
    }

    #[test]
    fn a_run_is_taken_out_as_its_values_would_be_one_by_one() {
        for first in 0..12 {
            for count in [0, 1, 3, 20, u64::MAX] {
                let (mut slots, mut model) = (Slots::new(2), Slots::new(2));
                for value in 2..10_u64 {
                    slots.push(value);
                    model.push(value);
                }
                for gone in [5, 6] {
                    assert_eq!(slots.take(gone), model.take(gone));
                }
                let mut taken = Vec::new();
                slots.take_run(first, count, |value| value, &mut taken);
                let numbers = first..first.saturating_add(count).min(12);
                let expected: Vec<_> = numbers.filter_map(|number| model.take(number)).collect();
                assert_eq!(taken, expected, "{count} from {first}");
                assert_eq!(slots.numbers(), model.numbers());
                assert_eq!(slots.taken_below(), model.taken_below());
                assert_eq!((slots.len(), slots.next()), (model.len(), model.next()));
            }
        }
    }

    #[test]
    fn a_few_that_stay_cost_no_room_for_those_that_pass() {
        let mut slots = Slots::new(0);
        for number in 0..1_000_000_u64 {
            slots.push(number);
            if !number.is_multiple_of(100_000) {
                assert_eq!(slots.take(number), Some(number));
            }
        }
        assert!(slots.recent.len() <= 2 * SLACK, "{}", slots.recent.len());
        assert_eq!((slots.len(), slots.taken_below()), (10, 0));
        for number in slots.numbers() {
            assert_eq!(slots.take(number), Some(number));
        }
        assert!(slots.is_empty());
    }
}
