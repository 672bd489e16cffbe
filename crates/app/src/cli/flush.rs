//! `tracelake flush`: everything acknowledged, into the tables, now.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::archive::data_folder;
use crate::config::{Overrides, Settings};
use crate::control::{ServerFile, request_flush};
use crate::service::Service;

/// Settles and commits everything that was acknowledged; returns when it is in the tables.
///
/// Asks the running service, or does it itself when none runs on the folder.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tracelake flush && tracelake traces")]
pub(crate) struct FlushArgs {
    /// Settings file [default: tracelake.toml, if it is there]
    #[arg(long, env = "TRACELAKE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(crate) async fn run(data_dir: &Path, args: FlushArgs) -> anyhow::Result<()> {
    let folder = data_folder(data_dir)?;
    anyhow::ensure!(
        folder.root().try_exists()?,
        "no data folder at `{}`\nhint: name it with --data-dir",
        folder.root().display()
    );
    let outcome = match ServerFile::running(&folder.server_file()) {
        Some(server) => tokio::task::spawn_blocking(move || request_flush(&server)).await??,
        None => {
            let settings = Settings::load(args.config.as_deref(), Overrides::default())?;
            let service = Service::start(data_dir, &settings).await?;
            let outcome = Service::flush(&service.commands).await;
            service.stop().await?;
            serde_json::to_value(outcome.map_err(anyhow::Error::msg)?)?
        }
    };
    let count = |name: &str| outcome[name].as_u64().unwrap_or_default();
    let mut out = std::io::stdout().lock();
    writeln!(out, "appended {}, amended {}", count("appended"), count("amended"))?;
    if let Some(tables) = outcome["tables"].as_object() {
        for (table, version) in tables {
            writeln!(out, "  {table} is at version {version}")?;
        }
    }
    Ok(())
}
