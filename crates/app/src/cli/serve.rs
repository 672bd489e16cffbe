//! `tracelake serve`: runs the service until it is told to stop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tracelake_intake::{grpc_service, http_router};
use tracing::info;

use crate::config::{Overrides, Settings};
use crate::control::{self, ServerFile};
use crate::service::Service;

/// How long connections may take to end after a stop was asked for.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the archive service until Ctrl-C or SIGTERM.
///
/// Takes traces in over OTLP/HTTP and MLflow REST (one port) and OTLP/gRPC, acknowledges them once
/// they are on disk, and commits them to Delta tables.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tracelake serve\n  tracelake serve --data-dir /var/lib/tracelake --settle-after 5s\n  MLFLOW_TRACKING_URI=http://127.0.0.1:5000 python agent.py"
)]
pub(crate) struct ServeArgs {
    /// Settings file [default: tracelake.toml, if it is there]
    #[arg(long, env = "TRACELAKE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
}

pub(crate) async fn run(data_dir: &Path, args: ServeArgs) -> anyhow::Result<()> {
    let settings = Settings::load(args.config.as_deref(), args.overrides)?;
    let http = bind("listen", settings.listen).await?;
    let grpc = bind("otlp-grpc", settings.otlp_grpc).await?;
    let service = Service::start(data_dir, &settings).await?;
    let server =
        ServerFile { pid: std::process::id(), http: http.local_addr()?, grpc: grpc.local_addr()? };
    let stop = CancellationToken::new();
    let router = http_router(Arc::clone(&service.intake))
        .merge(control::router(service.commands.clone()))
        .merge(Arc::clone(&service.archive.catalog).router());
    let http_stop = stop.clone();
    let http_task = crate::tasks::spawn(async move {
        axum::serve(http, router)
            .with_graceful_shutdown(async move { http_stop.cancelled().await })
            .await
            .context("serve HTTP")
    });
    let grpc_stop = stop.clone();
    let grpc_routes = grpc_service(Arc::clone(&service.intake));
    let grpc_task = crate::tasks::spawn(async move {
        tonic::transport::Server::builder()
            .add_routes(grpc_routes)
            .serve_with_incoming_shutdown(TcpListenerStream::new(grpc), async move {
                grpc_stop.cancelled().await;
            })
            .await
            .context("serve gRPC")
    });
    // Before anyone can know of this process: the first signal is a stop, not an end.
    let signals = StopSignals::listen()?;
    let file = service.archive.folder.server_file();
    server.write(&file)?;
    info!(http = %server.http, grpc = %server.grpc, data_dir = %data_dir.display(), "serving");
    let archive = service.archive.clone();
    let default_table = settings.default_table.clone();
    let filling = crate::tasks::spawn(async move { archive.fill_catalog(&default_table).await });
    let asked = wait_for_stop(&service, signals).await;
    info!("stopping: no more requests, committing what has settled");
    stop.cancel();
    // It changes nothing that the next start would not do again.
    filling.abort();
    let drained = async { (http_task.await, grpc_task.await) };
    if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
        info!("connections still open, closing them");
    }
    let ended = service.stop().await;
    // Missing is as good as removed.
    std::fs::remove_file(&file).ok();
    asked?;
    ended
}

async fn bind(name: &str, address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("{name} on {address}\nhint: choose another port with --{name} 127.0.0.1:0")
    })
}

/// The signals that ask for a stop.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }
}

/// Returns on Ctrl-C, SIGTERM, or when the pipeline has ended by itself.
async fn wait_for_stop(service: &Service, mut signals: StopSignals) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            _ = signals.interrupt.recv() => return Ok(()),
            _ = signals.terminate.recv() => return Ok(()),
            _ = tick.tick() => if service.has_ended() {
                anyhow::bail!("the pipeline has ended; what was acknowledged is in the journal");
            }
        }
    }
}
