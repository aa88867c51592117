//! [`Host`]: two addresses, one router, its own proc, and the procs that a manager makes for it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hyperactor_channel::ServeOptions;
use hyperactor_mailbox::{DeathCertificate, MailboxSender, ProcExit};
use hyperactor_proc::{Proc, StopReport};
use hyperactor_refs::{BindSpec, ChannelAddr, Incarnation, ProcId, Reference};
use hyperactor_router::{DialMailboxRouter, MailboxServer, MailboxServerHandle};
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use crate::above::{self, Above, Attachment};
use crate::addrs::HostAddrs;
use crate::agent::{HOST_AGENT, HostAgent};
use crate::builder::HostBuilder;
use crate::config::ProcConfig;
use crate::departed::Departed;
use crate::door;
use crate::entrance::Entrance;
use crate::error::HostError;
use crate::events::ProcEvent;
use crate::hosted::{Hosted, HostedProc};
use crate::interfaces;
use crate::keeper::Watch;
use crate::limits;
use crate::manager::ProcManager;
use crate::relay::{Relay, Ways};
use crate::restart::Lives;
use crate::spec::{End, EndedBy, ProcSpec};
use crate::visitors::Visitors;

/// The name of a host's own proc.
pub const SERVICE_PROC: &str = "service";

/// Many procs under one address.
///
/// The *frontend* is where the world reaches all procs of the host, and part of their names; the *backend* is where the
/// host's own procs reach it. Both lead into one router, which knows where each proc is. A message to a name that is not
/// there comes back at once, with the names that are. A clone is another handle of the same host.
///
/// Dropping the last handle without [`stop`](Self::stop) ends all procs by force, but for those that are to
/// [stay](crate::OnHostLoss::Stay).
#[derive(Clone)]
pub struct Host {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) addrs: HostAddrs,
    pub(crate) backend: ChannelAddr,
    pub(crate) router: DialMailboxRouter,
    pub(crate) relay: Relay,
    entrance: Entrance,
    service: Proc,
    /// Taken out when the host stops.
    attachment: Mutex<Option<Attachment>>,
    default_config: ProcConfig,
    pub(crate) procs: Mutex<Procs>,
    departed: Departed,
    pub(crate) events: broadcast::Sender<ProcEvent>,
    /// What became of procs of an earlier life before anybody could ask, for the first who does.
    pub(crate) first_events: Mutex<Option<broadcast::Receiver<ProcEvent>>>,
    /// Whether the host was told to stop.
    stopping: watch::Sender<bool>,
    /// What another process asked for: the end of the host, with this deadline.
    pub(crate) stop_wanted: watch::Sender<Option<Duration>>,
    pub(crate) since: Instant,
    /// Taken out when the host stops.
    servers: Mutex<Vec<MailboxServerHandle>>,
    /// Declared last: dropping it ends the procs that are still there.
    pub(crate) manager: Arc<dyn ProcManager>,
}

#[derive(Default)]
pub(crate) struct Procs {
    stopping: bool,
    pub(crate) by_name: BTreeMap<String, Place>,
}

pub(crate) enum Place {
    /// Somebody is starting a proc of this name.
    Taken,
    /// A proc of this name has ended and is to be started again.
    Resting,
    Running(HostedProc),
}

/// How the end of a host went.
#[derive(Debug)]
#[non_exhaustive]
pub struct HostReport {
    /// The procs that were running, by name, with how they ended.
    pub procs: Vec<(String, ProcExit)>,
    /// How the host's own proc ended.
    pub service: StopReport,
    /// What could not be removed, in words. Empty after a clean end.
    pub left_behind: Vec<String>,
}

impl HostReport {
    /// Whether every proc ended in order and nothing is left.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.left_behind.is_empty() && self.procs.iter().all(|(_, exit)| exit.is_orderly())
    }
}

