//! Replay by parts: what an earlier process left is taken in and committed a part at a time, so that
//! a part that ends the process ends few starts, and nothing else with it.
//!
//! A start does so when the one before it died at its replay, or while what was replayed was being
//! committed: the carry and the segments up to the one that it died at are taken in few records at
//! a time, each part committed whole before the next is read. Of a part that a start dies at, the
//! next start takes an eighth at a time. A record that three starts died at when it was taken in alone
//! is set aside ([`crate::parked`]); all others go on into their tables. A death while the journal is
//! written to counts for no record, nor does one after the process was asked to stop, nor one with the
//! machine: so kills from outside do not add up to three.
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
//! Epochs of the time before have plans too. A trace that settled in such an epoch settled with all
//! that segments up to its number say of it; so what of it is taken in from there is taken out at
//! once, when the table has the epoch.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::time::Duration;

use tracelake_journal::{
    Damage, DamageKind, JournalError, JournalFs, RecordBytes, RecordReader, SegmentNumber,
};
use tracelake_model::{TableName, TraceId};
use tracing::{error, info, warn};

use super::arrival::Arrival;
use super::batches::{Batches, Care, Placed};
use super::plans::PlannedTable;
use super::replay_mark::{At, Origin, PartDone, Position, Records, Stage};
use super::{Pipeline, Scope};
use crate::parked::{self, Kind, Reason};

/// Starts that may end at one record before it is set aside.
const DEATHS_AT_A_RECORD: u32 = 3;

/// Waits for a table that cannot say what it has.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What is left of an earlier process.
#[derive(Debug)]
pub(super) struct Backlog {
    /// The carry of the epoch that is noted.
    pub(super) carry: Option<SegmentNumber>,
    /// Segments that are not done, ascending.
    pub(super) segments: Vec<SegmentNumber>,
    /// How far they are done, where an earlier replay by parts got into them.
    pub(super) position: Option<Position>,
    /// The first epoch of that replay.
    pub(super) first_part: Option<u64>,
}

/// What an epoch of a replay by parts leaves undone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Undone {
    pub(super) position: Position,
    /// The first epoch of this replay.
    pub(super) first_part: u64,
    /// A carry of which records from this place on are not taken in.
    pub(super) carry: Option<(SegmentNumber, u64)>,
}

