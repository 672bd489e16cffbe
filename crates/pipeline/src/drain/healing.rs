//! A journal that takes no records is asked to try again, and so are tables that kills set apart; others are told
//! what is wrong.

use tracing::{info, warn};

use super::Pipeline;

/// First wait before the journal tries again; it doubles each time.
const FIRST_WAIT_NANO: u64 = 250_000_000;

/// Longest wait.
const LONGEST_WAIT_NANO: u64 = 30_000_000_000;

/// When the journal tries again.
#[derive(Debug)]
pub(super) struct Healing {
    not_before_nano: u64,
    wait_nano: u64,
}

impl Default for Healing {
    fn default() -> Self {
        Self { not_before_nano: 0, wait_nano: FIRST_WAIT_NANO }
    }
}

impl Pipeline {
    /// Tries again what may be well by now.
    pub(super) fn heal(&mut self) {
        self.heal_journal();
        for table in self.mark.try_again(self.clock.monotonic_nano()) {
            info!(%table, "set apart for deaths that nobody explained: opened again");
            self.blocked.release(&table);
        }
    }

    /// Asks a journal that takes no records to try again, when it is time.
    fn heal_journal(&mut self) {
        if self.journal.failure().is_none() {
            self.healing = Healing::default();
            return;
        }
        let now = self.clock.monotonic_nano();
        if now < self.healing.not_before_nano {
            return;
        }
        if let Err(error) = self.handle.block_on(self.journal.heal()) {
            let error = &error as &dyn std::error::Error;
            warn!(error, "the journal still takes no records");
        }
        self.healing.not_before_nano = now.saturating_add(self.healing.wait_nano);
        self.healing.wait_nano = (self.healing.wait_nano * 2).min(LONGEST_WAIT_NANO);
    }

    pub(super) fn say_health(&self) {
        let apart = self.mark.tables_apart();
        let apart = apart.iter().map(|(table, reason)| (table.to_string(), reason.as_str()));
        let blocked = self.blocked.reasons().map(|(table, reason)| (table.to_string(), reason));
        self.health.say_tables(blocked.chain(apart));
    }
}
