//! Settings: built-in defaults, then `tracelake.toml`, then environment, then flags; the later
//! wins. Every key is one field of [`Overrides`], documented there and in `docs/settings.md`.

mod units;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use tracelake_lake::assemble::SettleRules;
use tracelake_lake::maintain::vacuum::VacuumRules;
use tracelake_model::limits::MAX_NESTING_DEPTH;
use tracelake_model::{ExperimentId, Limits, TableName};

pub use units::{ByteSize, Span};

use crate::fault::{Fault, FaultKind};

/// Name of the file that is read when none is named.
const CONFIG_FILE: &str = "tracelake.toml";

/// How long the ledger is kept, unless set otherwise.
const LEDGER_RETENTION: Duration = Duration::from_secs(90 * 86_400);

/// What may be set, in the file by these names, and by whoever calls this library.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Overrides {
    /// The key `listen`; `docs/settings.md` says what it means.
    pub listen: Option<SocketAddr>,
    /// The key `otlp_grpc`; `docs/settings.md` says what it means.
    pub otlp_grpc: Option<SocketAddr>,
    /// The key `default_table`; `docs/settings.md` says what it means.
    pub default_table: Option<TableName>,
    /// The key `tables_dir`; `docs/settings.md` says what it means.
    pub tables_dir: Option<PathBuf>,
    /// The key `default_experiment`; `docs/settings.md` says what it means.
    pub default_experiment: Option<ExperimentId>,
    /// The key `settle_after`; `docs/settings.md` says what it means.
    pub settle_after: Option<Span>,
    /// The key `idle_after`; `docs/settings.md` says what it means.
    pub idle_after: Option<Span>,
    /// The key `commit_every`; `docs/settings.md` says what it means.
    pub commit_every: Option<Span>,
    /// The key `commit_bytes`; `docs/settings.md` says what it means.
    pub commit_bytes: Option<ByteSize>,
    /// The key `amend_every`; `docs/settings.md` says what it means.
    pub amend_every: Option<Span>,
    /// The key `maintain_every`; `docs/settings.md` says what it means.
    pub maintain_every: Option<Span>,
    /// The key `compact_after`; `docs/settings.md` says what it means.
    pub compact_after: Option<Span>,
    /// The key `vacuum_after`; `docs/settings.md` says what it means.
    pub vacuum_after: Option<Span>,
    /// The key `force_short_horizon`; `docs/settings.md` says what it means.
    pub force_short_horizon: Option<bool>,
    /// The key `max_open`; `docs/settings.md` says what it means.
    pub max_open: Option<ByteSize>,
    /// The key `journal_budget`; `docs/settings.md` says what it means.
    pub journal_budget: Option<ByteSize>,
    /// The key `max_body`; `docs/settings.md` says what it means.
    pub max_body: Option<ByteSize>,
    /// The key `max_decompressed`; `docs/settings.md` says what it means.
    pub max_decompressed: Option<ByteSize>,
    /// The key `max_expanded`; `docs/settings.md` says what it means.
    pub max_expanded: Option<ByteSize>,
    /// The key `max_attributes`; `docs/settings.md` says what it means.
    pub max_attributes: Option<usize>,
    /// The key `max_nesting`; `docs/settings.md` says what it means.
    pub max_nesting: Option<usize>,
    /// The key `index_limit`; `docs/settings.md` says what it means.
    pub index_limit: Option<usize>,
    /// The key `ledger_retention`; `docs/settings.md` says what it means.
    pub ledger_retention: Option<Span>,
    /// The key `services`; `docs/settings.md` says what it means.
    pub services: Option<BTreeMap<String, ExperimentId>>,
}

impl Overrides {
    /// The settings of a text like `tracelake.toml`.
    pub(crate) fn from_toml(text: &str) -> Result<Self, Fault> {
        toml::from_str(text).map_err(|error| {
            let message = format!("settings: {}", error.message());
            Fault::new(FaultKind::InvalidParameterValue, message)
                .with_hint("docs/settings.md lists them")
        })
    }
}

