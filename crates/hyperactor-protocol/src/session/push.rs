//! How messages enter a session: straight into the log, or into the lane of their label until it is their turn.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::Session;
use crate::lanes::{Amount, Gate, Waiting, free_of};
use crate::life::Life;
use crate::limits::{AHEAD_BYTES, AHEAD_MESSAGES, AHEAD_REST, DATA_HEADER_BYTES};
use crate::outbox::{Pushed, Sizes};
use crate::pieces::{Pieces, SharedParts};
use crate::{Cause, DataFlags, Event, Label, PostId};

/// Why a message was not taken into a session.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PushError<E> {
    /// The session, or the message's label, holds as much as it may. [`Event::Room`] tells when there is room.
    #[error("the session holds as many unresolved messages or bytes as it may")]
    Full,
    /// The session is closed or closing.
    #[error("the session is closed")]
    Closed,
    /// This message is larger than both sides take; others are not affected.
    #[error("{size} bytes are more than the {max} of the largest message")]
    TooLarge {
        /// The encoded size, bytes.
        size: u64,
        /// The largest message, bytes.
        max: u64,
    },
    /// The message names a label that this session did not give; others are not affected.
    #[error("the session gave no label {label}")]
    UnknownLabel {
        /// The label.
        label: Label,
    },
    /// The encoder failed; others are not affected.
    #[error("the message could not be encoded")]
    Encode(E),
    /// The encoder changed bytes that were not its own: the session has failed with [`Cause::Damaged`].
    #[error("the encoder damaged the session's log")]
    Damaged,
}

/// What goes with a message besides what its encoder writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// What is asked for.
    pub flags: DataFlags,
    /// Where it goes: messages with the same label arrive in the order posted, those without one too.
    pub to: Label,
    /// Whom it is from.
    pub from: Label,
    /// How many bytes the encoder will probably write; a good guess keeps the log from moving.
    pub room: usize,
    /// The end of the body, which is not copied when it is large.
    pub shared: Bytes,
}

/// How many messages as the last one may enter the log before their limits are looked at again: those with these labels and with
/// numbers below this one, while fewer body bytes of the session than this come before them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ahead {
    to: Label,
    from: Label,
    below: Amount,
    /// From this number on it is worth looking.
    look_at: u64,
}

