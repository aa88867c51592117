//! Hashes of ids. An id is hashed once, when it is built, with SipHash-1-3; from then on its hash is a number that a
//! map can take as it is.

use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};

/// The hash of a value under a fixed key: equal in every process of one build, and never written anywhere.
pub(crate) fn hash_of(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Joins the hash of a prefix and a number.
pub(crate) fn join(prefix: u64, number: u64) -> u64 {
    // A multiplication by an odd constant (2^64 / golden ratio) and a fold: the number reaches every bit of the
    // hash, of which maps take the upper seven and the lower ones.
    let mixed = (prefix ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 32)
}

/// A hasher for maps whose keys are [`ActorId`](crate::ActorId), [`PortId`](crate::PortId) or
/// [`Reference`](crate::Reference): it passes on the hash that the key brings along.
///
/// Use it where the keys in the map are of the program's own making. Where a stranger chooses which ids are
/// *inserted*, a map with its own random key (the standard one) is the safer choice: this hash has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Ids never come here. Other keys get a right hash, if not a fast one.
        self.0 = join(self.0, hash_of(bytes));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = if self.0 == 0 {
            hash
        } else {
            join(self.0, hash)
        };
    }
}

/// Makes [`IdHasher`]s: `HashMap<ActorId, V, BuildIdHasher>`.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuildIdHasher;

impl BuildHasher for BuildIdHasher {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher::default()
    }
}
