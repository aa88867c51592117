//! The error of a handler or a hook: any error at all, with the chain of its causes kept.

use std::error::Error;
use std::fmt;

/// What a handler, a hook or a `RemoteSpawn::create` returns.
pub type ActorResult<T = ()> = Result<T, ActorError>;

/// Why an actor failed: any error, made by `?` from whatever the handler met.
///
/// It does not implement [`Error`] itself, which is what lets `?` turn every other error into it. Its
/// `Display` shows the whole chain of causes, outermost first, separated by `": "`.
///
/// ```
/// use hyperactor_proc::{ActorError, ActorResult};
///
/// fn parse(text: &str) -> ActorResult<u32> {
///     if text.is_empty() {
///         return Err("the text is empty".into());
///     }
///     text.parse().map_err(|error| ActorError::new(error).context(format!("cannot read {text:?}")))
/// }
///
/// assert_eq!(parse("x").unwrap_err().to_string(), "cannot read \"x\": invalid digit found in string");
/// ```
pub struct ActorError {
    error: Box<dyn Error + Send + Sync>,
}

impl ActorError {
    /// Wraps an error, or a text.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            error: error.into(),
        }
    }

    /// Puts what was being attempted in front of the error.
    #[must_use]
    pub fn context(self, attempt: impl fmt::Display) -> Self {
        Self::new(Attempt {
            attempt: attempt.to_string(),
            source: self.error,
        })
    }

    /// The error and its causes, outermost first.
    pub fn chain(&self) -> impl Iterator<Item = &(dyn Error + 'static)> {
        let first: &(dyn Error + 'static) = self.error.as_ref();
        std::iter::successors(Some(first), |error: &&(dyn Error + 'static)| {
            (*error).source()
        })
    }

    /// The first error of the chain that is an `E`.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.chain().find_map(|error| error.downcast_ref())
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for ActorError {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

impl fmt::Display for ActorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chain = self.chain();
        if let Some(first) = chain.next() {
            write!(f, "{first}")?;
        }
        chain.try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl fmt::Debug for ActorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ActorError")
            .field(&self.to_string())
            .finish()
    }
}

/// An error with what was being attempted when it happened.
#[derive(Debug)]
struct Attempt {
    attempt: String,
    source: Box<dyn Error + Send + Sync>,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.attempt)
    }
}

impl Error for Attempt {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_number(text: &str) -> ActorResult<i32> {
        Ok(text.parse::<i32>()?)
    }

    #[test]
    fn any_error_becomes_an_actor_error_through_the_question_mark() {
        let error = read_number("x").unwrap_err();
        assert!(error.downcast_ref::<std::num::ParseIntError>().is_some());
    }

    #[test]
    fn a_question_mark_on_an_actor_error_keeps_it_as_it_is() {
        fn outer() -> ActorResult<i32> {
            let number = read_number("x")?;
            Ok(number + 1)
        }
        assert_eq!(outer().unwrap_err().chain().count(), 1);
    }

    #[test]
    fn the_text_shows_every_cause_outermost_first() {
        let error = ActorError::from("disk is full")
            .context("write page 3")
            .context("save");
        assert_eq!(error.to_string(), "save: write page 3: disk is full");
        assert_eq!(error.chain().count(), 3);
    }
}
