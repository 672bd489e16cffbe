//! Settings as arguments: a flag and a variable for each, with its help.

use std::net::SocketAddr;
use std::path::PathBuf;

use tracelake_archive::settings::{ByteSize, Overrides, Span};
use tracelake_model::{ExperimentId, TableName};

// No doc comment: it would become the help of the command that flattens this.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Flags {
    /// Address for OTLP/HTTP, MLflow REST and the read API; loopback only [default: 127.0.0.1:5000]
    #[arg(long, env = "TRACELAKE_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<SocketAddr>,
    /// Address for OTLP/gRPC; loopback only [default: 127.0.0.1:4317]
    #[arg(long, env = "TRACELAKE_OTLP_GRPC", value_name = "HOST:PORT")]
    pub otlp_grpc: Option<SocketAddr>,
    /// Table of experiments without a binding [default: tracelake.default.traces]
    #[arg(long, env = "TRACELAKE_DEFAULT_TABLE", value_name = "CATALOG.SCHEMA.TABLE")]
    pub default_table: Option<TableName>,
    /// Folder of the tables, such as a mounted share; noted in the data folder for every other
    /// command [default: tables in the data folder]
    #[arg(long, env = "TRACELAKE_TABLES_DIR", value_name = "FOLDER")]
    pub tables_dir: Option<PathBuf>,
    /// Experiment of spans that name none [default: 0]
    #[arg(long, env = "TRACELAKE_DEFAULT_EXPERIMENT", value_name = "ID")]
    pub default_experiment: Option<ExperimentId>,
    /// Silence after the root ended until a trace settles [default: 2s]
    #[arg(long, env = "TRACELAKE_SETTLE_AFTER", value_name = "TIME")]
    pub settle_after: Option<Span>,
    /// Silence until a trace without an ended root settles [default: 60s]
    #[arg(long, env = "TRACELAKE_IDLE_AFTER", value_name = "TIME")]
    pub idle_after: Option<Span>,
    /// Time between commits [default: 2s]
    #[arg(long, env = "TRACELAKE_COMMIT_EVERY", value_name = "TIME")]
    pub commit_every: Option<Span>,
    /// Bytes of spans after which a commit does not wait [default: 48MiB]
    #[arg(long, env = "TRACELAKE_COMMIT_BYTES", value_name = "SIZE")]
    pub commit_bytes: Option<ByteSize>,
    /// Time between amendment rounds of archived traces [default: 30s]
    #[arg(long, env = "TRACELAKE_AMEND_EVERY", value_name = "TIME")]
    pub amend_every: Option<Span>,
    /// Time between rounds of maintenance, which compacts tables and deletes what they no longer need;
    /// 0s switches it off [default: 10m]
    #[arg(long, env = "TRACELAKE_MAINTAIN_EVERY", value_name = "TIME")]
    pub maintain_every: Option<Span>,
    /// Age from which data files are compacted [default: 10m]
    #[arg(long, env = "TRACELAKE_COMPACT_AFTER", value_name = "TIME")]
    pub compact_after: Option<Span>,
    /// Age from which files are deleted that no version refers to since; at least 1h. A table's
    /// delta.deletedFileRetentionDuration wins; 0s deletes nothing [default: 7d]
    #[arg(long, env = "TRACELAKE_VACUUM_AFTER", value_name = "TIME")]
    pub vacuum_after: Option<Span>,
    /// Take a vacuum_after down to 1m. Unsafe: readers of older versions find their files gone
    #[arg(
        long,
        env = "TRACELAKE_FORCE_SHORT_HORIZON",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub force_short_horizon: Option<bool>,
    /// Bytes of spans that unsettled traces may hold in memory [default: 48MiB]
    #[arg(long, env = "TRACELAKE_MAX_OPEN", value_name = "SIZE")]
    pub max_open: Option<ByteSize>,
    /// Bytes that the journal may take on disk [default: 10GiB]
    #[arg(long, env = "TRACELAKE_JOURNAL_BUDGET", value_name = "SIZE")]
    pub journal_budget: Option<ByteSize>,
    /// Bytes of one request body [default: 64MiB]
    #[arg(long, env = "TRACELAKE_MAX_BODY", value_name = "SIZE")]
    pub max_body: Option<ByteSize>,
    /// Bytes of one request body after decompression [default: 256MiB]
    #[arg(long, env = "TRACELAKE_MAX_DECOMPRESSED", value_name = "SIZE")]
    pub max_decompressed: Option<ByteSize>,
    /// Bytes of a request's spans, each with its resource and scope [default: 512MiB]
    #[arg(long, env = "TRACELAKE_MAX_EXPANDED", value_name = "SIZE")]
    pub max_expanded: Option<ByteSize>,
    /// Attributes of one span, event, link, resource or scope [default: 10000]
    #[arg(long, env = "TRACELAKE_MAX_ATTRIBUTES", value_name = "COUNT")]
    pub max_attributes: Option<usize>,
    /// Levels of nesting in one attribute value [default: 64]
    #[arg(long, env = "TRACELAKE_MAX_NESTING", value_name = "LEVELS")]
    pub max_nesting: Option<usize>,
    /// Traces held in memory to tell late spans from new traces, at most 16 bytes each [default:
    /// 4000000]
    #[arg(long, env = "TRACELAKE_INDEX_LIMIT", value_name = "COUNT")]
    pub index_limit: Option<usize>,
    /// How long it is kept what was acknowledged, for `verify` [default: 90d]
    #[arg(long, env = "TRACELAKE_LEDGER_RETENTION", value_name = "TIME")]
    pub ledger_retention: Option<Span>,
}

impl From<Flags> for Overrides {
    fn from(flags: Flags) -> Self {
        let Flags {
            listen,
            otlp_grpc,
            default_table,
            tables_dir,
            default_experiment,
            settle_after,
            idle_after,
            commit_every,
            commit_bytes,
            amend_every,
            maintain_every,
            compact_after,
            vacuum_after,
            force_short_horizon,
            max_open,
            journal_budget,
            max_body,
            max_decompressed,
            max_expanded,
            max_attributes,
            max_nesting,
            index_limit,
            ledger_retention,
        } = flags;
        // Experiments by service are in the file alone.
        Self {
            listen,
            otlp_grpc,
            default_table,
            tables_dir,
            default_experiment,
            settle_after,
            idle_after,
            commit_every,
            commit_bytes,
            amend_every,
            maintain_every,
            compact_after,
            vacuum_after,
            force_short_horizon,
            max_open,
            journal_budget,
            max_body,
            max_decompressed,
            max_expanded,
            max_attributes,
            max_nesting,
            index_limit,
            ledger_retention,
            services: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the settings table of the documentation beside the settings themselves.
    /// Guarantees: every setting is in it with its key, variable and flag.
    #[test]
    fn every_setting_is_documented() {
        let docs = include_str!("../../../docs/settings.md");
        let command = <Flags as clap::Args>::augment_args(clap::Command::new("settings"));
        for argument in command.get_arguments() {
            let flag = argument.get_long().unwrap();
            let variable = argument.get_env().unwrap().to_str().unwrap();
            let key = flag.replace('-', "_");
            let row = format!("| `{key}` | `{variable}` | `--{flag}` |");
            assert!(docs.contains(&row), "docs/settings.md lacks `{row}`");
        }
    }

    /// Scenario: a setting by its flag.
    /// Guarantees: it is the one of that name.
    #[test]
    fn flags_are_settings() {
        let flags = Flags { max_nesting: Some(7), ..Flags::default() };
        assert_eq!(Overrides::from(flags).max_nesting, Some(7));
    }
}
