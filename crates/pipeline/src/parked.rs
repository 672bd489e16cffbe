//! What was set aside: records that cannot be read, or that ended the process each time they were
//! taken in, and stretches of the journal that the disk altered.
//!
//! An entry is up to three files in `parked/` under one name, made once and deleted by nobody but
//! who puts the record back:
//!
//! | file | holds |
//! |---|---|
//! | `NAME.header.json` | what the journal had beside the request; none of a damaged stretch |
//! | `NAME.payload` | the request as it came, or the bytes of a damaged stretch |
//! | `NAME.reason.json` | a [`Reason`]; none in a folder of version 9cd2f0f |
//!
//! The name follows from where the record was in the journal, so that one that is set aside again
//! after a crash is the same entry. A journal that was made anew has the same places for other records:
//! these get the name with a number behind it.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tracelake_decode::{DecodeError, DecodedRecord, RecordHeader, decode_record};
use tracelake_journal::{Journal, JournalError, JournalFs, RecordBytes, create_folder};
use tracelake_model::names::printable;

use crate::durable_file::write_file;

/// Version of [`Reason`].
const VERSION: u32 = 1;

pub(crate) const HEADER: &str = ".header.json";
pub(crate) const PAYLOAD: &str = ".payload";
const REASON: &str = ".reason.json";

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A record, whole.
    Record,
    /// Bytes of a journal file of which nobody knows which records they were.
    Damage,
}

/// Why something was set aside, and where it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reason {
    version: u32,
    pub kind: Kind,
    pub reason: String,
    /// Name of the journal's file.
    pub file: String,
    /// Of a record its sequence number in a segment, its place in a carry; of damage the offset.
    pub position: u64,
}

impl Reason {
    pub(crate) fn new(kind: Kind, reason: String, file: String, position: u64) -> Self {
        Self { version: VERSION, kind, reason, file, position }
    }

    /// The name of the entry.
    pub(crate) fn name(&self) -> String {
        let file = self.file.trim_end_matches(".journal");
        match self.kind {
            Kind::Record => format!("{file}-{:020}", self.position),
            Kind::Damage => format!("{file}-damage-{:020}", self.position),
        }
    }
}

/// Something in the folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its name in the folder.
    pub name: String,
    /// Whether it is a record, which can be put back.
    pub is_record: bool,
    /// Bytes of its payload.
    pub bytes: u64,
    /// Null where it is not known.
    pub reason: Option<String>,
}

/// Sets something aside; durable when this returns, however often it is repeated.
pub(crate) fn park(
    fs: &dyn JournalFs,
    folder: &Path,
    reason: &Reason,
    record: &RecordBytes,
) -> io::Result<String> {
    create_folder(fs, folder)?;
    let (name, is_there) = free_name(fs, folder, reason, record)?;
    if is_there {
        // Perhaps by one that died before it was durable.
        fs.sync_dir(folder)?;
        return Ok(name);
    }
    let write = |extension: &str, bytes: &[u8]| {
        let path = folder.join(format!("{name}{extension}"));
        // What an attempt left that did not end.
        absent_is_fine(fs.remove(&path))?;
        write_file(fs, &path, bytes)
    };
    write(PAYLOAD, &record.payload)?;
    if reason.kind == Kind::Record {
        write(HEADER, &record.header)?;
    }
    write(REASON, &serde_json::to_vec(reason)?)?;
    // Durable before what it was taken from is deleted.
    fs.sync_dir(folder)?;
    Ok(name)
}

/// The name of an entry that no other record has, and whether it is there already, whole.
fn free_name(
    fs: &dyn JournalFs,
    folder: &Path,
    reason: &Reason,
    record: &RecordBytes,
) -> io::Result<(String, bool)> {
    let place = reason.name();
    let mut name = place.clone();
    for number in 2_u64.. {
        let there = |extension: &str| read_if_there(fs, &folder.join(format!("{name}{extension}")));
        let (header, payload) = (there(HEADER)?, there(PAYLOAD)?);
        // Written last.
        let is_whole =
            there(REASON)?.is_some_and(|reason| serde_json::from_slice::<Reason>(&reason).is_ok());
        let has_header = reason.kind == Kind::Record;
        let is_same = payload.as_deref() == Some(&record.payload[..])
            && header.as_deref() == has_header.then_some(&record.header[..]);
        if is_same && is_whole {
            return Ok((name, true));
        }
        let is_ours =
            |left: Option<Vec<u8>>, own: &[u8]| left.is_none_or(|left| is_left_of(&left, own));
        if !is_whole && is_ours(header, &record.header) && is_ours(payload, &record.payload) {
            return Ok((name, false));
        }
        name = format!("{place}-{number}");
    }
    Ok((place, false))
}

/// True when `left` is what a write of `whole` leaves that did not end: as far as it got, and zeros.
fn is_left_of(left: &[u8], whole: &[u8]) -> bool {
    left.len() <= whole.len() && left.iter().zip(whole).all(|(left, own)| left == own || *left == 0)
}

