//! Drives a dialled channel over byte streams: waits for the first message, connects, shakes hands, pumps, and does it
//! again when the connection is lost, until the session is over.

use std::io;
use std::task::Poll;
use std::time::Duration;

use hyperactor_protocol::{
    Cause, ConnectionEpoch, EXTENSION_RECEIVES, FrameDecoder, HelloCode, Seq, Time,
};
use hyperactor_refs::ChannelAddr;
use rustix::io::Errno;
use tokio::time::{Instant, sleep, timeout};

use crate::backoff::Backoff;
use crate::limits::{CONNECT_ATTEMPT_DEADLINE, HANDSHAKE_DEADLINE, REDIAL_GIVE_UP_LOCAL};
use crate::net::ends::Ends;
use crate::net::handshake::{NoHello, read_hello, write_hello};
use crate::net::link::Shared;
use crate::net::pump::{Ended, Endpoint, Pump};
use crate::outbound::Driving;
use crate::transport::{self, ByteStream, Connected};
use crate::{Codec, Completion, Deliver, DialOptions, Reason, Spin, Status, clock};

/// How long a dialler waits for whom, and how.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    /// How long a local address may refuse.
    give_up_local: Duration,
    /// For a channel that receives: it is to be connected also when it has nothing to send, and ends when it was not
    /// for so long.
    connected_within: Option<Duration>,
    spin: Spin,
}

impl Patience {
    pub(crate) fn new(options: &DialOptions, receives: bool) -> Self {
        Self {
            give_up_local: options.connect_give_up_local,
            connected_within: receives.then_some(options.delivery_timeout),
            spin: options.spin,
        }
    }
}

/// Owns the life of a channel.
pub(crate) struct Driver<M: Send + 'static, K: Completion<M>, C: Codec<M>, D: Deliver<M>> {
    ends: Ends<M, K, C, D>,
    patience: Patience,
    backoff: Backoff,
    /// There was a connection.
    was_established: bool,
    /// Since when the address has refused without a break.
    refused_since: Option<Instant>,
    /// Since when there is no connection.
    alone_since: Instant,
    /// How far the peer had received when the last connection began.
    received: Seq,
    /// Declared last: the peer was taken leave of when it goes.
    _driving: Driving,
}

/// Why a try to connect gave no connection.
enum Failed {
    /// Another try may succeed.
    Retry(Reason),
    /// No other try will.
    Final(Reason),
    /// The session itself has ended.
    Over,
}

