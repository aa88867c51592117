//! One accepted session: its task owns the session, the application's end of it, and the connection it has at the moment.
//! It lives until the session is over: closed by the peer, expired, or stopped with its server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use hyperactor_protocol::{
    Cause, ConnectionEpoch, EXTENSION_RECEIVES, FrameDecoder, Hello, HelloError, Session, Time,
};
use hyperactor_refs::ChannelAddr;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep_until, timeout};

use crate::limits::{HANDSHAKE_DEADLINE, STOP_GRACE};
use crate::net::ends::{Ends as BothEnds, Owner};
use crate::net::handshake::write_hello;
use crate::net::inbound::NetInbound;
use crate::net::link::{NetLink, Shared};
use crate::net::memory;
use crate::net::pump::{Ended, Endpoint, Pump, say_at_once};
use crate::serve::{Ending, Phase, ending};
use crate::transport::{ByteStream, Identity};
use crate::{Accept, Codec, Inbound, Outbound, Peer, ServeOptions, Spin, Status, clock};

/// Both halves of an accepted session.
type Ends<M, C, A> = BothEnds<M, <A as Accept<M>>::Completion, C, <A as Accept<M>>::Session>;

/// What all sessions of a server share.
pub(crate) struct Service<C, A> {
    pub(crate) addr: ChannelAddr,
    pub(crate) options: ServeOptions,
    pub(crate) codec: Arc<C>,
    pub(crate) acceptor: A,
}

/// A connection on which a valid hello has come.
pub(crate) struct Greeted {
    pub(crate) stream: Box<dyn ByteStream>,
    pub(crate) decoder: FrameDecoder,
    pub(crate) hello: Hello,
    pub(crate) identity: Identity,
}

impl Greeted {
    /// Answers with a refusal.
    pub(crate) async fn refuse(self, options: &ServeOptions, code: hyperactor_protocol::HelloCode) {
        let answer = Hello::refusal(&self.hello, options.incarnation, code);
        say_at_once(self.stream, &answer.to_bytes()).await;
    }
}

/// Runs an accepted session, from its first connection to its end.
pub(crate) async fn run<M, C, A>(
    service: Arc<Service<C, A>>,
    first: Greeted,
    mut greeted: mpsc::Receiver<Greeted>,
    mut phase: watch::Receiver<Phase>,
    alone: Arc<Alone>,
) where
    M: Send + 'static,
    C: Codec<M>,
    A: Accept<M>,
{
    let options = &service.options;
    let mut session = Session::acceptor(
        options.config(),
        options.incarnation,
        &first.hello,
        clock::now(),
    )
    .with_buffers(Arc::clone(memory::pool()) as _);
    let epoch = match session.on_hello(&first.hello, clock::now()) {
        Ok(established) => established.epoch,
        Err(error) => return refuse(first, options, &error).await,
    };
    let inbound = Arc::new(NetInbound::new(session.config()));
    let peer = Peer {
        addr: first.identity.addr.clone(),
        uid: first.identity.uid,
        pid: first.identity.pid,
        incarnation: first.hello.incarnation,
        // W-14.
        receives: first.hello.extensions.find(EXTENSION_RECEIVES).is_some(),
    };
    let shared = Shared::new(service.addr.clone(), Arc::clone(&service.codec), session);
    shared.drive();
    let owner = Owner::new(Arc::new(shared));
    let link = NetLink::accepted(Arc::clone(&owner.shared));
    let receiver = service.acceptor.open(
        peer,
        Inbound::new(inbound.clone()),
        Outbound::accepted(Arc::new(link)),
    );
    let mut ends = Ends::<M, C, A>::new(owner, inbound, receiver);
    let mut connection = answer::<M, C, A>(&mut ends, first, epoch, options.spin).await;
    while !ends.is_closed() {
        alone.note(connection.is_none());
        let next = match &mut connection {
            Some(pump) => tokio::select! {
                biased;
                next = greeted.recv() => Next::Greeted(next.map(Box::new)),
                ending = ending(&mut phase) => Next::Stop(ending),
                ended = pump.run(&mut ends) => Next::Lost(ended),
            },
            None => tokio::select! {
                biased;
                next = greeted.recv() => Next::Greeted(next.map(Box::new)),
                ending = ending(&mut phase) => Next::Stop(ending),
                () = due::<M, C, A>(&mut ends) => Next::Deadline,
            },
        };
        match next {
            Next::Greeted(Some(next)) => {
                let judged = ends.with(|session| session.on_hello(&next.hello, clock::now()));
                match judged {
                    // The newer connection fences the older, which is dropped with its pump.
                    Ok(established) => {
                        let epoch = established.epoch;
                        connection = answer::<M, C, A>(&mut ends, *next, epoch, options.spin).await;
                    }
                    Err(error) => refuse(*next, options, &error).await,
                }
            }
            // The owner of the server is gone: no ceremony, but what was placed until now shall count as delivered.
            Next::Greeted(None) | Next::Stop(Ending::AtOnce) => {
                if let Some(pump) = &mut connection {
                    pump.acknowledge_at_once(&mut ends).await;
                }
                break;
            }
            Next::Stop(Ending::Orderly) => {
                stop::<M, C, A>(&mut ends, connection.take()).await;
                break;
            }
            Next::Lost(Ended::Over) => {
                if let Some(pump) = connection.take() {
                    ends.end_inbound();
                    pump.farewell().await;
                }
            }
            Next::Lost(ended) => {
                connection = None;
                ends.with(|session| {
                    tracing::debug!(session = %session.id(), %ended, "a connection was lost");
                    session.disconnected(session.epoch(), clock::now());
                });
                ends.finish();
                rest::<M, C, A>(&mut ends);
            }
            Next::Deadline => {
                ends.with(|session| session.run_timeouts(clock::now()));
                ends.finish();
            }
        }
    }
    ends.finish();
}

