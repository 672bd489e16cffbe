//! Room: on the disk, and within the journal's budget.

use super::{Checker, Finding, ServiceState, journal_use, units};

/// Below this nothing can be expected to work.
const LEAST_FREE_BYTES: u64 = 64 << 20;

impl Checker<'_> {
    pub(super) fn disk(&self, state: &ServiceState) -> Finding {
        let root = self.folder.root();
        let free = match rustix::fs::statvfs(root) {
            Ok(room) => room.f_bavail.saturating_mul(room.f_frsize),
            Err(error) => {
                let hint = "look at the file system of the data folder";
                return Finding::failed(format!("`{}`: {error}", root.display()), hint);
            }
        };
        let found = format!("{} free", units::bytes(free));
        let (_, budget) = self.journal_bytes(state);
        if free < LEAST_FREE_BYTES {
            return Finding::failed(found, "make room, or move the data folder to another disk");
        }
        if free < budget {
            return Finding::note(
                format!("{found}, less than the journal's budget of {}", units::bytes(budget)),
                "if the journal fills the disk, tables can no longer be written: lower \
                 `journal_budget`, or make room",
            );
        }
        Finding::ok(found)
    }

    pub(super) fn journal(&self, state: &ServiceState) -> Finding {
        let (used, budget) = self.journal_bytes(state);
        let used = match used {
            Ok(used) => used,
            Err(error) => {
                return Finding::failed(
                    format!("`{}`: {error}", self.folder.journal().display()),
                    "look at the journal's folder",
                );
            }
        };
        let found = format!("{} of {}", units::bytes(used), units::bytes(budget));
        if budget.saturating_sub(budget / 20) <= used {
            return Finding::failed(
                format!("{found}: requests are refused with 429"),
                "`tracelake flush` commits what is in it; if tables cannot be written, mend them, \
                 or raise `journal_budget`",
            );
        }
        match tracelake_pipeline::parked::list(&self.folder.parked()) {
            Ok(parked) if parked.is_empty() => {}
            Ok(parked) => {
                let names: Vec<&str> = parked.iter().map(|entry| entry.name.as_str()).collect();
                return Finding::failed(
                    format!("{found}; set aside: {}", names.join(", ")),
                    "they were acknowledged and are in no table: `tracelake parked list` says why, \
                     `tracelake parked retry` puts them back",
                );
            }
            Err(error) => {
                return Finding::failed(
                    format!("`{}`: {error}", self.folder.parked().display()),
                    "look at that folder",
                );
            }
        }
        Finding::ok(found)
    }

    /// Bytes that the journal takes, and those that it may take.
    fn journal_bytes(&self, state: &ServiceState) -> (std::io::Result<u64>, u64) {
        match state {
            ServiceState::Running(running) => {
                (Ok(running.status.journal_bytes), running.status.journal_budget_bytes)
            }
            ServiceState::None | ServiceState::Silent { .. } => {
                (journal_use(&self.folder), self.request.settings.journal_budget_bytes)
            }
        }
    }
}
