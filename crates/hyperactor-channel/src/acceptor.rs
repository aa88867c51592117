//! The accept loop of byte-stream transports and the sessions behind it. Not there yet: serving such an address is
//! refused where it is bound.

use tokio::sync::watch;

use crate::serve::Phase;
use crate::transport::Listen;
use crate::{Accept, Codec, ServeOptions};

/// Ends at once: nothing can be accepted yet.
pub(crate) async fn run<M, C, A>(
    _listener: Box<dyn Listen>,
    _options: ServeOptions,
    _codec: C,
    _acceptor: A,
    _phase: watch::Receiver<Phase>,
) where
    M: Send + 'static,
    C: Codec<M>,
    A: Accept<M>,
{
}
