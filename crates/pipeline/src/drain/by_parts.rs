//! Replay by parts: what an earlier process left is taken in and committed a part at a time, so that
//! a part that ends the process ends few starts, and nothing else with it.
//!
//! A start does so when the one before it died at its replay, or while what was replayed was being
//! committed: the carry and the segments up to the one that it died at are taken in few records at
//! a time, each part committed whole before the next is read.
//!
//! How a start died says its pulse ([`super::pulse`]). By its **own doing** while it took in a record: the next start
//! takes that one in alone. While a part was committed: the next start takes its records in one by one. A record at
//! which that ends a start again is set aside ([`crate::parked`]); all others go on into their tables.
//!
//! A death that is **unexplained** may be a kill from outside. Of a part that a start dies at so, the next start
//! takes an eighth at a time, and a record that eight starts died at when it was taken in alone is set aside.
//! Deaths while the journal, the ledger or a plan is written to, where a start spends most of its time, count by
//! themselves. Each start begins with that record, so a few kills soon after a start would look like its fault;
//! eight in a row do not come about by chance. A death after the process was asked to stop counts for no record, nor
//! does one with the machine.
//!
//! # Epochs of parts
//!
//! An ordinary epoch stands for the segments up to its number. One of a replay by parts gets the
//! number of a segment that is sealed for it, above all that are there, and stands for what precedes
//! a position. Which one says the mark ([`super::replay_mark`]), durably before the plan:
//!
//! | durable step | the process dies before it | it dies after it |
//! |---|---|---|
//! | `rotate` seals segment `n`, whose records come after all that is replayed | nothing changed | an epoch number is spent |
//! | mark: epoch `n` stands for what precedes position `p`; what is being taken on | as above | the next start knows what it died at; plan `n` is not there |
//! | plan `n`, versions with `txn = n` | as above | at position `p` the next start takes out what plan `n` names and is in |
//! | carry `n`: what is in no table, and what of an older carry is not taken in yet | as above | as above; carry `n` counts once `n` is noted |
//! | `EPOCH` says `n` | as above | carry `n`, then what follows `p`, is all that is left |
//! | segments below that of `p`, older carries, plans that are done are deleted | repeated at start | |
//!
//! Segments from that of `p` on stay, also those with numbers below `n`; the first ordinary epoch
//! after the replay stands for all of them.
//!
//! A start may die when a part is in one of its tables and not in another. The next one takes in less
//! of that part at a time, and leaves out what the first table has. Until it is through the part, no
//! epoch is noted, so that the plan which says so stays: the parts of a part are looked up as well
//! when that start dies, and a record that is set aside by then is known by its entry.
//!
//! A table that cannot be asked what it has does not hold up the replay: its epochs are in doubt
//! ([`super::in_doubt`]), it gets no other one, and no epoch is noted until it answers.
//!
//! Epochs of the time before have plans too. A trace that settled in such an epoch settled with all
//! that segments up to its number say of it; so what of it is taken in from there is taken out at
//! once, when the table has the epoch.

use std::io::{self, Read as _, Seek as _, SeekFrom};

use tracelake_journal::{
    Damage, DamageKind, JournalError, JournalFs, RecordBytes, RecordReader, SegmentNumber,
};
use tracelake_model::{TableName, TraceId};
use tracing::{error, info};

use super::arrival::Arrival;
use super::batches::{Batches, Care, Placed};
use super::origin::Origin;
use super::replay_mark::{At, Deaths, OWN_DEATHS, PartDone, Position, Records, Stage};
use super::{Pipeline, Scope};
use crate::parked::{self, Kind, Reason};

/// What is left of an earlier process.
#[derive(Debug)]
pub(super) struct Backlog {
    /// The carry of the epoch that is noted.
    pub(super) carry: Option<SegmentNumber>,
    /// Segments that are not done, ascending.
    pub(super) segments: Vec<SegmentNumber>,
    /// How far they are done, where an earlier replay by parts got into them.
    pub(super) position: Option<Position>,
}

/// What an epoch of a replay by parts leaves undone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Undone {
    pub(super) position: Position,
    /// A carry of which records from this place on are not taken in.
    pub(super) carry: Option<(SegmentNumber, u64)>,
    /// Whether that is within a part that an earlier epoch brought to one of its tables: then it is not
    /// noted, and that epoch's plan stays.
    pub(super) is_within_part: bool,
}

