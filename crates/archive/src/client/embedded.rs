//! A service in this process, for notebooks and tests.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::place::checked_text;
use crate::discovery::ServerFile;
use crate::fault::{Fault, FaultKind};
use crate::folder::data_folder;
use crate::serving::Serving;
use crate::settings::{Overrides, Settings};

/// How to serve. What is not given is as in the settings.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// Address of HTTP; port 0 takes a free one.
    pub listen: Option<SocketAddr>,
    /// Address of OTLP over gRPC.
    pub otlp_grpc: Option<SocketAddr>,
    /// Other settings by the names of `tracelake.toml`, as TOML values.
    pub settings: String,
}

/// A running service. To be stopped, so that what has settled is committed; nothing acknowledged
/// is lost otherwise.
#[derive(Debug)]
pub struct EmbeddedService {
    serving: Serving,
    data_dir: PathBuf,
}

impl EmbeddedService {
    /// Starts a service on `data_dir`. Must be called within a tokio runtime, which carries it.
    ///
    /// # Errors
    /// [`FaultKind::Conflict`] when a service runs on the folder already;
    /// [`FaultKind::InvalidParameterValue`] for settings that make no sense or a taken port.
    pub async fn start(data_dir: &Path, options: ServeOptions) -> Result<Self, Fault> {
        checked_text(data_dir.as_os_str())?;
        let mut overrides = Overrides::from_toml(&options.settings)?;
        overrides.listen = options.listen.or(overrides.listen);
        overrides.otlp_grpc = options.otlp_grpc.or(overrides.otlp_grpc);
        let settings = Settings::load(None, overrides)
            .map_err(|error| Fault { kind: FaultKind::InvalidParameterValue, ..error.into() })?;
        let serving = Serving::start(data_dir, &settings).await?;
        let data_dir = data_folder(data_dir)?.root().to_owned();
        Ok(Self { serving, data_dir })
    }

    /// Address of HTTP.
    #[must_use]
    pub const fn http(&self) -> SocketAddr {
        self.server().http
    }

    /// Address of OTLP over gRPC.
    #[must_use]
    pub const fn otlp_grpc(&self) -> SocketAddr {
        self.server().grpc
    }

    /// The data folder.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    const fn server(&self) -> &ServerFile {
        &self.serving.server
    }

    /// Closes the doors, commits what has settled, and gives the folder back.
    ///
    /// # Errors
    /// When the last commit failed; what was acknowledged is in the journal.
    pub async fn stop(self) -> Result<(), Fault> {
        Ok(self.serving.stop().await?)
    }
}
