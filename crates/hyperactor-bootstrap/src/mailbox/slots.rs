//! Numbered places for what waits for an outcome: taking one and giving it back allocates nothing once the table has
//! grown to what is under way at the same time.

/// A table of values under numbers that are never confused: a number that was given back does not find what was put
/// into the same place later.
#[derive(Debug)]
pub(super) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slots<T> {
    /// Keeps a value and returns its number, or gives the value back when 2³² are kept.
    pub(super) fn insert(&mut self, value: T) -> Result<u64, T> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let Ok(index) = u32::try_from(self.slots.len()) else {
                    return Err(value);
                };
                self.slots.push(Slot {
                    generation: 0,
                    value: None,
                });
                index
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.value = Some(value);
        Ok(u64::from(slot.generation) << 32 | u64::from(index))
    }

    /// Takes a value out; its number means nothing from then on.
    pub(super) fn remove(&mut self, id: u64) -> Option<T> {
        let (index, generation) = parts(id);
        let slot = self.slots.get_mut(index)?;
        if slot.generation != generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index as u32);
        Some(value)
    }

    /// How many values are kept.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

fn parts(id: u64) -> (usize, u32) {
    ((id & u64::from(u32::MAX)) as usize, (id >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_number_does_not_find_a_new_value() {
        let mut slots = Slots::default();
        let first = slots.insert("first").unwrap();
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second").unwrap();
        assert_ne!(first, second);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.len(), 1);
        assert_eq!(slots.remove(second), Some("second"));
        assert_eq!(slots.len(), 0);
    }

    #[test]
    fn a_number_that_was_never_given_finds_nothing() {
        let mut slots = Slots::<u8>::default();
        assert_eq!(slots.remove(u64::MAX), None);
        assert_eq!(slots.remove(7), None);
    }
}
