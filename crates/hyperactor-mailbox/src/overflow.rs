//! What a full queue does, and which messages go first. The queue itself is in `queue.rs`.

/// What a queue does with a message for which it has no room.
///
/// Nothing is dropped in silence: what a queue gives up comes back to its sender as undeliverable, with the reason
/// [`NotDelivered::Shed`](crate::NotDelivered::Shed).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Overflow {
    /// Whoever can wait does: `send`, `feed` and `ask`; a `post` is refused with what to wait for. Senders in other
    /// processes are held back by the credit of their channels, which bounds them instead of the capacity.
    #[default]
    Wait,
    /// Everybody is refused at once, also those that could wait, with
    /// [`NotDelivered::QueueFull`](crate::NotDelivered::QueueFull). The capacity counts the messages of other processes,
    /// too.
    Fail,
    /// The message that waited longest makes room. The capacity counts the messages of other processes, too.
    DropOldest,
    /// The message that has just come is given up. The capacity counts the messages of other processes, too.
    DropNewest,
}

/// Which messages go first. Before both go the signals that end an actor, which wait in no queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Messages of no special kind.
    #[default]
    User,
    /// Messages that go before all others.
    Control,
}