fn read_if_there(fs: &dyn JournalFs, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match fs.open_read(path).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(|_| Some(bytes)),
    }
}

/// All entries by name; none when there is no folder.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(folder: &Path) -> io::Result<Vec<Entry>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found: BTreeMap<String, Entry> = BTreeMap::new();
    for file in entries {
        let file = file?;
        let file_name = file.file_name();
        let Some((name, extension)) = file_name.to_str().and_then(split_name) else { continue };
        let entry = found.entry(name.to_owned()).or_insert_with(|| Entry {
            name: name.to_owned(),
            is_record: false,
            bytes: 0,
            reason: None,
        });
        match extension {
            HEADER => entry.is_record = true,
            PAYLOAD => entry.bytes = file.metadata()?.len(),
            _ => entry.reason = read_reason(&file.path()),
        }
    }
    Ok(found.into_values().collect())
}

/// Name and extension of a file of an entry.
fn split_name(file_name: &str) -> Option<(&str, &'static str)> {
    [HEADER, PAYLOAD, REASON]
        .into_iter()
        .find_map(|extension| Some((file_name.strip_suffix(extension)?, extension)))
}

/// Why, as far as it can be read: the entry counts without it.
fn read_reason(path: &Path) -> Option<String> {
    let text = std::fs::read(path).ok()?;
    Some(serde_json::from_slice::<Reason>(&text).ok()?.reason)
}

/// The record of an entry; `None` when there is none of that name.
pub(crate) fn read_record(
    fs: &dyn JournalFs,
    folder: &Path,
    name: &str,
) -> io::Result<Option<RecordBytes>> {
    // Only a name that the folder lists becomes a path.
    if !list(folder)?.iter().any(|entry| entry.name == name && entry.is_record) {
        return Ok(None);
    }
    let read = |extension: &str| {
        let mut bytes = Vec::new();
        fs.open_read(&folder.join(format!("{name}{extension}")))?.read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(bytes.into())
    };
    Ok(Some(RecordBytes { header: read(HEADER)?, payload: read(PAYLOAD)? }))
}

/// Whether this record is set aside under this name.
pub(crate) fn holds(
    fs: &dyn JournalFs,
    folder: &Path,
    name: &str,
    record: &RecordBytes,
) -> io::Result<bool> {
    let is_same = |extension: &str, expected: &[u8]| {
        let mut bytes = Vec::new();
        match fs.open_read(&folder.join(format!("{name}{extension}"))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file?.read_to_end(&mut bytes)?,
        };
        Ok::<_, io::Error>(bytes == expected)
    };
    let is_there = is_same(HEADER, &record.header)? && is_same(PAYLOAD, &record.payload)?;
    if is_there {
        // Perhaps by one that died before it was durable, and the record's own file is deleted now.
        fs.sync_dir(folder)?;
    }
    Ok(is_there)
}