impl<M: Send + 'static, K: Completion<M>, C: Codec<M>, D: Deliver<M>> Driver<M, K, C, D> {
    pub(crate) fn new(ends: Ends<M, K, C, D>, patience: Patience) -> Self {
        let driving = ends.shared().common.drive();
        Self {
            ends,
            patience,
            backoff: Backoff::new(),
            was_established: false,
            refused_since: None,
            alone_since: Instant::now(),
            received: Seq(0),
            _driving: driving,
        }
    }

    /// Drives the channel to its end.
    pub(crate) async fn run(mut self) {
        while self.has_work().await {
            match self.connect().await {
                Ok((stream, decoder, epoch)) => self.pump(stream, decoder, epoch).await,
                Err(Failed::Over) => {}
                Err(Failed::Final(reason)) => self.ends.give_up(reason),
                Err(Failed::Retry(reason)) => self.pause(reason).await,
            }
        }
    }

    fn addr(&self) -> &ChannelAddr {
        &self.ends.shared().common.addr
    }

    fn publish(&self, status: Status) {
        self.ends.shared().common.publish(status);
    }

    fn receives(&self) -> bool {
        self.patience.connected_within.is_some()
    }

    /// Waits without a connection until messages wait for one; `false` when the session is over.
    async fn has_work(&mut self) -> bool {
        self.ends.finish();
        if !self.receives() {
            let shared: &Shared<M, K, C> = self.ends.shared();
            std::future::poll_fn(|cx| match shared.park_idle(cx.waker()) {
                true => Poll::Pending,
                false => Poll::Ready(()),
            })
            .await;
        }
        let over = self.ends.is_closed();
        self.ends.finish();
        !over
    }

    async fn connect(
        &mut self,
    ) -> Result<(Box<dyn ByteStream>, FrameDecoder, ConnectionEpoch), Failed> {
        let addr = self.addr().clone();
        self.publish(Status::Reconnecting);
        let Some(dial) = transport::dialer(addr.transport()) else {
            let error = format!("{} is not supported yet by this build", addr.transport());
            return Err(Failed::Final(Reason::Connect {
                addr,
                error,
                errno: None,
            }));
        };
        let limit = self.time_left().min(CONNECT_ATTEMPT_DEADLINE);
        let connected = match timeout(limit, dial.dial(&addr)).await {
            Ok(connected) => connected,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let Connected {
            mut stream,
            identity,
        } = match connected {
            Ok(connected) => connected,
            Err(error) => return Err(self.refused(&error)),
        };
        let ours = rustix::process::geteuid().as_raw();
        if let Some(uid) = identity.uid
            && uid != ours
        {
            let error = format!("it is served by uid {uid} and not by {ours}");
            return Err(Failed::Final(Reason::Connect {
                addr,
                error,
                errno: None,
            }));
        }
        self.refused_since = None;
        let mut decoder = FrameDecoder::new(self.ends.with(|session| session.config().max_frame));
        let limit = self.time_left().min(HANDSHAKE_DEADLINE);
        let epoch = match timeout(limit, self.greet(&mut stream, &mut decoder)).await {
            Ok(Ok(epoch)) => epoch,
            Ok(Err(failed)) => return Err(self.ungreeted(failed)),
            Err(_) => {
                let error = format!("no hello within {limit:?}");
                let failed = Failed::Retry(Reason::Connect {
                    addr,
                    error,
                    errno: None,
                });
                return Err(self.ungreeted(failed));
            }
        };
        Ok((stream, decoder, epoch))
    }

    /// How long until the session must be looked at.
    fn time_left(&mut self) -> Duration {
        let now = clock::now();
        let next = self.ends.with(|session| {
            // A first message waits from the moment the session is told of: without it there would be no time at all.
            let _only_the_next_one_counts = session.run_timeouts(now);
            session.next_timeout()
        });
        next.map_or(Duration::MAX, |next| next.since(now))
    }

    /// Judges why there is no connection. A local address that is absent or refuses has nobody behind it: the kernel
    /// knows, and after a moment for one who comes or comes back, that is final.
    fn refused(&mut self, error: &io::Error) -> Failed {
        let addr = self.addr().clone();
        let errno = error.raw_os_error();
        let reason = Reason::Connect {
            addr,
            error: error.to_string(),
            errno,
        };
        let is_absent = [Errno::CONNREFUSED, Errno::NOENT]
            .iter()
            .any(|absent| Some(absent.raw_os_error()) == errno);
        if !is_absent || !is_on_this_machine(self.addr()) {
            self.refused_since = None;
            return Failed::Retry(reason);
        }
        let since = *self.refused_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.patience() {
            return Failed::Final(reason);
        }
        Failed::Retry(reason)
    }

    fn patience(&self) -> Duration {
        let patience = self.patience.give_up_local;
        if self.was_established {
            patience.min(REDIAL_GIVE_UP_LOCAL)
        } else {
            patience
        }
    }

    async fn greet(
        &mut self,
        stream: &mut Box<dyn ByteStream>,
        decoder: &mut FrameDecoder,
    ) -> Result<ConnectionEpoch, Failed> {
        let mut ours = self.ends.with(|session| session.hello(clock::now()));
        self.ends.finish();
        // W-14: without it nobody would use the way back.
        if self.receives() && !ours.extensions.push(EXTENSION_RECEIVES, &[]) {
            tracing::warn!(addr = %self.addr(), "a hello has no room to say that this end receives");
        }
        let io = |error: io::Error, addr: &ChannelAddr| {
            let errno = error.raw_os_error();
            Failed::Retry(Reason::Connect {
                addr: addr.clone(),
                error: error.to_string(),
                errno,
            })
        };
        write_hello(stream, &ours)
            .await
            .map_err(|error| io(error, self.addr()))?;
        let theirs = match read_hello(stream, decoder).await {
            Ok(theirs) => theirs,
            Err(NoHello::Io(error)) => return Err(io(error, self.addr())),
            Err(NoHello::Malformed(error)) => {
                tracing::warn!(addr = %self.addr(), %error, "the peer answered with no valid hello");
                let cause = Cause::HelloRefused(HelloCode::Malformed);
                self.ends.with(|session| session.fail(cause, clock::now()));
                return Err(Failed::Over);
            }
        };
        let judged = self
            .ends
            .with(|session| session.on_hello(&theirs, clock::now()));
        match judged {
            Ok(established) => Ok(established.epoch),
            Err(error) if error.is_retryable() => Err(Failed::Retry(Reason::Refused {
                addr: self.addr().clone(),
                code: error.code().number(),
                text: error.to_string(),
            })),
            // The session has failed by itself.
            Err(error) => {
                tracing::debug!(addr = %self.addr(), %error, "the handshake failed for good");
                Err(Failed::Over)
            }
        }
    }

    /// The handshake failed: the session waits for another connection, unless it has ended.
    fn ungreeted(&mut self, failed: Failed) -> Failed {
        self.ends
            .with(|session| session.disconnected(session.epoch(), clock::now()));
        self.ends.finish();
        failed
    }

    async fn pump(
        &mut self,
        stream: Box<dyn ByteStream>,
        decoder: FrameDecoder,
        epoch: ConnectionEpoch,
    ) {
        self.was_established = true;
        self.ends.shared().note(None);
        // Where the peer resumes says what the last connection was good for, also when it was cut before it could say so.
        let received = self.ends.with(|session| session.dump().position);
        if received > std::mem::replace(&mut self.received, received) {
            self.backoff.reset();
        }
        self.ends.finish();
        self.ends.connected();
        self.publish(Status::Connected);
        let mut pump = Pump::new(stream, decoder, epoch, self.patience.spin);
        let ended = pump.run(&mut self.ends).await;
        if matches!(ended, Ended::Over) {
            pump.farewell().await;
            return;
        }
        tracing::debug!(addr = %self.addr(), %ended, "a connection was lost");
        drop(pump);
        self.ends
            .with(|session| session.disconnected(epoch, clock::now()));
        self.ends.finish();
        let reason = match ended {
            Ended::Lost(Some(error)) => {
                let errno = error.raw_os_error();
                Some(Reason::Connect {
                    addr: self.addr().clone(),
                    error: error.to_string(),
                    errno,
                })
            }
            _ => None,
        };
        // Only an exchange that was of use starts the pauses anew: a peer that accepts and closes is no better than one
        // that refuses.
        if self.ends.is_useful {
            self.backoff.reset();
        }
        self.alone_since = Instant::now();
        let idle = !self.receives() && self.ends.with(|session| session.unresolved() == 0);
        self.publish(if idle {
            Status::Idle
        } else {
            Status::Reconnecting
        });
        if !self.ends.is_useful {
            let reason = reason.unwrap_or_else(|| Reason::Connect {
                addr: self.addr().clone(),
                error: "the connection was closed before anything was acknowledged".to_owned(),
                errno: None,
            });
            self.pause(reason).await;
        }
    }

    /// Waits before the next try, no longer than the session or the patience with the address lasts.
    async fn pause(&mut self, reason: Reason) {
        let mut pause = self.backoff.next().min(self.time_left());
        if let Some(since) = self.refused_since {
            pause = pause.min(self.patience().saturating_sub(since.elapsed()));
        }
        let has_messages = self.ends.with(|session| session.unresolved() != 0);
        if let Some(within) = self.patience.connected_within
            // Messages have a deadline of their own.
            && !has_messages
        {
            let left = within.saturating_sub(self.alone_since.elapsed());
            if left.is_zero() {
                return self.ends.give_up(reason);
            }
            pause = pause.min(left);
        }
        self.ends.shared().note(Some(reason));
        self.sleep(pause).await;
        let now: Time = clock::now();
        self.ends.with(|session| session.run_timeouts(now));
        self.ends.finish();
    }

    /// Sleeps, but not beyond a close that leaves nothing to connect for.
    async fn sleep(&mut self, pause: Duration) {
        let mut asleep = std::pin::pin!(sleep(pause));
        let shared: &Shared<M, K, C> = self.ends.shared();
        std::future::poll_fn(|cx| {
            let is_over = shared.is_over(cx.waker());
            match asleep.as_mut().poll(cx) {
                Poll::Pending if !is_over => Poll::Pending,
                _ => Poll::Ready(()),
            }
        })
        .await;
    }
}

/// Whether the kernel of this machine knows if someone is at the address.
fn is_on_this_machine(addr: &ChannelAddr) -> bool {
    match addr {
        ChannelAddr::Unix(_) => true,
        _ => addr
            .host_port()
            .is_some_and(|host_port| host_port.host().is_loopback()),
    }
}
