//! `tracelake man`: manual pages, made from the commands themselves.

use std::path::PathBuf;

use anyhow::Context as _;

/// Writes manual pages: one for tracelake, one for each command.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tracelake man --output /usr/local/share/man/man1\n  tracelake man traces | man -l -"
)]
pub(crate) struct ManArgs {
    /// The command whose page to print [default: the page of tracelake itself]
    #[arg(value_name = "COMMAND", conflicts_with = "output")]
    command: Option<String>,
    /// Write all pages into this folder, which is made if it is not there
    #[arg(long, short, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    output: Option<PathBuf>,
}

pub(crate) fn run(root: clap::Command, args: &ManArgs) -> anyhow::Result<()> {
    let mut root = root.disable_help_subcommand(true);
    root.build();
    if let Some(folder) = &args.output {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("create folder `{}`", folder.display()))?;
        return clap_mangen::generate_to(root, folder)
            .with_context(|| format!("write manual pages into `{}`", folder.display()));
    }
    let command = match &args.command {
        None => root,
        Some(name) => root.find_subcommand(name).cloned().with_context(|| {
            format!(
                "no command `{}`\nhint: `tracelake help` lists them",
                tracelake_model::names::printable(name)
            )
        })?,
    };
    clap_mangen::Man::new(command).render(&mut std::io::stdout().lock())?;
    Ok(())
}
