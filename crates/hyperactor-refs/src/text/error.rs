//! The error of a parse: what was read, where it went wrong, what was expected there, and the nearest valid form.

use std::error::Error;
use std::fmt;
use std::ops::Range;

use super::piece::{Fault, Piece};
use crate::limits::{MAX_ERROR_EXCERPT_BYTES, MAX_SUGGESTION_BYTES};

/// Why a text is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// There is no `scheme:` at the beginning.
    MissingScheme,
    /// The scheme is none of `local`, `tcp`, `tls` and `unix`.
    UnknownScheme,
    /// A number is missing, is not decimal, or is too large.
    BadNumber,
    /// The number of an in-process address is zero, which only a bind specification may say.
    LocalZero,
    /// There is no host.
    MissingHost,
    /// The host is neither an address nor a host name.
    BadHost,
    /// The host looks like an IPv4 address and is none.
    BadIpv4,
    /// The host looks like an IPv6 address and is none.
    BadIpv6,
    /// The zone of an IPv6 address is neither a number nor the name of an interface.
    BadZone,
    /// There is no `:port` behind the host.
    MissingPort,
    /// The port is not a number from 0 to 65535.
    BadPort,
    /// The port is zero, which only a bind specification may say.
    PortZero,
    /// The host is the unspecified address, which only a bind specification may say.
    WildcardHost,
    /// There is nothing behind `unix:`, which only a bind specification may say.
    MissingPath,
    /// The path cannot be the path of a socket.
    BadPath,
    /// The path or the abstract name is longer than the kernel takes.
    PathTooLong,
    /// A name is missing.
    MissingName,
    /// A character has to be written as an escape.
    ReservedCharacter,
    /// A `%` is not followed by two hexadecimal digits.
    BadEscape,
    /// The escapes of a name do not spell UTF-8.
    BadUtf8,
    /// There is no `[index]` behind the name.
    MissingIndex,
    /// The index is not a number below 2^64, or its bracket is not closed.
    BadIndex,
    /// The text goes on behind a complete value.
    TrailingText,
}

impl ParseErrorKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::MissingScheme,
        Self::UnknownScheme,
        Self::BadNumber,
        Self::LocalZero,
        Self::MissingHost,
        Self::BadHost,
        Self::BadIpv4,
        Self::BadIpv6,
        Self::BadZone,
        Self::MissingPort,
        Self::BadPort,
        Self::PortZero,
        Self::WildcardHost,
        Self::MissingPath,
        Self::BadPath,
        Self::PathTooLong,
        Self::MissingName,
        Self::ReservedCharacter,
        Self::BadEscape,
        Self::BadUtf8,
        Self::MissingIndex,
        Self::BadIndex,
        Self::TrailingText,
    ];

    /// A stable word for programs: it does not change when the message does.
    pub const fn code(self) -> &'static str {
        match self {
            Self::MissingScheme => "missing-scheme",
            Self::UnknownScheme => "unknown-scheme",
            Self::BadNumber => "bad-number",
            Self::LocalZero => "local-zero",
            Self::MissingHost => "missing-host",
            Self::BadHost => "bad-host",
            Self::BadIpv4 => "bad-ipv4",
            Self::BadIpv6 => "bad-ipv6",
            Self::BadZone => "bad-zone",
            Self::MissingPort => "missing-port",
            Self::BadPort => "bad-port",
            Self::PortZero => "port-zero",
            Self::WildcardHost => "wildcard-host",
            Self::MissingPath => "missing-path",
            Self::BadPath => "bad-path",
            Self::PathTooLong => "path-too-long",
            Self::MissingName => "missing-name",
            Self::ReservedCharacter => "reserved-character",
            Self::BadEscape => "bad-escape",
            Self::BadUtf8 => "bad-utf8",
            Self::MissingIndex => "missing-index",
            Self::BadIndex => "bad-index",
            Self::TrailingText => "trailing-text",
        }
    }
}

