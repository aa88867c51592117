//! The way of envelopes that a router passes on undecoded: a client, for as long as the router's table says so.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use hyperactor_channel::Labelled;
use hyperactor_mailbox::{MessageEnvelope, Pass, Sealed};

use crate::client::MailboxClient;
use crate::recent::Age;

/// By one client, from one actor to another.
pub(crate) struct Onward {
    client: Weak<MailboxClient>,
    names: Labelled,
    age: Age,
}

impl Onward {
    /// The way of envelopes as this one by a client that was found at that age of the table.
    pub(crate) fn by(
        client: &Arc<MailboxClient>,
        envelope: &MessageEnvelope,
        age: Age,
    ) -> Option<Self> {
        let names = client.labelled(envelope)?;
        let client = Arc::downgrade(client);
        Some(Self { client, names, age })
    }
}

impl Pass for Onward {
    fn pass(&self, run: &mut VecDeque<Sealed>) -> bool {
        self.age.is_present()
            && self
                .client
                .upgrade()
                .is_some_and(|client| client.pass(self.names, run))
    }
}
