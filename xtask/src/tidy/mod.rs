//! House rules that no lint of Rust knows: faults fail the run, remarks are only listed.
//!
//! Each rule is a pure function of texts or of `cargo metadata`; only this file reads the disk.

mod arrows;
mod sizes;
mod text;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// Folders that hold sources of ours. Everything else in the clone is made or borrowed.
const SOURCE_FOLDERS: [&str; 4] = ["crates", "xtask", "tests", "demo"];
const SOURCE_ENDINGS: [&str; 5] = [".rs", ".toml", ".py", ".pyi", ".sh"];
const SKIPPED_FOLDERS: [&str; 4] = ["target", ".venv", "__pycache__", "proptest-regressions"];

/// Runs every rule over the workspace.
pub(crate) fn run() -> anyhow::Result<()> {
    let metadata = read_metadata()?;
    let root = metadata.get("workspace_root").and_then(|root| root.as_str());
    let root = PathBuf::from(root.context("read `workspace_root` of cargo metadata")?);
    let packages = arrows::read_packages(&metadata)?;

    let mut faults = arrows::check(&packages);
    let mut remarks = Vec::new();
    for package in &packages {
        faults.extend(text::check_manifest(&package.manifest, &read(&package.manifest)?));
    }
    for path in source_files(&root)? {
        let name = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
        let content = read(&path)?;
        faults.extend(text::check_ascii(&name, &content));
        faults.extend(text::check_history(&name, &content));
        faults.extend(text::check_module_doc(&name, &content));
        remarks.extend(sizes::remarks(&name, &content));
    }
    report(&faults, &remarks)
}

fn report(faults: &[String], remarks: &[String]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for remark in remarks {
        writeln!(out, "remark: {remark}").context("write report")?;
    }
    for fault in faults {
        writeln!(out, "fault: {fault}").context("write report")?;
    }
    writeln!(out, "tidy: {} faults, {} remarks", faults.len(), remarks.len())
        .context("write report")?;
    if !faults.is_empty() {
        bail!("keep the house rules: {} faults, listed above", faults.len());
    }
    Ok(())
}

fn read_metadata() -> anyhow::Result<serde_json::Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .output()
        .context("run cargo metadata")?;
    if !output.status.success() {
        bail!("run cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("parse cargo metadata")
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("read `{}`", path.display()))
}

/// Sources of ours, sorted, so that two runs print the same.
fn source_files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> =
        ["Cargo.toml", "Makefile", "clippy.toml", "deny.toml", "rustfmt.toml"]
            .iter()
            .map(|name| root.join(name))
            .filter(|path| path.is_file())
            .collect();
    for folder in SOURCE_FOLDERS {
        collect(&root.join(folder), &mut files)?;
    }
    files.sort();
    Ok(files)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let entries = fs::read_dir(folder).with_context(|| format!("list `{}`", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("list `{}`", folder.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !SKIPPED_FOLDERS.contains(&name.as_str()) {
                collect(&path, files)?;
            }
        } else if SOURCE_ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            files.push(path);
        }
    }
    Ok(())
}
