//! Follows the chain of the ledger's blocks: what is damaged, what is missing. Pure.
//!
//! Each block names the link of the one that was the newest when it was written; the newest link
//! and the anchor are noted outside of the ledger ([`super::link_file`]). So every block from the
//! anchor to the newest link is there, or a finding says which ones are not.
//!
//! **A block may go back**: a process that dies, or a disk that fails, between an entry and the note
//! of its link leaves blocks that the next entry does not follow. It follows the noted link then,
//! and says the same again. So a block that names any earlier link of the ledger is no finding.
//! For the same reason bytes that are no block are none where a file ends, when the chain goes on
//! without a gap, or ends at the noted link: an entry was being written there that does not count.

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};

use super::format::{Block, Link, Linked};
use super::link_file::{LinkFile, Noted};
use super::read::UnreadableBytes;

/// Links that a block may go back.
const REMEMBERED_LINKS: usize = 1 << 16;

/// Bytes that are no block.
#[derive(Debug)]
struct Unreadable {
    path: PathBuf,
    offset: u64,
    bytes: u64,
    /// Nothing of the file is behind them.
    is_end: bool,
    /// The entries of the file are chained.
    is_chained: bool,
}

/// Takes the parts of a ledger in order.
#[derive(Debug)]
pub struct ChainCheck {
    noted: LinkFile,
    link_path: PathBuf,
    newest: Option<Link>,
    recent: VecDeque<Link>,
    known: HashSet<Link>,
    /// The noted link was seen.
    is_noted_seen: bool,
    unreadable: Vec<Unreadable>,
    unchained_blocks: u64,
    faults: Vec<String>,
}

/// What following the chain found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainFindings {
    /// What is damaged or missing.
    pub faults: Vec<String>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

impl ChainCheck {
    /// Follows the chain to the link that is noted at `link_path`.
    pub(crate) fn new(noted: LinkFile, link_path: &Path) -> Self {
        Self {
            noted,
            link_path: link_path.to_owned(),
            newest: None,
            recent: VecDeque::new(),
            known: HashSet::new(),
            is_noted_seen: false,
            unreadable: Vec::new(),
            unchained_blocks: 0,
            faults: Vec::new(),
        }
    }

    const fn noted(&self) -> Option<Noted> {
        match self.noted {
            LinkFile::Noted(noted) => Some(noted),
            LinkFile::Missing | LinkFile::Damaged => None,
        }
    }

    /// A file whose header is not one.
    pub fn damaged_header(&mut self, path: &Path) {
        self.faults.push(format!("ledger file `{}`: its header is damaged", path.display()));
    }

    /// Bytes of a file that are no block.
    pub fn unreadable(&mut self, path: &Path, seen: &UnreadableBytes) {
        let UnreadableBytes { bytes, is_end, is_chained } = seen;
        self.unreadable.push(Unreadable {
            path: path.to_owned(),
            offset: bytes.start,
            bytes: bytes.end - bytes.start,
            is_end: *is_end,
            is_chained: *is_chained,
        });
    }

    /// The next block, at `offset` of a file.
    pub fn block(&mut self, path: &Path, offset: u64, block: &Block) {
        let Some(linked) = block.linked else {
            self.unchained(path, offset);
            return;
        };
        let expected = self.newest.unwrap_or_else(|| {
            let anchor = self.noted().map(|noted| noted.anchor).unwrap_or_default();
            // What the retention is about to take may still be there.
            if linked.link.ordinal <= anchor.ordinal { linked.before } else { anchor }
        });
        let goes_back = || self.known.contains(&linked.before) || linked.before == Link::default();
        if linked.begins_anew {
            self.give_up_on_unreadable();
            self.faults.push(format!(
                "ledger file `{}`, offset {offset}: the newest link of the ledger was not to be found when this was written; what may be lost before it is not known",
                path.display()
            ));
        } else if linked.before == expected
            || self.noted().is_some_and(|noted| noted.anchor == linked.before)
            || (self.newest.is_some() && goes_back())
        {
            self.forgive_ends(path);
        } else {
            self.gap(path, offset, expected, &linked);
        }
        self.take(linked);
    }

