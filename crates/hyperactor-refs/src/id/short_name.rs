//! A name as an actor's id holds it: in place where it is short, as most are, so that an id is one allocation. Whether it is
//! a good name is decided in `name.rs`.

use std::cmp::Ordering;

/// What fits beside a tag and a length where a pointer, a length and a word of padding would be.
const BYTES_MAX: usize = 22;

/// A text that does not change.
pub(super) enum ShortName {
    Here { len: u8, bytes: [u8; BYTES_MAX] },
    Elsewhere(Box<str>),
}

impl ShortName {
    pub(super) fn new(name: &str) -> Self {
        let mut bytes = [0; BYTES_MAX];
        match (bytes.get_mut(..name.len()), u8::try_from(name.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(name.as_bytes());
                Self::Here { len, bytes }
            }
            _ => Self::Elsewhere(name.into()),
        }
    }

    /// The text. That it is UTF-8 is checked again where it is in place, which takes a few nanoseconds; comparisons do without.
    pub(super) fn as_str(&self) -> &str {
        // It was made of a text.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Here { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or(bytes),
            Self::Elsewhere(name) => name.as_bytes(),
        }
    }
}

impl PartialEq for ShortName {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for ShortName {}

impl Ord for ShortName {
    /// As texts compare: by their bytes.
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl PartialOrd for ShortName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_every_length_is_the_text_it_was_made_of() {
        for len in 0..=2 * BYTES_MAX {
            let name = "ab\u{e9}\u{4e2d}z"
                .chars()
                .cycle()
                .take(len)
                .collect::<String>();
            let short = ShortName::new(&name);
            assert_eq!(short.as_str(), name);
            assert_eq!(
                matches!(short, ShortName::Here { .. }),
                name.len() <= BYTES_MAX
            );
        }
    }

    #[test]
    fn names_compare_as_their_texts_do_wherever_they_lie() {
        let long = "x".repeat(BYTES_MAX + 1);
        let texts = ["", "a", "a\0", "ab", "b", "\u{e9}", "x", &long];
        for one in texts {
            for other in texts {
                let (a, b) = (ShortName::new(one), ShortName::new(other));
                assert_eq!(a.cmp(&b), one.cmp(other), "{one:?} {other:?}");
                assert_eq!(a == b, one == other, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_name_takes_the_room_of_three_words() {
        assert_eq!(size_of::<ShortName>(), 24);
    }
}
