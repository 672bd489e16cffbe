//! `tracelake flush`: everything acknowledged, into the tables, now.

use std::io::Write;
use std::path::{Path, PathBuf};

use tracelake_archive::discovery::{ServerFile, request_flush};
use tracelake_archive::folder::data_folder;
use tracelake_archive::service::Service;
use tracelake_archive::settings::{Overrides, Settings};

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
            let outcome = service.pipeline.flush().await;
            service.stop().await?;
            serde_json::to_value(outcome.map_err(anyhow::Error::msg)?)?
        }
    };
    report(&outcome, &mut std::io::stdout().lock())?;
    Ok(())
}

/// Says what a flush did, of the service's answer.
fn report(outcome: &serde_json::Value, out: &mut impl Write) -> std::io::Result<()> {
    let count = |name: &str| outcome[name].as_u64().unwrap_or_default();
    let [appended, amended, deleted] = ["appended", "amended", "deleted"].map(count);
    writeln!(out, "appended {appended}, amended {amended}, deleted {deleted}")?;
    if let Some(tables) = outcome["tables"].as_object() {
        for (table, version) in tables {
            writeln!(out, "  {table} is at version {version}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracelake_pipeline::FlushOutcome;

    /// Scenario: a flush that took rows in and out of a table, and one with nothing to do.
    /// Guarantees: every kind of change is counted, and written tables are named.
    #[test]
    fn says_what_changed() {
        let said = |outcome: &FlushOutcome| {
            let mut out = Vec::new();
            report(&serde_json::to_value(outcome).unwrap(), &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let table = "production.monitoring.agent_traces".parse().unwrap();
        let outcome = FlushOutcome {
            appended: 3,
            amended: 2,
            deleted: 1,
            tables: [(table, 7)].into(),
            ..FlushOutcome::default()
        };
        assert_eq!(
            said(&outcome),
            "appended 3, amended 2, deleted 1\n  \
             production.monitoring.agent_traces is at version 7\n"
        );
        assert_eq!(said(&FlushOutcome::default()), "appended 0, amended 0, deleted 0\n");
    }
}
