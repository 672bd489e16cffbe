//! What was imported already: `imports/ledger.jsonl` in the data folder, one line a step.
//!
//! A line says that the first `offset` decompressed bytes of a file, with this checksum, are
//! acknowledged: durable in the journal. Lines are appended and synced after the acks, the last
//! line of a file counts. What a crash leaves:
//!
//! | durable step | the process dies before it | it dies after it |
//! |---|---|---|
//! | the service acknowledges a request | nothing says so; the frame is sent again | its spans are in the journal; the frame is sent again, identical spans change nothing |
//! | a ledger line is written and synced | a torn line is passed over; frames since the line before are sent again, which changes nothing | the next import goes on behind `offset` |
//! | the last line of a file, `done` | the file is read on from the line before | the file is not opened again until its size or time change |
//! | the ledger is rewritten and renamed | the old one stands | the new one says the same |
//!
//! The order matters in one way only: no line before its acks. Everything else is repeated safely,
//! as the table holds a span of the same content once.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

const LEDGER_FILE: &str = "ledger.jsonl";
/// Lines per live entry at which the ledger is rewritten.
const REWRITE_FACTOR: usize = 4;
const MIN_LINES_TO_REWRITE: usize = 10_000;

/// How far a file was imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The canonical path, percent-encoded; `*` and the experiment before it if one was named.
    #[serde(rename = "file")]
    pub key: String,
    #[serde(rename = "size")]
    pub size_bytes: u64,
    #[serde(rename = "modified")]
    pub modified_unix_nano: u64,
    /// Decompressed bytes that are acknowledged.
    pub offset: u64,
    /// CRC32C of these bytes.
    pub crc: u32,
    /// All of the file.
    pub done: bool,
    /// More may be appended to such a file.
    pub grows: bool,
}

/// The ledger, open and locked.
#[derive(Debug)]
pub(super) struct Ledger {
    file: File,
    entries: HashMap<String, Entry>,
    /// Held as long as the ledger is.
    _lock: File,
}

impl Ledger {
    /// Opens the ledger below the data folder. One import at a time.
    pub(super) fn open(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("create `{}`", folder.display()))?;
        let lock_path = folder.join("LOCK");
        let lock = File::create(&lock_path)
            .with_context(|| format!("create `{}`", lock_path.display()))?;
        lock.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => anyhow::anyhow!(
                "another import runs on this data folder\nhint: wait for it, or name all paths in \
                 one command"
            ),
            std::fs::TryLockError::Error(error) => {
                anyhow::Error::new(error).context(format!("lock `{}`", lock_path.display()))
            }
        })?;
        let path = folder.join(LEDGER_FILE);
        let (entries, lines) = read(&path)?;
        if MIN_LINES_TO_REWRITE.max(REWRITE_FACTOR * entries.len()) < lines {
            rewrite(&path, &entries)?;
        }
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("open `{}`", path.display()))?;
        // Ends a line that a crash tore.
        if 0 < file.metadata()?.len() {
            file.write_all(b"\n")?;
        }
        sync_folder(folder)?;
        Ok(Self { file, entries, _lock: lock })
    }

    /// How far a file was imported.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Writes entries and syncs. Their frames must be acknowledged.
    pub(super) fn record(&mut self, entries: Vec<Entry>) -> anyhow::Result<()> {
        let mut lines = Vec::new();
        for entry in &entries {
            serde_json::to_writer(&mut lines, entry)?;
            lines.push(b'\n');
        }
        self.file.write_all(&lines).and_then(|()| self.file.sync_data()).context(
            "write the import ledger\nhint: what was acknowledged is safe; mend the disk and run \
             the command again",
        )?;
        self.entries.extend(entries.into_iter().map(|entry| (entry.key.clone(), entry)));
        Ok(())
    }
}

/// The entries of a ledger, which is neither locked nor written.
pub(super) fn entries(folder: &Path) -> anyhow::Result<HashMap<String, Entry>> {
    Ok(read(&folder.join(LEDGER_FILE))?.0)
}