impl Host {
    /// Starts a host: serves both addresses and makes its own proc. It has no other procs yet.
    ///
    /// # Errors
    /// [`HostError::Frontend`] and [`HostError::Backend`] name the address that cannot be served, and why.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn new(
        manager: impl ProcManager,
        frontend: impl Into<BindSpec>,
    ) -> Result<Self, HostError> {
        Self::builder().start(manager, frontend).await
    }

    /// Returns a builder, for what [`new`](Self::new) leaves at its defaults.
    #[must_use]
    pub fn builder() -> HostBuilder {
        HostBuilder::default()
    }

    pub(crate) async fn start(
        builder: HostBuilder,
        manager: Arc<dyn ProcManager>,
        frontend: BindSpec,
    ) -> Result<Self, HostError> {
        let HostBuilder {
            serve,
            backend,
            config,
            also,
            aliases,
            advertised,
            behind,
        } = builder;
        let router = DialMailboxRouter::new();
        let incarnation = random_incarnation()?;
        let serve = ServeOptions {
            incarnation,
            ..serve
        };
        let binds: Vec<BindSpec> = std::iter::once(frontend).chain(also).collect();
        let entrance = Entrance::new(incarnation);
        let (mut servers, served) = serve_all(&binds, &entrance, &serve).await?;
        let addrs = HostAddrs::new(advertised.unwrap_or_else(|| served[0].clone()))
            .with_all(served)
            .with_all(aliases);
        for addr in addrs.iter() {
            router.own(addr.clone());
        }
        let departed = Departed::default();
        let service_proc_id = Arc::new(ProcId::Direct(
            addrs.canonical().clone(),
            SERVICE_PROC.to_string(),
        ));
        let relay = Relay::new(Ways {
            incarnation,
            service: Arc::clone(&service_proc_id),
            addrs: addrs.clone(),
            router: router.clone(),
            departed: departed.clone(),
            visitors: Visitors::new(),
            above: Above::default(),
        });

        let backend = backend.unwrap_or_else(|| manager.backend());
        let back = MailboxServer::serve_duplex(backend, serve, entrance.backend(relay.clone()))
            .await
            .map_err(HostError::Backend)?;
        let backend = back.addr().clone();
        router.own(backend.clone());
        servers.push(back);

        let service =
            Proc::with_incarnation((*service_proc_id).clone(), incarnation, relay.boxed());
        router.bind_sender(service_reference(&service_proc_id), service.clone());
        // Before anybody can be answered who the host is: that includes whom it stands behind.
        let attachment = match behind {
            Some(addr) => match above::attach(&relay, &service, addr).await {
                Ok(attachment) => Some(attachment),
                Err(error) => {
                    router.unbind(&service_reference(&service_proc_id));
                    join_all(servers.into_iter().map(MailboxServerHandle::stop)).await;
                    return Err(error);
                }
            },
            None => None,
        };
        let inner = Inner {
            addrs,
            backend,
            router,
            relay,
            entrance,
            service,
            attachment: Mutex::new(attachment),
            default_config: config,
            procs: Mutex::default(),
            departed,
            events: broadcast::Sender::new(limits::EVENTS_MAX),
            first_events: Mutex::default(),
            stopping: watch::Sender::new(false),
            stop_wanted: watch::Sender::new(None),
            since: Instant::now(),
            servers: Mutex::new(servers),
            manager,
        };
        let inner = Arc::new(inner);
        let agent = HostAgent::new(Arc::downgrade(&inner));
        inner
            .service
            .spawn(HOST_AGENT, agent)
            .map_err(|error| HostError::Agent {
                reason: error.to_string(),
            })?
            // From here on it can be reached from elsewhere.
            .bind();
        inner.take_back_survivors()?;
        inner.entrance.open(&inner.relay);
        Ok(Self { inner })
    }

    /// Resolves when another process asked for the end of this host through its [agent](HostAgent), with the deadline that it
    /// gave. Who owns the host decides what comes of it.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn stop_wanted(&self) -> Duration {
        let mut wanted = self.inner.stop_wanted.subscribe();
        // The sender lives in this handle: the wait ends with the condition.
        let wanted = wanted.wait_for(Option::is_some).await;
        wanted.ok().and_then(|wanted| *wanted).unwrap_or_default()
    }

    /// Where the world reaches the procs of this host; part of their ids.
    #[must_use]
    pub fn addr(&self) -> &ChannelAddr {
        self.inner.addrs.canonical()
    }

    /// All addresses under which the world knows this host: that of [`addr`](Self::addr), the other frontends, what a
    /// wildcard stood for when it was bound, and the aliases.
    #[must_use]
    pub fn addrs(&self) -> &HostAddrs {
        &self.inner.addrs
    }

    /// The guests that are here, by their ids.
    #[must_use]
    pub fn guests(&self) -> Vec<Arc<ProcId>> {
        self.inner.relay.visitors().guests()
    }

    /// How many sessions others have with this host, at all frontends and the backend: connected, or lost and not given up yet.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.inner.entrance.sessions()
    }

    /// The hosts that this one stands behind: the next one, then the one before that, and so on.
    #[must_use]
    pub fn hosts_above(&self) -> Vec<ChannelAddr> {
        let floors = self.inner.relay.above().floors();
        let addrs = floors.iter().map(|floor| floor.addrs.canonical().clone());
        addrs.collect()
    }

    /// The addresses of the hosts behind this one, and of those behind them.
    #[must_use]
    pub fn addrs_behind(&self) -> Vec<ChannelAddr> {
        self.inner.relay.visitors().addrs()
    }

    /// Where the procs of this host reach it.
    #[must_use]
    pub fn backend_addr(&self) -> &ChannelAddr {
        &self.inner.backend
    }

    /// The host's own proc, in this process.
    #[must_use]
    pub fn service_proc(&self) -> &Proc {
        &self.inner.service
    }

    /// What moves the messages of this host.
    #[must_use]
    pub fn router(&self) -> &DialMailboxRouter {
        &self.inner.router
    }

    /// The id that the proc `name` has, or would have, on this host.
    ///
    /// # Errors
    /// [`HostError::Name`] when no proc can have the name.
    pub fn proc_id(&self, name: &str) -> Result<ProcId, HostError> {
        Ok(ProcId::direct(self.addr().clone(), name)?)
    }

    /// Makes a proc called `name` and returns when it can be reached. Calls may overlap; a slow start delays nobody
    /// else.
    ///
    /// # Errors
    /// [`HostError`]: the name is taken or impossible, the host is full or stopping, or the manager failed. Nothing of the
    /// proc is left then, and its name is free.
    ///
    /// # Cancel safety
    /// Dropping the future ends the proc that was being made.
    ///
    /// # Bounds
    /// As long as the manager waits for a proc. At most [`limits::PROCS_MAX`] procs.
    pub async fn spawn(&self, name: &str, config: ProcConfig) -> Result<HostedProc, HostError> {
        let inner = &self.inner;
        self.proc_id(name)?;
        if name == SERVICE_PROC || door::is_guest(name) {
            return Err(HostError::Reserved {
                name: name.to_owned(),
            });
        }
        let place = inner.take_place(name)?;
        inner.launch(place, config, Lives::default()).await
    }

    /// As [`spawn`](Self::spawn), with the host's default configuration.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub async fn spawn_default(&self, name: &str) -> Result<HostedProc, HostError> {
        self.spawn(name, self.inner.default_config.clone()).await
    }

    /// The proc called `name`, if it is running.
    #[must_use]
    pub fn proc(&self, name: &str) -> Option<HostedProc> {
        match self.inner.procs.lock().by_name.get(name) {
            Some(Place::Running(hosted)) => Some(hosted.clone()),
            _ => None,
        }
    }

    /// All running procs, in the order of their names; the host's own is not among them.
    #[must_use]
    pub fn procs(&self) -> Vec<HostedProc> {
        self.inner.running()
    }

    /// Tells of every start and every end of a proc from here on. A receiver that is more than [`limits::EVENTS_MAX`]
    /// events behind misses the oldest and is told how many.
    ///
    /// The first receiver of a host that found procs of an earlier life is told what became of those from the start.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<ProcEvent> {
        let first = self.inner.first_events.lock().take();
        first.unwrap_or_else(|| self.inner.events.subscribe())
    }

    /// Gives up a proc that has ended and waits to be started again: its name is free, and it stays gone. Returns
    /// whether there was such a proc.
    pub fn give_up(&self, name: &str) -> bool {
        self.inner.take_resting_place(name).is_some()
    }

    /// Ends the host: all procs at the same time, then its own proc, then its addresses.
    ///
    /// Procs empty their mailboxes for at most `deadline`, and are ended by force when that does not help. A second call
    /// finds nothing left to do.
    ///
    /// # Cancel safety
    /// A dropped future leaves the host stopping: procs that were asked to end do so, no new ones are made.
    ///
    /// # Bounds
    /// The deadline twice (procs, then the host's own proc), and the margins of the manager and of
    /// [`limits::SERVER_STOP_TIMEOUT`].
    pub async fn stop(&self, deadline: Duration) -> HostReport {
        let inner = &self.inner;
        let running = {
            inner.procs.lock().stopping = true;
            inner.stopping.send_replace(true);
            inner.running()
        };
        inner.manager.closing();
        let ends = running.into_iter().map(|hosted| async move {
            let exit = hosted
                .inner
                .end(End::Drain { deadline }, EndedBy::Host)
                .await;
            (hosted.name().to_owned(), exit)
        });
        let procs = join_all(ends).await;
        let service = inner.service.stop(deadline).await;
        let attachment = inner.attachment.lock().take();
        if let Some(attachment) = attachment {
            attachment.end().await;
        }
        let servers = std::mem::take(&mut *inner.servers.lock());
        let goodbyes = join_all(servers.into_iter().map(MailboxServerHandle::stop));
        if tokio::time::timeout(limits::SERVER_STOP_TIMEOUT, goodbyes)
            .await
            .is_err()
        {
            tracing::debug!(target: "hyperactor::host", "the servers did not say goodbye in time and were closed");
        }
        let left_behind = inner.manager.shutdown().await;
        tracing::info!(target: "hyperactor::host", event = "host.stopped", addr = %inner.addrs.canonical(), procs = procs.len(), left_behind = left_behind.len(), "the host has stopped");
        HostReport {
            procs,
            service,
            left_behind,
        }
    }
}

