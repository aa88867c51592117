//! Bodies in the pieces that they were made of: what an encoder wrote, and what is shared with whoever posted. Knows
//! nothing of frames.

use bytes::Bytes;

/// Bytes of a message that are shared instead of being written by its encoder, and where in what it wrote they belong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
// Nothing at all, as a rule, which costs a look less to drop than an empty list.
pub struct SharedParts(Option<Vec<(usize, Bytes)>>);

impl SharedParts {
    /// Adds bytes that belong at this place of the encoder's buffer, counted from the buffer's beginning, behind those
    /// that were added for the same place before. Places do not go back; one that does counts as the last.
    pub fn push(&mut self, at: usize, bytes: Bytes) {
        self.0.get_or_insert_default().push((at, bytes));
    }

    /// Returns how many bytes are shared.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.iter().flatten().map(|(_, bytes)| bytes.len()).sum()
    }

    /// Returns whether there are none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The bytes between which shared ones belong, then those: cut out of what an encoder wrote from `start` on.
    pub(crate) fn pieces(self, own: &Bytes, start: usize) -> Vec<Bytes> {
        let (mut pieces, mut from) = (Vec::new(), 0);
        for (at, bytes) in self.0.into_iter().flatten() {
            let at = at.saturating_sub(start).clamp(from, own.len());
            pieces.extend([own.slice(from..at), bytes]);
            from = at;
        }
        pieces.push(own.slice(from..));
        pieces
    }

    /// The only ones, if they follow all that was written.
    pub(crate) fn take_tail(&mut self, end: usize) -> Option<Bytes> {
        match self.0.as_deref_mut() {
            Some([(at, bytes)]) if *at >= end => {
                let bytes = std::mem::take(bytes);
                self.0 = None;
                Some(bytes)
            }
            _ => None,
        }
    }
}

impl From<()> for SharedParts {
    #[inline]
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl From<Vec<(usize, Bytes)>> for SharedParts {
    #[inline]
    fn from(parts: Vec<(usize, Bytes)>) -> Self {
        Self((!parts.is_empty()).then_some(parts))
    }
}

/// A body. Most have one piece, or two: a small head, and what is shared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pieces {
    head: Bytes,
    between: Vec<Bytes>,
    shared: Bytes,
}

impl Pieces {
    pub(crate) fn new(head: Bytes, shared: Bytes) -> Self {
        let between = Vec::new();
        Self {
            head,
            between,
            shared,
        }
    }

    /// Of what an encoder wrote from `start` on, what is shared among it, and what is shared behind it.
    pub(crate) fn of(own: Bytes, start: usize, among: SharedParts, behind: Bytes) -> Self {
        if among.is_empty() {
            return Self::new(own, behind);
        }
        let mut pieces = among.pieces(&own, start);
        pieces.push(behind);
        pieces.retain(|piece| !piece.is_empty());
        let shared = if pieces.len() > 1 { pieces.pop() } else { None };
        let mut between = pieces.into_iter();
        Self {
            head: between.next().unwrap_or_default(),
            between: between.collect(),
            shared: shared.unwrap_or_default(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Bytes> {
        let between = self.between.iter();
        [&self.head]
            .into_iter()
            .chain(between)
            .chain([&self.shared])
    }

    #[inline]
    pub(crate) fn size(&self) -> u64 {
        let between: usize = self.between.iter().map(Bytes::len).sum();
        (self.head.len() + between + self.shared.len()) as u64
    }

    /// A slice from `at` on, of at most so many bytes; it ends where a piece does.
    pub(crate) fn slice(&self, at: usize, most: usize) -> Bytes {
        let mut before = 0;
        for piece in self.all() {
            if at < before + piece.len() {
                let from = at - before;
                return piece.slice(from..piece.len().min(from + most));
            }
            before += piece.len();
        }
        Bytes::new()
    }

    /// A head that may be copied, and the shared end; copies what stands between.
    pub(crate) fn into_two(self) -> (Bytes, Bytes) {
        if self.between.is_empty() {
            return (self.head, self.shared);
        }
        let shared = self.shared.clone();
        let head: Vec<u8> = [&[self.head], &*self.between].concat().concat();
        (head.into(), shared)
    }

    /// In one piece; copies only when there are several.
    pub(crate) fn joined(self) -> Bytes {
        let (head, shared) = self.into_two();
        joined(head, shared)
    }
}

/// Puts a body together; copies only when there are two pieces.
pub(crate) fn joined(head: Bytes, shared: Bytes) -> Bytes {
    if shared.is_empty() {
        return head;
    }
    if head.is_empty() {
        return shared;
    }
    [head, shared].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn shared_bytes_stand_where_they_belong() {
        let mut among = SharedParts::default();
        for (at, text) in [(13, "X"), (13, "Y"), (16, "Z"), (11, "W"), (99, "V")] {
            among.push(at, bytes(text));
        }
        assert_eq!(among.size(), 5);
        let body = Pieces::of(bytes("abcdefg"), 10, among, bytes("end"));
        assert_eq!(body.size(), 15);
        let mut cut = Vec::new();
        while cut.len() < 15 {
            let piece = body.slice(cut.len(), 2);
            assert!(matches!(piece.len(), 1 | 2));
            cut.extend_from_slice(&piece);
        }
        assert_eq!(cut, b"abcXYdefZWgVend");
        assert_eq!(body.clone().joined(), cut);
        assert!(body.slice(15, 2).is_empty());
        let (head, shared) = body.into_two();
        assert_eq!((&*head, &*shared), (&b"abcXYdefZWgV"[..], &b"end"[..]));
    }

    #[test]
    fn a_single_piece_is_not_copied() {
        for body in [
            Pieces::new(bytes("abc"), Bytes::new()),
            Pieces::new(Bytes::new(), bytes("abc")),
            Pieces::of(
                Bytes::new(),
                4,
                vec![(4, bytes("abc"))].into(),
                Bytes::new(),
            ),
        ] {
            let there = body.slice(0, 9).as_ptr();
            assert_eq!(body.joined().as_ptr(), there);
        }
    }
}