/// Traces that an epoch brought to a table, or may have, with all that precedes a position.
#[derive(Debug)]
struct Known {
    epoch: SegmentNumber,
    table: TableName,
    until: Position,
    /// Place in the carry that precedes it too; `None` is all of it.
    carry_through: Option<u64>,
    /// Whether the epoch stood for a part.
    is_part: bool,
    traces: Vec<TraceId>,
}

/// How far a start has taken in what is left.
#[derive(Clone, Copy, Debug)]
struct Reached {
    position: Position,
    /// The last record of the carry, by its place in the file that the start found; `None` is all of it.
    carry: Option<u64>,
}

impl Known {
    /// Whether the epoch stands for all that was reached.
    fn covers(&self, reached: Reached) -> bool {
        match reached.carry {
            Some(place) => self.carry_through.is_none_or(|through| place <= through),
            None => reached.position.is_within(self.until),
        }
    }

    /// Whether all was reached that the epoch stands for.
    fn is_passed(&self, reached: Reached) -> bool {
        let carry = match (self.carry_through, reached.carry) {
            (Some(through), Some(place)) => through <= place,
            _ => true,
        };
        carry && self.until.is_within(reached.position)
    }
}

impl Position {
    /// Where a segment begins.
    pub(super) const fn at_segment(number: SegmentNumber) -> Self {
        Self { segment: number.get(), after: 0 }
    }

    /// Whether records up to here lie before `other` or end with it.
    fn is_within(self, other: Self) -> bool {
        (self.segment, self.after) <= (other.segment, other.after)
    }
}

/// A replay by parts on its way.
struct Parts {
    care: Care,
    known: Vec<Known>,
    position: Position,
    carry: Option<CarryLeft>,
    arrival: Arrival,
}

/// Of the carry that is being taken in, what is not taken in yet.
#[derive(Clone, Copy, Debug)]
struct CarryLeft {
    /// The file that has it now: each part that is noted writes another one.
    file: SegmentNumber,
    /// The place of the first record that is left.
    place: u64,
    /// The file that an earlier process left, and how many of its records are taken in.
    original: SegmentNumber,
    taken: u64,
}

impl CarryLeft {
    /// How much higher the place of a record is than it was in the original file.
    fn shift(&self) -> i64 {
        i64::try_from(self.place).unwrap_or(i64::MAX) - i64::try_from(self.taken).unwrap_or(0)
    }
}

impl Pipeline {
    /// Takes in what is left, part by part. `pending` are epochs of parts that may be in tables and
    /// are not noted.
    pub(super) fn recover_by_parts(
        &mut self,
        backlog: Backlog,
        care: Care,
        pending: &[PartDone],
    ) -> anyhow::Result<()> {
        let first = backlog.segments.first().copied();
        let first = first.unwrap_or_else(|| self.journal.active_segment());
        let position = backlog.position.unwrap_or(Position::at_segment(first));
        let Backlog { carry, segments, .. } = backlog;
        let mut care = care;
        let known = self.look_up_plans(pending, carry, &mut care);
        let carry = carry.map(|file| CarryLeft { file, place: 0, original: file, taken: 0 });
        let arrival = Arrival::default();
        let mut parts = Parts { care, known, position, carry, arrival };
        info!(segments = segments.len(), through = ?parts.care.through, "replaying the journal by parts");
        self.carry_by_parts(&mut parts)?;
        for segment in segments {
            self.segment_by_parts(segment, &mut parts)?;
        }
        Ok(())
    }

    /// Which traces of earlier plans are in their tables, or may be. What is not is struck out. A part
    /// that is in one is taken in as a whole again, unless a start died at some of it.
    fn look_up_plans(
        &mut self,
        pending: &[PartDone],
        carry: Option<SegmentNumber>,
        care: &mut Care,
    ) -> Vec<Known> {
        let mut known = Vec::new();
        for epoch in self.plans.epochs() {
            let part = pending.iter().find(|part| part.epoch == epoch.get());
            let whole = Position { segment: epoch.get(), after: u64::MAX };
            let until = part.map_or(whole, |part| part.position);
            let (is_part, carry_through) =
                (part.is_some(), part.and_then(|part| part.carry_through));
            for (table, planned) in self.plans.tables(epoch) {
                if !self.may_have_planned(epoch, &table, &planned) {
                    self.plans.strike(epoch, &table);
                    continue;
                }
                match (is_part, carry_through, carry) {
                    (false, ..) | (true, Some(_), None) => {}
                    (true, Some(place), Some(carry)) => {
                        care.together.push((Origin::Carry(carry.get()), place));
                    }
                    (true, None, _) => {
                        care.together.push((Origin::Segment(until.segment), until.after));
                    }
                }
                let traces = planned.traces;
                known.push(Known { epoch, table, until, carry_through, is_part, traces });
            }
        }
        known
    }

