//! How a command's result leaves the process: format, place, colour, pager.
//!
//! A command flattens [`OutputArgs`] into its arguments, calls [`OutputArgs::check`] before it does
//! any work, and ends with [`print()`] for rows, or with [`print_text`] for text of its own layout.

mod color;
mod file;
mod pager;
mod terminal;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use tracelake_present::{OutputFormat, RenderOptions, render};

pub(crate) use color::color_on_stderr;
use color::{ColorChoice, Environment, wants_color};
pub(crate) use file::Replacement;
use pager::Pager;
use terminal::Size;

/// Where a result goes and what it looks like.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// How to print the result
    #[arg(long, default_value = "table", value_enum)]
    pub format: Format,
    /// Write to this file instead of standard output, whole or not at all
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Colour; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, default_value = "auto", value_enum, value_name = "WHEN")]
    pub color: ColorChoice,
    /// Do not show what is longer than the screen in $TRACELAKE_PAGER, $PAGER or less
    #[arg(long)]
    pub no_pager: bool,
}

/// The formats as the command line names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For reading
    Table,
    /// One JSON array
    Json,
    /// One JSON object a line
    Jsonl,
    /// Comma-separated values
    Csv,
    /// Arrow IPC stream
    Arrow,
    /// Parquet file
    Parquet,
}

impl From<Format> for OutputFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Table => Self::Table,
            Format::Json => Self::Json,
            Format::Jsonl => Self::Jsonl,
            Format::Csv => Self::Csv,
            Format::Arrow => Self::Arrow,
            Format::Parquet => Self::Parquet,
        }
    }
}

impl OutputArgs {
    /// Whether a person reads the result on a terminal, so that less may be more.
    pub(crate) fn for_a_person(&self) -> bool {
        self.format == Format::Table && self.on_terminal()
    }

    /// Refuses what cannot work, before any work is done.
    ///
    /// # Errors
    /// When a binary format would go to a terminal, or the output's folder is not there.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let format = OutputFormat::from(self.format);
        anyhow::ensure!(
            !format.is_binary() || !self.on_terminal(),
            "format `{format}` is binary and would garble the terminal\n\
             hint: write it to a file with --output FILE, or redirect standard output"
        );
        match &self.output {
            Some(path) => file::check_folder(path),
            None => Ok(()),
        }
    }

    fn on_terminal(&self) -> bool {
        self.output.is_none() && std::io::stdout().is_terminal()
    }
}

/// Prints rows in the format asked for.
///
/// # Errors
/// When writing fails, or the format has no room for a type of the rows.
pub(crate) fn print(
    schema: &Schema,
    batches: &[RecordBatch],
    args: &OutputArgs,
) -> anyhow::Result<()> {
    print_text(args, &mut |out, options| {
        Ok(render(schema, batches, args.format.into(), out, options)?)
    })
}

/// Prints what `write` writes, to the place asked for. For results that have a layout of their own
/// in the format `table`; `write` is called once.
///
/// # Errors
/// When writing fails, or `write` does. A file asked for is then as it was.
pub(crate) fn print_text(
    args: &OutputArgs,
    write: &mut dyn FnMut(&mut dyn Write, &RenderOptions) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let terminal = args.on_terminal().then(Size::of_stdout).flatten();
    let environment = Environment::read();
    let options = RenderOptions {
        width: terminal.map(|size| size.columns),
        color: wants_color(args.color, args.on_terminal(), &environment),
        ..RenderOptions::default()
    };
    if let Some(path) = &args.output {
        let mut file = Replacement::create(path)?;
        write(&mut file, &options)?;
        return file.commit();
    }
    let lines = terminal.and_then(|size| size.lines).filter(|_| !args.no_pager);
    let Some(lines) = lines else {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        write(&mut out, &options)?;
        return out.flush().context("write to standard output");
    };
    let mut out = Pager::new(lines, terminal.map_or(0, |size| size.columns));
    let written = write(&mut out, &options);
    // The pager must be waited for also when writing to it failed: it owns the terminal.
    let finished = out.finish().context("write to standard output");
    written.and(finished)
}