/// Serves all frontends of a host, and says where the world finds them: the first address of each bind is what was bound,
/// the others are what a wildcard stands for.
async fn serve_all(
    binds: &[BindSpec],
    entrance: &Entrance,
    options: &ServeOptions,
) -> Result<(Vec<MailboxServerHandle>, Vec<ChannelAddr>), HostError> {
    if binds.len() > limits::FRONTENDS_MAX {
        return Err(HostError::TooManyFrontends {
            asked: binds.len(),
            max: limits::FRONTENDS_MAX,
        });
    }
    let mut servers = Vec::new();
    let mut addrs = Vec::new();
    for (number, bind) in binds.iter().enumerate() {
        let entrance = entrance.numbered(number);
        match MailboxServer::serve_duplex(bind.clone(), options.clone(), entrance).await {
            Ok(server) => {
                addrs.push(server.addr().clone());
                servers.push(server);
            }
            Err(error) => {
                // Their addresses are free when this returns.
                join_all(servers.into_iter().map(MailboxServerHandle::stop)).await;
                return Err(HostError::Frontend(error));
            }
        }
    }
    let spelt = binds.iter().zip(addrs.clone());
    addrs.extend(spelt.flat_map(|(bind, served)| interfaces::spellings(bind, &served)));
    Ok((servers, addrs))
}

