//! Where the stack of a thread is and ends, and how much of it a message may take. When that is looked at is `value`'s matter, and
//! what an error says that of the crate's root.

use std::borrow::Cow;
use std::cell::Cell;
use std::{fs, io};

use crate::limits::{
    DECODE_MARGIN_BYTES, DECODE_SHALLOW_BYTES, DECODE_STACK_BYTES, DECODE_UNKNOWN_STACK_BYTES,
};

/// What stands for it among postcard's errors, which are a closed list: one that nothing else returns.
pub(crate) const TOO_DEEP: postcard::Error = postcard::Error::NotYetImplemented;

/// How deep the stack may be while a message is decoded.
pub(crate) struct Depth {
    /// Where the stack was at the beginning.
    start: usize,
    /// Below this address the stack is too deep, or, at first, so deep that its end must be known.
    floor: usize,
}

impl Depth {
    /// A message begins.
    #[inline]
    pub(crate) fn here() -> Self {
        // Stacks grow downwards wherever Linux runs.
        let start = here();
        Self {
            start,
            floor: start.saturating_sub(DECODE_SHALLOW_BYTES),
        }
    }

    /// Looks whether the stack is too deep by now.
    #[inline(always)]
    pub(crate) fn look(&mut self) -> postcard::Result<()> {
        if here() < self.floor {
            return self.deep();
        }
        Ok(())
    }

    /// Puts the floor where it belongs on this thread's stack. Messages that are not nested never come here.
    #[cold]
    #[inline(never)]
    fn deep(&mut self) -> postcard::Result<()> {
        self.floor = match stack_end() {
            Some(end) => self
                .start
                .saturating_sub(DECODE_STACK_BYTES)
                .max(end.saturating_add(DECODE_MARGIN_BYTES)),
            None => self.start.saturating_sub(DECODE_UNKNOWN_STACK_BYTES),
        };
        if here() < self.floor {
            Err(TOO_DEEP)
        } else {
            Ok(())
        }
    }
}

/// About where the stack is now.
#[inline(always)]
fn here() -> usize {
    let mark = 0_u8;
    std::ptr::from_ref(&mark).addr()
}

/// The lowest address of this thread's stack, if it can be told: asked for once, and again where it could not be asked.
fn stack_end() -> Option<usize> {
    thread_local! {
        static KNOWN: Cell<Option<End>> = const { Cell::new(None) };
    }
    #[derive(Clone, Copy)]
    enum End {
        At(usize),
        Unseen,
    }
    let known = match KNOWN.get() {
        Some(known) => known,
        None => {
            // Without descriptors or without /proc: this message is decoded as on a stack that nobody knows.
            let found = read_stack_end(here()).ok()?;
            let known = found.map_or(End::Unseen, End::At);
            KNOWN.set(Some(known));
            known
        }
    };
    match known {
        End::At(end) => Some(end),
        End::Unseen => None,
    }
}

/// Where the stack that contains the address `at` ends, from what the kernel says of this process.
#[inline(never)]
fn read_stack_end(at: usize) -> io::Result<Option<usize>> {
    let maps = fs::read("/proc/self/maps")?;
    let limits = fs::read("/proc/self/limits")?;
    Ok(end_of_stack(&text(&maps), &text(&limits), at))
}

/// The names of mapped files are any bytes.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// The stack of the first thread grows down to its limit. That of another one is mapped whole, and ends where its guard pages
/// are. Where there are none to be seen, its mapping may be one with its neighbour's, and its end is anywhere.
fn end_of_stack(maps: &str, limits: &str, at: usize) -> Option<usize> {
    let mut guarded = None;
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ')?;
        let (low, high) = range.split_once('-')?;
        let low = usize::from_str_radix(low, 16).ok()?;
        let high = usize::from_str_radix(high, 16).ok()?;
        if (low..high).contains(&at) {
            return if rest.ends_with("[stack]") {
                Some(high.saturating_sub(stack_limit(limits)?))
            } else {
                guarded.filter(|end| *end == low)
            };
        }
        guarded = rest.starts_with("---").then_some(high);
    }
    None
}