/// The settings of a service.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address of HTTP.
    pub listen: SocketAddr,
    /// Address of OTLP over gRPC.
    pub otlp_grpc: SocketAddr,
    /// Table of experiments without a binding.
    pub default_table: TableName,
    /// Folder of the tables, when it is not to be where the data folder has it.
    pub tables_dir: Option<PathBuf>,
    /// Experiment of spans that name none.
    pub default_experiment: ExperimentId,
    /// When a trace settles.
    pub settle: SettleRules,
    /// Time between commits.
    pub commit_every: Duration,
    /// Bytes of spans after which a commit does not wait.
    pub commit_bytes: usize,
    /// Time between amendment rounds.
    pub amend_every: Duration,
    /// Time between rounds of maintenance.
    pub maintain_every: Duration,
    /// Age from which data files are compacted.
    pub compact_after: Duration,
    /// None when nothing is to be deleted.
    pub vacuum: Option<VacuumRules>,
    /// Bytes that the journal may take on disk.
    pub journal_budget_bytes: u64,
    /// Of requests and spans.
    pub limits: Limits,
    /// Traces held in memory to tell late spans from new traces.
    pub index_limit: usize,
    /// How long it is kept what was acknowledged.
    pub ledger_retention: Duration,
    /// Experiment by `service.name`, for spans that name none.
    pub services: BTreeMap<String, ExperimentId>,
    /// The carry file that the operator gave up: asked for by a flag, never set.
    pub accept_lost_carry: Option<u64>,
}

impl Settings {
    /// Puts file, environment and flags together. `file` must exist when named; without a name
    /// `tracelake.toml` is read if it is there.
    ///
    /// # Errors
    /// When a file or a value cannot be used; the message names it.
    pub fn load(file: Option<&Path>, flags: Overrides) -> anyhow::Result<Self> {
        let file = match file {
            Some(file) => Some(file.to_owned()),
            None => {
                let usual = PathBuf::from(CONFIG_FILE);
                usual.try_exists().unwrap_or(false).then_some(usual)
            }
        };
        let from_file = match file {
            None => Overrides::default(),
            Some(path) => {
                let shown = path.display().to_string();
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("read settings `{shown}`"))?;
                toml::from_str(&text).with_context(|| format!("read settings `{shown}`"))?
            }
        };
        Self::from_overrides(flags, from_file)
    }

    /// `flags` win over `file`.
    fn from_overrides(flags: Overrides, file: Overrides) -> anyhow::Result<Self> {
        macro_rules! pick {
            ($name:ident, $default:expr) => {
                flags.$name.or(file.$name).unwrap_or_else(|| $default.into())
            };
        }
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let limits = Limits::default();
        let rules = SettleRules::default();
        let settings = Self {
            listen: pick!(listen, loopback(5000)),
            otlp_grpc: pick!(otlp_grpc, loopback(4317)),
            default_table: match flags.default_table.or(file.default_table) {
                Some(table) => table,
                None => default_table()?,
            },
            tables_dir: flags.tables_dir.or(file.tables_dir),
            default_experiment: pick!(default_experiment, ExperimentId::default_experiment()),
            settle: SettleRules {
                settle_after: pick!(settle_after, Span(rules.settle_after)).0,
                idle_after: pick!(idle_after, Span(rules.idle_after)).0,
                max_open_bytes: pick!(max_open, ByteSize(rules.max_open_bytes as u64)).to_usize(),
            },
            commit_every: pick!(commit_every, Span(Duration::from_secs(2))).0,
            commit_bytes: pick!(commit_bytes, ByteSize(48 << 20)).to_usize(),
            amend_every: pick!(amend_every, Span(Duration::from_secs(30))).0,
            maintain_every: pick!(maintain_every, Span(Duration::from_secs(600))).0,
            compact_after: pick!(compact_after, Span(Duration::from_secs(600))).0,
            vacuum: vacuum_rules(
                pick!(vacuum_after, Span(VacuumRules::AFTER)).0,
                pick!(force_short_horizon, false),
            )?,
            journal_budget_bytes: pick!(journal_budget, ByteSize(10 << 30)).0,
            limits: Limits {
                max_body_bytes: pick!(max_body, ByteSize(limits.max_body_bytes as u64)).to_usize(),
                max_decompressed_bytes: pick!(
                    max_decompressed,
                    ByteSize(limits.max_decompressed_bytes as u64)
                )
                .to_usize(),
                max_attributes: pick!(max_attributes, limits.max_attributes),
                max_nesting_depth: pick!(max_nesting, limits.max_nesting_depth),
                max_events: limits.max_events,
                max_expanded_bytes: pick!(max_expanded, ByteSize(limits.max_expanded_bytes as u64))
                    .to_usize(),
                max_span_bytes: limits.max_span_bytes,
            },
            index_limit: pick!(index_limit, 4_000_000_usize),
            ledger_retention: pick!(ledger_retention, Span(LEDGER_RETENTION)).0,
            services: flags.services.or(file.services).unwrap_or_default(),
            accept_lost_carry: None,
        };
        settings.validate()?;
        Ok(settings)
    }

    fn validate(&self) -> anyhow::Result<()> {
        for (name, address) in [("listen", self.listen), ("otlp-grpc", self.otlp_grpc)] {
            ensure!(
                address.ip().is_loopback(),
                "{name} `{address}`: only loopback addresses are served without authentication\n\
                 hint: listen on 127.0.0.1 and put a reverse proxy that authenticates before it"
            );
        }
        ensure!(
            self.limits.max_decompressed_bytes <= 1 << 31,
            "max-decompressed: at most 2GiB\nhint: send smaller batches"
        );
        ensure!(
            self.limits.max_nesting_depth <= MAX_NESTING_DEPTH,
            "max-nesting: at most {MAX_NESTING_DEPTH}"
        );
        ensure!(
            self.limits.max_expanded_bytes <= 1 << 30,
            "max-expanded: at most 1GiB\nhint: send smaller batches"
        );
        ensure!(0 < self.limits.max_body_bytes, "max-body: must not be zero");
        Ok(())
    }
}

