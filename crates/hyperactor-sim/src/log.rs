//! What happened, in order: a hash of all of it always, the text on request. Fixed columns, time first, so that two
//! runs can be compared with `diff`.

use crate::fault::Nanos;
use crate::rng::mix;

/// The log of one run.
#[derive(Debug, Default)]
pub(crate) struct Log {
    hash: u64,
    lines: u64,
    text: Option<String>,
}

impl Log {
    /// A log that keeps the text, or only its hash.
    pub(crate) fn new(keep_text: bool) -> Self {
        Self {
            text: keep_text.then(String::new),
            ..Self::default()
        }
    }

    /// Adds a line: who, what, and three numbers that depend on what.
    pub(crate) fn line(&mut self, at: Nanos, node: usize, verb: &'static str, numbers: [u64; 3]) {
        self.lines += 1;
        let mut hash = self.hash ^ at;
        for byte in verb.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        for number in [node as u64, numbers[0], numbers[1], numbers[2]] {
            hash = mix(hash ^ number).wrapping_add(0x9E37_79B9_7F4A_7C15);
        }
        self.hash = hash;
        if let Some(text) = &mut self.text {
            use std::fmt::Write;
            let [a, b, c] = numbers;
            let (seconds, nanos) = (at / 1_000_000_000, at % 1_000_000_000);
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{seconds:>4}.{nanos:09}  n{node}  {verb:<12} {a:>8} {b:>8} {c:>8}"
            );
        }
    }

    /// Returns the hash of all lines.
    pub(crate) fn hash(&self) -> u64 {
        mix(self.hash ^ self.lines)
    }

    /// Returns the text, if it was kept.
    pub(crate) fn into_text(self) -> Option<String> {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_tells_any_difference_and_does_not_depend_on_the_text() {
        let make = |keep, last| {
            let mut log = Log::new(keep);
            log.line(1, 0, "post", [1, 2, 3]);
            log.line(2, 1, "deliver", [1, 2, last]);
            log
        };
        assert_eq!(make(true, 3).hash(), make(false, 3).hash());
        assert_ne!(make(false, 3).hash(), make(false, 4).hash());
        let text = make(true, 3).into_text().expect("kept");
        assert_eq!(text.lines().count(), 2);
        assert!(text.starts_with("   0.000000001  n0  post                1        2        3\n"));
    }
}
