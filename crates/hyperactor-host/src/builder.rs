//! What can be chosen about a host before it starts: [`HostBuilder`].

use std::sync::Arc;

use hyperactor_channel::ServeOptions;
use hyperactor_refs::BindSpec;

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
}

impl HostBuilder {
    /// Chooses how the frontend is served: limits, and whether plain TCP beyond loopback is allowed.
    #[must_use]
    pub fn serve_options(mut self, options: ServeOptions) -> Self {
        self.serve = options;
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
