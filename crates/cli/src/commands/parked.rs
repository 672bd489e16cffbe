//! `tracelake parked`: what was set aside, and putting it back.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tracelake_archive::Fault;
use tracelake_archive::ask::engine::existing_folder;
use tracelake_archive::discovery::{ServerFile, agent};
use tracelake_lake::DataFolder;
use tracelake_model::TableName;
use tracelake_model::names::{printable, printable_lines};
use tracelake_pipeline::parked;

/// How long the service may take: it may be in the middle of a commit.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Shows what was set aside of the journal, and puts it back.
///
/// A record is set aside when it cannot be decoded, when it ended two starts by what it made them do or
/// eight ended, why is not known, while they took it in alone, or when it is late spans that their table
/// does not take and too many of these wait. It was acknowledged and is in no table: it lies in the folder `parked` until it is put back, and
/// `status`, `check` and `verify` name it. What is called damage are bytes of the journal that the
/// disk altered; they cannot be put back.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tracelake parked list\n  tracelake parked list --format json | jq -r '.[].name'\n  tracelake parked list --format json | jq -r '.[0].name // empty' | xargs -r tracelake parked retry\n  tracelake parked retry --all"
)]
pub(crate) struct ParkedArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Lists what is set aside, with the reason
    List(ListArgs),
    /// Puts records back into the journal of the running service, or has a table opened again
    ///
    /// The service takes a record in as if it came now, and deletes it from the folder once it is in
    /// the journal. One that ends the service again is set aside again by its next starts. A table is
    /// set apart when two starts ended by their own doing while they read its log, or sixteen in a row, why
    /// is not known; the service then opens it again by itself once it has run for ten minutes.
    Retry(RetryArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Form::Table)]
    format: Form,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Form {
    /// For people
    Table,
    /// For programs
    Json,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct RetryArgs {
    /// Names of records, as `list` has them
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Every record
    #[arg(long)]
    all: bool,
    /// The table that is set apart
    #[arg(long, value_name = "CATALOG.SCHEMA.TABLE")]
    table: Option<TableName>,
}

pub(crate) async fn run(data_dir: &Path, args: ParkedArgs) -> anyhow::Result<()> {
    let folder = existing_folder(data_dir)?;
    match args.action {
        Action::List(args) => list(&folder, args.format),
        Action::Retry(args) => tokio::task::spawn_blocking(move || retry(&folder, &args)).await?,
    }
}

fn list(folder: &DataFolder, format: Form) -> anyhow::Result<()> {
    let entries = parked::list(&folder.parked()).context("look at what is parked")?;
    let mut out = std::io::stdout().lock();
    if let Form::Json = format {
        writeln!(out, "{}", serde_json::to_string_pretty(&entries)?)?;
        return Ok(());
    }
    if entries.is_empty() {
        writeln!(out, "nothing is set aside")?;
    }
    for entry in entries {
        let what = if entry.is_record { "record" } else { "damage" };
        let reason = entry.reason.as_deref().unwrap_or("reason not known");
        let (name, reason) = (printable(&entry.name), printable_lines(reason));
        writeln!(out, "{name}\n  {what} of {} bytes: {reason}", entry.bytes)?;
    }
    Ok(())
}

fn retry(folder: &DataFolder, args: &RetryArgs) -> anyhow::Result<()> {
    let server = ServerFile::running(&folder.server_file()).context(
        "no service runs on the data folder\nhint: start `tracelake serve`, which takes them in",
    )?;
    if let Some(table) = &args.table {
        call(&server, &format!("tables-apart/{table}"))?;
        return say(&format!("table {table} is opened again when something is for it"));
    }
    let names = match args.all {
        true => {
            let entries = parked::list(&folder.parked()).context("look at what is parked")?;
            entries.into_iter().filter(|entry| entry.is_record).map(|entry| entry.name).collect()
        }
        false => args.names.clone(),
    };
    for name in &names {
        call(&server, &format!("parked/{}", encoded(name)))?;
        say(&format!("{} is put back", printable(name)))?;
    }
    if names.is_empty() { say("nothing to put back") } else { Ok(()) }
}

fn say(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}

/// A name as a part of a path.
fn encoded(name: &str) -> String {
    url::form_urlencoded::byte_serialize(name.as_bytes()).collect()
}

fn call(server: &ServerFile, what: &str) -> anyhow::Result<()> {
    let url = format!("http://{}/api/v1/{what}/retry", server.http);
    let named = format!("ask the service at {}", server.http);
    let mut answer = agent(TIMEOUT).post(&url).send_empty().context(named.clone())?;
    if answer.status().is_success() {
        return Ok(());
    }
    let text = answer.body_mut().read_to_string().context(named.clone())?;
    match serde_json::from_str::<Fault>(&text) {
        Ok(fault) => Err(fault.into()),
        Err(_) => anyhow::bail!("{named}: {}", printable(&text)),
    }
}
