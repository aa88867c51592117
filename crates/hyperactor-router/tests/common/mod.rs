//! What the suites share: a proc's worth of mailboxes, sending to an outcome, and tests over every transport.
// Each suite is a crate of its own and uses a part of this.
#![allow(dead_code, unused_macros, unused_imports)]

use std::time::Duration;

use hyperactor_mailbox::{
    Failure, Mailbox, MailboxMuxer, MailboxSender, Message, MessageEnvelope, NotDelivered,
    PortReceiver, ReturnHandle, SendFailure, Undeliverable,
};
use hyperactor_refs::{ActorId, BindSpec, ChannelAddr, ChannelTransport, PortId, ProcId};
use hyperactor_router::{MailboxServer, MailboxServerHandle, ServeOptions};

/// Makes a test of `async fn $name(transport)` for each transport.
macro_rules! over_every_transport {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            use hyperactor_refs::ChannelTransport::{Local, Tcp, Unix};

            #[tokio::test]
            async fn in_process() {
                super::$name(Local).await;
            }

            #[tokio::test]
            async fn over_unix() {
                super::$name(Unix).await;
            }

            #[tokio::test]
            async fn over_tcp() {
                super::$name(Tcp).await;
            }
        }
    )*};
}
pub(crate) use over_every_transport;

/// Longer than anything takes here, unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Serves `sender` at a free address.
pub(crate) async fn serve(
    transport: ChannelTransport,
    sender: impl MailboxSender + Clone,
) -> MailboxServerHandle {
    serve_at(BindSpec::from(transport), sender).await
}

/// Serves `sender`, and tries again while the address is still being given up.
pub(crate) async fn serve_at(
    bind: impl Into<BindSpec>,
    sender: impl MailboxSender + Clone,
) -> MailboxServerHandle {
    MailboxServer::serve(bind, sender, ServeOptions::default())
        .await
        .expect("free to bind")
}

/// The id of a proc below an address.
pub(crate) fn proc_at(addr: &ChannelAddr, name: &str) -> ProcId {
    ProcId::direct(addr.clone(), name).unwrap()
}

/// An address that nobody serves.
pub(crate) fn nowhere() -> ChannelAddr {
    "unix:@hyperactor-router-tests-nobody-serves-this"
        .parse()
        .unwrap()
}

/// Somebody who sends.
pub(crate) fn sender() -> ActorId {
    ActorId::root(proc_at(&nowhere(), "sender"), "s")
}

/// An actor with one port, in a muxer.
pub(crate) fn actor<M: Message>(
    muxer: &MailboxMuxer,
    actor_id: ActorId,
) -> (PortId, PortReceiver<M>) {
    let mailbox = Mailbox::new(actor_id);
    let (port, receiver) = mailbox.open_port::<M>();
    let port_id = port.bind().into_port_id();
    muxer.bind(mailbox).unwrap();
    (port_id, receiver)
}

/// Posts, and waits for the outcome.
pub(crate) async fn send<M: Message>(
    to: &impl MailboxSender,
    dest: &PortId,
    message: M,
) -> Result<(), Box<Undeliverable>> {
    send_envelope(to, MessageEnvelope::typed(sender(), dest.clone(), message)).await
}

/// Posts, and waits for the outcome.
pub(crate) async fn send_envelope(
    to: &impl MailboxSender,
    envelope: MessageEnvelope,
) -> Result<(), Box<Undeliverable>> {
    let (return_handle, outcome) = ReturnHandle::oneshot();
    to.post(envelope, return_handle);
    match tokio::time::timeout(PATIENCE, outcome)
        .await
        .expect("every post has an outcome")
    {
        Ok(()) => Ok(()),
        Err(SendFailure::Returned(report)) => Err(report),
        Err(other) => panic!("lost: {other}"),
    }
}

/// The reason in a report.
pub(crate) fn reason(report: &Undeliverable) -> &NotDelivered {
    match &report.failure {
        Failure::NotDelivered(reason) => reason,
        other => panic!("not a definite failure: {other}"),
    }
}
