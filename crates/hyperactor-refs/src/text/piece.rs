//! A piece of the text under the parser, which remembers its place in the whole, so that a fault can point at it.
//! Nothing here allocates; the text of a fault is made only when there is one.

use std::borrow::Cow;
use std::ops::Range;

use super::error::ParseErrorKind;

/// A part of an input, by its byte range. Both ends lie on character borders.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    whole: &'a str,
    start: usize,
    end: usize,
}

/// Why a piece is refused, and the range that a caret is put under.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) range: Range<usize>,
    pub(crate) kind: ParseErrorKind,
    pub(crate) expected: Cow<'static, str>,
    /// Range and text that would mend it, if the mend is obvious. Whether it does is tried before anyone is told.
    pub(crate) mend: Option<(Range<usize>, String)>,
}

impl<'a> Piece<'a> {
    pub(crate) fn new(whole: &'a str) -> Self {
        Self {
            whole,
            start: 0,
            end: whole.len(),
        }
    }

    pub(crate) fn text(self) -> &'a str {
        &self.whole[self.start..self.end]
    }

    pub(crate) fn bytes(self) -> &'a [u8] {
        self.text().as_bytes()
    }

    pub(crate) fn is_empty(self) -> bool {
        self.start == self.end
    }

    pub(crate) fn range(self) -> Range<usize> {
        self.start..self.end
    }

    /// The piece without its first `n` bytes, which must end on a character border.
    pub(crate) fn skip(self, n: usize) -> Self {
        Self {
            start: self.start + n,
            ..self
        }
    }

    /// The first `n` bytes, which must end on a character border.
    pub(crate) fn first(self, n: usize) -> Self {
        Self {
            end: self.start + n,
            ..self
        }
    }

    /// The character that begins at byte `at`, as a piece; empty at the end.
    pub(crate) fn char_at(self, at: usize) -> Self {
        let len = self.text()[at..].chars().next().map_or(0, char::len_utf8);
        self.skip(at).first(len)
    }

    /// The empty place behind the last byte.
    pub(crate) fn behind(self) -> Self {
        Self {
            start: self.end,
            ..self
        }
    }

    /// The piece before the first `byte` (which must be ASCII) and the piece after it.
    pub(crate) fn split_once(self, byte: u8) -> Option<(Self, Self)> {
        let at = self.bytes().iter().position(|b| *b == byte)?;
        Some((self.first(at), self.skip(at + 1)))
    }

    /// The piece before the last `byte` (which must be ASCII) and the piece after it.
    pub(crate) fn rsplit_once(self, byte: u8) -> Option<(Self, Self)> {
        let at = self.bytes().iter().rposition(|b| *b == byte)?;
        Some((self.first(at), self.skip(at + 1)))
    }

    pub(crate) fn strip_prefix(self, prefix: &str) -> Option<Self> {
        self.text()
            .starts_with(prefix)
            .then(|| self.skip(prefix.len()))
    }

    pub(crate) fn fault(
        self,
        kind: ParseErrorKind,
        expected: impl Into<Cow<'static, str>>,
    ) -> Fault {
        Fault {
            range: self.range(),
            kind,
            expected: expected.into(),
            mend: None,
        }
    }

    /// Reads decimal digits. Leading zeros are taken, a sign is not.
    pub(crate) fn number(self, max: u64) -> Result<u64, NumberFault> {
        if self.is_empty() {
            return Err(NumberFault::Empty);
        }
        let mut value: u64 = 0;
        for (at, byte) in self.bytes().iter().enumerate() {
            if !byte.is_ascii_digit() {
                return Err(NumberFault::NotADigit { at });
            }
            value = value
                .checked_mul(10)
                .and_then(|v| v.checked_add(u64::from(byte - b'0')))
                .filter(|v| *v <= max)
                .ok_or(NumberFault::TooLarge)?;
        }
        Ok(value)
    }
}

/// Why digits are not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NumberFault {
    Empty,
    NotADigit { at: usize },
    TooLarge,
}

impl Fault {
    /// Proposes to write `text` in place of the fault.
    pub(crate) fn mend_with(self, text: impl Into<String>) -> Self {
        let range = self.range.clone();
        self.mend_at(range, text)
    }

    /// Proposes to write `text` in place of `range`.
    pub(crate) fn mend_at(mut self, range: Range<usize>, text: impl Into<String>) -> Self {
        self.mend = Some((range, text.into()));
        self
    }
}
