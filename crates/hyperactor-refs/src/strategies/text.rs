//! Strategies for texts: names, kind and hostile; other spellings of an address; and texts that are nearly valid.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{any_channel_addr, any_reference};
use crate::addr::{ChannelAddr, Host};
use crate::text::pieces::PIECES;

/// A name as people give them: a letter, then letters, digits and `_`. It prints as it is. Simplest: `a`.
pub fn ordinary_name() -> BoxedStrategy<String> {
    let rest = select(b"abcdefghijklmnopqrstuvwxyz0123456789_".to_vec());
    (proptest::char::range('a', 'z'), vec(rest, 0..12))
        .prop_map(|(first, rest)| {
            std::iter::once(first)
                .chain(rest.into_iter().map(char::from))
                .collect()
        })
        .boxed()
}

/// Names that a grammar of commas and brackets could break on: empty, with every character that means something, all
/// digits, whole ids, escapes, control characters, beyond ASCII, and up to some 300 bytes. Simplest: `a`.
pub fn hostile_name() -> BoxedStrategy<String> {
    let samples = NAMES
        .iter()
        .map(|name| (*name).to_owned())
        .collect::<Vec<_>>();
    let pieces = select(PIECES.to_vec());
    prop_oneof![
        Just("a".to_owned()),
        select(samples),
        vec(pieces, 1..12).prop_map(|pieces| pieces.concat()),
        vec(any::<char>(), 0..75).prop_map(String::from_iter),
        (proptest::char::range('a', 'z'), 250..=300usize)
            .prop_map(|(c, n)| c.to_string().repeat(n)),
    ]
    .boxed()
}

/// An ordinary name or a hostile one. Simplest: `a`.
pub fn any_name() -> BoxedStrategy<String> {
    prop_oneof![ordinary_name(), hostile_name()].boxed()
}

const NAMES: &[&str] = &[
    "a",
    "0",
    "",
    "18446744073709551616",
    ",",
    "[0]",
    "[0][1234]",
    "a,b",
    "%",
    "%-",
    "%2C",
    "%zz",
    "@",
    "!",
    " ",
    " a",
    "a ",
    "a\n",
    "\0",
    "\u{7f}",
    "unix:@abc123,service,actor[0]",
    "../../etc",
    "\u{202e}\u{200b}",
    "grüße",
    "名前",
    "\u{1f3ad}",
    "-",
    "\"",
    "\\",
];

/// A text that is an address but for up to three slips: a character lost, doubled, swapped or put in between, or the end
/// cut off. It may still be valid. Simplest: `local:1`.
pub fn nearly_an_address() -> BoxedStrategy<String> {
    nearly(
        any_channel_addr()
            .prop_flat_map(|addr| spelling_of(&addr))
            .boxed(),
    )
}

/// The same of the text of a proc, actor or port id. Simplest: `local:1,a`.
pub fn nearly_a_reference() -> BoxedStrategy<String> {
    nearly(
        any_reference()
            .prop_map(|reference| reference.to_string())
            .boxed(),
    )
}

fn nearly(text: BoxedStrategy<String>) -> BoxedStrategy<String> {
    (text, vec((any::<Index>(), any_slip()), 0..=3))
        .prop_map(|(text, slips)| {
            let mut chars: Vec<char> = text.chars().collect();
            for (place, slip) in slips {
                slip.apply(&mut chars, place);
            }
            chars.into_iter().collect()
        })
        .boxed()
}

