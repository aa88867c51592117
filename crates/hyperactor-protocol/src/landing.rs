//! Parts of messages that are read from the stream straight to where they stay: the head of one, and the room that its
//! bytes come into. What a part means, and where its room comes from, is the session's matter.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::{DataFlags, Label, Seq};

/// Memory for messages that come in parts, kept from one message to the next: fresh memory costs more than a copy.
///
/// A session that has none takes fresh memory for each message. What is shared between sessions is shared between
/// peers, too: bytes of an earlier message stay in a buffer until others take their place, and are never shown.
pub trait Buffers: Send + Sync {
    /// Takes an empty buffer with room for at least so many bytes out, where there is one. W-13: `bytes` is what a peer
    /// declares; nothing may be made for it.
    fn take(&self, bytes: usize) -> Option<BytesMut>;

    /// Gives a buffer back that nobody uses any more. It may come from elsewhere; what is not kept is dropped.
    fn give(&self, buffer: BytesMut);
}

/// The head of a part of a message whose body has not all come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHead {
    pub(crate) seq: Seq,
    pub(crate) flags: DataFlags,
    pub(crate) to: Label,
    pub(crate) from: Label,
    /// The size of the whole message, with its first part.
    pub(crate) declared: Option<u64>,
    /// Bytes of the message in this part.
    pub(crate) bytes: usize,
}

/// A part that was read to where it stays.
#[derive(Debug)]
pub struct Landed {
    pub(crate) head: PartHead,
    /// What has come of it.
    pub(crate) room: BytesMut,
}

impl Landed {
    /// How many bytes are still to come.
    pub(crate) fn rest(&self) -> usize {
        self.head.bytes - self.room.len()
    }
}

/// Where buffers come from and go to.
#[derive(Clone, Default)]
pub(crate) struct Supply(pub(crate) Option<Arc<dyn Buffers>>);

impl Supply {
    pub(crate) fn take(&self, bytes: u64) -> Option<BytesMut> {
        let buffer = self.0.as_ref()?.take(usize::try_from(bytes).ok()?)?;
        // The border is open to anybody.
        (buffer.is_empty() && buffer.capacity() as u64 >= bytes).then_some(buffer)
    }

    /// The bytes of a message; their memory goes back when the last of them is let go of.
    pub(crate) fn lend(self, memory: BytesMut) -> Bytes {
        if self.0.is_none() {
            return memory.freeze();
        }
        Bytes::from_owner(Lent {
            memory,
            supply: self,
        })
    }

    pub(crate) fn give(&self, mut memory: BytesMut) {
        if let Some(buffers) = &self.0
            && memory.capacity() != 0
        {
            memory.clear();
            buffers.give(memory);
        }
    }
}

impl std::fmt::Debug for Supply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = if self.0.is_some() { "kept" } else { "fresh" };
        f.write_str(word)
    }
}

/// Memory that goes back where it came from.
struct Lent {
    memory: BytesMut,
    supply: Supply,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.memory
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.supply.give(std::mem::take(&mut self.memory));
    }
}
