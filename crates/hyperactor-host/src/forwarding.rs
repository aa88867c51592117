//! Which sender a new proc gets as its forwarder: [`Forwarding`], and the plain choice, everything to the host.

use hyperactor_mailbox::{BoxedMailboxSender, MailboxSender};
use hyperactor_router::MailboxClient;

use crate::spec::ProcSpec;

/// Chooses the forwarder of a new proc: where everything goes that is not for the proc itself.
pub trait Forwarding: Send + Sync + 'static {
    /// Makes the forwarder of the proc that `spec` describes. Called on a tokio runtime.
    fn forwarder(&self, spec: &ProcSpec) -> BoxedMailboxSender;
}

impl<F> Forwarding for F
where
    F: Fn(&ProcSpec) -> BoxedMailboxSender + Send + Sync + 'static,
{
    fn forwarder(&self, spec: &ProcSpec) -> BoxedMailboxSender {
        self(spec)
    }
}

/// Everything goes to the host's backend, which knows where all procs are.
#[derive(Clone, Copy, Debug, Default)]
pub struct BackendForwarding;

impl Forwarding for BackendForwarding {
    fn forwarder(&self, spec: &ProcSpec) -> BoxedMailboxSender {
        MailboxClient::dial(spec.backend.clone()).into_boxed()
    }
}