    /// Takes out of what was taken in what tables have by earlier plans, or may have. Returns whether
    /// this is within a part that is in one of its tables.
    fn take_out_known(&mut self, parts: &Parts, reached: Reached) -> bool {
        let mut is_within_part = false;
        for known in &parts.known {
            if self.plans.mark(known.epoch, &known.table).is_none() {
                // Its table was asked again meanwhile, and does not have it.
                continue;
            }
            is_within_part |= known.is_part && !known.is_passed(reached);
            if known.covers(reached) {
                let traces = self.assembler.take_out(&known.traces);
                self.doubts.collect(&known.table, known.epoch, traces);
            }
        }
        is_within_part
    }

    fn carry_by_parts(&mut self, parts: &mut Parts) -> anyhow::Result<()> {
        if let Some(left) = parts.carry {
            let mut reader = self.journal.read_carry(left.file)?;
            for record in reader.by_ref() {
                record?;
            }
            self.set_damage_aside(reader.damage(), true)?;
        }
        while let Some(left) = parts.carry {
            let reader = self.journal.read_carry(left.file)?;
            let origin = Origin::Carry(left.file.get());
            let mut batches = Batches::new(reader, origin, left.place.checked_sub(1));
            let original = Origin::Carry(left.original.get());
            let care = parts.care.moved(original, origin, left.shift());
            let batch = batches.next(&care)?;
            let Some((last, _)) = batch.last() else {
                parts.carry = None;
                break;
            };
            let (place, taken) = (*last + 1, left.taken + batch.len() as u64);
            let left = CarryLeft { place, taken, ..left };
            parts.carry = Some(left);
            if let Some((file, place)) = self.take_part(batch, origin, &care, parts)? {
                // The rest stands there behind what is open.
                parts.carry = Some(CarryLeft { file, place, ..left });
            }
        }
        Ok(())
    }

    fn segment_by_parts(
        &mut self,
        segment: SegmentNumber,
        parts: &mut Parts,
    ) -> anyhow::Result<()> {
        let reader = self.journal.read_segment(segment)?;
        let origin = Origin::Segment(segment.get());
        let done = (parts.position.segment == segment.get()).then_some(parts.position.after);
        let mut batches = Batches::new(reader, origin, done);
        let care = parts.care.clone();
        loop {
            let batch = batches.next(&care)?;
            let Some((last, _)) = batch.last() else { break };
            parts.position = Position { segment: segment.get(), after: *last };
            self.take_part(batch, origin, &care, parts)?;
        }
        self.set_damage_aside(batches.damage(), false)?;
        parts.position = Position::at_segment(segment.next());
        Ok(())
    }

