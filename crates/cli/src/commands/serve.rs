//! `tracelake serve`: runs the service until it is told to stop.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracelake_archive::service::EndedByItself;
use tracelake_archive::serving::Serving;
use tracelake_archive::settings::Settings;

use crate::flags::Flags;

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
    /// Start without the carry file of this epoch, which is lost, and with it the acknowledged traces
    /// that it held
    #[arg(long, value_name = "EPOCH")]
    accept_lost_carry: Option<u64>,
    #[command(flatten)]
    flags: Flags,
}

pub(crate) async fn run(data_dir: &Path, args: ServeArgs) -> anyhow::Result<()> {
    let accept_lost_carry = args.accept_lost_carry;
    let settings = Settings::load(args.config.as_deref(), args.flags.into())?;
    let settings = Settings { accept_lost_carry, ..settings };
    // Before anyone can know of this process: the first signal is a stop, not an end.
    let signals = StopSignals::listen()?;
    let serving = Serving::start(data_dir, &settings).await?;
    let by_itself = wait_for_stop(&serving, signals).await;
    let ended = serving.stop().await;
    if by_itself {
        let reason = ended.err().map_or_else(|| "no reason given".to_owned(), |e| format!("{e:#}"));
        return Err(EndedByItself { reason }.into());
    }
    ended
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

/// Returns on Ctrl-C or SIGTERM, or with true when a part of the service has ended by itself.
async fn wait_for_stop(serving: &Serving, mut signals: StopSignals) -> bool {
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            _ = signals.interrupt.recv() => return false,
            _ = signals.terminate.recv() => return false,
            _ = tick.tick() => if serving.has_ended() {
                return true;
            }
        }
    }
}
