//! A service with its doors open: HTTP and gRPC around a [`Service`].

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::middleware::from_fn;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracelake_intake::{grpc_service, http_router};
use tracelake_model::{Clock as _, SystemClock};
use tracing::{error, info};

use crate::discovery::ServerFile;
use crate::http::guard::{refuse_foreign_names, refuse_foreign_pages};
use crate::http::{self, connections, control, health};
use crate::service::Service;
use crate::settings::Settings;
use crate::tasks;

/// How long connections may take to end after a stop was asked for.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How often it is looked whether the system has a date.
const LOOK_AT_DATE: Duration = Duration::from_secs(1);

/// A service that answers on its addresses.
#[derive(Debug)]
pub struct Serving {
    /// Where it answers.
    pub server: ServerFile,
    service: Service,
    stop: CancellationToken,
    http: JoinHandle<anyhow::Result<()>>,
    grpc: JoinHandle<anyhow::Result<()>>,
    filling: JoinHandle<()>,
}

impl Serving {
    /// Takes the data folder, opens the doors, and writes the file by which others find it.
    ///
    /// # Errors
    /// As [`Service::start`]; when an address is taken.
    pub async fn start(data_dir: &Path, settings: &Settings) -> anyhow::Result<Self> {
        let http = bind("listen", settings.listen).await?;
        let grpc = bind("otlp-grpc", settings.otlp_grpc).await?;
        let service = Service::start(data_dir, settings).await?;
        let server = ServerFile {
            pid: std::process::id(),
            http: http.local_addr()?,
            grpc: grpc.local_addr()?,
        };
        let stop = CancellationToken::new();
        let own = control::router(service.pipeline.clone())
            .merge(http::router(&service, data_dir, settings)?)
            .merge(http::parked::router(&service))
            .layer(from_fn(refuse_foreign_names));
        let router = http_router(Arc::clone(&service.intake))
            .merge(own)
            .merge(health::router(&service))
            .merge(Arc::clone(&service.archive.catalog).router())
            .layer(from_fn(refuse_foreign_pages));
        let clock = || Arc::clone(&service.archive.clock);
        let router = connections::dated(router, clock());
        let http_stop = stop.clone();
        let http = tasks::spawn(async move {
            connections::serve(http, router, http_stop).await;
            anyhow::Ok(())
        });
        let grpc_stop = stop.clone();
        let grpc_routes = grpc_service(Arc::clone(&service.intake));
        let grpc_routes = Routes::from(connections::dated(grpc_routes.into_axum_router(), clock()));
        let grpc = tasks::spawn(async move {
            tonic::transport::Server::builder()
                .add_routes(grpc_routes)
                .serve_with_incoming_shutdown(TcpListenerStream::new(grpc), async move {
                    grpc_stop.cancelled().await;
                })
                .await
                .context("serve gRPC")
        });
        let archive = service.archive.clone();
        let default_table = settings.default_table.clone();
        let filling = tasks::spawn(async move {
            // An entry of the catalog has a date, and its library panics at one before 1970.
            while SystemClock.now_unix_nano() == 0 {
                tokio::time::sleep(LOOK_AT_DATE).await;
            }
            archive.fill_catalog(&default_table).await;
        });
        server.write(&service.archive.folder.server_file())?;
        if SystemClock.now_unix_nano() == 0 {
            error!(
                "the system's date is before 1970: requests over HTTP are answered once it is set"
            );
        }
        info!(http = %server.http, grpc = %server.grpc, data_dir = %data_dir.display(), "serving");
        Ok(Self { server, service, stop, http, grpc, filling })
    }

    /// True when the pipeline or a door has ended by itself.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.service.has_ended() || self.http.is_finished() || self.grpc.is_finished()
    }

    /// Closes the doors, commits what has settled, and gives the folder back.
    ///
    /// # Errors
    /// When the pipeline had ended by itself.
    pub async fn stop(self) -> anyhow::Result<()> {
        info!("stopping: no more requests, committing what has settled");
        let file = self.service.archive.folder.server_file();
        self.service.expect_stop();
        self.stop.cancel();
        // It changes nothing that the next start would not do again.
        self.filling.abort();
        let (http, grpc) = (self.http, self.grpc);
        let doors = [http.abort_handle(), grpc.abort_handle()];
        let drained = async { (http.await, grpc.await) };
        if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
            info!("connections still open, closing them");
            doors.iter().for_each(tokio::task::AbortHandle::abort);
        }
        let ended = self.service.stop().await;
        // Missing is as good as removed.
        std::fs::remove_file(&file).ok();
        ended
    }
}

async fn bind(name: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("{name} on {address}\nhint: choose another port with --{name} 127.0.0.1:0")
    })
}