/// Why a record is not put back, or not wholly.
#[derive(Debug, thiserror::Error)]
pub enum PutBackError {
    /// No record has that name.
    #[error("no record `{}` is parked", printable(.name))]
    Unknown {
        /// The name.
        name: String,
    },
    /// This program cannot read it. Keep it for one that can.
    #[error("`{}`", printable(.name))]
    Unreadable {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The folder cannot be read or changed. The same call again goes on.
    #[error("{action}")]
    Storage {
        /// What was to be done.
        action: &'static str,
        /// Why it was not.
        source: io::Error,
    },
    /// The journal does not take it now. The record stays where it is.
    #[error("put the record into the journal")]
    Journal {
        /// Why not.
        source: JournalError,
    },
}

/// Appends the record of an entry to the journal, as if it came now, and deletes the entry once it is
/// durable there. A death between the two leaves both: taken in twice it adds nothing.
///
/// # Errors
/// [`PutBackError`] says what is left.
pub async fn put_back(
    fs: &dyn JournalFs,
    folder: &Path,
    name: &str,
    journal: &Journal<DecodedRecord>,
) -> Result<(), PutBackError> {
    let failed = |action| move |source| PutBackError::Storage { action, source };
    let record = read_record(fs, folder, name).map_err(failed("read what is parked"))?;
    let record = record.ok_or_else(|| PutBackError::Unknown { name: name.to_owned() })?;
    let decoded = RecordHeader::from_bytes(&record.header)
        .and_then(|header| decode_record(header, &record.payload))
        .map_err(|source| PutBackError::Unreadable { name: name.to_owned(), source })?;
    journal.append(record, decoded).await.map_err(|source| PutBackError::Journal { source })?;
    remove(fs, folder, name).map_err(failed("the record is put back, delete it"))
}

/// Deletes an entry whose record is in the journal again, durably.
pub(crate) fn remove(fs: &dyn JournalFs, folder: &Path, name: &str) -> io::Result<()> {
    // The header goes last: as long as it is there the entry is one.
    for extension in [REASON, PAYLOAD, HEADER] {
        absent_is_fine(fs.remove(&folder.join(format!("{name}{extension}"))))?;
    }
    fs.sync_dir(folder)
}

fn absent_is_fine(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tracelake_journal::RealFs;

    use super::*;

    /// Scenario: a record and a damaged stretch are set aside, the record twice; files of the version
    /// before, which have no reason, and foreign files lie beside them.
    /// Guarantees: each is one entry with its reason, the record is read back as it was, and is gone
    /// after it was put back; no other name is a path.
    #[test]
    fn what_is_set_aside_is_named_and_read_back() {
        let held = tempfile::tempdir().unwrap();
        let folder = held.path().join("parked");
        assert_eq!(list(&folder).unwrap().len(), 0);
        let record = RecordBytes { header: "{}".into(), payload: "payload".into() };
        let file = "segment-00000000000000000007.journal".to_owned();
        let of_record = Reason::new(Kind::Record, "it ended two starts".into(), file.clone(), 77);
        let name = park(&RealFs, &folder, &of_record, &record).unwrap();
        assert_eq!(park(&RealFs, &folder, &of_record, &record).unwrap(), name);
        let of_damage = Reason::new(Kind::Damage, "altered".into(), file, 60);
        let damage = RecordBytes { payload: "rest".into(), ..RecordBytes::default() };
        park(&RealFs, &folder, &of_damage, &damage).unwrap();
        std::fs::write(folder.join("old.header.json"), "{}").unwrap();
        std::fs::write(folder.join("old.payload"), "x").unwrap();
        std::fs::write(folder.join("note.txt"), "x").unwrap();
        let listed: Vec<_> = list(&folder)
            .unwrap()
            .into_iter()
            .map(|entry| (entry.name, entry.is_record, entry.bytes, entry.reason))
            .collect();
        let expected = [
            ("old".to_owned(), true, 1, None),
            (name.clone(), true, 7, Some("it ended two starts".to_owned())),
            (of_damage.name(), false, 4, Some("altered".to_owned())),
        ];
        assert_eq!(listed, expected);
        assert_eq!(read_record(&RealFs, &folder, &name).unwrap(), Some(record));
        for other in ["../parked/old", "", "note", &of_damage.name()] {
            assert_eq!(read_record(&RealFs, &folder, other).unwrap(), None, "{other}");
        }
        remove(&RealFs, &folder, &name).unwrap();
        assert_eq!(list(&folder).unwrap().len(), 2);
        remove(&RealFs, &folder, &name).unwrap();
    }

    /// Scenario: records of three journals at the same place of each, the second one as an earlier version
    /// left it, without a reason; a damaged stretch of two of them; an attempt that died half-way,
    /// with a part of the payload and zeros.
    /// Guarantees: no entry takes the place of another one; one that is repeated is the same entry,
    /// and so is one whose first attempt did not end.
    #[test]
    fn no_entry_takes_the_place_of_another() {
        let held = tempfile::tempdir().unwrap();
        let folder = held.path().join("parked");
        let file = "segment-00000000000000000001.journal".to_owned();
        let reason = |kind| Reason::new(kind, "why".into(), file.clone(), 5);
        let record = |text: &str| RecordBytes {
            header: format!("{{\"at\":\"{text}\"}}").into(),
            payload: text.to_owned().into(),
        };
        let park_one =
            |text: &str| park(&RealFs, &folder, &reason(Kind::Record), &record(text)).unwrap();
        let first = park_one("first journal");
        let second = park_one("second");
        std::fs::remove_file(folder.join(format!("{second}{REASON}"))).unwrap();
        let third = park_one("third journal");
        let names = [first, second, third];
        let texts = ["first journal", "second", "third journal"];
        std::fs::write(folder.join(format!("{}-4{PAYLOAD}", names[0])), "fou\0\0").unwrap();
        let fourth = park_one("fourth");
        assert_eq!(fourth, format!("{}-4", names[0]));
        assert_eq!(names.clone().map(|name| read(&folder, &name)), texts.map(record));
        assert_eq!(read(&folder, &fourth), record("fourth"));
        for (name, text) in names.iter().zip(texts) {
            assert_eq!(park_one(text), *name);
        }
        let damage = |text: &str| RecordBytes { header: Vec::new().into(), ..record(text) };
        let park_damage =
            |text: &str| park(&RealFs, &folder, &reason(Kind::Damage), &damage(text)).unwrap();
        let stretches = [park_damage("one"), park_damage("two"), park_damage("one")];
        assert_eq!(stretches[0], stretches[2]);
        assert_ne!(stretches[0], stretches[1]);
        assert_eq!(list(&folder).unwrap().len(), 6);
        assert!(list(&folder).unwrap().iter().all(|entry| entry.reason.is_some()));
    }

    fn read(folder: &Path, name: &str) -> RecordBytes {
        read_record(&RealFs, folder, name).unwrap().unwrap()
    }
}
