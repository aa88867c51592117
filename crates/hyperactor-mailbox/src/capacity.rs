//! Waiting for room in a queue that refused a message. The queue itself is in `queue.rs`.

use std::fmt;
use std::sync::Arc;

use crate::sender::BoxFuture;

/// Something that can be full, and tells when it no longer is.
///
/// A place that is closed has room: whoever waits then tries again and learns that it is closed.
pub trait Room: Send + Sync + 'static {
    /// Whether a message would be taken now.
    fn has_room(&self) -> bool;

    /// Resolves when a message would be taken. Dropping the future must lose nothing.
    fn available(&self) -> BoxFuture<'_, ()>;
}

/// A full queue, to wait for.
#[derive(Clone)]
pub struct Capacity(Arc<dyn Room>);

impl Capacity {
    /// The capacity of a place.
    #[must_use]
    pub fn new(room: Arc<dyn Room>) -> Self {
        Self(room)
    }

    /// Whether there is room now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.0.has_room()
    }

    /// Resolves when there is room. Others may take it first: try again in a loop.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is reserved and nothing is lost.
    pub async fn available(&self) {
        if !self.0.has_room() {
            self.0.available().await;
        }
    }
}

impl fmt::Debug for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capacity")
            .field("has_room", &self.has_room())
            .finish()
    }
}
