//! What can be chosen about a host before it starts: [`HostBuilder`].

use std::sync::Arc;

use hyperactor_channel::ServeOptions;
use hyperactor_refs::{BindSpec, ChannelAddr};

use crate::config::ProcConfig;
use crate::error::HostError;
use crate::host::Host;
use crate::manager::ProcManager;

/// Choices about a host that has defaults for all of them.
#[derive(Debug, Default)]
pub struct HostBuilder {
    pub(crate) serve: ServeOptions,
    pub(crate) backend: Option<BindSpec>,
    pub(crate) config: ProcConfig,
    pub(crate) also: Vec<BindSpec>,
    pub(crate) aliases: Vec<ChannelAddr>,
    pub(crate) advertised: Option<ChannelAddr>,
    pub(crate) behind: Option<ChannelAddr>,
}

impl HostBuilder {
    /// Chooses how the frontend is served: limits, and whether plain TCP beyond loopback is allowed.
    #[must_use]
    pub fn serve_options(mut self, options: ServeOptions) -> Self {
        self.serve = options;
        self
    }

    /// Serves another frontend as well: one more entrance to the same procs. An id that is spelt with its address means the
    /// same proc as one that is spelt with the first frontend's.
    ///
    /// At most [`limits::FRONTENDS_MAX`](crate::limits::FRONTENDS_MAX) in all.
    #[must_use]
    pub fn also_serve(mut self, bind: impl Into<BindSpec>) -> Self {
        self.also.push(bind.into());
        self
    }

    /// Names an address that leads to a frontend of this host although the host cannot know: a name that resolves to the
    /// machine, or the outer end of a forwarded port. Ids that are spelt with it mean the host's procs.
    #[must_use]
    pub fn alias(mut self, addr: ChannelAddr) -> Self {
        self.aliases.push(addr);
        self
    }

    /// Chooses the address in the ids of the host's procs, in place of the first frontend's own. For a frontend on all
    /// addresses of a machine, which is otherwise known by the loopback address, that others cannot dial.
    #[must_use]
    pub fn advertise(mut self, addr: ChannelAddr) -> Self {
        self.advertised = Some(addr);
        self
    }

    /// Puts the host behind another, whose frontend is at `addr`: what arrives there for this host is carried on to it, and
    /// what its procs send to that host, to its guests, and to the hosts that it stands behind itself, goes there. One
    /// connection carries both, which this host dials and keeps; its own frontends need not be reachable from there.
    ///
    /// The start of the host waits for it, and fails when the other refuses: it is this very host, it stands behind this
    /// host, or it has another host of the same address behind it. Later the connection is made again whenever it is lost.
    #[must_use]
    pub fn behind(mut self, addr: ChannelAddr) -> Self {
        self.behind = Some(addr);
        self
    }

    /// Chooses where procs reach the host, instead of leaving it to their manager.
    #[must_use]
    pub fn backend(mut self, bind: impl Into<BindSpec>) -> Self {
        self.backend = Some(bind.into());
        self
    }

    /// Chooses what [`Host::spawn_default`] takes.
    #[must_use]
    pub fn default_config(mut self, config: ProcConfig) -> Self {
        self.config = config;
        self
    }

    /// Starts the host.
    ///
    /// # Errors
    /// As [`Host::new`].
    pub async fn start(
        self,
        manager: impl ProcManager,
        frontend: impl Into<BindSpec>,
    ) -> Result<Host, HostError> {
        Host::start(self, Arc::new(manager), frontend.into()).await
    }
}
