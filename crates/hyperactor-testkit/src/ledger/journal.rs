//! Evidence that survives `kill -9`: a receiver in another process appends each arrival to a file before
//! it does anything else with the message; the test reads the file into its ledger.
//!
//! One line an arrival, one `write` a line, no buffer: `incarnation sender stream number checksum intact`,
//! numbers in hexadecimal, fields separated by one space.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use super::stamped::{Key, Stamped};

/// Writes down what one life of a receiver takes.
#[derive(Debug)]
pub struct Journal {
    file: File,
    incarnation: u64,
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) incarnation: u64,
    pub(super) key: Key,
    pub(super) checksum: u64,
    pub(super) intact: bool,
}

impl Journal {
    /// Opens a journal for appending; several lives may write to the same one.
    ///
    /// # Errors
    ///
    /// What the system says when the file cannot be opened.
    pub fn open(path: &Path, incarnation: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file, incarnation })
    }

    /// Writes one arrival down. When this returns, the kernel has it: killing the process changes nothing.
    ///
    /// # Errors
    ///
    /// What the system says when it cannot be written.
    pub fn arrived(&self, message: &Stamped) -> io::Result<()> {
        let Key {
            sender,
            stream,
            number,
        } = message.key();
        let line = format!(
            "{:x} {sender:x} {stream:x} {number:x} {:x} {:x}\n",
            self.incarnation,
            message.checksum(),
            u8::from(message.is_intact())
        );
        (&self.file).write_all(line.as_bytes())
    }
}

/// Reads a journal. A last line without its end was being written when the writer died: it is left out.
pub(super) fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let text = std::fs::read_to_string(path)?;
    text.split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'))
        .enumerate()
        .map(|(index, line)| {
            parse(line).ok_or_else(|| {
                let text = format!("{}:{}: `{line}` is no arrival", path.display(), index + 1);
                io::Error::new(io::ErrorKind::InvalidData, text)
            })
        })
        .collect()
}

fn parse(line: &str) -> Option<Entry> {
    let mut fields = line
        .split(' ')
        .map(|field| u64::from_str_radix(field, 16).ok());
    let mut next = || fields.next().flatten();
    let entry = Entry {
        incarnation: next()?,
        key: Key {
            sender: next()?.try_into().ok()?,
            stream: next()?.try_into().ok()?,
            number: next()?,
        },
        checksum: next()?,
        intact: next()? == 1,
    };
    fields.next().is_none().then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TempSocketDir;

    #[test]
    fn what_is_written_is_read_and_a_torn_line_is_left_out() {
        let folder = TempSocketDir::new().unwrap();
        let path = folder.path().join("journal");
        let message = Stamped::new(
            Key {
                sender: 1,
                stream: 2,
                number: 300,
            },
            vec![4],
        );
        let journal = Journal::open(&path, 7).unwrap();
        journal.arrived(&message).unwrap();
        Journal::open(&path, 8).unwrap().arrived(&message).unwrap();
        (&journal.file).write_all(b"7 1 2 12").unwrap();

        let entries = read(&path).unwrap();
        let checksum = message.checksum();
        assert_eq!(
            entries,
            [7, 8].map(|incarnation| Entry {
                incarnation,
                key: message.key(),
                checksum,
                intact: true
            })
        );
    }

    #[test]
    fn a_foreign_line_is_named() {
        let folder = TempSocketDir::new().unwrap();
        let path = folder.path().join("journal");
        for wrong in [
            "1 2 3",
            "1 2 3 4 5 1 1",
            "x 2 3 4 5 1",
            "1 100000000 3 4 5 1",
            "",
        ] {
            std::fs::write(&path, format!("{wrong}\n")).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(&format!(":1: `{wrong}`")), "{error}");
        }
    }
}
