//! What the pipeline says is wrong, for those who ask.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is wrong now: what is told last holds.
#[derive(Debug, Default)]
pub struct Health {
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    /// By part of the service.
    parts: BTreeMap<&'static str, String>,
    /// Tables that cannot be written.
    tables: BTreeMap<String, String>,
}

impl Health {
    /// Notes what is wrong with a part of the service, or that nothing is.
    pub(crate) fn say(&self, part: &'static str, fault: Option<String>) {
        let parts = &mut self.told().parts;
        match fault {
            Some(fault) => drop(parts.insert(part, fault)),
            None => drop(parts.remove(part)),
        }
    }

    /// Notes which tables cannot be written, and why.
    pub(crate) fn say_tables<'a>(&self, tables: impl Iterator<Item = (String, &'a str)>) {
        let tables = tables.map(|(table, reason)| (table, reason.to_owned())).collect();
        self.told().tables = tables;
    }

    /// Each part and each table that something is wrong with, and what.
    #[must_use]
    pub fn reasons(&self) -> Vec<(String, String)> {
        let told = self.told();
        let parts = told.parts.iter().map(|(part, reason)| ((*part).to_owned(), reason));
        let tables = told.tables.iter().map(|(table, reason)| (format!("table {table}"), reason));
        parts.chain(tables).map(|(part, reason)| (part, reason.clone())).collect()
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        // No code that holds the lock leaves it half changed.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a part is told to be at fault, and then not to be; tables likewise.
    /// Guarantees: what is told last holds.
    #[test]
    fn what_is_told_last_holds() {
        let health = Health::default();
        health.say("epoch", Some("no room".to_owned()));
        health.say_tables([("a.b.c".to_owned(), "gone")].into_iter());
        let reason = |part: &str, reason: &str| (part.to_owned(), reason.to_owned());
        assert_eq!(health.reasons(), [reason("epoch", "no room"), reason("table a.b.c", "gone")]);
        health.say("epoch", None);
        health.say_tables(std::iter::empty());
        assert_eq!(health.reasons(), []);
    }
}
