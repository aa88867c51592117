//! What a run is given, and how it draws its choices.

use hyperactor_testkit::{Rng, Scale, Seed};

pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What a run is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    pub(crate) seed: Seed,
    pub(crate) scale: Scale,
}

impl Context {
    /// A figure, scaled; at least one.
    pub(crate) fn scaled(&self, full: u64) -> u64 {
        self.scale.of(full)
    }
}

/// A generator whose choices do not shift with how many this one makes later.
pub(crate) fn another(rng: &mut Rng) -> Rng {
    Seed::new(rng.next_u64()).rng()
}