/// Since when a session has no connection, for whoever has to choose which one to give up.
#[derive(Debug, Default)]
pub(crate) struct Alone {
    /// Milliseconds of the process's clock, and one; nought while there is a connection.
    since: AtomicU64,
}

impl Alone {
    fn note(&self, is_alone: bool) {
        let now = clock::now().since_start().as_millis() as u64 + 1;
        match (is_alone, self.since.load(Ordering::Relaxed)) {
            (false, _) => self.since.store(0, Ordering::Relaxed),
            (true, 0) => self.since.store(now, Ordering::Relaxed),
            (true, _) => {}
        }
    }

    /// A moment that can be compared with those of others; `None` while there is a connection.
    pub(crate) fn since(&self) -> Option<u64> {
        match self.since.load(Ordering::Relaxed) {
            0 => None,
            since => Some(since),
        }
    }
}

enum Next {
    Greeted(Option<Box<Greeted>>),
    Stop(Ending),
    Lost(Ended),
    Deadline,
}

/// Says that the session waits for a connection.
fn rest<M: Send + 'static, C: Codec<M>, A: Accept<M>>(ends: &mut Ends<M, C, A>) {
    let is_idle = ends.with(|session| session.unresolved() == 0);
    let status = if is_idle {
        Status::Idle
    } else {
        Status::Reconnecting
    };
    ends.shared().common.publish(status);
}

/// Waits, without a connection, until the session must be looked at: for its deadline, or because something was posted or
/// settled.
async fn due<M: Send + 'static, C: Codec<M>, A: Accept<M>>(ends: &mut Ends<M, C, A>) {
    let deadline: Option<Time> =
        std::future::poll_fn(|cx| Poll::Ready(ends.rest(cx.waker()))).await;
    let (shared, inbound) = ends.watch();
    let posted = std::future::poll_fn(|_| match shared.is_parked() && inbound.is_parked() {
        true => Poll::Pending,
        false => Poll::Ready(()),
    });
    let passed = async {
        match deadline {
            Some(deadline) => sleep_until(clock::instant(deadline)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = posted => {}
        () = passed => {}
    }
}

async fn refuse(greeted: Greeted, options: &ServeOptions, error: &HelloError) {
    tracing::debug!(session = %greeted.hello.session, %error, "a connection is refused");
    greeted.refuse(options, error.code()).await;
}

/// Answers an accepted hello; none when the connection did not take the answer.
async fn answer<M, C, A>(
    ends: &mut Ends<M, C, A>,
    greeted: Greeted,
    epoch: ConnectionEpoch,
    spin: Spin,
) -> Option<Pump>
where
    M: Send + 'static,
    C: Codec<M>,
    A: Accept<M>,
{
    let Greeted {
        mut stream,
        decoder,
        ..
    } = greeted;
    ends.finish();
    ends.connected();
    let answer = ends.with(|session| session.hello(clock::now()));
    match timeout(HANDSHAKE_DEADLINE, write_hello(&mut stream, &answer)).await {
        Ok(Ok(())) => {
            ends.shared().common.publish(Status::Connected);
            Some(Pump::new(stream, decoder, epoch, spin))
        }
        _ => {
            ends.with(|session| session.disconnected(epoch, clock::now()));
            ends.finish();
            rest::<M, C, A>(ends);
            None
        }
    }
}

/// Ends the session in order: what was received gets its verdict, the peer gets it and a goodbye.
async fn stop<M, C, A>(ends: &mut Ends<M, C, A>, connection: Option<Pump>)
where
    M: Send + 'static,
    C: Codec<M>,
    A: Accept<M>,
{
    ends.sync();
    ends.with(|session| session.close());
    ends.finish();
    let Some(mut pump) = connection else { return };
    let over = timeout(STOP_GRACE, pump.run(ends)).await;
    let over = match over {
        Ok(ended) => ended,
        Err(_) => {
            // What has no verdict by now will not get one: the peer learns that it is unknown.
            ends.sync();
            ends.with(|session| session.fail(Cause::Abandoned, clock::now()));
            match timeout(STOP_GRACE, pump.run(ends)).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    ends.end_inbound();
    if matches!(over, Ended::Over) {
        pump.farewell().await;
    }
}
