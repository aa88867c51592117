//! Documents cut into parts between words, the parts shared out among the readers, and reading one part.
//! Also the count in one process, which knows no parts, so that it can prove them right.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::input::{Document, Input};
use crate::words::{self, Counts};
use crate::{embedded, limits};

/// A stretch of one document that begins and ends between words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    source: Source,
    start: u64,
    end: u64,
}

/// Where a part's bytes are, for a process that has the same files and is the same program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Source {
    /// The bytes of an absolute path, which need not be UTF-8.
    File(Vec<u8>),
    /// The number of an embedded document.
    Embedded(u64),
}

/// What each reader reads.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) shares: Vec<Vec<Part>>,
    pub(crate) parts: u64,
    pub(crate) bytes: u64,
}

impl Plan {
    /// Cuts the documents of `input` and gives each of `readers` about as many bytes. Documents that turn
    /// out not to be text leave `input` and are counted there as skipped.
    ///
    /// # Errors
    ///
    /// The file that could not be read.
    pub(crate) fn new(input: &mut Input, readers: usize) -> anyhow::Result<Self> {
        let mut parts = Vec::new();
        let mut documents = Vec::with_capacity(input.documents.len());
        for document in std::mem::take(&mut input.documents) {
            let cut = cut(&document)
                .map_err(|error| anyhow::Error::new(error).context(naming(&document)))?;
            match cut {
                Some(found) => {
                    parts.extend(found);
                    documents.push(document);
                }
                None => input.skipped.binary += 1,
            }
        }
        input.documents = documents;
        Ok(Self::share_out(parts, readers))
    }

    /// Largest first to whoever has least: at most one part away from equal shares.
    fn share_out(mut parts: Vec<Part>, readers: usize) -> Self {
        let mut plan = Self {
            shares: vec![Vec::new(); readers.max(1)],
            parts: parts.len() as u64,
            bytes: parts.iter().map(Part::bytes).sum(),
        };
        let mut load = vec![0_u64; plan.shares.len()];
        parts.sort_by_key(|part| std::cmp::Reverse(part.bytes()));
        for part in parts {
            let least = (0..load.len())
                .min_by_key(|index| load[*index])
                .unwrap_or(0);
            // A part of no bytes counts too, so that many empty files do not all go to one reader.
            load[least] += part.bytes().max(1);
            plan.shares[least].push(part);
        }
        plan
    }
}

impl Part {
    /// Bytes of text.
    pub(crate) fn bytes(&self) -> u64 {
        self.end - self.start
    }

    /// Reads the text. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// What the system said, with the file's name; also when the file became shorter.
    pub(crate) fn read(&self) -> anyhow::Result<Vec<u8>> {
        match &self.source {
            Source::File(path) => {
                let path = PathBuf::from(OsString::from_vec(path.clone()));
                read_file(&path, self.start, self.bytes())
                    .map_err(|error| anyhow::Error::new(error).context(naming_path(&path)))
            }
            Source::Embedded(index) => {
                let range = usize::try_from(self.start)?..usize::try_from(self.end)?;
                usize::try_from(*index)
                    .ok()
                    .and_then(embedded::document)
                    .and_then(|text| text.get(range))
                    .map(<[u8]>::to_vec)
                    .ok_or_else(|| anyhow::anyhow!("this program has no built-in text {index}"))
            }
        }
    }
}

/// Counts the words of all documents, one after the other, in this process and without parts.
///
/// # Errors
///
/// The file that could not be read.
///
/// # Bounds
///
/// Holds one block of text, and the longest run without a gap.
pub(crate) fn count_alone(input: &Input) -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    for document in &input.documents {
        match document {
            Document::Embedded(index) => {
                count_text(&mut counts, embedded::document(*index).unwrap_or_default());
            }
            Document::File { path, bytes, .. } => count_file(&mut counts, path, *bytes)
                .map_err(|error| anyhow::Error::new(error).context(naming_path(path)))?,
        }
    }
    Ok(counts)
}

fn count_text(counts: &mut Counts, text: &[u8]) {
    words::for_each_word(text, |word| words::add(counts, word, 1));
}

fn count_file(counts: &mut Counts, path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::open(path)?.take(bytes);
    let mut text = Vec::new();
    loop {
        let read = file
            .by_ref()
            .take(limits::PART_BYTES)
            .read_to_end(&mut text)?;
        if read == 0 {
            count_text(counts, &text);
            return Ok(());
        }
        // What stands behind the last gap may go on in the next block.
        let whole = text.iter().rposition(|byte| words::is_gap(*byte));
        if let Some(gap) = whole {
            count_text(counts, &text[..gap]);
            text.drain(..=gap);
        }
    }
}

/// The parts of a document; `None` when it has no gap where one is needed.
fn cut(document: &Document) -> io::Result<Option<Vec<Part>>> {
    let (source, bytes, path) = match document {
        Document::Embedded(index) => {
            let text = embedded::document(*index).unwrap_or_default();
            (Source::Embedded(*index as u64), text.len() as u64, None)
        }
        Document::File { path, bytes, .. } => (
            Source::File(path.as_os_str().as_bytes().to_vec()),
            *bytes,
            Some(path),
        ),
    };
    let part = |start, end| Part {
        source: source.clone(),
        start,
        end,
    };
    let Some(path) = path.filter(|_| bytes > limits::PART_BYTES) else {
        return Ok(Some(vec![part(0, bytes)]));
    };
    let mut file = File::open(path)?;
    let mut parts = Vec::new();
    let mut start = 0;
    while start < bytes {
        let wanted = start + limits::PART_BYTES;
        let end = if wanted >= bytes {
            bytes
        } else {
            match gap_from(&mut file, wanted, bytes)? {
                Some(gap) => gap,
                None => return Ok(None),
            }
        };
        parts.push(part(start, end));
        start = end;
    }
    Ok(Some(parts))
}

