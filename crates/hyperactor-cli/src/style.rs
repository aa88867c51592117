//! Colours of the program's own output, and when there are none.

use std::ffi::OsStr;
use std::fmt;
use std::io::IsTerminal;

/// Whether one stream gets colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    coloured: bool,
}

/// What a piece of text is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Look {
    Heading,
    Good,
    Bad,
    Faint,
}

impl Style {
    /// Colours for a terminal that understands them, unless `NO_COLOR` is set to anything but nothing.
    pub(crate) fn of(stream: &impl IsTerminal) -> Self {
        Self::decide(
            stream.is_terminal(),
            std::env::var_os("NO_COLOR").as_deref(),
            std::env::var_os("TERM").as_deref(),
        )
    }

    /// No colours.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { coloured: false }
    }

    fn decide(is_terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> Self {
        let refused = no_color.is_some_and(|value| !value.is_empty());
        let is_dumb = term.is_some_and(|value| value == "dumb");
        Self {
            coloured: is_terminal && !refused && !is_dumb,
        }
    }

    pub(crate) fn is_coloured(self) -> bool {
        self.coloured
    }

    /// `text`, shown as `look`.
    pub(crate) fn paint<T: fmt::Display>(self, look: Look, text: T) -> Painted<T> {
        Painted {
            code: self.coloured.then_some(match look {
                Look::Heading => "1",
                Look::Good => "32",
                Look::Bad => "1;31",
                Look::Faint => "2",
            }),
            text,
        }
    }
}

/// A text with its colour.
pub(crate) struct Painted<T> {
    code: Option<&'static str>,
    text: T,
}

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "\x1b[{code}m{}\x1b[0m", self.text),
            None => self.text.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shows(is_terminal: bool, no_color: Option<&str>, term: Option<&str>) -> bool {
        Style::decide(is_terminal, no_color.map(OsStr::new), term.map(OsStr::new)).coloured
    }

    #[test]
    fn colours_are_for_terminals_whose_user_has_not_refused_them() {
        assert!(shows(true, None, Some("xterm-256color")));
        assert!(shows(true, Some(""), None), "an empty NO_COLOR is unset");
        assert!(!shows(true, Some("1"), Some("xterm")));
        assert!(!shows(true, None, Some("dumb")));
        assert!(!shows(false, None, Some("xterm")));
    }

    #[test]
    fn plain_text_has_no_escape_and_coloured_text_ends_it() {
        assert_eq!(Style::plain().paint(Look::Bad, "no").to_string(), "no");
        let coloured = Style { coloured: true };
        assert_eq!(
            coloured.paint(Look::Good, "yes").to_string(),
            "\x1b[32myes\x1b[0m"
        );
    }
}
