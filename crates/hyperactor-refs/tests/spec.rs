//! Reads `docs/spec/address.md` and holds the crate to it: every example, counter-example and table of the page.

#![allow(clippy::unwrap_used)] // A test may unwrap: its panic is its report.

mod page;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use hyperactor_refs::{
    ActorId, BindSpec, ChannelAddr, ChannelTransport, Host, HostPort, Incarnation, Locality,
    ParseError, ParseErrorKind, PortId, ProcId, Reference, UnixAddr,
};
use page::{Page, Row};

/// What a text comes to: its canonical form, or the code of the error.
type Reading = Result<String, &'static str>;

fn read<T: FromStr<Err = ParseError> + Display>(text: &str) -> Reading {
    match text.parse::<T>() {
        Ok(value) => Ok(value.to_string()),
        Err(error) => Err(error.code()),
    }
}

fn read_as(parser: &str, text: &str) -> Reading {
    match parser {
        "channel-addr" => read::<ChannelAddr>(text),
        "bind-spec" => read::<BindSpec>(text),
        "proc-id" => read::<ProcId>(text),
        "actor-id" => read::<ActorId>(text),
        "port-id" => read::<PortId>(text),
        "reference" => read::<Reference>(text),
        "incarnation" => read::<Incarnation>(text),
        "transport" => read::<ChannelTransport>(text),
        other => panic!("the page names the parser `{other}`, which the test does not know"),
    }
}

/// The header of a table of examples: `example: host, as channel-addr `tcp:…:80``.
struct Header<'a> {
    rule: &'a str,
    parser: &'a str,
    template: &'a str,
}

impl<'a> Header<'a> {
    fn of(cell: &'a str, word: &str) -> Option<Self> {
        let rest = cell.strip_prefix(word)?.strip_prefix(": ")?;
        Some(match rest.split_once(", as ") {
            None => Self {
                rule: rest,
                parser: rest,
                template: "…",
            },
            Some((rule, context)) => {
                let (parser, template) = context.split_once(' ').unwrap();
                Self {
                    rule,
                    parser,
                    template: template.trim_matches('`'),
                }
            }
        })
    }

    fn fill(&self, text: &str) -> String {
        self.template.replace('…', text)
    }
}

fn tables<'a>(page: &'a Page, word: &str) -> impl Iterator<Item = (Header<'a>, &'a Row)> {
    page.rows
        .iter()
        .filter_map(move |row| Some((Header::of(&row.headers[0], word)?, row)))
}

#[test]
fn every_example_parses_and_prints_canonically() {
    let page = Page::read();
    let mut count = 0;
    for (header, row) in tables(&page, "example") {
        let (text, canonical) = (header.fill(&row.cells[0]), header.fill(&row.cells[1]));
        assert_eq!(
            read_as(header.parser, &text),
            Ok(canonical.clone()),
            "{text}"
        );
        assert_eq!(read_as(header.parser, &canonical), Ok(canonical), "{text}");
        count += 1;
    }
    assert!(count > 70, "only {count} examples were found");
}

#[test]
fn every_counter_example_is_refused_with_its_code() {
    let page = Page::read();
    let mut count = 0;
    for (header, row) in tables(&page, "counter-example") {
        let text = header.fill(&row.cells[0]);
        assert_eq!(
            read_as(header.parser, &text),
            Err(row.cells[1].as_str()),
            "{text:?}"
        );
        count += 1;
    }
    assert!(count > 90, "only {count} counter-examples were found");
}

#[test]
fn every_rule_has_an_example_and_a_counter_example() {
    let page = Page::read();
    assert!(
        page.rules.len() > 30,
        "only {} rules were found",
        page.rules.len()
    );
    for word in ["example", "counter-example"] {
        let shown: BTreeSet<&str> = tables(&page, word).map(|(header, _)| header.rule).collect();
        let rules: BTreeSet<&str> = page.rules.iter().map(String::as_str).collect();
        assert_eq!(shown, rules, "rules with an {word}, and rules");
    }
}

#[test]
fn every_code_of_an_error_has_a_counter_example() {
    let page = Page::read();
    let shown: BTreeSet<&str> = tables(&page, "counter-example")
        .map(|(_, row)| row.cells[1].as_str())
        .collect();
    let codes: BTreeSet<&str> = ParseErrorKind::ALL.iter().map(|kind| kind.code()).collect();
    assert_eq!(shown, codes);
}

#[test]
fn the_table_of_localities_holds_from_both_sides() {
    let page = Page::read();
    let rows: Vec<_> = page
        .rows
        .iter()
        .filter(|row| row.headers[0] == "frontend")
        .collect();
    assert!(rows.iter().filter(|row| row.cells[2] == "here").count() >= 12);
    for row in rows {
        let frontend: ChannelAddr = row.cells[0].parse().unwrap();
        let addr: ChannelAddr = row.cells[1].parse().unwrap();
        let expected = match row.cells[2].as_str() {
            "here" => Locality::Here,
            "elsewhere" => Locality::Elsewhere,
            "unresolved" => Locality::Unresolved,
            other => panic!("`{other}` is no locality"),
        };
        assert_eq!(addr.locality(&frontend), expected, "{addr} to {frontend}");
        assert_eq!(frontend.locality(&addr), expected, "{frontend} to {addr}");
        assert_eq!(
            addr.is_local_to(&frontend),
            expected == Locality::Here,
            "{addr}"
        );
    }
}

