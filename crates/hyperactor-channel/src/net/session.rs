//! One accepted session: its task owns the session, the application's end of it, and the connection it has at the moment.
//! It lives until the session is over: closed by the peer, expired, or stopped with its server.

use std::sync::Arc;
use std::task::Waker;

use hyperactor_protocol::{
    Cause, ConnectionEpoch, FrameDecoder, Hello, HelloError, Label, Session,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep_until, timeout};

use crate::limits::{HANDSHAKE_DEADLINE, STOP_GRACE};
use crate::net::handshake::write_hello;
use crate::net::inbound::NetInbound;
use crate::net::pump::{Arrived, Ended, Endpoint, Pump, say_at_once};
use crate::serve::{Ending, Phase, ending};
use crate::transport::{ByteStream, Identity};
use crate::{Accept, Codec, Deliver, Inbound, Peer, ServeOptions, Ticket, clock, codec, codes};

/// What all sessions of a server share.
pub(crate) struct Service<C, A> {
    pub(crate) options: ServeOptions,
    pub(crate) codec: C,
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

/// The session as the pump sees it.
struct Ends<M, C, A: Accept<M>> {
    service: Arc<Service<C, A>>,
    session: Session,
    inbound: Arc<NetInbound>,
    receiver: Receiver<M, A::Session>,
}

/// Tells the application's end that it is over, however the task ends.
struct Receiver<M, D: Deliver<M>>(D, std::marker::PhantomData<fn(M)>);

impl<M, D: Deliver<M>> Drop for Receiver<M, D> {
    fn drop(&mut self) {
        // After a panic of the receiver itself nothing more is asked of it.
        if !std::thread::panicking() {
            self.0.closed();
        }
    }
}

impl<M: Send + 'static, C: Codec<M>, A: Accept<M>> Endpoint for Ends<M, C, A> {
    fn with<T>(&mut self, work: impl FnOnce(&mut Session) -> T) -> T {
        work(&mut self.session)
    }

    fn sync(&mut self) {
        self.inbound.sync(&mut self.session);
    }

    fn deliver(&mut self, message: Arrived) {
        let Arrived {
            seq,
            body,
            size,
            ack_now,
        } = message;
        if ack_now {
            self.inbound.expect_urgent(seq.0 + 1);
        }
        match codec::decode(&self.service.codec, body) {
            Ok(message) => {
                let ticket = Ticket { seq: seq.0, size };
                if ack_now {
                    self.receiver.0.deliver_awaited(message, ticket);
                } else {
                    self.receiver.0.deliver(message, ticket);
                }
            }
            Err(error) => {
                tracing::debug!(%seq, size, %error, "a message does not decode; it is refused alone");
                let _written_with_the_next_output = self
                    .session
                    .settle(seq, codes::undecodable(error.text()))
                    .max(self.session.release(Label::NONE, size));
            }
        }
    }

    fn finish(&mut self) {
        // Acceptors of this version send no messages: no event is an outcome, and the end of the session shows in it.
        while self.session.poll_event().is_some() {}
    }

    fn park(&mut self, waker: &Waker) -> bool {
        if self.session.has_output() {
            return false;
        }
        // With a deadline as near as that, what is settled meanwhile is seen soon enough.
        let soon = clock::now() + self.session.config().ack_delay;
        let timer_runs = self.session.next_timeout().is_some_and(|next| next <= soon);
        self.inbound.park(waker, timer_runs)
    }
}

/// Runs an accepted session, from its first connection to its end.
pub(crate) async fn run<M, C, A>(
    service: Arc<Service<C, A>>,
    first: Greeted,
    mut greeted: mpsc::Receiver<Greeted>,
    mut phase: watch::Receiver<Phase>,
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
    );
    let epoch = match session.on_hello(&first.hello, clock::now()) {
        Ok(established) => established.epoch,
        Err(error) => return refuse(first, options, &error).await,
    };
    let inbound = Arc::new(NetInbound::new(&session));
    let peer = Peer {
        addr: first.identity.addr.clone(),
        uid: first.identity.uid,
        pid: first.identity.pid,
        incarnation: first.hello.incarnation,
    };
    let receiver = service.acceptor.open(peer, Inbound::new(inbound.clone()));
    let receiver = Receiver(receiver, std::marker::PhantomData);
    let mut ends = Ends {
        service: Arc::clone(&service),
        session,
        inbound,
        receiver,
    };
    let mut connection = answer(&mut ends, first, epoch).await;
    while !ends.session.is_closed() {
        let next = match &mut connection {
            Some(pump) => tokio::select! {
                biased;
                next = greeted.recv() => Next::Greeted(next.map(Box::new)),
                ending = ending(&mut phase) => Next::Stop(ending),
                ended = pump.run(&mut ends) => Next::Lost(ended),
            },
            None => {
                ends.sync();
                let deadline = ends.session.next_timeout();
                tokio::select! {
                    biased;
                    next = greeted.recv() => Next::Greeted(next.map(Box::new)),
                    ending = ending(&mut phase) => Next::Stop(ending),
                    () = until(deadline) => Next::Deadline,
                }
            }
        };
        match next {
            Next::Greeted(Some(next)) => match ends.session.on_hello(&next.hello, clock::now()) {
                // The newer connection fences the older, which is dropped with its pump.
                Ok(established) => connection = answer(&mut ends, *next, established.epoch).await,
                Err(error) => refuse(*next, options, &error).await,
            },
            // The owner of the server is gone: no ceremony, but what was placed until now shall count as delivered.
            Next::Greeted(None) | Next::Stop(Ending::AtOnce) => {
                if let Some(pump) = &mut connection {
                    pump.acknowledge_at_once(&mut ends).await;
                }
                break;
            }
            Next::Stop(Ending::Orderly) => {
                stop(&mut ends, connection.take()).await;
                break;
            }
            Next::Lost(Ended::Over) => {
                if let Some(pump) = connection.take() {
                    ends.inbound.end();
                    pump.farewell().await;
                }
            }
            Next::Lost(ended) => {
                tracing::debug!(session = %ends.session.id(), %ended, "a connection was lost");
                let epoch = ends.session.epoch();
                connection = None;
                ends.session.disconnected(epoch, clock::now());
                ends.finish();
            }
            Next::Deadline => {
                ends.session.run_timeouts(clock::now());
                ends.finish();
            }
        }
    }
    ends.inbound.end();
}

enum Next {
    Greeted(Option<Box<Greeted>>),
    Stop(Ending),
    Lost(Ended),
    Deadline,
}

async fn until(deadline: Option<hyperactor_protocol::Time>) {
    match deadline {
        Some(deadline) => sleep_until(clock::instant(deadline)).await,
        None => std::future::pending().await,
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
    let answer = ends.session.hello(clock::now());
    match timeout(HANDSHAKE_DEADLINE, write_hello(&mut stream, &answer)).await {
        Ok(Ok(())) => Some(Pump::new(stream, decoder, epoch)),
        _ => {
            ends.session.disconnected(epoch, clock::now());
            ends.finish();
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
    ends.session.close();
    ends.finish();
    let Some(mut pump) = connection else { return };
    let over = timeout(STOP_GRACE, pump.run(ends)).await;
    let over = match over {
        Ok(ended) => ended,
        Err(_) => {
            // What has no verdict by now will not get one: the peer learns that it is unknown.
            ends.sync();
            ends.session.fail(Cause::Abandoned, clock::now());
            match timeout(STOP_GRACE, pump.run(ends)).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    ends.inbound.end();
    if matches!(over, Ended::Over) {
        pump.farewell().await;
    }
}