/// The first gap between words at or behind `from`, or the end of the file.
fn gap_from(file: &mut File, from: u64, bytes: u64) -> io::Result<Option<u64>> {
    const BLOCK: u64 = 4096;
    file.seek(SeekFrom::Start(from))?;
    let mut block = Vec::new();
    let mut at = from;
    while at < bytes && at - from < limits::GAP_BYTES_MAX {
        block.clear();
        let read = file.by_ref().take(BLOCK).read_to_end(&mut block)?;
        if read == 0 {
            break;
        }
        if let Some(found) = block.iter().position(|byte| words::is_gap(*byte)) {
            return Ok(Some((at + found as u64).min(bytes)));
        }
        at += read as u64;
    }
    Ok((at >= bytes).then_some(bytes))
}

fn read_file(path: &Path, start: u64, bytes: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut text = Vec::new();
    file.take(bytes).read_to_end(&mut text)?;
    if (text.len() as u64) < bytes {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the file became shorter while it was counted; run again when nothing writes to it",
        ));
    }
    Ok(text)
}

fn naming(document: &Document) -> String {
    match document {
        Document::File { path, .. } => naming_path(path),
        Document::Embedded(index) => format!("built-in text {index}"),
    }
}

fn naming_path(path: &Path) -> String {
    format!("reading {}", path.display())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn input_of(texts: &[&[u8]]) -> (tempfile::TempDir, Input) {
        let folder = tempfile::tempdir().unwrap();
        for (index, text) in texts.iter().enumerate() {
            fs::write(folder.path().join(format!("{index}.txt")), text).unwrap();
        }
        let input = Input::find(&[folder.path().to_path_buf()]).unwrap();
        (folder, input)
    }

    fn count_by_parts(plan: &Plan) -> Counts {
        let mut counts = Counts::new();
        for part in plan.shares.iter().flatten() {
            count_text(&mut counts, &part.read().unwrap());
        }
        counts
    }

    /// Over two parts long, with words, line ends, foreign letters and broken bytes in every place.
    fn large_text() -> Vec<u8> {
        let mut text = Vec::new();
        let mut number = 0_u64;
        while (text.len() as u64) < 2 * limits::PART_BYTES + 1000 {
            text.extend_from_slice(format!("wört{number}-x_{}\n", number % 97).as_bytes());
            text.push(0xfe);
            number += 1;
        }
        text
    }

    #[test]
    fn counting_by_parts_equals_counting_alone() {
        let text = large_text();
        let (_folder, mut input) = input_of(&[&text, b"", b"one word", b"tail \xc3"]);
        for readers in [1, 2, 3, 7] {
            let plan = Plan::new(&mut input, readers).unwrap();
            assert_eq!(plan.shares.len(), readers);
            assert_eq!(plan.parts, 3 + 3);
            assert_eq!(plan.bytes, text.len() as u64 + 8 + 6);
            let alone = count_alone(&input).unwrap();
            assert!(alone.len() > 1000);
            assert_eq!(
                words::first_difference(&count_by_parts(&plan), &alone),
                None
            );
        }
    }

    #[test]
    fn shares_differ_by_at_most_one_part() {
        let part = |bytes| Part {
            source: Source::Embedded(0),
            start: 0,
            end: bytes,
        };
        let plan = Plan::share_out((0..100).map(part).collect(), 4);
        let loads: Vec<u64> = plan
            .shares
            .iter()
            .map(|share| share.iter().map(Part::bytes).sum())
            .collect();
        let spread = loads.iter().max().unwrap() - loads.iter().min().unwrap();
        assert!(spread <= 99, "{loads:?}");
        let empty = Plan::share_out(vec![part(0); 8], 4);
        assert!(empty.shares.iter().all(|share| share.len() == 2));
    }

    #[test]
    fn a_file_without_any_gap_is_no_text() {
        let run =
            vec![b'a'; usize::try_from(limits::PART_BYTES + limits::GAP_BYTES_MAX + 8192).unwrap()];
        let (_folder, mut input) = input_of(&[&run, b"words"]);
        let plan = Plan::new(&mut input, 2).unwrap();
        assert_eq!((plan.parts, input.skipped.binary), (1, 1));
        assert_eq!(input.documents.len(), 1);
    }

    #[test]
    fn a_run_that_ends_with_the_file_is_one_part() {
        let run = vec![b'a'; usize::try_from(limits::PART_BYTES + 100).unwrap()];
        let (_folder, mut input) = input_of(&[&run]);
        let plan = Plan::new(&mut input, 1).unwrap();
        assert_eq!(plan.parts, 1);
        assert_eq!(
            words::first_difference(&count_by_parts(&plan), &count_alone(&input).unwrap()),
            None
        );
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error_with_its_name() {
        let (folder, mut input) = input_of(&[b"some words here"]);
        let plan = Plan::new(&mut input, 1).unwrap();
        fs::write(folder.path().join("0.txt"), "some").unwrap();
        let error = format!("{:#}", plan.shares[0][0].read().unwrap_err());
        assert!(
            error.contains("0.txt") && error.contains("shorter"),
            "{error}"
        );
    }

    #[test]
    fn embedded_documents_are_read_by_number() {
        let document = Document::Embedded(0);
        let parts = cut(&document).unwrap().unwrap();
        assert_eq!(parts[0].read().unwrap(), embedded::document(0).unwrap());
        let none = Part {
            source: Source::Embedded(9_999),
            start: 0,
            end: 0,
        };
        assert!(none.read().unwrap_err().to_string().contains("9999"));
    }
}
