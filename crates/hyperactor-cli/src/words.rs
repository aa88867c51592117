//! Words: where they begin and end, who owns them, and counting them in one process.
//! Knows neither files nor actors.

use std::collections::HashMap;

use crate::limits::WORD_BYTES_MAX;

/// How often each word was seen.
pub(crate) type Counts = HashMap<Box<str>, u64>;

/// Calls `each` for every word of `text`, in lower case.
///
/// A word is a run of letters and digits. Bytes that are not UTF-8 stand between words. A run longer than
/// [`WORD_BYTES_MAX`] is several words.
pub(crate) fn for_each_word(text: &[u8], mut each: impl FnMut(&str)) {
    let mut lower = String::new();
    for chunk in text.utf8_chunks() {
        for run in chunk.valid().split(|c: char| !c.is_alphanumeric()) {
            let mut rest = run;
            while !rest.is_empty() {
                let (word, behind) = rest.split_at(rest.floor_char_boundary(WORD_BYTES_MAX));
                rest = behind;
                if word.bytes().all(is_plain) {
                    each(word);
                } else {
                    lower.clear();
                    lower.extend(word.chars().flat_map(char::to_lowercase));
                    each(&lower);
                }
            }
        }
    }
}

/// Adds one occurrence of `word`; allocates only for a word that is new.
pub(crate) fn add(counts: &mut Counts, word: &str, times: u64) {
    match counts.get_mut(word) {
        Some(seen) => *seen += times,
        None => {
            counts.insert(word.into(), times);
        }
    }
}

/// Which of `owners` reduces `word`. The same in every process of every build.
///
/// 64-bit FNV-1a (Fowler, Noll, Vo), then the high half is folded in, since the low bits alone are the
/// weakest of that hash.
pub(crate) fn owner_of(word: &str, owners: usize) -> usize {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in word.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    let folded = (hash ^ (hash >> 32)) % (owners.max(1) as u64);
    usize::try_from(folded).unwrap_or(0)
}

/// True for a byte that ends any word, whatever stands beside it: it is ASCII, so it is no part of a
/// longer character, and it is no letter or digit.
pub(crate) fn is_gap(byte: u8) -> bool {
    byte.is_ascii() && !byte.is_ascii_alphanumeric()
}

/// The commonest words, the commonest first; words seen equally often in the order of their letters.
pub(crate) fn commonest(counts: &Counts, most: usize) -> Vec<(String, u64)> {
    let mut all: Vec<(&str, u64)> = counts.iter().map(|(word, n)| (&**word, *n)).collect();
    let order = |a: &(&str, u64), b: &(&str, u64)| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0));
    if all.len() > most && most > 0 {
        all.select_nth_unstable_by(most - 1, order);
    }
    all.truncate(most);
    all.sort_unstable_by(order);
    all.into_iter()
        .map(|(word, n)| (word.to_owned(), n))
        .collect()
}

/// The first word, in the order of letters, on which two counts differ: `(word, in a, in b)`.
pub(crate) fn first_difference(a: &Counts, b: &Counts) -> Option<(String, u64, u64)> {
    let seen = |counts: &Counts, word: &str| counts.get(word).copied().unwrap_or(0);
    a.keys()
        .chain(b.keys())
        .filter(|word| seen(a, word) != seen(b, word))
        .min()
        .map(|word| (word.to_string(), seen(a, word), seen(b, word)))
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        for_each_word(text, |word| found.push(word.to_owned()));
        found
    }

    fn counts(pairs: &[(&str, u64)]) -> Counts {
        pairs.iter().map(|(word, n)| ((*word).into(), *n)).collect()
    }

    #[test]
    fn words_are_runs_of_letters_and_digits_in_lower_case() {
        assert_eq!(
            words("Fn main() { let x2 = ÄRGER_und-mehr; }".as_bytes()),
            ["fn", "main", "let", "x2", "ärger", "und", "mehr"]
        );
        assert_eq!(words(b""), [""; 0]);
        assert_eq!(words(b" \n\t.,;"), [""; 0]);
    }

    #[test]
    fn bytes_that_are_not_utf8_stand_between_words() {
        assert_eq!(words(b"ab\xff\xfecd \xc3"), ["ab", "cd"]);
        assert_eq!(words(b"ab\xe2\x82"), ["ab"], "a character that is cut off");
    }

    #[test]
    fn a_long_run_is_several_words_and_is_never_cut_inside_a_character() {
        let run = "ß".repeat(WORD_BYTES_MAX);
        let found = words(run.as_bytes());
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|word| word.len() <= WORD_BYTES_MAX));
        assert_eq!(found.concat(), run);
        let odd = format!("a{run}");
        assert_eq!(words(odd.as_bytes()).concat(), odd);
    }

    #[test]
    fn owners_share_the_words_evenly_and_always_alike() {
        let mut shares = [0_u32; 4];
        for number in 0..4_000 {
            shares[owner_of(&format!("word{number}"), 4)] += 1;
        }
        assert!(
            shares.iter().all(|share| (800..1_200).contains(share)),
            "{shares:?}"
        );
        assert_eq!(owner_of("anything", 1), 0);
        // Pinned: two builds of the program must agree.
        assert_eq!(
            ["actor", "the", "ärger"].map(|word| owner_of(word, 4)),
            [3, 1, 1]
        );
        assert_eq!(owner_of("", 0), 0);
    }

    #[test]
    fn the_commonest_words_come_first_and_ties_are_in_order() {
        let all = counts(&[("b", 2), ("a", 2), ("z", 9), ("m", 1)]);
        let top = |most| {
            commonest(&all, most)
                .into_iter()
                .map(|(word, _)| word)
                .collect::<String>()
        };
        assert_eq!(top(3), "zab");
        assert_eq!(top(10), "zabm");
        assert_eq!(top(1), "z");
        assert_eq!(top(0), "");
    }

    #[test]
    fn the_first_difference_names_the_word_and_both_counts() {
        let a = counts(&[("a", 1), ("b", 2), ("c", 3)]);
        assert_eq!(first_difference(&a, &a.clone()), None);
        let b = counts(&[("a", 1), ("b", 5)]);
        assert_eq!(first_difference(&a, &b), Some(("b".into(), 2, 5)));
        let missing = counts(&[("b", 2), ("c", 3)]);
        assert_eq!(first_difference(&a, &missing), Some(("a".into(), 1, 0)));
        assert_eq!(first_difference(&missing, &a), Some(("a".into(), 0, 1)));
    }

    #[test]
    fn every_gap_separates_words() {
        for byte in 0..=u8::MAX {
            let text = [b'a', byte, b'b'];
            if is_gap(byte) {
                assert_eq!(words(&text), ["a", "b"], "byte {byte}");
            }
        }
        assert!(!is_gap(b'7') && !is_gap(b'q') && !is_gap(0xc3) && is_gap(b'\n'));
    }
}