/// The name of a file in the ledger, for an import into one experiment or into several.
pub(super) fn key(path: &Path, experiment: Option<&str>) -> String {
    use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
    const ESCAPED: &AsciiSet = &CONTROLS.add(b'%').add(b'*').add(b'"').add(b'\\');
    let path = percent_encode(path.as_os_str().as_encoded_bytes(), ESCAPED);
    match experiment {
        Some(id) => format!("{id}*{path}"),
        None => path.to_string(),
    }
}

/// Entries by file, and the number of lines.
fn read(path: &Path) -> anyhow::Result<(HashMap<String, Entry>, usize)> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Default::default()),
        file => file.with_context(|| format!("open `{}`", path.display()))?,
    };
    let mut entries = HashMap::new();
    let mut lines = 0;
    for line in BufReader::new(file).split(b'\n') {
        let line = line.with_context(|| format!("read `{}`", path.display()))?;
        lines += 1;
        // A torn line says nothing; what it meant to say is found out again.
        if let Ok(entry) = serde_json::from_slice::<Entry>(&line) {
            entries.insert(entry.key.clone(), entry);
        }
    }
    Ok((entries, lines))
}

fn rewrite(path: &Path, entries: &HashMap<String, Entry>) -> anyhow::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut out = std::io::BufWriter::new(File::create(&temporary)?);
    for entry in entries.values() {
        serde_json::to_writer(&mut out, entry)?;
        out.write_all(b"\n")?;
    }
    let file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path).with_context(|| format!("write `{}`", path.display()))
}

fn sync_folder(folder: &Path) -> anyhow::Result<()> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("sync `{}`", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, offset: u64) -> Entry {
        Entry {
            key: key.to_owned(),
            size_bytes: 10,
            modified_unix_nano: 5,
            offset,
            crc: 7,
            done: offset == 10,
            grows: true,
        }
    }

    /// Scenario: entries are recorded, the last line is torn at every length, and the ledger is
    /// opened again and goes on.
    /// Guarantees: the last whole line of a file counts; a torn one spoils nothing behind it.
    #[test]
    fn a_torn_line_is_as_if_it_never_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let mut ledger = Ledger::open(folder.path()).unwrap();
        ledger.record(vec![entry("a", 3), entry("b", 10)]).unwrap();
        ledger.record(vec![entry("a", 8)]).unwrap();
        drop(ledger);
        let whole = std::fs::read(&path).unwrap();
        let last = whole.len() - serde_json::to_vec(&entry("a", 8)).unwrap().len() - 1;
        for cut in last + 1..whole.len() - 1 {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut ledger = Ledger::open(folder.path()).unwrap();
            assert_eq!(ledger.entry("a"), Some(&entry("a", 3)));
            ledger.record(vec![entry("c", 1)]).unwrap();
            drop(ledger);
            let ledger = Ledger::open(folder.path()).unwrap();
            assert_eq!(ledger.entry("b"), Some(&entry("b", 10)));
            assert_eq!(ledger.entry("c"), Some(&entry("c", 1)));
        }
    }

    /// Scenario: a second import on the same folder, and a ledger of many lines on one file.
    /// Guarantees: the second is refused; the rewritten ledger says the same.
    #[test]
    fn one_import_at_a_time_and_no_endless_ledger() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(folder.path()).unwrap();
        assert!(Ledger::open(folder.path()).unwrap_err().to_string().contains("another import"));
        ledger.record((0..20_000).map(|offset| entry("a", offset)).collect()).unwrap();
        drop(ledger);
        drop(Ledger::open(folder.path()).unwrap());
        let text = std::fs::read_to_string(folder.path().join("ledger.jsonl")).unwrap();
        assert_eq!(text.trim().lines().count(), 1);
        let ledger = Ledger::open(folder.path()).unwrap();
        assert_eq!(ledger.entry("a").unwrap().offset, 19_999);
    }

    /// Scenario: paths with separators of the ledger, bytes that are no text, and experiments.
    /// Guarantees: no two of them have one name.
    #[test]
    fn names_do_not_collide() {
        let names = [
            key("/a/1*b".as_ref(), None),
            key("/a/1".as_ref(), Some("1")),
            key("/a/1".as_ref(), None),
            key("1*/a/1".as_ref(), None),
            key("/a/%31".as_ref(), None),
        ];
        let distinct: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
    }
}