/// A text that is no address, id or reference.
///
/// Its `Display` has the message, the input with carets under the place, and the nearest valid form where one is
/// obvious; `{:#}` says the same in one line:
///
/// ```
/// use hyperactor_refs::ChannelAddr;
///
/// let error = "tpc:localhost:80".parse::<ChannelAddr>().unwrap_err();
/// assert_eq!(error.code(), "unknown-scheme");
/// assert_eq!(error.suggestion(), Some("tcp:localhost:80"));
/// assert_eq!(
///     error.to_string(),
///     "not a channel address: expected one of `local:`, `tcp:`, `tls:` and `unix:`\n  \
///        tpc:localhost:80\n  \
///        ^^^\n  \
///        did you mean `tcp:localhost:80`?"
/// );
/// assert_eq!(
///     format!("{error:#}"),
///     "`tpc:localhost:80` is not a channel address: expected one of `local:`, `tcp:`, `tls:` and `unix:` \
///      at byte 0; did you mean `tcp:localhost:80`?"
/// );
/// ```
///
/// # Bounds
///
/// It keeps at most [`MAX_ERROR_EXCERPT_BYTES`] of the input, and control characters of the input are printed as escapes.
#[derive(Clone, PartialEq, Eq)]
pub struct ParseError(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    kind: ParseErrorKind,
    what: &'static str,
    expected: String,
    at: Range<usize>,
    /// A part of the input and the place in it; `cut_before` and `cut_after` say whether there was more.
    excerpt: String,
    marked: Range<usize>,
    cut_before: bool,
    cut_after: bool,
    suggestion: Option<String>,
}

impl ParseError {
    /// Why the text is refused.
    pub fn kind(&self) -> ParseErrorKind {
        self.0.kind
    }

    /// The kind as a stable word.
    pub fn code(&self) -> &'static str {
        self.0.kind.code()
    }

    /// The place of the fault in the input, in bytes. It is empty where something is missing.
    pub fn range(&self) -> Range<usize> {
        self.0.at.clone()
    }

    /// What was expected at that place.
    pub fn expected(&self) -> &str {
        &self.0.expected
    }

    /// The nearest valid form, in canonical spelling, where one is obvious. It parses.
    pub fn suggestion(&self) -> Option<&str> {
        self.0.suggestion.as_deref()
    }

    /// Makes the error of `fault`, and looks whether its mend gives a value that `retry` can print.
    fn new(
        what: &'static str,
        input: &str,
        fault: Fault,
        retry: impl FnOnce(&str) -> Option<String>,
    ) -> Self {
        let Fault {
            range,
            kind,
            expected,
            mend,
        } = fault;
        let suggestion = mend
            .filter(|(_, text)| input.len() + text.len() <= MAX_SUGGESTION_BYTES)
            .and_then(|(place, text)| {
                let mended = format!("{}{text}{}", &input[..place.start], &input[place.end..]);
                retry(&mended)
            });
        let window = excerpt(input, &range);
        let marked =
            range.start - window.start..range.end.min(window.end).max(range.start) - window.start;
        Self(Box::new(Inner {
            kind,
            what,
            expected: expected.into_owned(),
            at: range,
            excerpt: input[window.clone()].to_owned(),
            marked,
            cut_before: window.start > 0,
            cut_after: window.end < input.len(),
            suggestion,
        }))
    }
}

