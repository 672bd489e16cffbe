//! Collects what is refused, without letting a hostile body grow the list.

use crate::request::Reject;

/// Rejects named one by one; the others are only counted.
const MAX_NAMED: usize = 1_000;

/// Rejects and warnings in the order met.
#[derive(Debug, Default)]
pub(crate) struct Rejects {
    named: Vec<Reject>,
    more: usize,
    more_spans: usize,
}

impl Rejects {
    /// `spans` were refused; zero for something left out of a span that was kept.
    pub(crate) fn push(&mut self, spans: usize, reason: impl FnOnce() -> String) {
        if self.named.len() < MAX_NAMED {
            self.named.push(Reject { spans, reason: reason() });
        } else {
            self.more += 1;
            self.more_spans += spans;
        }
    }

    /// The list; what was not named is one entry at its end.
    pub(crate) fn into_list(mut self) -> Vec<Reject> {
        if 0 < self.more {
            let reason = format!("and {} more faults of the same request", self.more);
            self.named.push(Reject { spans: self.more_spans, reason });
        }
        self.named
    }
}
