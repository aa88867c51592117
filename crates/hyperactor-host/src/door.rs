//! What is said at the door of a host, before anybody is routed: who the host is, and who wants to stand behind it. Also the
//! names that are kept for guests. Who says it is in `guest` and `above`, who answers in `entrance`.
//!
//! A message is for the door when the name of its proc is [`DOOR`], whatever the address: who knocks knows where it dialled,
//! which may be the outer end of a tunnel, and asks there what the host is called.

use std::sync::Arc;
use std::time::Duration;

use hyperactor_mailbox::{MailboxSender, MessageEnvelope, ReturnHandle, SendFailure};
use hyperactor_proc::{Client, Message};
use hyperactor_refs::{ActorId, ChannelAddr, Incarnation, PortId, ProcId};
use serde::{Deserialize, Serialize};

use crate::addrs::HostAddrs;
use crate::agent::HostRefusal;
use crate::limits;

/// How the names of guests begin. No proc of a host can have one.
pub const GUEST_PREFIX: &str = "guest:";

/// The name of nobody: what is sent to it is for the door.
pub(crate) const DOOR: &str = GUEST_PREFIX;

/// The code of a refusal by a host that is not ready yet.
pub(crate) const STARTING: &str = "starting";

/// Whether a proc of this name is a guest of its host.
pub(crate) fn is_guest(name: &str) -> bool {
    name.starts_with(GUEST_PREFIX)
}

/// A name that no other guest has: 128 bits of chance.
pub(crate) fn guest_name() -> Result<String, getrandom::Error> {
    let (high, low) = (getrandom::u64()?, getrandom::u64()?);
    Ok(format!("{GUEST_PREFIX}{high:016x}{low:016x}"))
}

/// Asks the host behind a door who it is.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Knock {
    /// What a host claims that wants to stand behind this one; nothing from a guest.
    pub(crate) claim: Option<Claim>,
    /// Takes the [`Answer`].
    pub(crate) reply: PortId,
}

/// What a host says of itself that wants to stand behind another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Claim {
    /// Which life of it this is.
    pub(crate) incarnation: Incarnation,
    /// Its addresses, and those of the hosts behind it.
    pub(crate) addrs: Vec<ChannelAddr>,
}

/// What is said to who knocks.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Answer(pub(crate) Result<Welcome, HostRefusal>);

/// Who a host is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    /// The host itself, then the host that it stands behind, and so on.
    pub(crate) floors: Vec<Floor>,
}

/// One host in a row of hosts that stand behind each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Floor {
    pub(crate) incarnation: Incarnation,
    pub(crate) addrs: HostAddrs,
}

/// Why a knock was not answered with a welcome.
#[derive(Clone, Debug)]
pub(crate) enum Unwelcome {
    Refused(HostRefusal),
    /// The knock came back.
    Returned(String),
    Silent(Duration),
}

impl std::fmt::Display for Unwelcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(refusal) => f.write_str(&refusal.text),
            Self::Returned(reason) => f.write_str(reason),
            Self::Silent(waited) => write!(f, "no answer within {} ms", waited.as_millis()),
        }
    }
}

/// Knocks at the door that `sender` leads to, and waits for the answer.
pub(crate) async fn knock(
    client: &Client,
    sender: &impl MailboxSender,
    dialled: &ChannelAddr,
    claim: Option<Claim>,
) -> Result<Welcome, Unwelcome> {
    let (port, mut answers) = client.mailbox().open_port::<Answer>();
    let reply = port.bind().into_port_id();
    let door = ActorId::root(ProcId::Direct(dialled.clone(), DOOR.to_owned()), "door");
    let knock = Knock { claim, reply };
    let envelope = MessageEnvelope::typed(client.actor_id().clone(), PortId::new(door, 0), knock);
    let (handle, outcome) = ReturnHandle::oneshot();
    sender.post(envelope, handle);
    let answered = async {
        if let Err(failure) = outcome.await {
            return Err(Unwelcome::Returned(reason_of(&failure)));
        }
        match answers.recv().await {
            Some(Answer(Ok(welcome))) if !welcome.floors.is_empty() => Ok(welcome.bounded()),
            Some(Answer(Err(refusal))) => Err(Unwelcome::Refused(refusal)),
            Some(Answer(Ok(_))) | None => {
                Err(Unwelcome::Returned("it does not say who it is".to_owned()))
            }
        }
    };
    match tokio::time::timeout(limits::DOOR_TIMEOUT, answered).await {
        Ok(answer) => answer,
        Err(_) => Err(Unwelcome::Silent(limits::DOOR_TIMEOUT)),
    }
}

/// Why a message came back, without the ids of the two ends: they are of no use to people here.
fn reason_of(failure: &SendFailure) -> String {
    match failure {
        SendFailure::Returned(report) => report.failure.to_string(),
        other => other.to_string(),
    }
}

impl Welcome {
    /// What another process says is bounded before it is used.
    fn bounded(mut self) -> Self {
        self.floors.truncate(limits::FLOORS_MAX);
        for floor in &mut self.floors {
            let others = floor.addrs.others().to_vec();
            floor.addrs = HostAddrs::new(floor.addrs.canonical().clone()).with_all(others);
        }
        self
    }

    /// The host that answered.
    pub(crate) fn host(&self) -> Option<&Floor> {
        self.floors.first()
    }
}

/// Says something to who knocked, over its own connection.
pub(crate) fn answer(
    back: &impl MailboxSender,
    host: &Arc<ProcId>,
    reply: PortId,
    answer: Result<Welcome, HostRefusal>,
) {
    let sender = ActorId::root(Arc::clone(host), "door");
    let envelope = MessageEnvelope::typed(sender, reply, Answer(answer));
    back.post(envelope, ReturnHandle::monitored());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_have_names_of_their_own() {
        let (one, other) = (guest_name().unwrap(), guest_name().unwrap());
        assert_ne!(one, other);
        assert!(is_guest(&one) && is_guest(DOOR));
        assert_eq!(one.len(), GUEST_PREFIX.len() + 32);
        for name in ["guest", "guests:a", "a guest:", ""] {
            assert!(!is_guest(name), "{name}");
        }
    }

    #[test]
    fn a_welcome_is_cut_to_its_bounds() {
        let addr = |number: u64| ChannelAddr::local(number).unwrap();
        let floor = Floor {
            incarnation: Incarnation::new(1),
            addrs: HostAddrs::new(addr(1)),
        };
        let floors = vec![floor; 2 * limits::FLOORS_MAX];
        assert_eq!(
            Welcome { floors }.bounded().floors.len(),
            limits::FLOORS_MAX
        );
    }
}