fn service_reference(proc_id: &ProcId) -> Reference {
    Reference::from(Arc::new(proc_id.clone()))
}

fn random_incarnation() -> Result<Incarnation, HostError> {
    let number = getrandom::u64().map_err(|error| HostError::Random {
        reason: error.to_string(),
    })?;
    // Zero means "any" where lives are compared.
    Ok(Incarnation::new(number.max(1)))
}

impl Inner {
    fn running(&self) -> Vec<HostedProc> {
        let procs = self.procs.lock();
        let running = procs.by_name.values().filter_map(|place| match place {
            Place::Running(hosted) => Some(hosted.clone()),
            Place::Taken | Place::Resting => None,
        });
        running.collect()
    }

    /// Makes the proc of a name that is taken, and watches over it.
    pub(crate) async fn launch(
        self: &Arc<Self>,
        place: Reservation<'_>,
        config: ProcConfig,
        lives: Lives,
    ) -> Result<HostedProc, HostError> {
        let proc_id = Arc::new(ProcId::direct(self.addrs.canonical().clone(), place.name)?);
        let spec = ProcSpec {
            proc_id: Arc::clone(&proc_id),
            incarnation: random_incarnation()?,
            frontend: self.addrs.canonical().clone(),
            aliases: self.addrs.others().to_vec(),
            backend: self.backend.clone(),
            config: config.clone(),
        };
        let since = Instant::now();
        let handle = self.manager.spawn(spec).await?;
        let addr = handle.info().addr.clone();
        self.departed.leave(proc_id.name());
        self.router.bind(Arc::clone(&proc_id), addr)?;
        let hosted = HostedProc {
            inner: Arc::new(Hosted::new(handle)),
        };
        place.fill(hosted.clone())?;
        tracing::info!(target: "hyperactor::host", event = "proc.ready", proc = %proc_id, pid = hosted.info().pid, "a proc is ready");
        self.tell(ProcEvent::Ready {
            info: hosted.info().clone(),
            restarts: lives.total(),
            taken_back: false,
        });
        self.watch(hosted.clone(), config, lives, since);
        Ok(hosted)
    }

