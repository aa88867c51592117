//! A flush that may come back to where it began: a proc's forwarder can know the proc itself, as a router does that takes
//! in what comes for the proc and sends out what the proc sends. What is already being flushed is not waited for again.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyperactor_mailbox::{BoxFuture, FlushError};

thread_local! {
    /// Whose flush this thread is in, from the outermost to the innermost.
    static FLUSHING: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Flushes what is behind `whose`, a number that nobody else has, unless this call comes from that very flush.
pub(crate) fn once<'a>(
    whose: usize,
    flush: impl FnOnce() -> BoxFuture<'a, Result<(), FlushError>>,
) -> BoxFuture<'a, Result<(), FlushError>> {
    if FLUSHING.with_borrow(|flushing| flushing.contains(&whose)) {
        return Box::pin(std::future::ready(Ok(())));
    }
    let inner = within(whose, flush);
    Box::pin(Flushing { whose, inner })
}

/// Does something as part of the flush of `whose`.
fn within<T>(whose: usize, work: impl FnOnce() -> T) -> T {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            FLUSHING.with_borrow_mut(|flushing| flushing.pop());
        }
    }
    FLUSHING.with_borrow_mut(|flushing| flushing.push(whose));
    let _leave = Leave;
    work()
}

struct Flushing<'a> {
    whose: usize,
    inner: BoxFuture<'a, Result<(), FlushError>>,
}

impl Future for Flushing<'_> {
    type Output = Result<(), FlushError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        within(this.whose, || this.inner.as_mut().poll(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, OnceLock};

    use hyperactor_mailbox::{MailboxSender, MessageEnvelope, NotDelivered, ReturnHandle};
    use hyperactor_refs::{ChannelAddr, ProcId};

    use super::*;
    use crate::Proc;

    /// A forwarder that knows the proc it forwards for.
    #[derive(Clone, Default)]
    struct Knowing {
        proc: Arc<OnceLock<Proc>>,
        is_lazy: bool,
    }

    impl MailboxSender for Knowing {
        fn post_unchecked(&self, envelope: MessageEnvelope, handle: ReturnHandle) {
            let port_id = envelope.dest().clone();
            let detail = "nothing is behind this".to_owned();
            handle.undeliverable(envelope, NotDelivered::NoRoute { port_id, detail });
        }

        fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
            let proc = self.proc.get().expect("the test has put it there");
            if self.is_lazy {
                Box::pin(async move { proc.flush().await })
            } else {
                proc.flush()
            }
        }
    }

    #[tokio::test]
    async fn a_forwarder_that_knows_its_proc_is_flushed_once_and_not_for_ever() {
        for is_lazy in [false, true] {
            let knowing = Knowing {
                is_lazy,
                ..Knowing::default()
            };
            let addr: ChannelAddr = "unix:@flush".parse().unwrap();
            let proc = Proc::new(
                ProcId::Direct(addr, "p".to_owned()),
                knowing.clone().boxed(),
            );
            assert!(knowing.proc.set(proc.clone()).is_ok());
            assert_eq!(proc.flush().await, Ok(()));
            assert_eq!(proc.flush().await, Ok(()), "and again");
        }
    }
}
