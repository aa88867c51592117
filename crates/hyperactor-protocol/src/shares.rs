//! The receiving half by label: which labels have a name on this connection, and how much of each has left its queue, which
//! the sender is told so that it knows what a label may still take.

use std::collections::VecDeque;

use crate::frame::Released;
use crate::lanes::Amount;
use crate::limits::{
    LABEL_BYTES_MAX, LABELS_MAX, RELEASED_DRAINED, RELEASED_FRACTION, RELEASED_SHARE,
};
use crate::{Label, Violation};

/// One label, or what has none.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Bytes of its name on this connection; 0 while it has none.
    name_bytes: u32,
    /// Told of, or about to be.
    is_listed: bool,
    /// Delivered and released since the sender's state began, and what of it the sender was told.
    received: Amount,
    released: Amount,
    told: Amount,
    /// Delivered and not released, bytes: of messages in one frame, and of those in parts.
    held_small: u64,
    held_large: u64,
}

impl Slot {
    #[inline]
    fn untold(&self) -> Amount {
        Amount {
            messages: self.released.messages - self.told.messages,
            bytes: self.released.bytes - self.told.bytes,
        }
    }

    /// What the sender believes to be outstanding, or a little less.
    #[inline]
    fn seems_out(&self) -> Amount {
        Amount {
            messages: self.received.messages - self.told.messages,
            bytes: self.received.bytes - self.told.bytes,
        }
    }
}

/// What a release gives back, bytes: to the window, and to the room for messages in parts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Freed {
    pub(crate) small: u64,
    pub(crate) large: u64,
}

/// When the sender is to be told of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Telling {
    /// With whatever is written next.
    Along,
    /// Soon: it may be waiting.
    Soon,
    Now,
}

#[derive(Debug)]
pub(crate) struct Shares {
    window: Amount,
    /// By number; 0 is what has no label.
    slots: Vec<Slot>,
    name_bytes: usize,
    /// Labels with something to tell.
    listed: VecDeque<u32>,
}

impl Shares {
    pub(crate) fn new(window_messages: u32, window_bytes: u64) -> Self {
        Self {
            window: Amount {
                messages: window_messages.into(),
                bytes: window_bytes,
            },
            slots: vec![Slot::default()],
            name_bytes: 0,
            listed: VecDeque::new(),
        }
    }

    /// Gives a label a name, of this length.
    pub(crate) fn name(&mut self, label: Label, length: usize) -> Result<(), Violation> {
        debug_assert!(
            (1..=LABELS_MAX).contains(&label.number()),
            "the decoder's matter"
        );
        if self.slots.len() <= label.index() {
            self.slots.resize(label.index() + 1, Slot::default());
        }
        let slot = &mut self.slots[label.index()];
        let bytes = self.name_bytes - slot.name_bytes as usize + length;
        if bytes > LABEL_BYTES_MAX {
            return Err(Violation::NamesTooLong {
                bytes: bytes as u64,
                max: LABEL_BYTES_MAX as u64,
            });
        }
        self.name_bytes = bytes;
        // Names are bounded by LABEL_NAME_MAX.
        slot.name_bytes = length as u32;
        Ok(())
    }

    /// S-29: what a message names was named before.
    #[inline]
    pub(crate) fn check_named(&self, label: Label) -> Result<(), Violation> {
        let is_named = label.is_none()
            || self
                .slots
                .get(label.index())
                .is_some_and(|slot| slot.name_bytes != 0);
        is_named
            .then_some(())
            .ok_or(Violation::UnknownLabel { label })
    }

    /// Names that stand, and their bytes.
    pub(crate) fn names(&self) -> (usize, usize) {
        let named = self.slots.iter().filter(|slot| slot.name_bytes != 0);
        (named.count(), self.name_bytes)
    }

    /// A message was delivered.
    #[inline]
    pub(crate) fn deliver(&mut self, to: Label, size: u64, is_large: bool) {
        // The label has a name, so it has a slot.
        let slot = &mut self.slots[to.index()];
        if is_large {
            slot.held_large += size;
        } else {
            slot.held_small += size;
        }
        if !to.is_none() {
            slot.received.add(1, size);
        }
    }

    /// Messages in one frame each were delivered, of so many bytes in all.
    pub(crate) fn deliver_run(&mut self, to: Label, count: u64, bytes: u64) {
        // The label has a name, so it has a slot.
        let slot = &mut self.slots[to.index()];
        slot.held_small += bytes;
        if !to.is_none() {
            slot.received.add(count, bytes);
        }
    }