    /// Watches over one life of a proc from here on.
    pub(crate) fn watch(
        self: &Arc<Self>,
        hosted: HostedProc,
        config: ProcConfig,
        lives: Lives,
        since: Instant,
    ) {
        let watch = Watch {
            host: Arc::downgrade(self),
            router: self.router.clone(),
            hosted,
            config,
            lives,
            stopping: self.stopping.subscribe(),
            since,
        };
        tokio::spawn(watch.run());
    }

    /// Tells whoever listens.
    pub(crate) fn tell(&self, event: ProcEvent) {
        // An error means that nobody does.
        drop(self.events.send(event));
    }

    /// Remembers how a proc ended for those who send to it, and tells those in the host's own proc who watch it.
    pub(crate) fn note_end(&self, certificate: Arc<DeathCertificate>) {
        self.departed.enter(Arc::clone(&certificate));
        self.service.note_proc_end(certificate);
    }

    /// Frees the name of a proc that has ended, or keeps it for its next life.
    pub(crate) fn vacate(&self, name: &str, rests: bool) {
        let mut procs = self.procs.lock();
        if rests && !procs.stopping {
            procs.by_name.insert(name.to_owned(), Place::Resting);
        } else {
            procs.by_name.remove(name);
        }
    }

    /// Keeps a free name for the next life of a proc. `false` when it is not free, or the host stops.
    pub(crate) fn rest(&self, name: &str) -> bool {
        let mut procs = self.procs.lock();
        let can = !procs.stopping && !procs.by_name.contains_key(name);
        if can {
            procs.by_name.insert(name.to_owned(), Place::Resting);
        }
        can
    }

    /// Takes the name of a proc that waits to be started again. It is free when the returned value is dropped unfilled.
    pub(crate) fn take_resting_place<'a>(&'a self, name: &'a str) -> Option<Reservation<'a>> {
        let mut procs = self.procs.lock();
        match procs.by_name.get_mut(name) {
            Some(place @ Place::Resting) => *place = Place::Taken,
            _ => return None,
        }
        Some(Reservation {
            host: self,
            name,
            filled: false,
        })
    }

    /// Takes a name. It is free again when the returned value is dropped unfilled.
    fn take_place<'a>(&'a self, name: &'a str) -> Result<Reservation<'a>, HostError> {
        let mut procs = self.procs.lock();
        if procs.stopping {
            return Err(HostError::Stopping);
        }
        if procs.by_name.contains_key(name) {
            return Err(HostError::NameInUse {
                name: name.to_owned(),
            });
        }
        if procs.by_name.len() >= limits::PROCS_MAX {
            return Err(HostError::too_many());
        }
        procs.by_name.insert(name.to_owned(), Place::Taken);
        Ok(Reservation {
            host: self,
            name,
            filled: false,
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.procs.lock().stopping {
            self.manager.abandoned();
        }
        for hosted in self.running() {
            hosted.inner.end_is_wanted_by(EndedBy::Host);
        }
        // The router holds the proc and the proc the router: this lets go of both.
        self.router
            .unbind(&service_reference(self.service.proc_id()));
    }
}

/// A name that is taken for a proc that is being started.
pub(crate) struct Reservation<'a> {
    host: &'a Inner,
    name: &'a str,
    filled: bool,
}

impl Reservation<'_> {
    /// Puts the proc in its place, unless the host was told to stop meanwhile: then the proc goes with its handle.
    fn fill(mut self, hosted: HostedProc) -> Result<(), HostError> {
        let mut procs = self.host.procs.lock();
        if procs.stopping {
            return Err(HostError::Stopping);
        }
        procs
            .by_name
            .insert(self.name.to_owned(), Place::Running(hosted));
        self.filled = true;
        Ok(())
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.filled {
            return;
        }
        self.host.procs.lock().by_name.remove(self.name);
        if let Ok(proc_id) = ProcId::direct(self.host.addrs.canonical().clone(), self.name) {
            // Bound only if the last step failed.
            self.host.router.unbind(&Reference::from(Arc::new(proc_id)));
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("addr", &format_args!("{}", self.addr()))
            .field("backend", &format_args!("{}", self.backend_addr()))
            .field("procs", &self.inner.procs.lock().by_name.len())
            .finish_non_exhaustive()
    }
}