/// How far the stack of the first thread may grow, in bytes.
fn stack_limit(limits: &str) -> Option<usize> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max stack size"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        bytes => bytes.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Serialize};

    use super::*;

    /// What is read, or what the error says.
    fn whole<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
        crate::from_bytes(bytes).map_err(|error| error.to_string())
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Tree {
        Leaf,
        Node(Box<Tree>),
    }

    /// The encoding of a tree of so many levels.
    fn tree(levels: usize) -> Vec<u8> {
        let mut bytes = vec![1; levels];
        bytes.push(0);
        bytes
    }

    #[test]
    fn a_value_is_decoded_as_deep_as_the_stack_may_be_and_refused_beyond() {
        let mut decoded = 0;
        let mut levels = 1;
        let error = loop {
            match whole::<Tree>(&tree(levels)) {
                Ok(_) => decoded = levels,
                Err(error) => break error,
            }
            levels *= 2;
            assert!(levels < 10_000_000, "nothing is too deep");
        };
        assert!(decoded >= 128, "{decoded} levels are few");
        assert!(error.contains("nested too deeply"), "{error}");
        // Where it is refused does not depend on what follows.
        assert_eq!(whole::<Tree>(&tree(1_000_000)).unwrap_err(), error);
        assert_eq!(whole::<Tree>(&vec![1; 1_000_000]).unwrap_err(), error);
    }

    /// One of its variants makes the frames of all of them large.
    #[derive(Debug, Serialize, Deserialize)]
    #[expect(clippy::large_enum_variant, reason = "that is what it is for")]
    enum Wide {
        Leaf,
        Node(Box<Wide>),
        Many(Vec<Wide>),
        Large([[[u8; 32]; 32]; 3]),
    }

    /// What `decode` returns on a thread with a stack of so many bytes.
    fn with_stack<R: Send + 'static>(bytes: usize, decode: fn() -> R) -> R {
        let thread = thread::Builder::new().stack_size(bytes).spawn(decode);
        thread.unwrap().join().unwrap()
    }

    #[test]
    fn a_thread_with_a_small_stack_refuses_what_would_overflow_it() {
        for stack in [256 * 1024, 384 * 1024, 512 * 1024] {
            let error = with_stack(stack, || {
                // What fits is decoded, before and after what does not.
                assert!(whole::<Tree>(&tree(32)).is_ok());
                let error = whole::<Tree>(&tree(1_000_000)).unwrap_err();
                assert!(whole::<Tree>(&tree(32)).is_ok());
                error
            });
            assert!(error.contains("nested too deeply"), "{error}");
        }
    }

    #[test]
    fn levels_with_large_frames_are_seen_one_by_one() {
        // Deep from the beginning, and behind as many values side by side as it likes.
        fn refused() {
            let (side, deep) = (vec![0; 200], vec![1; 100_000]);
            let beside = [vec![2, 201, 1], side, deep.clone()].concat();
            for bytes in [deep, beside] {
                let error = whole::<Wide>(&bytes).unwrap_err();
                assert!(error.contains("nested too deeply"), "{error}");
            }
        }
        with_stack(256 * 1024, refused);
        with_stack(2 * 1024 * 1024, refused);
        refused();
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct Chain {
        next: Option<Box<Chain>>,
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct Branches(Vec<Branches>);

    #[derive(Debug, Serialize, Deserialize)]
    struct Names {
        below: std::collections::BTreeMap<u8, Names>,
    }

    #[derive(Debug, Serialize, Deserialize)]
    enum Many {
        End,
        Tuple(u8, Box<Many>),
        Struct { of: (Box<Many>, u8) },
    }

    /// Takes no byte at all for a level, so that no encoding of it ends.
    #[derive(Debug, Serialize, Deserialize)]
    struct Endless(Box<Endless>);

    #[test]
    fn whatever_contains_others_of_its_kind_has_a_bound() {
        fn refused() {
            let ones = vec![1; 1_000_000];
            let pairs = [1, 0x80].repeat(500_000);
            let errors = [
                whole::<Chain>(&ones).unwrap_err(),
                whole::<Branches>(&ones).unwrap_err(),
                whole::<Names>(&ones).unwrap_err(),
                whole::<Many>(&ones).unwrap_err(),
                whole::<Many>(&pairs).unwrap_err(),
                whole::<Many>(&vec![2; 1_000_000]).unwrap_err(),
                whole::<Endless>(&[]).unwrap_err(),
            ];
            for error in errors {
                assert!(error.contains("nested too deeply"), "{error}");
            }
        }
        with_stack(256 * 1024, refused);
        refused();
    }

    #[test]
    fn the_end_of_this_threads_stack_is_found_or_said_to_be_unknown() {
        let (end, at) = with_stack(256 * 1024, || (stack_end(), here()));
        if let Some(end) = end {
            assert!(end < at && at - end <= 256 * 1024, "{end:x} of {at:x}");
        }
    }

    #[test]
    fn a_stack_ends_at_its_guard_or_at_its_limit() {
        let maps = "\
1000-2000 ---p 00000000 00:00 0
2000-9000 rw-p 00000000 00:00 0
9000-a000 rw-p 00000000 00:00 0
b000-c000 ---p 00000000 00:00 0
d000-e000 rw-p 00000000 00:00 0
70000-80000 rw-p 00000000 00:00 0                          [stack]
";
        let limits = "Max data size  unlimited  unlimited  bytes\nMax stack size  131072  unlimited  bytes\n";
        let limited = |at| end_of_stack(maps, limits, at);
        assert_eq!(limited(0x8fff), Some(0x2000));
        assert_eq!(limited(0x9000), None, "no guard below");
        assert_eq!(limited(0xd800), None, "a guard that is another's");
        assert_eq!(limited(0x6_0000), None, "not mapped");
        assert_eq!(limited(0x7_f000), Some(0x6_0000));
        let unlimited = limits.replace("131072", "unlimited");
        assert_eq!(end_of_stack(maps, &unlimited, 0x7_f000), Some(0));
        assert_eq!(end_of_stack(maps, "", 0x7_f000), None);
        assert_eq!(end_of_stack("neither", limits, 0x7_f000), None);
    }

    #[test]
    fn values_of_every_length_are_read_as_postcard_reads_them() {
        type Value = (Vec<u8>, String, u16, Option<String>);
        for length in 0..200 {
            let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let value = (
                bytes,
                "a".repeat(length),
                300_u16,
                Some("b".repeat(length / 2)),
            );
            let mut encoded = postcard::to_stdvec(&value).unwrap();
            assert_eq!(whole::<Value>(&encoded).unwrap(), value);
            for end in 0..encoded.len() {
                assert!(whole::<Value>(&encoded[..end]).is_err());
            }
            encoded.push(0);
            assert_eq!(whole::<Value>(&encoded).unwrap_err(), "1 bytes left over");
        }
    }

    #[test]
    fn many_values_side_by_side_are_not_deep() {
        let values = vec![(1_u8, String::from("a")); 1_000_000];
        let bytes = postcard::to_stdvec(&values).unwrap();
        assert_eq!(whole::<Vec<(u8, String)>>(&bytes).unwrap(), values);
    }
}
