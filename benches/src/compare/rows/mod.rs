//! The table of rows, in the order of the targets. Each row's file says what it measures and how.

mod allocations;
mod channel;
mod direct;
mod encode;
mod local;
mod memory;
mod relay;
mod tcp;

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};

use crate::compare::args::Arguments;
use crate::compare::machine;
use crate::compare::row::Row;

/// What a row may know of the run and of the machine.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) is_quick: bool,
    /// Two processors, or the only one twice.
    pub(crate) cores: (usize, usize),
    pub(crate) against: Option<PathBuf>,
    pub(crate) demo: Option<PathBuf>,
    pub(crate) peers: Option<PathBuf>,
}

impl Setting {
    pub(crate) fn new(arguments: &Arguments) -> Result<Self> {
        let given = [&arguments.against, &arguments.demo, &arguments.peers];
        for program in given.into_iter().flatten() {
            if !program.is_file() {
                bail!("{} is no program", program.display());
            }
        }
        Ok(Self {
            is_quick: arguments.quick,
            cores: machine::ends(&machine::cores()?)?,
            against: arguments.against.clone(),
            demo: arguments.demo.clone(),
            peers: arguments.peers.clone(),
        })
    }

    /// Payload bytes of the largest message: with its envelope it fits into the 64 MiB that a message may have.
    pub(crate) fn large(&self) -> usize {
        const ROOM: usize = 4 * 1024;
        (if self.is_quick { 4 } else { 64 }) * MIB - ROOM
    }
}

pub(crate) const MIB: usize = 1024 * 1024;

/// A program of this workspace, if it was built beside this one.
pub(crate) fn beside(name: &str) -> Result<Option<PathBuf>> {
    let path = std::env::current_exe()?.with_file_name(name);
    Ok(path.is_file().then_some(path))
}

/// A row of the table.
pub(crate) struct Entry {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) set_up: fn(&Setting) -> Result<Row>,
}

const fn entry(
    id: &'static str,
    title: &'static str,
    set_up: fn(&Setting) -> Result<Row>,
) -> Entry {
    Entry { id, title, set_up }
}

pub(crate) const TABLE: &[Entry] = &[
    entry("a1", "same proc, 64 bytes, one to one", local::one_to_one),
    entry("a2", "same proc, 64 bytes, four to one", local::four_to_one),
    entry("a3", "same proc, ping-pong by messages", local::ping_pong),
    entry("ask", "same proc, request and reply", local::ask),
    entry("b1", "direct, small typed messages", direct::small),
    entry(
        "b2",
        "channel, 64-byte frames posted one by one",
        channel::posts,
    ),
    entry("b3", "direct, round trip after idling", direct::idle),
    entry("b4", "direct, hot round trip with a free core", direct::hot),
    entry(
        "b5",
        "direct, hot round trip without a free core",
        direct::crowded,
    ),
    entry("b7", "direct, large parts", direct::large),
    entry("c1", "relay against direct", relay::against_direct),
    entry(
        "c2",
        "relay, small messages beside large ones",
        relay::beside_large,
    ),
    entry("d1", "TCP", tcp::against_direct),
    entry("s1", "bytes of an envelope", encode::envelope),
    entry("memory", "memory at rest", memory::at_rest),
    entry("allocations", "allocations a message", allocations::each),
];

/// The rows of these names; all for none.
pub(crate) fn choose(names: &[String]) -> Result<Vec<&'static Entry>> {
    if names.is_empty() {
        return Ok(TABLE.iter().collect());
    }
    let find = |name: &String| {
        let found = TABLE.iter().find(|entry| entry.id == name);
        found.ok_or_else(|| {
            let known: Vec<_> = TABLE.iter().map(|entry| entry.id).collect();
            anyhow!("no row `{name}`; there are: {}", known.join(", "))
        })
    };
    names.iter().map(find).collect()
}

/// The rows, for the command line's help.
pub(crate) fn help() -> String {
    TABLE.iter().fold("Rows:".to_owned(), |text, entry| {
        text + &format!("\n  {:<12} {}", entry.id, entry.title)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_chosen_by_name_and_an_unknown_one_is_refused() {
        assert_eq!(choose(&[]).unwrap().len(), TABLE.len());
        let chosen = choose(&["c1".to_owned(), "a1".to_owned()]).unwrap();
        assert_eq!(chosen[0].id, "c1");
        let error = choose(&["z9".to_owned()]).err().unwrap().to_string();
        assert!(error.contains("z9") && error.contains("memory"), "{error}");
    }
}
