//! The file name of a proc's socket: a fixed-length encoding of the proc's name. It does not touch the file
//! system.

use sha2::{Digest, Sha256};

/// RFC 4648's base32 alphabet in lower case: unambiguous on file systems that ignore case.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Keeps these digests apart from any other use of the same hash. Part of the format: changing it makes two
/// builds look for each other's sockets in different places.
const DOMAIN: &[u8] = b"hyperactor socket name, version 1\0";

/// Length of a socket's file name in bytes: 26 letters of the digest and the ending `.sock`.
pub const SOCKET_NAME_BYTES: usize = LETTERS + ".sock".len();

/// How many letters of the digest a file's name begins with.
const LETTERS: usize = 26;

/// Returns the file name of the socket of the proc called `name`.
///
/// It is the first 128 bits of a SHA-256 over the name, written in 26 letters and digits, and `.sock`. So every
/// name, however long and whatever it contains (`..`, `/`, NUL, non-ASCII text), becomes a plain file name of
/// 31 bytes that stays inside the directory; two names meet with a probability of about n² / 2¹²⁹, and nobody can make
/// them meet on purpose. The result depends on nothing but the name: builds of different ages agree on it.
///
/// ```
/// let name = hyperactor_bootstrap::socket_name("../../etc/passwd");
/// assert_eq!(name.len(), 31);
/// assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.'));
/// ```
#[must_use]
pub fn socket_name(name: &str) -> String {
    let digest = Sha256::new()
        .chain_update(DOMAIN)
        .chain_update(name.as_bytes())
        .finalize();
    let mut first = [0u8; 16];
    first.copy_from_slice(&digest[..16]);
    let mut text = base32(u128::from_be_bytes(first));
    text.push_str(".sock");
    text
}

/// Writes 128 bits in 26 characters, most significant first; the last character holds three bits.
pub(crate) fn base32(bits: u128) -> String {
    let mut letters = [0u8; 26];
    let mut rest = bits;
    for letter in &mut letters {
        *letter = ALPHABET[(rest >> 123) as usize];
        rest <<= 5;
    }
    // Nothing is lost: the alphabet is ASCII.
    String::from_utf8_lossy(&letters).into_owned()
}

/// The endings of the files that a proc has in the directory: its socket, what it has in hand, its record (of a proc that
/// outlives its host, of one that does not, and of one that is being written).
const ENDINGS: [&str; 5] = [".sock", ".hand", ".proc", ".bye", ".new"];

/// Returns the name of the file with this ending that the proc called `name` has beside its socket.
pub(super) fn file_name(name: &str, ending: &str) -> String {
    let mut file = socket_name(name);
    file.truncate(LETTERS);
    file.push_str(ending);
    file
}

/// Whether a file belongs to a proc, by its name.
pub(super) fn is_of_a_proc(file: &str) -> bool {
    file.split_at_checked(LETTERS)
        .is_some_and(|(letters, ending)| is_base32(letters.as_bytes()) && ENDINGS.contains(&ending))
}

/// Whether a text could have been written by [`base32`], cut to any length.
pub(crate) fn is_base32(text: &[u8]) -> bool {
    text.iter().all(|byte| ALPHABET.contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    // From another implementation of the same description.
    const GOLDEN_WORKER_0: &str = "wh44bzdq5shib5sgmi5hqgczba.sock";
    const GOLDEN_EMPTY: &str = "hu52pou4rkroubldj6arldcp4i.sock";

    #[test]
    fn names_never_change_between_builds() {
        // Golden values: a change here strands procs of different builds from each other.
        assert_eq!(socket_name("worker-0"), GOLDEN_WORKER_0);
        assert_eq!(socket_name(""), GOLDEN_EMPTY);
    }

    #[test]
    fn hostile_names_stay_inside_the_directory() {
        for name in [
            "",
            "..",
            "/",
            "a/../../b",
            "nul\0nul",
            "@abstract",
            "名前",
            &"x".repeat(70_000),
        ] {
            let file = socket_name(name);
            assert_eq!(file.len(), SOCKET_NAME_BYTES, "{name:?}");
            assert!(is_base32(&file.as_bytes()[..26]), "{name:?} became {file}");
        }
    }

    #[test]
    fn every_bit_counts() {
        let all: HashSet<_> = (0..128).map(|bit| base32(1 << bit)).collect();
        assert_eq!(all.len(), 128);
        assert_eq!(base32(0), "a".repeat(26));
    }
}