impl Session {
    /// Appends a message: `encode` writes its body to the end of the log.
    ///
    /// As [`push`](Self::push), without labels.
    ///
    /// # Errors
    ///
    /// Each concerns this message alone, except [`PushError::Damaged`].
    pub fn push_with<E>(
        &mut self,
        flags: DataFlags,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), E>,
    ) -> Result<PostId, PushError<E>> {
        let outgoing = Outgoing {
            flags,
            ..Outgoing::default()
        };
        self.push(outgoing, encode)
    }

    /// Appends a message whose body is what `encode` writes followed by `shared`.
    ///
    /// As [`push`](Self::push), without labels.
    ///
    /// # Errors
    ///
    /// As [`push_with`](Self::push_with).
    pub fn push_parts<E>(
        &mut self,
        flags: DataFlags,
        room: usize,
        shared: Bytes,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), E>,
    ) -> Result<PostId, PushError<E>> {
        let outgoing = Outgoing {
            flags,
            room,
            shared,
            ..Outgoing::default()
        };
        self.push(outgoing, encode)
    }

    /// Appends a message whose body is what `encode` writes followed by what is shared. What `encode` returns is shared,
    /// too, and belongs among what it wrote: `()` is nothing.
    ///
    /// Encoding happens once, here; the same bytes are written, kept, and written again after a reconnect. Call
    /// [`transmit`](Self::transmit) next when the transport is idle. A message that its label's share of the window
    /// does not let pass waits in a buffer of its own, as do those behind it; so does a large one, which goes in parts.
    ///
    /// # Errors
    ///
    /// Each concerns this message alone, except [`PushError::Damaged`]. [`PushError::Full`] for a label says nothing
    /// of others.
    ///
    /// # Ordering
    ///
    /// Messages with the same `to` arrive in the order of these calls, and those without one among themselves.
    pub fn push<E, S: Into<SharedParts>>(
        &mut self,
        outgoing: Outgoing,
        encode: impl FnOnce(&mut BytesMut) -> Result<S, E>,
    ) -> Result<PostId, PushError<E>> {
        match self.try_push(outgoing, encode) {
            Ok(post) => {
                self.open += 1;
                self.next_post += 1;
                Ok(post)
            }
            Err(error) => {
                // A deliberate fault for the test of the simulator's oracle: one that is too large takes all others
                // along.
                let is_planted =
                    cfg!(planted = "P12") && matches!(error, PushError::TooLarge { .. });
                if matches!(error, PushError::Damaged) || is_planted {
                    self.give_up(Cause::Damaged);
                }
                Err(error)
            }
        }
    }

    fn try_push<E, S: Into<SharedParts>>(
        &mut self,
        mut outgoing: Outgoing,
        encode: impl FnOnce(&mut BytesMut) -> Result<S, E>,
    ) -> Result<PostId, PushError<E>> {
        let (to, from) = (outgoing.to, outgoing.from);
        let is_ahead = self.is_ahead(to, from);
        if !is_ahead {
            // It may take of what others were to have.
            self.ahead.below = Amount::default();
            self.judge_push(to, from)?;
        }
        outgoing.room = outgoing.room.min(self.sizes.message as usize);
        let post = self.next_post;
        let flags = outgoing.flags;
        if !is_ahead && !self.lanes.is_direct(to, free_of(self.credit, &self.outbox)) {
            return self.push_waiting(post, outgoing, encode);
        }
        match self.outbox.push(post, &mut outgoing, self.sizes, encode)? {
            Pushed::Logged { seq, size } if is_ahead => {
                self.lanes.logged_again(to, from, seq, size);
            }
            Pushed::Logged { seq, size } => {
                self.lanes.logged(to, from, seq, size);
                self.look_ahead(to, from, seq);
            }
            Pushed::Large { body } => {
                self.ahead = Ahead::default();
                self.wait(to, waiting(post, flags, from, body));
            }
        }
        Ok(PostId(post))
    }

    /// Whether a message may enter the log because the last one found that there is enough for several.
    #[inline]
    fn is_ahead(&self, to: Label, from: Label) -> bool {
        let Ahead { below, .. } = self.ahead;
        let is_ahead = self.outbox.next() < below.messages
            && self.outbox.next_bytes() < below.bytes
            && to == self.ahead.to
            && from == self.ahead.from;
        if cfg!(debug_assertions) && is_ahead {
            self.check_ahead();
        }
        is_ahead
    }

    /// Asserts that what was found ahead is still there.
    pub(super) fn check_ahead(&self) {
        let Ahead {
            to, from, below, ..
        } = self.ahead;
        if self.outbox.next() < below.messages && self.outbox.next_bytes() < below.bytes {
            let may_enter = !self.closing
                && self.life != Life::Closed
                && self.open != 0
                && self.lanes.knows(to)
                && self.lanes.knows(from)
                && self.is_within_limits()
                && self.lanes.is_direct(to, free_of(self.credit, &self.outbox));
            assert!(may_enter, "limits were not looked at again");
        }
    }

    /// Whether a message may be taken at all.
    #[inline(never)]
    fn judge_push<E>(&mut self, to: Label, from: Label) -> Result<(), PushError<E>> {
        if self.closing || self.life == Life::Closed {
            return Err(PushError::Closed);
        }
        if self.open == 0 {
            self.progress_unset = true;
        }
        for label in [to, from] {
            if !self.lanes.knows(label) {
                return Err(PushError::UnknownLabel { label });
            }
        }
        if !self.is_within_limits() {
            self.starved = true;
            return Err(PushError::Full);
        }
        Ok(())
    }

    /// A message went into the log: finds out how many more as this one may follow it, whatever their sizes, before anything has
    /// to be asked again. Only messages that enter bring the limits nearer; what else changes them, makes this void.
    #[inline(never)]
    fn look_ahead(&mut self, to: Label, from: Label, seq: u64) {
        if (to, from) != (self.ahead.to, self.ahead.from) {
            // The second of a kind shows that there are several.
            (self.ahead.to, self.ahead.from) = (to, from);
            return;
        }
        if seq < self.ahead.look_at {
            return;
        }
        let room = self.room();
        let mut most = Amount {
            // The message itself is not counted among those without an outcome yet.
            messages: AHEAD_MESSAGES
                .min(room.messages.saturating_sub(1))
                .min(self.outbox.span_left()),
            bytes: AHEAD_BYTES,
        };
        // What a message holds of the room is more than its body.
        let heads = most.messages * DATA_HEADER_BYTES as u64;
        most.bytes = most.bytes.min(room.bytes.saturating_sub(heads));
        let free = free_of(self.credit, &self.outbox);
        let next = Amount {
            messages: self.outbox.next(),
            bytes: self.outbox.next_bytes(),
        };
        let most = self.lanes.ahead(to, free, most);
        self.ahead = Ahead {
            to,
            from,
            below: next.plus(most),
            look_at: next.messages + if most.is_open() { 0 } else { AHEAD_REST },
        };
    }

    /// Its lane has no share, or others before it.
    #[cold]
    fn push_waiting<E, S: Into<SharedParts>>(
        &mut self,
        post: u64,
        outgoing: Outgoing,
        encode: impl FnOnce(&mut BytesMut) -> Result<S, E>,
    ) -> Result<PostId, PushError<E>> {
        let Outgoing {
            flags,
            to,
            from,
            room,
            shared,
        } = outgoing;
        // S-31: what waits for one label leaves room for the others.
        if !self.lanes.may_wait(to, self.room()) {
            self.lanes.starve(to);
            return Err(PushError::Full);
        }
        let mut own = BytesMut::with_capacity(room);
        let among: SharedParts = encode(&mut own).map_err(PushError::Encode)?.into();
        let size = (own.len() + among.size() + shared.len()) as u64;
        if size > self.sizes.message {
            let max = self.sizes.message;
            return Err(PushError::TooLarge { size, max });
        }
        let body = Pieces::of(own.freeze(), 0, among, shared);
        self.wait(to, waiting(post, flags, from, body));
        Ok(PostId(post))
    }

    fn wait(&mut self, to: Label, message: Waiting) {
        if self.lanes.wait(to, message) {
            self.serve();
        }
    }

    /// Gives a name a label for this direction of the session, in place of one that nothing refers to any more if need
    /// be. `None` when there is no such: [`Event::Room`] with [`Label::NONE`] tells when it is worth trying again. A
    /// name has 1 to [`LABEL_NAME_MAX`](crate::limits::LABEL_NAME_MAX) bytes; others get no label, ever.
    /// The name is kept as it is: give bytes of its own, not a slice of something larger.
    ///
    /// The session does not look for the name among those it has: the same name a second time gets a second label.
    /// The label stands for the name until this method returns the same label again.
    ///
    /// # Bounds
    ///
    /// [`LABELS_MAX`](crate::limits::LABELS_MAX) labels, [`LABEL_BYTES_MAX`](crate::limits::LABEL_BYTES_MAX) bytes of
    /// names. Finding an idle one among all takes time in proportion to their number, and is not tried again before
    /// something has changed.
    pub fn add_label(&mut self, name: Bytes) -> Option<Label> {
        let label = self.lanes.add_label(name, self.outbox.resolved());
        if label.is_none() {
            self.starved = true;
        }
        label
    }

    /// Someone waits for room although nothing was refused: [`Event::Room`] with [`Label::NONE`] comes with the next thing
    /// that changes while there is enough.
    pub fn expect_room(&mut self) {
        self.starved = true;
    }

    #[inline]
    fn is_within_limits(&self) -> bool {
        // A deliberate fault for the test of the simulator's oracle: a log without limits.
        if cfg!(planted = "P13") {
            return true;
        }
        self.room().is_open() && self.outbox.has_span()
    }

    /// What may still be taken into the session.
    #[inline]
    pub(super) fn room(&self) -> Amount {
        let messages = u64::from(self.config.outbox_messages);
        let held = self.held_bytes() - self.lanes.spared_bytes();
        Amount {
            messages: messages.saturating_sub(self.open),
            bytes: self.config.outbox_bytes.saturating_sub(held) as u64,
        }
    }

    /// Bytes of messages held, in the log or on their way into it.
    #[inline]
    pub(super) fn held_bytes(&self) -> usize {
        self.outbox.held_bytes() + self.lanes.held_bytes()
    }

    /// Returns whether a message without a label would be taken.
    pub fn has_room(&self) -> bool {
        self.has_room_for(Label::NONE)
    }

    /// Returns whether a message for this label would be taken.
    pub fn has_room_for(&self, to: Label) -> bool {
        !self.closing
            && self.life != Life::Closed
            && self.lanes.knows(to)
            && self.is_within_limits()
            && (self.lanes.is_direct(to, free_of(self.credit, &self.outbox))
                || self.lanes.may_wait(to, self.room()))
    }

    /// Returns the body of a message without an outcome. For tests and tools: it is looked for.
    pub fn message(&mut self, post: PostId) -> Option<Bytes> {
        if let Some(body) = self.lanes.message(post.0) {
            return Some(body);
        }
        let seq = self.outbox.number(post.0)?;
        if self.outbox.is_unresolved(seq) {
            self.outbox.message(seq)
        } else {
            None
        }
    }

    pub(super) fn gate(&self) -> Gate {
        Gate {
            credit: self.credit,
            is_connected: self.life == Life::Connected,
            fragment: self.sizes.fragment,
            part: self.sizes.part,
        }
    }

    /// Brings into the log what may enter it by now. Called whenever something changed that it depends on.
    pub(super) fn serve(&mut self) {
        self.ahead = Ahead::default();
        let gate = self.gate();
        self.lanes.serve(&mut self.outbox, &gate);
        self.offer_room();
    }

    /// Tells once that there is room, when it is worth it.
    pub(super) fn offer_room(&mut self) {
        let room = self.room();
        if self.starved && self.is_ample(room) {
            self.starved = false;
            let label = Label::NONE;
            self.events.push_back(Event::Room { label });
        }
        let events = &mut self.events;
        self.lanes
            .offer_room(room, |label| events.push_back(Event::Room { label }));
    }

    /// Whether enough is free for it to be worth waking those who wait: of what lanes do not hold, which they may do
    /// for as long as their destinations are stuck.
    fn is_ample(&self, room: Amount) -> bool {
        let waiting = self.lanes.waiting();
        let messages = u64::from(self.config.outbox_messages).saturating_sub(waiting.messages);
        let bytes = (self.config.outbox_bytes as u64).saturating_sub(waiting.bytes);
        room.messages >= messages / 8
            && room.bytes >= bytes / 8
            && room.is_open()
            && self.outbox.has_span()
    }

    /// The sizes that both sides take; before the peer has said its own, ours.
    pub(super) fn set_sizes(&mut self, max_frame: u32, max_message: u32) {
        let largest_body = u64::from(max_frame) - crate::limits::DATA_OVERHEAD_BYTES as u64;
        let fragment = largest_body.min(self.config.fragment_bytes.into());
        self.sizes = Sizes {
            fragment,
            part: largest_body.min(self.config.part_bytes.into()),
            message: max_message.into(),
        };
    }
}

fn waiting(post: u64, flags: DataFlags, from: Label, body: Pieces) -> Waiting {
    Waiting {
        post,
        flags,
        from,
        body,
        at: 0,
        first: 0,
    }
}
