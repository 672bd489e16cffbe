//! What befalls archivers, machines and clocks in the course of a schedule.

use std::fmt::Write as _;
use std::time::Duration;

use object_store::path::Path;
use tracelake_decode::{DecodedRecord, RecordContent, RecordHeader, decode_record};
use tracelake_model::TraceId;

use super::World;
use crate::simulation::archiver::Archiver;
use crate::simulation::clients::Request;
use crate::simulation::fault_kinds::Fault;
use crate::simulation::history::Said;

/// Kinds of fault that are met by choice; torn writes and lost names follow from kills.
pub(super) const MENU: [Fault; 22] = [
    // The more likely ones twice.
    Fault::KillAtFile,
    Fault::KillAtPut,
    Fault::Kill,
    Fault::ProcessDeath,
    Fault::KillAtFile,
    Fault::KillAtPut,
    Fault::KillInRecovery,
    Fault::Restart,
    Fault::NoRoom,
    Fault::SyncError,
    Fault::FolderSyncError,
    Fault::CreateError,
    Fault::PutRefused,
    Fault::PutConflict,
    Fault::PutMisreported,
    Fault::PutMetItself,
    Fault::AnswerLost,
    Fault::PutLate,
    Fault::GetError,
    Fault::ListError,
    Fault::Slow,
    Fault::Throttled,
];

/// The same where tables are in folders.
pub(super) const MENU_OF_FOLDERS: [Fault; 15] = [
    Fault::KillAtFile,
    Fault::KillAtPut,
    Fault::Kill,
    Fault::ProcessDeath,
    Fault::KillAtFile,
    Fault::KillAtPut,
    Fault::KillInRecovery,
    Fault::NoRoom,
    Fault::SyncError,
    Fault::FolderSyncError,
    Fault::CreateError,
    Fault::PutRefused,
    Fault::TableSyncError,
    Fault::GetError,
    Fault::Restart,
];

/// Starts that end, one after the other: those that it takes to set a record aside that came with few others,
/// and some more.
const ENDED_STARTS: usize = 9;

/// Turns, of two seconds each, in which a move that failed is tried again and comes to its end.
const MOVE_TURNS: usize = 12;

/// The traces that a record says something of.
fn traces_of(record: &DecodedRecord) -> Vec<TraceId> {
    match &record.content {
        RecordContent::Spans(decoded) => decoded.spans.iter().map(|span| span.trace_id).collect(),
        RecordContent::TraceInfo(info) => vec![info.trace_id],
        RecordContent::Changes(changes) => changes.iter().map(|one| one.trace_id).collect(),
        RecordContent::Words(words) => vec![words.info.trace_id],
    }
}

