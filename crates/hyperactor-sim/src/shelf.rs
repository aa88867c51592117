//! Memory for messages in parts, as a process keeps it: every buffer that is given back waits for the next message that fits.
//! What lies in it meanwhile is overwritten, so that bytes of an earlier message that are shown again are found out.

use std::sync::Mutex;

use bytes::BytesMut;
use hyperactor_protocol::Buffers;

/// The most buffers of a shelf.
const BUFFERS_MAX: usize = 16;

/// Buffers that nobody uses at the moment.
#[derive(Debug, Default)]
pub(crate) struct Shelf(Mutex<Vec<BytesMut>>);

impl Buffers for Shelf {
    fn take(&self, bytes: usize) -> Option<BytesMut> {
        let mut kept = self.0.lock().ok()?;
        let at = kept.iter().rposition(|each| each.capacity() >= bytes)?;
        Some(kept.swap_remove(at))
    }

    fn give(&self, mut buffer: BytesMut) {
        let Ok(mut kept) = self.0.lock() else { return };
        if kept.len() < BUFFERS_MAX {
            buffer.resize(buffer.capacity(), 0xee);
            buffer.clear();
            kept.push(buffer);
        }
    }
}