/// Traces that an epoch brought to a table with all that precedes a position.
#[derive(Debug)]
struct Known {
    until: Position,
    /// Place in the carry that precedes it too; all of it do, unless the epoch stood for a part.
    carry_through: u64,
    traces: Vec<TraceId>,
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
    first_part: Option<u64>,
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
        let Backlog { carry, segments, first_part, .. } = backlog;
        let mut care = care;
        let known = self.look_up_plans(pending, carry, &mut care);
        let carry = carry.map(|file| CarryLeft { file, place: 0, original: file, taken: 0 });
        let arrival = Arrival::default();
        let mut parts = Parts { care, known, position, first_part, carry, arrival };
        info!(segments = segments.len(), through = ?parts.care.through, "replaying the journal by parts");
        self.carry_by_parts(&mut parts)?;
        for segment in segments {
            self.segment_by_parts(segment, &mut parts)?;
        }
        Ok(())
    }

    /// Which traces of earlier plans are in their tables. What is not is struck out. A part that is
    /// in one is taken in as a whole again, so that it is through before its plan is forgotten.
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
            let carry_through = part.and_then(|part| part.carry_through).unwrap_or(u64::MAX);
            for (table, planned) in self.plans.tables(epoch) {
                if self.has_planned(epoch, &table, &planned) {
                    match (part.map(|part| part.carry_through), carry) {
                        (None, _) | (Some(Some(_)), None) => {}
                        (Some(Some(place)), Some(carry)) => {
                            care.together.push((Origin::Carry(carry.get()), place));
                        }
                        (Some(None), _) => {
                            care.together.push((Origin::Segment(until.segment), until.after));
                        }
                    }
                    known.push(Known { until, carry_through, traces: planned.traces });
                } else {
                    self.plans.strike(epoch, &table);
                }
            }
        }
        known
    }

    /// Waits until the table answers: nothing may be committed before that is known.
    fn has_planned(&self, epoch: SegmentNumber, table: &TableName, planned: &PlannedTable) -> bool {
        if self.broken.leaves_out_txn() {
            return false;
        }
        let mut wait = FIRST_WAIT;
        loop {
            match self.writers.has_epoch(table, &planned.mark(epoch)) {
                Ok(is_in) => return is_in,
                Err(fault) if self.mark.set_apart(table).is_some() => {
                    // It gets nothing in this life; what it has is known by its content later.
                    warn!(%table, error = %fault, "not known whether an epoch is in");
                    return false;
                }
                Err(fault) => {
                    warn!(%table, error = %fault, ?wait, "the replay waits for a table");
                    self.health.say("replay", Some(format!("table {table}: {fault}")));
                    // Made within the runtime, whose timer it needs.
                    self.handle.block_on(async { tokio::time::sleep(wait).await });
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
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
        let first_part = *parts.first_part.get_or_insert(epoch.get());
        let carry_through = matches!(origin, Origin::Carry(_)).then_some(last);
        let part = PartDone { epoch: epoch.get(), position, first_part, carry_through };
        self.mark.take_on_part(at, part)?;
        if count == 1 && DEATHS_AT_A_RECORD <= deaths {
            self.park_killer(&batch, origin, deaths)?;
        } else {
            for (place, record) in batch {
                self.take_record(&record, origin, place, &mut parts.arrival)?;
            }
        }
        // As it was when the plan was made.
        let shift = parts.carry.map_or(0, |left| left.shift());
        for known in &parts.known {
            let covers = match origin {
                Origin::Carry(_) => last.saturating_sub_signed(shift) <= known.carry_through,
                Origin::Segment(_) => position.is_within(known.until),
            };
            if covers {
                drop(self.assembler.take_out(&known.traces));
            }
        }
        let carry = parts.carry.map(|left| (left.file, left.place));
        self.undone = Some(Undone { position, first_part, carry });
        let scope = if few.is_some() { Scope::Everything } else { Scope::Settled };
        let passed = parts.arrival.passed_nano;
        if let Err(fault) = self.settle_and_commit(epoch, scope, passed) {
            // Its traces are open again, and go with a later part.
            error!(error = format!("{fault:#}"), "part of the replay not committed");
        }
        Ok((self.noted == Some(epoch)).then_some((epoch, self.carried)))
    }

    fn park_killer(&self, batch: &[Placed], origin: Origin, deaths: u32) -> anyhow::Result<()> {
        let why = format!("{deaths} starts ended when it was taken in, alone");
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
        let file = match origin {
            Origin::Carry(number) => carry_name(SegmentNumber::new(number)),
            Origin::Segment(number) => format!("segment-{number:020}.journal"),
        };
        let reason = Reason::new(Kind::Record, why, file, place);
        let folder = self.archive.folder.parked();
        let name = parked::park(self.fs.as_ref(), &folder, &reason, record)?;
        error!(
            parked = %name,
            reason = %reason.reason,
            "a record that was acknowledged is set aside: `tracelake parked --help`"
        );
        Ok(())
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
            let folder = self.archive.folder.parked();
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

fn carry_name(number: SegmentNumber) -> String {
    format!("carry-{:020}.journal", number.get())
}

/// The bytes of a damaged stretch, as far as they are there.
fn read_stretch(fs: &dyn JournalFs, damage: &Damage) -> io::Result<Vec<u8>> {
    let mut file = fs.open_read(&damage.path)?;
    file.seek(SeekFrom::Start(damage.offset))?;
    let mut bytes = Vec::new();
    file.take(damage.bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}
