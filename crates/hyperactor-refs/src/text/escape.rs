//! Percent-escapes, the same for names, paths and abstract names: which characters stand for themselves, how every
//! other byte is written, and how both are read. The table of plain characters is part of the grammar.

use std::borrow::Cow;
use std::fmt;

use super::error::ParseErrorKind;
use super::piece::{Fault, Piece};

/// What an empty name is written as: an escape that stands for no byte at all, so that a name that somebody forgot
/// is not mistaken for one that is empty on purpose.
pub(crate) const EMPTY: &str = "%-";

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Characters that stand for themselves: letters, digits and `- . _ ~ : / + =`.
///
/// Every other ASCII character is written as an escape, so that the grammar can give it a meaning later.
pub(crate) const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(b, b'-' | b'.' | b'_' | b'~' | b':' | b'/' | b'+' | b'=');
        byte += 1;
    }
    table
};

/// Prints bytes with every byte that is not plain as `%XX`, upper case.
pub(crate) struct Escaped<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while !rest.is_empty() {
            let run = rest
                .iter()
                .position(|b| !PLAIN[usize::from(*b)])
                .unwrap_or(rest.len());
            let (plain, tail) = rest.split_at(run);
            // Plain bytes are ASCII, so this never takes the second arm.
            f.write_str(std::str::from_utf8(plain).unwrap_or_default())?;
            rest = tail;
            if let Some((byte, tail)) = rest.split_first() {
                let escape = [
                    b'%',
                    HEX[usize::from(byte >> 4)],
                    HEX[usize::from(byte & 15)],
                ];
                f.write_str(std::str::from_utf8(&escape).unwrap_or_default())?;
                rest = tail;
            }
        }
        Ok(())
    }
}

/// Prints a name: escaped, and the empty one as [`EMPTY`].
pub(crate) struct EscapedName<'a>(pub(crate) &'a str);

impl fmt::Display for EscapedName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str(EMPTY)
        } else {
            Escaped(self.0.as_bytes()).fmt(f)
        }
    }
}

/// Reads escaped bytes. Borrows where nothing is escaped.
pub(crate) fn unescape(piece: Piece<'_>) -> Result<Cow<'_, [u8]>, Fault> {
    let bytes = piece.bytes();
    let Some(first) = bytes.iter().position(|b| !PLAIN[usize::from(*b)]) else {
        return Ok(Cow::Borrowed(bytes));
    };
    let mut out = Vec::with_capacity(bytes.len());
    out.extend_from_slice(&bytes[..first]);
    let mut at = first;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte == b'%' {
            out.push(escaped_byte(piece, at)?);
            at += 3;
        } else if PLAIN[usize::from(byte)] {
            out.push(byte);
            at += 1;
        } else {
            let char = piece.char_at(at);
            if !is_raw(char.text()) {
                return Err(refused_char(piece, char));
            }
            out.extend_from_slice(char.bytes());
            at += char.bytes().len();
        }
    }
    Ok(Cow::Owned(out))
}

/// Reads an escaped name. The empty piece is a fault; [`EMPTY`] is the empty name.
pub(crate) fn unescape_name<'a>(piece: Piece<'a>, whose: &str) -> Result<Cow<'a, str>, Fault> {
    if piece.is_empty() {
        return Err(piece.fault(ParseErrorKind::MissingName, format!("the {whose}'s name")));
    }
    if piece.text() == EMPTY {
        return Ok(Cow::Borrowed(""));
    }
    match unescape(piece)? {
        // What was borrowed is a part of a `str`, and whole characters of it.
        Cow::Borrowed(_) => Ok(Cow::Borrowed(piece.text())),
        Cow::Owned(bytes) => String::from_utf8(bytes)
            .map(Cow::Owned)
            .map_err(|_| piece.fault(ParseErrorKind::BadUtf8, "escapes that spell UTF-8")),
    }
}

/// Characters beyond ASCII may stand for themselves in an input, unless nobody can see them.
fn is_raw(char: &str) -> bool {
    char.chars()
        .all(|c| !c.is_ascii() && !c.is_whitespace() && !c.is_control())
}

fn escaped_byte(piece: Piece<'_>, at: usize) -> Result<u8, Fault> {
    let digits = piece.bytes().get(at + 1..at + 3);
    if let Some([high, low]) = digits
        && let (Some(high), Some(low)) = (hex(*high), hex(*low))
    {
        return Ok(high << 4 | low);
    }
    let percent = piece.char_at(at);
    Err(percent
        .fault(ParseErrorKind::BadEscape, "`%` and two hexadecimal digits")
        .mend_with("%25"))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|d| u8::try_from(d).ok())
}

/// Proposes the piece with every character that needs it escaped; escapes that are there stay.
fn refused_char(piece: Piece<'_>, char: Piece<'_>) -> Fault {
    let mut mended = String::new();
    for c in piece.text().chars() {
        let mut buffer = [0; 4];
        let text: &str = c.encode_utf8(&mut buffer);
        if c == '%' || is_raw(text) {
            mended.push(c);
        } else {
            mended.push_str(&Escaped(text.as_bytes()).to_string());
        }
    }
    let expected = format!("`{}` in place of {:?}", Escaped(char.bytes()), char.text());
    char.fault(ParseErrorKind::ReservedCharacter, expected)
        .mend_at(piece.range(), mended)
}
