//! Places that messages go to, and the labels that stand for them: what the driver of a session has to remember.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use hyperactor_protocol::{Label, Session};

/// A place; 0 stands for none. Its name begins with this number.
pub(crate) type Lane = u64;

/// Names are this long at most, bytes.
const NAME_MAX: u64 = 40;

/// The labels that a session has given.
#[derive(Debug, Default)]
pub(crate) struct Given(BTreeMap<Lane, Label>);

impl Given {
    /// Returns the labels of both lanes, asking for those that have none; `None` when the session has no room for
    /// them.
    pub(crate) fn labels(
        &mut self,
        session: &mut Session,
        (to, from): (Lane, Lane),
    ) -> Option<(Label, Label)> {
        let first = self.label(session, to)?;
        let second = self.label(session, from)?;
        // The second may have taken the number of the first, which nothing refers to yet.
        (self.label(session, to)? == first).then_some((first, second))
    }

    fn label(&mut self, session: &mut Session, lane: Lane) -> Option<Label> {
        if lane == 0 {
            return Some(Label::NONE);
        }
        if let Some(label) = self.0.get(&lane) {
            return Some(*label);
        }
        let label = session.add_label(name(lane))?;
        // A label that was given before stands for the new name from now on.
        self.0.retain(|_, other| *other != label);
        self.0.insert(lane, label);
        Some(label)
    }
}

/// What the labels of one connection stand for.
#[derive(Debug, Default)]
pub(crate) struct Named(BTreeMap<Label, Lane>);

impl Named {
    /// A label was named; returns whether the name is one that somebody gives.
    pub(crate) fn name(&mut self, label: Label, name: &[u8]) -> bool {
        let lane = read(name);
        if let Some(lane) = lane {
            self.0.insert(label, lane);
        }
        lane.is_some()
    }

    /// Returns the lane that a label stands for.
    pub(crate) fn lane(&self, label: Label) -> Option<Lane> {
        if label.is_none() {
            return Some(0);
        }
        self.0.get(&label).copied()
    }

    /// A new connection knows no names.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

fn name(lane: Lane) -> Bytes {
    let length = 8 + lane % (NAME_MAX - 8);
    let mut name = BytesMut::with_capacity(length as usize);
    name.put_u64_le(lane);
    name.resize(length as usize, lane as u8);
    name.freeze()
}

fn read(bytes: &[u8]) -> Option<Lane> {
    let lane = u64::from_le_bytes(*bytes.first_chunk()?);
    (name(lane) == bytes).then_some(lane)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_as_its_lane_and_nothing_else_does() {
        for lane in [1, 7, 31, 32, 33, 1 << 40] {
            assert_eq!(read(&name(lane)), Some(lane));
            assert_eq!(read(&name(lane)[..7]), None);
        }
        let mut other = name(5).to_vec();
        other.push(0);
        assert_eq!(read(&other), None);
    }
}