    /// Messages left their queue. More is never released than came.
    #[inline]
    pub(crate) fn release(&mut self, to: Label, messages: u64, bytes: u64) -> Freed {
        let Some(slot) = self.slots.get_mut(to.index()) else {
            return Freed::default();
        };
        // Sums do not say which messages they are of. Small ones first: what a large one holds then never holds up
        // small ones, and either way no more is held than both limits together allow.
        let small = bytes.min(slot.held_small);
        let large = (bytes - small).min(slot.held_large);
        slot.held_small -= small;
        slot.held_large -= large;
        if !to.is_none() {
            let released = &mut slot.released;
            released.messages = (released.messages + messages).min(slot.received.messages);
            released.bytes = (released.bytes + small + large).min(slot.received.bytes);
            self.list(to);
        }
        Freed { small, large }
    }

    /// A message in parts was withdrawn: its sender counts it as sent.
    pub(crate) fn withdraw(&mut self, to: Label, size: u64) {
        if to.is_none() {
            return;
        }
        let slot = &mut self.slots[to.index()];
        slot.received.add(1, size);
        slot.released.add(1, size);
        self.list(to);
    }

    #[inline]
    fn list(&mut self, label: Label) {
        let slot = &mut self.slots[label.index()];
        if slot.released != slot.told && !std::mem::replace(&mut slot.is_listed, true) {
            self.listed.push_back(label.number());
        }
    }

    /// S-32: when the sender is to know; `free` is what it has left of the window.
    #[inline]
    pub(crate) fn telling(&self, label: Label, free: Amount) -> Telling {
        let Some(slot) = self.slots.get(label.index()).filter(|slot| slot.is_listed) else {
            return Telling::Along;
        };
        let untold = slot.untold();
        let is_drained = slot.released == slot.received;
        // A part of what the label may have at most, and may have as things stand.
        if untold.messages.saturating_mul(RELEASED_FRACTION) >= self.window.messages
            || untold.bytes.saturating_mul(RELEASED_FRACTION) >= self.window.bytes
            || !untold.times(RELEASED_SHARE).is_share(free, self.window)
            || (is_drained && untold.messages >= RELEASED_DRAINED)
        {
            return Telling::Now;
        }
        if slot.seems_out().times(2).is_share(free, self.window) {
            return Telling::Along;
        }
        Telling::Soon
    }

    /// Whether something of the labels is untold.
    #[inline]
    pub(crate) fn has_untold(&self) -> bool {
        !self.listed.is_empty()
    }

    /// Takes the next totals to write, at most `max`.
    pub(crate) fn tell(&mut self, max: usize) -> Vec<Released> {
        let count = self.listed.len().min(max);
        let numbers = self.listed.drain(..count);
        let mut entries = Vec::with_capacity(count);
        for number in numbers {
            let slot = &mut self.slots[number as usize];
            slot.is_listed = false;
            slot.told = slot.released;
            entries.push(Released {
                label: Label::new(number),
                messages: slot.released.messages,
                bytes: slot.released.bytes,
            });
        }
        entries
    }

    /// A new connection knows no names. S-32: what was released is said again, because the last one may have lost it.
    pub(crate) fn repeat(&mut self) {
        self.name_bytes = 0;
        self.listed.clear();
        for (number, slot) in self.slots.iter_mut().enumerate() {
            slot.name_bytes = 0;
            slot.is_listed = slot.released.messages != 0;
            if slot.is_listed {
                self.listed.push_back(number as u32);
            }
        }
    }

    /// The sender's state is new, and counts from nothing. What is held is held still.
    pub(crate) fn forget(&mut self) {
        for slot in &mut self.slots {
            slot.received = Amount::default();
            slot.released = Amount::default();
            slot.told = Amount::default();
        }
    }

    pub(crate) fn check(&self) {
        let mut names = 0;
        for (number, slot) in self.slots.iter().enumerate() {
            names += slot.name_bytes as usize;
            assert!(slot.released.messages <= slot.received.messages);
            assert!(slot.released.bytes <= slot.received.bytes);
            assert!(slot.told.messages <= slot.released.messages);
            assert!(slot.told.bytes <= slot.released.bytes);
            let number = number as u32;
            assert_eq!(slot.is_listed, self.listed.contains(&number));
            assert!(slot.is_listed || slot.told == slot.released);
        }
        assert_eq!(names, self.name_bytes);
        assert!(names <= LABEL_BYTES_MAX && self.slots.len() <= LABELS_MAX as usize + 1);
    }
}
