//! Memory for large messages that come in, kept by the process from one message to the next: writing to fresh memory costs
//! several times what writing to the same again does. Which message may have how much of it is the session's matter.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use bytes::BytesMut;
use hyperactor_protocol::{Buffers, Time};
use parking_lot::Mutex;

use crate::clock;
use crate::limits::{KEPT_MEMORY_BUFFERS, KEPT_MEMORY_BYTES, KEPT_MEMORY_FLOOR, KEPT_MEMORY_IDLE};

/// Buffers that nobody uses at the moment.
///
/// # Bounds
///
/// At most [`KEPT_MEMORY_BYTES`] in [`KEPT_MEMORY_BUFFERS`]; none while the process has no connection. What was not used for
/// [`KEPT_MEMORY_IDLE`] is let go of by the next deadline of any connection, which is never farther than a ping.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// Connections of the process.
    users: usize,
    /// With the time since when they lie here, the oldest first.
    buffers: VecDeque<(Time, BytesMut)>,
    bytes: usize,
}

/// A connection, for as long as which memory is kept.
pub(crate) struct User(Arc<Pool>);

/// The process's own.
pub(crate) fn pool() -> &'static Arc<Pool> {
    static POOL: LazyLock<Arc<Pool>> = LazyLock::new(Arc::default);
    &POOL
}

impl Pool {
    pub(crate) fn user(self: &Arc<Self>) -> User {
        self.0.lock().users += 1;
        User(Arc::clone(self))
    }

    /// Lets go of what was not used for long.
    pub(crate) fn trim(&self, now: Time) {
        let gone = self.0.lock().take_oldest(|kept| {
            kept.buffers
                .front()
                .is_some_and(|(since, _)| *since + KEPT_MEMORY_IDLE <= now)
        });
        drop(gone);
    }
}

impl Kept {
    /// Takes the oldest out while there is a reason to. To be dropped without the lock: giving memory back takes time.
    fn take_oldest(&mut self, is_due: impl Fn(&Self) -> bool) -> Vec<BytesMut> {
        let mut gone = Vec::new();
        while is_due(self)
            && let Some((_, buffer)) = self.buffers.pop_front()
        {
            self.bytes -= buffer.capacity();
            gone.push(buffer);
        }
        gone
    }
}

impl Buffers for Pool {
    fn take(&self, bytes: usize) -> Option<BytesMut> {
        // A small message must not hold the memory of a large one. The newest first: it is likely in a cache.
        let fits = bytes..=bytes.saturating_mul(2);
        let mut kept = self.0.lock();
        let at = kept
            .buffers
            .iter()
            .rposition(|(_, buffer)| fits.contains(&buffer.capacity()))?;
        let (_, buffer) = kept.buffers.remove(at)?;
        kept.bytes -= buffer.capacity();
        Some(buffer)
    }

    fn give(&self, buffer: BytesMut) {
        let size = buffer.capacity();
        if !(KEPT_MEMORY_FLOOR..=KEPT_MEMORY_BYTES).contains(&size) {
            return;
        }
        let mut kept = self.0.lock();
        if kept.users == 0 {
            return;
        }
        kept.bytes += size;
        kept.buffers.push_back((clock::now(), buffer));
        let gone = kept.take_oldest(|kept| {
            kept.bytes > KEPT_MEMORY_BYTES || kept.buffers.len() > KEPT_MEMORY_BUFFERS
        });
        drop(kept);
        drop(gone);
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut kept = self.0.0.lock();
        kept.users -= 1;
        let gone = kept.take_oldest(|kept| kept.users == 0);
        drop(kept);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(bytes: usize) -> BytesMut {
        BytesMut::with_capacity(bytes)
    }

    fn bytes(pool: &Pool) -> usize {
        let kept = pool.0.lock();
        let counted: usize = kept.buffers.iter().map(|(_, each)| each.capacity()).sum();
        assert_eq!(counted, kept.bytes);
        counted
    }

    #[test]
    fn a_message_gets_memory_of_about_its_size_and_the_newest_first() {
        let pool = Arc::new(Pool::default());
        let _user = pool.user();
        for size in [100_000, 150_000, 1_000_000] {
            pool.give(buffer(size));
        }
        assert!(pool.take(400_000).is_none());
        assert_eq!(pool.take(100_000).unwrap().capacity(), 150_000);
        assert_eq!(pool.take(90_000).unwrap().capacity(), 100_000);
        assert!(pool.take(90_000).is_none());
        assert_eq!(bytes(&pool), 1_000_000);
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
        let pool = Arc::new(Pool::default());
        let _user = pool.user();
        for _ in 0..10 {
            pool.give(buffer(KEPT_MEMORY_BYTES / 4));
            assert!(bytes(&pool) <= KEPT_MEMORY_BYTES);
        }
        pool.give(buffer(KEPT_MEMORY_BYTES));
        assert_eq!(bytes(&pool), KEPT_MEMORY_BYTES);
        pool.give(buffer(KEPT_MEMORY_BYTES + 1));
        assert_eq!(bytes(&pool), KEPT_MEMORY_BYTES);
        pool.give(buffer(70_000));
        assert_eq!(bytes(&pool), 70_000);
        for _ in 0..2 * KEPT_MEMORY_BUFFERS {
            pool.give(buffer(1));
            pool.give(buffer(KEPT_MEMORY_FLOOR));
        }
        assert_eq!(pool.0.lock().buffers.len(), KEPT_MEMORY_BUFFERS);
    }

    #[test]
    fn idle_memory_is_let_go_of() {
        let pool = Arc::new(Pool::default());
        let _user = pool.user();
        pool.give(buffer(100_000));
        pool.trim(Time::ZERO);
        assert_eq!(bytes(&pool), 100_000);
        pool.trim(clock::now() + KEPT_MEMORY_IDLE);
        assert_eq!(bytes(&pool), 0);
    }

    #[test]
    fn nothing_is_kept_without_a_connection() {
        let pool = Arc::new(Pool::default());
        let (one, other) = (pool.user(), pool.user());
        pool.give(buffer(100_000));
        drop(one);
        assert_eq!(bytes(&pool), 100_000);
        drop(other);
        assert_eq!(bytes(&pool), 0);
        pool.give(buffer(100_000));
        assert_eq!(bytes(&pool), 0);
    }
}
