//! The kinds of fault that a schedule may meet, and how often they did.

use std::fmt;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The power goes between two operations.
    Kill,
    /// The process alone dies between two operations.
    ProcessDeath,
    /// The power goes, or the process dies, at an operation of the journal's file system.
    KillAtFile,
    /// The same before, within or after a PUT.
    KillAtPut,
    /// The same once a version has its name.
    KillAtVersion,
    /// The same in the course of a recovery.
    KillInRecovery,
    /// The process is told to stop and started again.
    Restart,
    /// A crash left other bytes in a file than were written.
    TornWrite,
    /// A crash undid the creation, renaming or removal of a file.
    LostName,
    /// No room for the journal.
    NoRoom,
    /// A sync fails.
    SyncError,
    /// A sync of a folder of the journal fails.
    FolderSyncError,
    /// A file cannot be created.
    CreateError,
    /// A sync of a folder of a table fails.
    TableSyncError,
    /// The sync of the log's folder fails once a version has its name.
    VersionSyncError,
    /// A power cut undid a name in a folder of a table.
    LostTableName,
    /// A power cut undid a folder with all that was in it.
    LostFolder,
    /// An engine that syncs nothing wrote a version.
    OtherEngine,
    /// The wall clock was set back or ahead.
    ClockStep,
    /// A record was set aside.
    SetAside,
    /// A table was set apart, since starts ended while they made it or read its log.
    SetApart,
    /// The sync of the log's folder fails once moved traces were taken out of their old table.
    MoveSyncError,
    /// 503 to a PUT that had no effect.
    PutRefused,
    /// 409 to a PUT that had no effect.
    PutConflict,
    /// 412 to a PUT that had no effect, though the name is free.
    PutMisreported,
    /// 412 to a PUT that took effect: the client's own retry met it.
    PutMetItself,
    /// An error in answer to a PUT that took effect.
    AnswerLost,
    /// An error in answer to a PUT that takes effect later.
    PutLate,
    /// A GET fails.
    GetError,
    /// A list fails.
    ListError,
    /// The store takes seconds to answer.
    Slow,
    /// The store refuses a run of requests.
    Throttled,
}

impl Fault {
    pub(super) const ALL: [Self; 32] = [
        Self::Kill,
        Self::ProcessDeath,
        Self::KillAtFile,
        Self::KillAtPut,
        Self::KillAtVersion,
        Self::KillInRecovery,
        Self::Restart,
        Self::TornWrite,
        Self::LostName,
        Self::NoRoom,
        Self::SyncError,
        Self::FolderSyncError,
        Self::CreateError,
        Self::TableSyncError,
        Self::VersionSyncError,
        Self::LostTableName,
        Self::LostFolder,
        Self::OtherEngine,
        Self::ClockStep,
        Self::SetAside,
        Self::SetApart,
        Self::MoveSyncError,
        Self::PutRefused,
        Self::PutConflict,
        Self::PutMisreported,
        Self::PutMetItself,
        Self::AnswerLost,
        Self::PutLate,
        Self::GetError,
        Self::ListError,
        Self::Slow,
        Self::Throttled,
    ];
}

/// How often each fault happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FaultCounts([u64; Fault::ALL.len()]);

impl FaultCounts {
    pub(super) fn note(&mut self, fault: Fault, times: u64) {
        if let Some(count) = self.0.get_mut(fault as usize) {
            *count += times;
        }
    }

    pub(super) fn of(&self, fault: Fault) -> u64 {
        self.0.get(fault as usize).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, other: &Self) {
        for fault in Fault::ALL {
            self.note(fault, other.of(fault));
        }
    }

    /// Adds 1 for each kind that happened in `schedule`.
    pub(super) fn add_schedule(&mut self, schedule: &Self) {
        for fault in Fault::ALL {
            self.note(fault, u64::from(0 < schedule.of(fault)));
        }
    }
}

impl fmt::Display for FaultCounts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in Fault::ALL {
            writeln!(formatter, "  {:<16}{:>7}", format!("{fault:?}"), self.of(fault))?;
        }
        Ok(())
    }
}
