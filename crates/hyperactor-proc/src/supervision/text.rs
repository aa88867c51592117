//! Texts of others in a report: cut to a length, and kept in one line.

use std::fmt::{self, Write};

/// Prints with what would begin a new line, or move a terminal's cursor, as a space.
pub(crate) struct OneLine<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Flat(f), "{}", self.0)
    }
}

struct Flat<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Flat<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut lines = text.split(|c: char| c.is_control() || c == '\u{2028}' || c == '\u{2029}');
        if let Some(first) = lines.next() {
            self.0.write_str(first)?;
        }
        lines.try_for_each(|line| {
            self.0.write_char(' ')?;
            self.0.write_str(line)
        })
    }
}

/// The first `max` bytes of a text, with a mark if something is left out.
pub(crate) fn clipped(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_text_holds_it_stays_in_one_line() {
        let text = OneLine("a\nb\r\tc\u{1b}[2Jd\u{2028}e").to_string();
        assert_eq!(text, "a b  c [2Jd e");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(clipped("äöü", 3), "ä…");
        assert_eq!(clipped("äöü", 6), "äöü");
    }
}
