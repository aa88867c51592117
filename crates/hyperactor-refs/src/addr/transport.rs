//! The kinds of channel, by the word that begins an address.

use std::fmt;
use std::str::FromStr;

use crate::text::error::{ParseError, ParseErrorKind, run};

/// A kind of channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ChannelTransport {
    /// Within one process.
    Local,
    /// TCP, in plain text.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// A Unix stream socket.
    Unix,
}

impl ChannelTransport {
    /// Every transport, in the order of their addresses.
    pub const ALL: [Self; 4] = [Self::Local, Self::Tcp, Self::Tls, Self::Unix];

    /// The scheme of its addresses, without the colon.
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Unix => "unix",
        }
    }
}

impl FromStr for ChannelTransport {
    type Err = ParseError;

    /// Reads a scheme, as in `tcp`.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        run("a transport", text, |whole| {
            let known = Self::ALL
                .into_iter()
                .find(|t| whole.text().eq_ignore_ascii_case(t.scheme()));
            known.ok_or_else(|| {
                whole.fault(
                    ParseErrorKind::UnknownScheme,
                    "one of `local`, `tcp`, `tls` and `unix`",
                )
            })
        })
    }
}

impl fmt::Display for ChannelTransport {
    /// The scheme, as in `tcp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.scheme())
    }
}

/// The body of the fuzz target for [`ChannelTransport`].
#[cfg(any(feature = "fuzzing", test))]
pub fn fuzz_transport(data: &[u8]) -> crate::fuzzing::Seen {
    crate::fuzzing::check_text::<ChannelTransport>(data)
}