    fn unchained(&mut self, path: &Path, offset: u64) {
        self.give_up_on_unreadable();
        self.unchained_blocks += 1;
        if self.newest.is_some() {
            self.faults.push(format!(
                "ledger file `{}`, offset {offset}: not chained, though it is behind what is",
                path.display()
            ));
        }
    }

    fn take(&mut self, linked: Linked) {
        let link = linked.link;
        self.newest = Some(link);
        self.is_noted_seen |= self.noted().is_some_and(|noted| noted.newest == link);
        for link in [linked.before, link] {
            if link != Link::default() && self.known.insert(link) {
                self.recent.push_back(link);
            }
        }
        while REMEMBERED_LINKS < self.recent.len() {
            if let Some(old) = self.recent.pop_front() {
                self.known.remove(&old);
            }
        }
    }

    /// The chain goes on in `path`: what is unreadable at the end of an earlier file was never
    /// counted on.
    fn forgive_ends(&mut self, path: &Path) {
        self.unreadable.retain(|part| !(part.is_end && part.is_chained && part.path != path));
        self.give_up_on_unreadable();
    }

    fn give_up_on_unreadable(&mut self) {
        for part in std::mem::take(&mut self.unreadable) {
            self.faults.push(format!("{} cannot be read", part.text()));
        }
    }

    fn gap(&mut self, path: &Path, offset: u64, expected: Link, linked: &Linked) {
        let first = expected.ordinal.saturating_add(1);
        let missing = match linked.before.ordinal {
            last if first < last => format!("blocks {first} to {last} of the ledger"),
            last if first == last => format!("block {first} of the ledger"),
            _ => "blocks of the ledger".to_owned(),
        };
        let (damaged, unchained) =
            std::mem::take(&mut self.unreadable).into_iter().partition(|part| part.is_chained);
        self.unreadable = unchained;
        self.give_up_on_unreadable();
        let damaged: Vec<Unreadable> = damaged;
        if damaged.is_empty() {
            let place = format!("ledger file `{}`, offset {offset}", path.display());
            self.faults.push(format!("{place}: {missing} before it are missing"));
        }
        for part in damaged {
            self.faults.push(format!("{} cannot be read: {missing}", part.text()));
        }
    }

    /// Judges the end of the ledger.
    #[must_use]
    pub fn finish(mut self) -> ChainFindings {
        let link_path = self.link_path.display().to_string();
        let newest = self.newest.unwrap_or_default();
        match self.noted {
            LinkFile::Damaged => self.faults.push(format!(
                "`{link_path}` is damaged: whether the end of the ledger is lost is not known"
            )),
            LinkFile::Missing if self.newest.is_some() => self.faults.push(format!(
                "`{link_path}` is missing: whether the end of the ledger is lost is not known"
            )),
            LinkFile::Missing => {}
            LinkFile::Noted(Noted { newest: noted, .. })
                if noted.ordinal == 0 || self.is_noted_seen =>
            {
                self.unreadable.retain(|part| !(part.is_end && part.is_chained));
            }
            LinkFile::Noted(Noted { newest: noted, .. }) if newest.ordinal < noted.ordinal => {
                self.faults.push(format!(
                    "the ledger ends with block {}, and `{link_path}` says that it had {}: what the others said is lost",
                    newest.ordinal, noted.ordinal
                ));
            }
            LinkFile::Noted(Noted { newest: noted, .. }) => self.faults.push(format!(
                "block {} of the ledger is not the one that `{link_path}` says",
                noted.ordinal
            )),
        }
        if self.noted == LinkFile::Missing {
            // Format 1: an entry in the making, or what a crash left of one.
            self.unreadable.retain(|part| !part.is_end);
        }
        self.give_up_on_unreadable();
        let mut notes = Vec::new();
        if 0 < self.unchained_blocks {
            notes.push(
                "a part of the ledger is from a version that did not chain its entries: what may be missing of that part is not known".to_owned(),
            );
        }
        ChainFindings { faults: self.faults, notes }
    }
}

impl Unreadable {
    fn text(&self) -> String {
        format!(
            "ledger file `{}`, offset {}: {} bytes",
            self.path.display(),
            self.offset,
            self.bytes
        )
    }
}