/// One slip of a hand that writes an address.
#[derive(Clone, Debug)]
enum Slip {
    Lose,
    Double,
    Swap,
    Put(&'static str),
    Cut,
}

fn any_slip() -> impl Strategy<Value = Slip> {
    prop_oneof![
        Just(Slip::Lose),
        Just(Slip::Double),
        Just(Slip::Swap),
        select(PIECES.to_vec()).prop_map(Slip::Put),
        Just(Slip::Cut),
    ]
}

impl Slip {
    fn apply(&self, chars: &mut Vec<char>, place: Index) {
        if chars.is_empty() {
            return;
        }
        let at = place.index(chars.len());
        match self {
            Self::Lose => {
                chars.remove(at);
            }
            Self::Double => chars.insert(at, chars[at]),
            Self::Swap => {
                let next = (at + 1) % chars.len();
                chars.swap(at, next);
            }
            Self::Put(piece) => {
                chars.splice(at..at, piece.chars());
            }
            Self::Cut => chars.truncate(at),
        }
    }
}

/// Other spellings of one address: URL, upper-case scheme, leading zeros, long and mapped forms of IP addresses,
/// doubled slashes. All parse to the address. Simplest: its canonical text.
pub fn spelling_of(addr: &ChannelAddr) -> BoxedStrategy<String> {
    let scheme = addr.transport().scheme();
    let schemes = match addr {
        ChannelAddr::Local(_) => vec![scheme.to_owned(), "LOCAL".into(), "inproc".into()],
        _ => vec![scheme.to_owned(), scheme.to_uppercase()],
    };
    let canonical = addr.to_string();
    let rest = canonical[scheme.len() + 1..].to_owned();
    let (rests, url_rests) = match addr {
        ChannelAddr::Local(number) => {
            let rests = vec![rest, format!("00{number}")];
            (rests.clone(), rests)
        }
        ChannelAddr::Tcp(at) | ChannelAddr::Tls(at) => {
            let mut rests = vec![rest, format!("{}:000{}", bracketed(at.host()), at.port())];
            rests.extend(
                host_spellings(at.host())
                    .into_iter()
                    .map(|host| format!("{host}:{}", at.port())),
            );
            // In a URL the `%` of a zone is an escape itself.
            let urls = rests.iter().map(|rest| rest.replace('%', "%25")).collect();
            (rests, urls)
        }
        ChannelAddr::Unix(unix) if unix.as_path_bytes().is_some_and(|path| path[0] != b'/') => {
            // A relative path has no URL.
            return select(vec![rest.clone(), format!(".//./{rest}")])
                .prop_map(move |rest| format!("unix:{rest}"))
                .boxed();
        }
        ChannelAddr::Unix(unix) => {
            let other = match unix.as_abstract() {
                Some(name) => format!(
                    "@{}",
                    name.iter().map(|b| format!("%{b:02x}")).collect::<String>()
                ),
                None => format!("/.{rest}"),
            };
            let rests = vec![rest, other];
            (rests.clone(), rests)
        }
    };
    let plain =
        (select(schemes.clone()), select(rests)).prop_map(|(s, rest)| format!("{s}:{rest}"));
    let url = (select(schemes), select(url_rests)).prop_map(|(s, rest)| format!("{s}://{rest}"));
    prop_oneof![plain, url].boxed()
}

fn bracketed(host: &Host) -> String {
    match host {
        Host::V6(scoped) => format!("[{scoped}]"),
        Host::V4(_) | Host::Name(_) => host.to_string(),
    }
}

fn host_spellings(host: &Host) -> Vec<String> {
    match host {
        Host::V4(addr) => {
            let [a, b, c, d] = addr.octets();
            let low = u32::from_be_bytes([0, b, c, d]);
            vec![
                format!("[::ffff:{addr}]"),
                format!("[::FFFF:{a:02X}{b:02X}:{c:02X}{d:02X}]"),
                format!("{a}.{low}"),
                format!("0x{:X}", addr.to_bits()),
                addr.to_bits().to_string(),
            ]
        }
        Host::V6(scoped) => {
            let groups = scoped
                .addr()
                .segments()
                .map(|group| format!("{group:04X}"))
                .join(":");
            let zone = scoped
                .zone()
                .map(|zone| format!("%{zone}"))
                .unwrap_or_default();
            vec![format!("[{groups}{zone}]")]
        }
        Host::Name(name) => vec![name.as_str().to_uppercase()],
    }
}
