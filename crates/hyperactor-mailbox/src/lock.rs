//! A lock for a few lines at a time, as each message takes several of: taking it is one locked instruction, and giving it back is
//! none. What may be held for longer, or waited for, has `parking_lot`'s, whose way back is a locked instruction, too.

use std::fmt;
use std::hint;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::thread;

use spin::mutex::{SpinMutex, SpinMutexGuard};

use crate::limits;

/// A mutex that is held for some dozen instructions: no call of others' code, no wait, no loop over what others made long.
///
/// Who finds it taken looks again: at first at once, then after others of its processor had their turn, for the holder may be
/// among them, and at last after [`limits::LOCK_PAUSE`], for the holder may be of a lower priority.
///
/// A panic while it is held gives it back, as `parking_lot`'s does.
pub struct BriefMutex<T>(SpinMutex<T>);

/// The right to what is behind a [`BriefMutex`], given back when dropped.
#[must_use = "what is locked is given back when this is dropped"]
pub struct BriefGuard<'a, T> {
    guard: SpinMutexGuard<'a, T>,
    // Stays with its thread, so that no task can wait with it.
    thread: PhantomData<*const ()>,
}

impl<T> BriefMutex<T> {
    /// Not taken.
    pub const fn new(value: T) -> Self {
        Self(SpinMutex::new(value))
    }

    /// Takes it.
    #[inline(always)]
    pub fn lock(&self) -> BriefGuard<'_, T> {
        match self.try_lock() {
            Some(guard) => guard,
            None => self.lock_later(),
        }
    }

    /// Takes it, unless somebody has it.
    #[inline(always)]
    pub fn try_lock(&self) -> Option<BriefGuard<'_, T>> {
        let guard = self.0.try_lock()?;
        Some(BriefGuard {
            guard,
            thread: PhantomData,
        })
    }

    #[cold]
    #[inline(never)]
    fn lock_later(&self) -> BriefGuard<'_, T> {
        let mut tries = 0;
        loop {
            // A look only, so that the holder keeps its cache line.
            if !self.0.is_locked()
                && let Some(guard) = self.try_lock()
            {
                return guard;
            }
            if tries < limits::LOCK_SPINS {
                // Ever longer: the more there are who want it, the longer it takes.
                for _ in 0..1 << tries {
                    hint::spin_loop();
                }
            } else if tries < limits::LOCK_YIELDS {
                thread::yield_now();
            } else {
                thread::sleep(limits::LOCK_PAUSE);
            }
            tries = (tries + 1).min(limits::LOCK_YIELDS);
        }
    }
}

impl<T: Default> Default for BriefMutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> fmt::Debug for BriefMutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BriefMutex").finish_non_exhaustive()
    }
}

impl<T> Deref for BriefGuard<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for BriefGuard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// More threads than processors, so that some lose theirs while they have the lock.
    #[test]
    fn what_many_threads_change_under_it_is_changed_by_one_at_a_time() {
        const EACH: u64 = 50_000;
        let threads = 4 * thread::available_parallelism().map_or(1, usize::from);
        let sums = BriefMutex::new((0_u64, 0_u64));
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        let mut sums = sums.lock();
                        let next = sums.0 + 1;
                        assert_eq!(sums.0, sums.1);
                        sums.0 = next;
                        sums.1 = next;
                    }
                });
            }
        });
        let total = threads as u64 * EACH;
        assert_eq!(*sums.lock(), (total, total));
    }

    #[test]
    fn who_finds_it_taken_waits_until_it_is_given_back() {
        let lock = BriefMutex::new(1);
        let mut held = lock.lock();
        assert!(lock.try_lock().is_none());
        thread::scope(|scope| {
            let (told, is_told) = std::sync::mpsc::channel();
            let (lock, waiting) = (&lock, told.clone());
            scope.spawn(move || {
                told.send(None).unwrap();
                waiting.send(Some(*lock.lock())).unwrap();
            });
            assert_eq!(is_told.recv().unwrap(), None);
            // It has come to pauses by now, as behind a holder that does not come to run.
            for _ in 0..1_000 {
                thread::yield_now();
            }
            assert!(is_told.try_recv().is_err(), "it is still taken");
            *held = 2;
            drop(held);
            assert_eq!(is_told.recv().unwrap(), Some(2));
        });
    }

    #[test]
    fn a_panic_gives_it_back() {
        let lock = BriefMutex::new(0);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _held = lock.lock();
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        assert_eq!(*lock.lock(), 0);
    }
}
