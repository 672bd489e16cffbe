//! The file beside the epoch file that has the ledger's newest link, so that a ledger that lost its
//! end, or all of it, is told from one that is young.
//!
//! One line: the format version, the newest link, the link through which the retention has taken
//! what was there (the **anchor**), and the CRC32C of all before it. A link is its ordinal and the
//! 32 hex digits of its hash.

use std::io::{self, Read as _};
use std::path::Path;

use anyhow::Context as _;
use tracelake_journal::JournalFs;

use super::format::Link;
use crate::durable_file::write_durably;

const FORMAT: u32 = 1;

/// Bytes that the file has at the most; of a longer one the rest is not looked at.
const MAX_BYTES: u64 = 4096;

/// What is noted of the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Noted {
    /// Link of the newest block of the ledger.
    pub newest: Link,
    /// Link of the last block that the retention took.
    pub anchor: Link,
}

/// What is in the place of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LinkFile {
    /// Nothing was written since entries are chained, or it is lost.
    Missing,
    /// Not what a process writes.
    Damaged,
    Noted(Noted),
}

impl LinkFile {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is there and cannot be read, or when a newer program wrote it.
    pub(super) fn read(fs: &dyn JournalFs, path: &Path) -> anyhow::Result<Self> {
        let mut bytes = Vec::new();
        let read = fs.open_read(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::Missing),
            read => {
                read.with_context(|| format!("read `{}`", path.display()))?;
                Self::parse(&bytes).with_context(|| format!("read `{}`", path.display()))
            }
        }
    }

    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let line = std::str::from_utf8(bytes).ok().and_then(|text| text.strip_suffix('\n'));
        let Some((said, crc)) = line.and_then(|line| line.rsplit_once(' ')) else {
            return Ok(Self::Damaged);
        };
        if u32::from_str_radix(crc, 16) != Ok(crc32c::crc32c(said.as_bytes())) {
            return Ok(Self::Damaged);
        }
        let mut words = said.split(' ');
        let version: Option<u32> = words.next().and_then(|word| word.parse().ok());
        anyhow::ensure!(
            version.is_none_or(|version| version <= FORMAT),
            "written by a newer program\nhint: use that one"
        );
        let mut link = || -> Option<Link> {
            let ordinal = words.next()?.parse().ok()?;
            let hash = words.next().filter(|word| word.len() == 32)?;
            let hash = u128::from_str_radix(hash, 16).ok()?.to_be_bytes();
            Some(Link { ordinal, hash })
        };
        let noted = link().zip(link()).map(|(newest, anchor)| Noted { newest, anchor });
        Ok(noted.filter(|_| version == Some(FORMAT)).map_or(Self::Damaged, Self::Noted))
    }
}

impl Noted {
    /// Writes the file whole or not at all; durable when this returns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(&self, fs: &dyn JournalFs, path: &Path) -> anyhow::Result<()> {
        let link = |link: Link| format!("{} {:032x}", link.ordinal, u128::from_be_bytes(link.hash));
        let said = format!("{FORMAT} {} {}", link(self.newest), link(self.anchor));
        let crc = crc32c::crc32c(said.as_bytes());
        write_durably(fs, path, &format!("{said} {crc:08x}"))
    }
}
