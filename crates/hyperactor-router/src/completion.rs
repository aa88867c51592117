//! What a client leaves with the channel for each envelope: the return handle, and where the envelope went.

use std::sync::Arc;

use hyperactor_channel as channel;
use hyperactor_channel::Completion;
use hyperactor_mailbox::{Hop, MessageEnvelope, ReturnHandle, Undeliverable};
use hyperactor_refs::ChannelAddr;

use crate::reasons;

/// Where a client leads: shared by all that it has under way.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) addr: ChannelAddr,
    /// What is added to the route of whatever comes back.
    pub(crate) hop: Option<Hop>,
    /// How many envelopes the channel holds.
    pub(crate) capacity: u64,
}

/// Settles the return handle of one envelope.
pub(crate) struct EnvelopeCompletion {
    pub(crate) return_handle: ReturnHandle,
    pub(crate) way: Arc<Way>,
}

impl EnvelopeCompletion {
    /// Gives the envelope back with what the channel said.
    pub(crate) fn report(
        &self,
        envelope: MessageEnvelope,
        failure: channel::Failure,
    ) -> Undeliverable {
        let (failure, route) = reasons::failure_of(failure, &self.way.addr, Some(envelope.dest()));
        let mut report = Undeliverable::new(envelope, failure);
        report.route = route;
        if let Some(hop) = &self.way.hop {
            report.push_hop(hop.clone());
        }
        report
    }
}

impl Completion<MessageEnvelope> for EnvelopeCompletion {
    fn delivered(self) {
        // The credit of a relayed message is free: it has left this process.
        self.return_handle.delivered_beyond();
    }

    fn undelivered(self, envelope: MessageEnvelope, failure: channel::Failure) {
        let report = self.report(envelope, failure);
        self.return_handle.report(report);
    }

    fn lost(self, failure: channel::Failure) {
        self.return_handle
            .lost(reasons::failure_of(failure, &self.way.addr, None).0);
    }

    fn wants_outcome(&self) -> bool {
        self.return_handle.wants_outcome()
    }
}