    /// Takes in a part and commits it as an epoch of its own. Returns the epoch and the number of
    /// records that it carried over, when it was noted.
    fn take_part(
        &mut self,
        batch: Vec<Placed>,
        origin: Origin,
        care: &Care,
        parts: &mut Parts,
    ) -> anyhow::Result<Option<(SegmentNumber, u64)>> {
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return Ok(None) };
        let (first, last, count) = (first.0, last.0, batch.len() as u64);
        let few = match origin {
            Origin::Carry(_) => care.through,
            Origin::Segment(number) => care.through.filter(|through| number <= *through),
        };
        let deaths = care.deaths_at(origin, first);
        let at = match (origin, few) {
            (_, Some(through)) => {
                let stage = Stage::AtWork;
                At::Records(Records { origin, first, last, count, deaths, stage, through })
            }
            (Origin::Carry(through) | Origin::Segment(through), None) => At::Segments { through },
        };
        let epoch = self.handle.block_on(self.journal.rotate())?;
        let position = parts.position;
        let (carry_through, reached_carry) = match origin {
            // As it was when the plans were made.
            Origin::Carry(_) => {
                let shift = parts.carry.map_or(0, |left| left.shift());
                (Some(last), Some(last.saturating_sub_signed(shift)))
            }
            Origin::Segment(_) => (None, None),
        };
        self.mark.take_on_part(at, PartDone { epoch: epoch.get(), position, carry_through })?;
        if count == 1 && deaths.are_its_own() {
            self.park_killer(&batch, origin, deaths)?;
        } else {
            for (place, record) in batch {
                if !self.is_aside(&record, origin, place)? {
                    self.take_record(&record, origin, place, &mut parts.arrival)?;
                }
            }
            self.mark.note_record(None);
        }
        let reached = Reached { position, carry: reached_carry };
        let is_within_part = self.take_out_known(parts, reached);
        let carry = parts.carry.map(|left| (left.file, left.place));
        self.undone = Some(Undone { position, carry, is_within_part });
        let scope = if few.is_some() { Scope::Everything } else { Scope::Settled };
        let passed = parts.arrival.passed_nano;
        if let Err(fault) = self.settle_and_commit(epoch, scope, passed) {
            // Its traces are open again, and go with a later part.
            error!(error = format!("{fault:#}"), "part of the replay not committed");
        }
        Ok((self.noted == Some(epoch)).then_some((epoch, self.carried)))
    }

    fn park_killer(&self, batch: &[Placed], origin: Origin, deaths: Deaths) -> anyhow::Result<()> {
        let Deaths { at_work, between, own } = deaths;
        let why = match own {
            OWN_DEATHS.. => format!("{own} starts ended by their own doing when it was taken in"),
            _ => format!(
                "{at_work} starts ended, why is not known, when it was taken in, alone, and {between} when that was \
                 written down"
            ),
        };
        for (place, record) in batch {
            self.park(record, origin, *place, why.clone())?;
        }
        Ok(())
    }

    /// Sets a record aside; durable when this returns.
    pub(super) fn park(
        &self,
        record: &RecordBytes,
        origin: Origin,
        place: u64,
        why: String,
    ) -> anyhow::Result<()> {
        let reason = reason(origin, place, why);
        let folder = self.stores.folder.parked();
        let name = parked::park(self.fs.as_ref(), &folder, &reason, record)?;
        error!(
            parked = %name,
            reason = %reason.reason,
            "a record that was acknowledged is set aside: `tracelake parked --help`"
        );
        Ok(())
    }

    /// Whether a record was set aside by an earlier start that did not come to note that.
    fn is_aside(&self, record: &RecordBytes, origin: Origin, place: u64) -> io::Result<bool> {
        let name = reason(origin, place, String::new()).name();
        parked::holds(self.fs.as_ref(), &self.stores.folder.parked(), &name, record)
    }

    /// Keeps the bytes of a file that are no record though they should be some: the file will be
    /// deleted. What an unfinished write left is none of that.
    pub(super) fn set_damage_aside(&self, damage: &[Damage], is_carry: bool) -> anyhow::Result<()> {
        for one in damage {
            let lost = matches!(one.kind, DamageKind::CorruptMiddle | DamageKind::CorruptEnd);
            if !lost && !is_carry {
                continue;
            }
            let why = format!("{:?}: {} bytes of acknowledged records", one.kind, one.bytes);
            let file = one.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let reason = Reason::new(Kind::Damage, why, file, one.offset);
            let payload = read_stretch(self.fs.as_ref(), one)?.into();
            let record = RecordBytes { payload, ..RecordBytes::default() };
            let folder = self.stores.folder.parked();
            let name = parked::park(self.fs.as_ref(), &folder, &reason, &record)?;
            error!(parked = %name, ?one, "the journal is damaged; the bytes are set aside");
        }
        Ok(())
    }

    /// What of an older carry is not taken in yet: it goes into the carry of this epoch as it is.
    pub(super) fn untaken(&self) -> Result<Option<RecordReader>, JournalError> {
        let Some((carry, place)) = self.undone.and_then(|undone| undone.carry) else {
            return Ok(None);
        };
        let mut reader = self.journal.read_carry(carry)?;
        for _ in 0..place {
            // A record that cannot be read ends the reader: what follows it must not be taken for nothing.
            reader.next().transpose()?;
        }
        Ok(Some(reader))
    }
}

fn reason(origin: Origin, place: u64, why: String) -> Reason {
    let file = match origin {
        Origin::Carry(number) => format!("carry-{number:020}.journal"),
        Origin::Segment(number) => format!("segment-{number:020}.journal"),
    };
    Reason::new(Kind::Record, why, file, place)
}

/// The bytes of a damaged stretch, as far as they are there.
fn read_stretch(fs: &dyn JournalFs, damage: &Damage) -> io::Result<Vec<u8>> {
    let mut file = fs.open_read(&damage.path)?;
    file.seek(SeekFrom::Start(damage.offset))?;
    let mut bytes = Vec::new();
    file.take(damage.bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}