/// Runs a parser over a whole input; on a fault, makes the error, with the form that its mend gives.
pub(crate) fn run<T: fmt::Display>(
    what: &'static str,
    input: &str,
    parse: impl Fn(Piece<'_>) -> Result<T, Fault>,
) -> Result<T, ParseError> {
    parse(Piece::new(input)).map_err(|fault| {
        let trimmed = input.trim();
        // White space around the text is the likelier fault, whatever the parser met first.
        let fault = if trimmed.len() < input.len() && !trimmed.is_empty() {
            around(input)
        } else {
            fault
        };
        ParseError::new(what, input, fault, |mended| {
            parse(Piece::new(mended))
                .ok()
                .map(|value| value.to_string())
        })
    })
}

/// The fault of white space around the text.
fn around(input: &str) -> Fault {
    let before = input.len() - input.trim_start().len();
    let range = if before > 0 {
        0..before
    } else {
        input.trim_end().len()..input.len()
    };
    Fault {
        range,
        kind: ParseErrorKind::ReservedCharacter,
        expected: "no white space around it".into(),
        mend: Some((0..input.len(), input.trim().to_owned())),
    }
}

/// The bytes of `input` to keep: all of it, or a window around `range`, on character borders.
fn excerpt(input: &str, range: &Range<usize>) -> Range<usize> {
    if input.len() <= MAX_ERROR_EXCERPT_BYTES {
        return 0..input.len();
    }
    let mut start = range.start.saturating_sub(MAX_ERROR_EXCERPT_BYTES / 2);
    while !input.is_char_boundary(start) {
        start += 1;
    }
    let mut end = (start + MAX_ERROR_EXCERPT_BYTES).min(input.len());
    while !input.is_char_boundary(end) {
        end -= 1;
    }
    start..end.max(start)
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            self.0.fmt_line(f)
        } else {
            self.0.fmt_block(f)
        }
    }
}

impl Inner {
    fn fmt_line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (front, back) = self.dots();
        let input = visible(&self.excerpt);
        let (what, expected, at) = (self.what, &self.expected, self.at.start);
        write!(
            f,
            "`{front}{input}{back}` is not {what}: expected {expected} at byte {at}"
        )?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; did you mean `{suggestion}`?"),
            None => Ok(()),
        }
    }

    fn fmt_block(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (front, back) = self.dots();
        let before = visible(&self.excerpt[..self.marked.start]);
        let marked = visible(&self.excerpt[self.marked.clone()]);
        let after = visible(&self.excerpt[self.marked.end..]);
        let indent = 2 + front.chars().count() + columns(&before);
        let carets = "^".repeat(columns(&marked).max(1));
        writeln!(f, "not {}: expected {}", self.what, self.expected)?;
        writeln!(f, "  {front}{before}{marked}{after}{back}")?;
        write!(f, "{:indent$}{carets}", "")?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "\n  did you mean `{suggestion}`?"),
            None => Ok(()),
        }
    }

    /// What stands for the parts of the input that were not kept.
    fn dots(&self) -> (&'static str, &'static str) {
        let dots = |cut| if cut { "…" } else { "" };
        (dots(self.cut_before), dots(self.cut_after))
    }
}

impl fmt::Debug for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParseError")
            .field("code", &self.code())
            .field("what", &self.0.what)
            .field("at", &self.0.at)
            .field("expected", &self.0.expected)
            .field("excerpt", &self.0.excerpt)
            .field("suggestion", &self.0.suggestion)
            .finish()
    }
}

impl Error for ParseError {}

/// Text with control characters and other invisible ones as escapes, so that an input cannot forge lines of a log.
fn visible(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        if c == '\\' || c == '\'' || c == '"' {
            out.push(c);
        } else {
            out.extend(c.escape_debug());
        }
        out
    })
}

/// How many columns a terminal gives to a text: two for the wide scripts, one for the rest.
fn columns(text: &str) -> usize {
    text.chars().map(|c| if is_wide(c) { 2 } else { 1 }).sum()
}

/// The large wide ranges of Unicode's East Asian width table; a caret that is one off in a rare script harms nobody.
fn is_wide(c: char) -> bool {
    matches!(u32::from(c),
        0x1100..=0x115F | 0x2E80..=0xA4CF | 0xAC00..=0xD7A3 | 0xF900..=0xFAFF
        | 0xFE30..=0xFE6F | 0xFF00..=0xFF60 | 0xFFE0..=0xFFE6 | 0x1F300..=0x1FAFF | 0x20000..=0x3FFFD)
}