/// What is deleted; `after` of zero is nothing.
fn vacuum_rules(after: Duration, forced: bool) -> anyhow::Result<Option<VacuumRules>> {
    if after.is_zero() {
        return Ok(None);
    }
    let minimum = if forced { VacuumRules::FORCED_MINIMUM } else { VacuumRules::MINIMUM };
    ensure!(
        minimum <= after,
        "vacuum-after: at least {}\nhint: {}",
        if forced { "1m" } else { "1h" },
        if forced {
            "writers need as long to commit what they wrote"
        } else {
            "readers need their files; for a test, --force-short-horizon takes down to 1m"
        }
    );
    Ok(Some(VacuumRules { after, minimum }))
}

/// Table of experiments without a binding, unless set otherwise.
fn default_table() -> anyhow::Result<TableName> {
    Ok(TableName::new("tracelake", "default", "traces")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a key in the file, another as a flag, one in both.
    /// Guarantees: the flag wins, the file stands where there is no flag, defaults elsewhere.
    #[test]
    fn flags_win_over_the_file() {
        let file: Overrides = toml::from_str(
            "settle_after = \"5s\"\nmax_body = \"1MiB\"\n[services]\ncheckout = \"3\"\n",
        )
        .unwrap();
        let flags =
            Overrides { settle_after: Some(Span(Duration::from_secs(1))), ..Default::default() };
        let settings = Settings::from_overrides(flags, file).unwrap();
        assert_eq!(settings.settle.settle_after, Duration::from_secs(1));
        assert_eq!(settings.limits.max_body_bytes, 1 << 20);
        assert_eq!(settings.services["checkout"].number(), 3);
        assert_eq!(settings.commit_every, Duration::from_secs(2));
    }

    /// Scenario: retention times of files: the default, none, short ones, with and without force.
    /// Guarantees: a short one is taken with force alone, and never below what a commit needs.
    #[test]
    fn a_short_horizon_must_be_forced() {
        let settings = |after: Option<u64>, force_short_horizon| {
            let vacuum_after = after.map(|seconds| Span(Duration::from_secs(seconds)));
            let flags = Overrides { vacuum_after, force_short_horizon, ..Default::default() };
            Settings::from_overrides(flags, Overrides::default()).map(|settings| settings.vacuum)
        };
        assert_eq!(settings(None, None).unwrap(), Some(VacuumRules::default()));
        assert_eq!(settings(Some(0), None).unwrap(), None);
        assert_eq!(settings(Some(3_600), None).unwrap().unwrap().after, VacuumRules::MINIMUM);
        assert!(settings(Some(300), None).is_err());
        let forced = settings(Some(300), Some(true)).unwrap().unwrap();
        assert_eq!(forced.minimum, VacuumRules::FORCED_MINIMUM);
        assert!(settings(Some(59), Some(true)).is_err());
    }

    /// Scenario: a key that does not exist, and an address that the world can reach.
    /// Guarantees: both are refused.
    #[test]
    fn refuses_unknown_keys_and_open_addresses() {
        assert!(toml::from_str::<Overrides>("settle_aftr = \"5s\"").is_err());
        let flags = Overrides { listen: Some(([0, 0, 0, 0], 5000).into()), ..Default::default() };
        assert!(Settings::from_overrides(flags, Overrides::default()).is_err());
    }
}
