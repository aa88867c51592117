//! Changes of an input, drawn from one seed: bits and bytes, pieces with a meaning for its targets, repeats, cuts, and parts of another input.

/// The longest input that is made. Longer ones show nothing that these do not.
const MAX_INPUT_BYTES: usize = 1024;

/// The generator splitmix64: a counter and a mix, so equal seeds give equal runs everywhere.
///
/// Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if `end` is 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        // The upper half of a product: the bias is below one in four thousand million.
        let wide = u128::from(self.next()) * (end as u128);
        (wide >> 64) as usize
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// A range within `len`, rather short.
    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.below(len + 1);
        let most = if self.below(4) == 0 { len } else { 8 };
        let end = (start + self.below(most + 1)).min(len);
        start..end
    }
}

/// Changes `input` one to four times; `other` lends a part, and `pieces` are worth putting in.
pub(super) fn mutate(input: &mut Vec<u8>, other: &[u8], pieces: &[&[u8]], random: &mut Random) {
    for _ in 0..=random.below(4) {
        change(input, other, pieces, random);
    }
    input.truncate(MAX_INPUT_BYTES);
}

fn change(input: &mut Vec<u8>, other: &[u8], pieces: &[&[u8]], random: &mut Random) {
    let at = random.below(input.len() + 1);
    match random.below(11) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            let new = random.byte();
            if let Some(byte) = input.get_mut(at) {
                *byte = new;
            }
        }
        2 | 3 => {
            let piece: &[u8] = pieces
                .get(random.below(pieces.len()))
                .copied()
                .unwrap_or_default();
            input.splice(at..at, piece.iter().copied());
        }
        4 => {
            let piece: &[u8] = pieces
                .get(random.below(pieces.len()))
                .copied()
                .unwrap_or_default();
            let range = random.range(input.len());
            input.splice(range, piece.iter().copied());
        }
        5 => {
            let range = random.range(input.len());
            input.drain(range);
        }
        6 => {
            let range = random.range(input.len());
            let copy = input[range].to_vec();
            let times = if random.below(16) == 0 {
                1 + random.below(64)
            } else {
                1
            };
            input.splice(at..at, copy.repeat(times));
        }
        7 => input.truncate(at),
        8 => {
            let part = &other[random.range(other.len())];
            let range = random.range(input.len());
            input.splice(range, part.iter().copied());
        }
        9 => {
            // The front of one and the back of the other.
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => {
            let next = if at + 1 < input.len() { at + 1 } else { 0 };
            if at < input.len() {
                input.swap(at, next);
            }
        }
    }
}