#[test]
#[cfg(target_pointer_width = "64")]
fn the_table_of_sizes_holds() {
    let page = Page::read();
    let rows: Vec<_> = page
        .rows
        .iter()
        .filter(|row| row.headers[0] == "type")
        .collect();
    let sizes = [
        ("ChannelAddr", size_of::<ChannelAddr>()),
        ("BindSpec", size_of::<BindSpec>()),
        ("HostPort", size_of::<HostPort>()),
        ("Host", size_of::<Host>()),
        ("UnixAddr", size_of::<UnixAddr>()),
        ("ChannelTransport", size_of::<ChannelTransport>()),
        ("ProcId", size_of::<ProcId>()),
        ("Arc<ProcId>", size_of::<Arc<ProcId>>()),
        ("ActorId", size_of::<ActorId>()),
        ("PortId", size_of::<PortId>()),
        ("Reference", size_of::<Reference>()),
        ("Incarnation", size_of::<Incarnation>()),
        ("ParseError", size_of::<ParseError>()),
    ];
    assert_eq!(rows.len(), sizes.len());
    for (row, (name, bytes)) in rows.iter().zip(sizes) {
        assert_eq!(
            (row.cells[0].as_str(), row.cells[1].as_str()),
            (name, &*bytes.to_string())
        );
    }
}

#[cfg(feature = "serde")]
mod vectors {
    use std::fmt::{Debug, Write};

    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::*;

    fn check<T>(text: &str, hex: &str)
    where
        T: FromStr<Err = ParseError> + Display + Debug + PartialEq + Serialize + DeserializeOwned,
    {
        let value: T = text.parse().unwrap();
        assert_eq!(value.to_string(), text, "a vector is of the canonical text");
        let bytes = postcard::to_allocvec(&value).unwrap();
        let written = bytes.iter().fold(String::new(), |mut out, byte| {
            write!(out, "{byte:02x}").unwrap();
            out
        });
        assert_eq!(written, hex, "{text}");
        assert_eq!(postcard::from_bytes::<T>(&bytes).unwrap(), value);
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<T>(&json).unwrap(), value);
    }

    #[test]
    fn the_golden_vectors_hold() {
        let page = Page::read();
        let rows: Vec<_> = page
            .rows
            .iter()
            .filter(|row| row.headers[0] == "vector")
            .collect();
        assert!(rows.len() >= 24, "only {} vectors were found", rows.len());
        for row in rows {
            let (text, hex) = (row.cells[1].as_str(), row.cells[2].as_str());
            match row.cells[0].as_str() {
                "ChannelAddr" => check::<ChannelAddr>(text, hex),
                "BindSpec" => check::<BindSpec>(text, hex),
                "ProcId" => check::<ProcId>(text, hex),
                "ActorId" => check::<ActorId>(text, hex),
                "PortId" => check::<PortId>(text, hex),
                "Reference" => check::<Reference>(text, hex),
                "Incarnation" => check::<Incarnation>(text, hex),
                "ChannelTransport" => check::<ChannelTransport>(text, hex),
                other => panic!("`{other}` is no type of a vector"),
            }
        }
    }

    #[test]
    fn a_configuration_may_spell_an_address_as_it_likes() {
        let addr: ChannelAddr = serde_json::from_str("\"tcp://127.1:80\"").unwrap();
        assert_eq!(addr.to_string(), "tcp:127.0.0.1:80");
        let error = serde_json::from_str::<ChannelAddr>("\"tpc:localhost:80\"").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("did you mean `tcp:localhost:80`?"),
            "{error}"
        );
    }

    #[test]
    fn bytes_cannot_make_an_address_that_a_text_cannot() {
        let refused: [(&str, &[u8]); 7] = [
            ("the number 0", &[0, 0]),
            ("an unspecified host", &[1, 0, 0, 0, 0, 0, 80]),
            ("port 0", &[1, 0, 127, 0, 0, 1, 0]),
            ("a host name that is none", &[1, 4, 3, b'a', b' ', b'b', 80]),
            ("a path with a NUL", &[3, 3, b'a', 0, b'b']),
            ("an empty abstract name", &[4, 0]),
            (
                "a path that is longer than there are bytes",
                &[3, 200, b'a'],
            ),
        ];
        for (what, bytes) in refused {
            let decoded = postcard::from_bytes::<ChannelAddr>(bytes);
            assert!(decoded.is_err(), "{what}: {decoded:?}");
        }
        // A spelling that is not canonical is taken, and is the one form then: an IPv4-mapped address.
        let mapped = [&[1, 1][..], &[0; 10], &[0xff, 0xff, 127, 0, 0, 1], &[80]].concat();
        let decoded: ChannelAddr = postcard::from_bytes(&mapped).unwrap();
        assert_eq!(decoded, "tcp:127.0.0.1:80".parse().unwrap());
    }
}
