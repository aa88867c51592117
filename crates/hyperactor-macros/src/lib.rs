//! Derives for messages and actors.
