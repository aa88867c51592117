//! Ids and addresses of actors, procs and channels, as values.
