//! How much of its full figures a suite is to reach: fewer where there is less time, more for a soak.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Percent of a suite's full figures, from 1 to 100,000.
///
/// ```
/// use hyperactor_testkit::Scale;
///
/// let scale: Scale = "25".parse()?;
/// assert_eq!((scale.of(200), scale.of(1)), (50, 1));
/// assert_eq!("0".parse::<Scale>().unwrap_err().to_string(), "`0` is no percentage from 1 to 100000");
/// # Ok::<(), hyperactor_testkit::ScaleError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scale(u64);

/// A text that is no scale.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no percentage from 1 to 100000")]
pub struct ScaleError(String);

impl Scale {
    /// The full figures.
    pub const FULL: Self = Self(100);

    /// The number itself.
    #[must_use]
    pub const fn percent(self) -> u64 {
        self.0
    }

    /// A full figure, scaled; at least 1.
    #[must_use]
    pub fn of(self, full: u64) -> u64 {
        (full * self.0 / 100).max(1)
    }
}

impl FromStr for Scale {
    type Err = ScaleError;

    fn from_str(text: &str) -> Result<Self, ScaleError> {
        match text.parse() {
            Ok(percent @ 1..=100_000) => Ok(Self(percent)),
            _ => Err(ScaleError(text.to_owned())),
        }
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