impl World<'_> {
    /// Lets an archiver name a version of which nobody knows whether the device has it: it dies
    /// there, or the sync of the folder fails. What looks at that version then must not rest on it,
    /// as the power may go.
    pub(super) fn leave_in_doubt(&mut self, at: usize) {
        if self.random.chance(50) {
            self.delete_one(at);
        } else {
            self.send(at);
        }
        let fault = match self.random.chance(50) {
            true => Fault::VersionSyncError,
            false => Fault::KillAtVersion,
        };
        // Without the power, which may go later.
        self.with(at, |archiver| archiver.arm(fault, 0, 1));
        self.with(at, |archiver| drop(archiver.flush()));
        self.look_after(at);
        if !self.archivers.get(at).is_some_and(Archiver::is_alive) {
            self.start(at);
        }
        self.with(at, |archiver| drop(archiver.flush()));
        self.look_after(at);
        if self.random.chance(50) {
            self.cut_power(at);
        }
    }

    /// Lets each start of an archiver end at its first PUT, so many times that some of what it replays
    /// may be set aside.
    pub(super) fn end_starts(&mut self, at: usize) {
        self.send(at);
        // Alone, before a PUT takes effect, within it, and after it.
        let choice = self.random.pick(&[3, 10, 11]).unwrap_or(3);
        let Some(archiver) = self.archivers.get_mut(at) else { return };
        archiver.end_process();
        for _ in 0..ENDED_STARTS {
            let fault = Some((Fault::KillAtPut, 0, choice));
            let started = archiver.start(None, fault, Vec::new());
            archiver.heal();
            if started.is_ok() {
                break;
            }
            self.happened.note(Fault::KillInRecovery, 1);
        }
        self.note_parked(at);
    }

    /// Notes of which traces an archiver has set something aside.
    pub(super) fn note_parked(&mut self, at: usize) {
        let parked = self.archivers.get(at).map(Archiver::parked).unwrap_or_default();
        self.happened.note(Fault::SetAside, parked.len() as u64);
        for (name, record) in parked {
            let decoded = RecordHeader::from_bytes(&record.header)
                .and_then(|header| decode_record(header, &record.payload));
            match decoded {
                Ok(decoded) => {
                    for trace in traces_of(&decoded) {
                        self.histories.iter_mut().for_each(|history| history.reorder(trace));
                    }
                }
                Err(error) => drop(writeln!(self.violations, "parked {name}: {error}")),
            }
        }
    }

    /// Puts back what was set aside. Returns whether there was anything.
    pub(super) fn put_back_parked(&mut self) -> bool {
        let mut records = 0;
        for at in 0..self.archivers.len() {
            self.note_parked(at);
            match self.archivers.get_mut(at).map(Archiver::put_back_parked) {
                Some(Ok(count)) => records += count,
                Some(Err(error)) => drop(writeln!(self.violations, "not put back: {error:#}")),
                None => {}
            }
        }
        0 < records
    }

    /// Binds the experiment, and lets the sync of the log fail at the version that takes the moved traces
    /// out of their old table; the process lives and goes on with the move, and then the power goes.
    pub(super) fn move_in_doubt(&mut self, at: usize) {
        self.send(at);
        self.with(at, |archiver| drop(archiver.flush()));
        self.look_after(at);
        self.bind();
        if !self.archivers.get(at).is_some_and(Archiver::is_alive) {
            return;
        }
        // The versions that make the new table and bring the traces there come before.
        self.with(at, |archiver| archiver.arm(Fault::VersionSyncError, 2, 0));
        for _ in 0..MOVE_TURNS {
            self.clock.advance(Duration::from_secs(2));
            self.with(at, Archiver::turn);
        }
        self.look_after(at);
        self.happened.note(Fault::MoveSyncError, 1);
        self.with(at, |archiver| archiver.heal());
        self.cut_power(at);
    }

    /// Deletes a trace that is committed, and nothing else.
    fn delete_one(&mut self, at: usize) {
        self.with(at, |archiver| drop(archiver.flush()));
        self.look_after(at);
        let mut told = self.traces.clone();
        told.retain(|trace| {
            let history = self.histories.get(trace.table);
            trace.owner == Some(at) && history.is_some_and(|known| known.has_acked_span(trace.id))
        });
        let Some(trace) = self.random.pick(&told) else { return };
        let requests = vec![Request { table: trace.table, said: vec![(trace.id, Said::Deleted)] }];
        let records = self.records(at, &requests);
        let Some(archiver) = self.archivers.get_mut(at) else { return };
        let answers = archiver.append(records);
        self.note(at, requests, &answers);
    }

    /// Lets another engine, which syncs nothing, write a version that changes nothing. It never stands on
    /// one that a dead archiver left unsynced: a cut could then take the lower one alone, which nobody
    /// who lives could prevent.
    pub(super) fn commit_elsewhere(&mut self) {
        let Some(folders) = self.objects.folders() else { return };
        let table = self.random.below(self.ground.tables.len());
        let Some(log) = self.log_path(table) else { return };
        let versions = folders.names(&log).into_iter();
        let newest =
            versions.filter_map(|name| name.strip_suffix(".json")?.parse::<u64>().ok()).max();
        let Some(newest) = newest.filter(|_| folders.is_durable(&log)) else { return };
        let path = log.join(format!("{:020}.json", newest + 1));
        let line = r#"{"commitInfo":{"timestamp":0,"operation":"NOTHING","engineInfo":"other"}}"#;
        if folders.put_unsynced(&path, &format!("{line}\n")) {
            self.happened.note(Fault::OtherEngine, 1);
        }
    }

    pub(super) fn log_path(&self, table: usize) -> Option<Path> {
        let (name, stores) = (self.ground.tables.get(table)?, self.ground.stores.first()?);
        let url = stores.folder.table(name).url()?.join("_delta_log").ok()?;
        Path::from_url_path(url.path()).ok()
    }

    /// Sets the wall clock, by seconds up to years; no time passes.
    pub(super) fn step_clock(&mut self) {
        let by = self.random.pick(&[90, 4_000, 100 * 86_400, 40 * 365 * 86_400]).unwrap_or(90);
        let by = if self.random.chance(60) { -by } else { by };
        self.clock.step_wall(by * 1_000_000_000);
        self.stepped = true;
        self.happened.note(Fault::ClockStep, 1);
    }

    /// Cuts the power of an archiver's machine, whether its process is alive or not. Where tables
    /// are in folders all archivers are on that machine.
    pub(super) fn cut_power(&mut self, at: usize) {
        let folders = self.objects.folders().cloned();
        for (index, archiver) in self.archivers.iter_mut().enumerate() {
            if index == at || folders.is_some() {
                archiver.cut_power();
                archiver.take_power_went();
            }
        }
        // Any reader of the table may meet one.
        for torn in folders.map(|folders| folders.cut_power()).unwrap_or_default() {
            writeln!(self.violations, "a power cut left a part of {torn}").ok();
        }
    }

    pub(super) fn meet_fault(&mut self, at: usize) {
        let Some(fault) = self.random.pick(&self.menu) else { return };
        let (after, choice) = (self.random.below(4) as u64, self.random.bits());
        let Some(archiver) = self.archivers.get_mut(at) else { return };
        match fault {
            Fault::Kill | Fault::KillInRecovery => {
                self.cut_power(at);
                self.happened.note(Fault::Kill, 1);
            }
            Fault::ProcessDeath => {
                archiver.end_process();
                self.happened.note(Fault::ProcessDeath, 1);
            }
            Fault::KillAtFile => {
                self.arm_death(at, choice % 14, choice / 14);
            }
            Fault::Restart => {
                archiver.stop();
                self.happened.note(Fault::Restart, 1);
            }
            Fault::NoRoom if choice % 3 == 0 => archiver.machine.set_room(None),
            Fault::NoRoom => {
                let room = archiver.machine.used_bytes() + self.random.below(400);
                archiver.machine.set_room(Some(room));
            }
            Fault::SyncError => archiver.machine.fail_syncs(1 + u32::from(choice % 4 == 0)),
            Fault::CreateError => archiver.machine.fail_creates(1 + u32::from(choice % 4 == 0)),
            Fault::FolderSyncError => {
                archiver.machine.fail_folder_syncs(1 + u32::from(choice % 4 == 0));
            }
            Fault::GetError | Fault::Slow => archiver.arm(fault, (choice >> 8) % 10, choice),
            _ => archiver.arm(fault, after, choice),
        }
    }

    /// Lets it die after so many more operations of its file system; by a power cut or alone, as
    /// `choice` says.
    pub(super) fn arm_death(&mut self, at: usize, operations: u64, choice: u64) {
        self.with(at, |archiver| archiver.die_after(operations, choice.is_multiple_of(2)));
        if let Some(armed) = self.death_armed.get_mut(at) {
            *armed = true;
        }
    }
}
