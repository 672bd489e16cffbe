//! The spans of a trace, each once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use smallvec::SmallVec;
use tracelake_decode::{Fingerprint, Fingerprinter, SpanRecord, SpanSource};
use tracelake_model::SpanId;

/// What became of a span that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// It was not there.
    New,
    /// It took the place of MLflow's poorer copies of it, which came to this many bytes and spans.
    Richer {
        /// Bytes of the copies.
        bytes: usize,
        /// Their number.
        spans: usize,
    },
    /// It was there, or a richer form of it.
    Copy,
}

/// The spans of a trace in the order of their first arrival, without copies: an identical span is a
/// retry; MLflow's poorer copies of a span yield to the one that came by OTLP, whenever that comes;
/// another span under the same id is kept.
///
/// Adding a span takes the same time however many there are: of those that share an id, which is
/// rare, fingerprints say which ones are worth a comparison.
#[derive(Debug, Default)]
pub(crate) struct SpanSet {
    /// `None` where MLflow's copy stood.
    slots: Vec<Option<SpanRecord>>,
    gone: usize,
    /// Where the only span of an id is, or the first of several.
    by_id: HashMap<SpanId, usize>,
    /// Ids that several spans had.
    shared: HashMap<SpanId, Shared>,
    fingerprinter: Fingerprinter,
}

/// The spans of one id.
#[derive(Debug, Default)]
struct Shared {
    by_fingerprint: HashMap<Fingerprint, SmallVec<[usize; 1]>>,
    /// By id, name and times, which MLflow's copy has in common with the span: those that came by
    /// OTLP, and MLflow's.
    by_identity: HashMap<u64, [Vec<usize>; 2]>,
}

impl SpanSet {
    /// The spans of a row, all of them: what an earlier version or another writer put there stays.
    pub(crate) fn of(spans: Vec<SpanRecord>) -> Self {
        let mut set = Self { by_id: HashMap::with_capacity(spans.len()), ..Self::default() };
        set.slots.reserve(spans.len());
        for span in spans {
            let (id, place) = (span.span_id, set.slots.len());
            set.slots.push(Some(span));
            let first = *set.by_id.entry(id).or_insert(place);
            if first != place {
                if !set.shared.contains_key(&id) {
                    set.share(first);
                }
                set.share(place);
            }
        }
        set
    }

    /// Adds a span that arrived after all that are here.
    pub(crate) fn add(&mut self, span: SpanRecord) -> Added {
        let first = match self.by_id.entry(span.span_id) {
            Entry::Vacant(entry) => {
                entry.insert(self.slots.len());
                self.slots.push(Some(span));
                return Added::New;
            }
            Entry::Occupied(entry) => *entry.get(),
        };
        if !self.shared.contains_key(&span.span_id) {
            let Some(Some(known)) = self.slots.get(first) else { return Added::Copy };
            let is_richer = is_richer(&span, known);
            if is_richer {
                let bytes = known.weight_bytes();
                self.by_id.insert(span.span_id, self.slots.len());
                self.take(first);
                self.slots.push(Some(span));
                return Added::Richer { bytes, spans: 1 };
            }
            if known.same_content(&span) || known.same_span_other_source(&span) {
                return Added::Copy;
            }
            self.share(first);
        }
        self.add_shared(span)
    }

    fn add_shared(&mut self, span: SpanRecord) -> Added {
        let print = self.fingerprinter.span(&span);
        let Some(shared) = self.shared.get_mut(&span.span_id) else { return Added::Copy };
        let slots = &self.slots;
        let at = |place: &usize| slots.get(*place).and_then(Option::as_ref);
        let same = shared.by_fingerprint.get(&print);
        let is_copy = |place: &usize| at(place).is_some_and(|known| known.same_content(&span));
        let is_itself = |place: &usize| {
            is_copy(place) && at(place).is_some_and(|known| known.group.source == span.group.source)
        };
        if same.is_some_and(|places| places.iter().any(is_itself)) {
            return Added::Copy;
        }
        let is_copy = same.is_some_and(|places| places.iter().any(is_copy));
        let [otlp, mlflow] = shared.by_identity.entry(print.identity()).or_default();
        let mut richer_than = Vec::new();
        if span.group.source == SpanSource::Otlp {
            mlflow.retain(|place| {
                let yields = at(place).is_some_and(|known| is_richer(&span, known));
                richer_than.extend(yields.then_some(*place));
                !yields
            });
        }
        let is_poorer =
            |place: &usize| at(place).is_some_and(|known| known.same_span_other_source(&span));
        let yields = span.group.source == SpanSource::Mlflow && otlp.iter().any(is_poorer);
        if richer_than.is_empty() && (is_copy || yields) {
            return Added::Copy;
        }
        let place = self.slots.len();
        if span.group.source == SpanSource::Otlp {
            otlp.push(place)
        } else {
            mlflow.push(place)
        }
        shared.by_fingerprint.entry(print).or_default().push(place);
        self.slots.push(Some(span));
        if richer_than.is_empty() {
            return Added::New;
        }
        let spans = richer_than.len();
        let copies = richer_than.into_iter().filter_map(|place| self.take(place));
        Added::Richer { bytes: copies.map(|copy| copy.weight_bytes()).sum(), spans }
    }

    /// Notes a span among those that are told apart by their fingerprints.
    fn share(&mut self, place: usize) {
        let Some(Some(span)) = self.slots.get(place) else { return };
        let print = self.fingerprinter.span(span);
        let shared = self.shared.entry(span.span_id).or_default();
        let [otlp, mlflow] = shared.by_identity.entry(print.identity()).or_default();
        let places = if span.group.source == SpanSource::Otlp { otlp } else { mlflow };
        places.push(place);
        shared.by_fingerprint.entry(print).or_default().push(place);
    }

    fn take(&mut self, place: usize) -> Option<SpanRecord> {
        let taken = self.slots.get_mut(place)?.take();
        self.gone += usize::from(taken.is_some());
        taken
    }

    /// Number of spans.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.gone
    }

    /// True when there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of different span ids.
    pub(crate) fn ids(&self) -> usize {
        self.by_id.len()
    }

    /// The spans in the order of their first arrival.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &SpanRecord> {
        self.slots.iter().flatten()
    }

    /// The same, taken out.
    pub(crate) fn into_spans(self) -> Vec<SpanRecord> {
        self.slots.into_iter().flatten().collect()
    }
}

/// True when `span` came by OTLP and `known` is MLflow's copy of it.
fn is_richer(span: &SpanRecord, known: &SpanRecord) -> bool {
    span.group.source == SpanSource::Otlp && known.same_span_other_source(span)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracelake_decode::otlp::fields::{key_value, span};
    use tracelake_decode::writer::MessageWriter;

    use super::*;
    use crate::commit::tests::draft;

    /// Scenario: a row of an earlier version holds a span and a poorer copy of it by MLflow; the span is sent
    /// again, and the row is folded with itself.
    /// Guarantees: nothing changes: what is there stays, once each.
    #[test]
    fn a_copy_beside_a_poorer_one_changes_nothing() {
        let span = draft(1, 0..1).spans.remove(0);
        let mut attribute = MessageWriter::new();
        attribute.message(span::ATTRIBUTES, |pair| pair.bytes(key_value::KEY, b"of mlflow"));
        let group =
            tracelake_decode::SpanGroup { source: SpanSource::Mlflow, ..(*span.group).clone() };
        let poorer = SpanRecord {
            group: Arc::new(group),
            message: [&span.message[..], attribute.as_bytes()].concat().into(),
            ..span.clone()
        };
        assert!(!poorer.same_content(&span) && is_richer(&span, &poorer));
        let mut set = SpanSet::of(vec![span.clone(), poorer.clone()]);
        assert_eq!(set.add(span.clone()), Added::Copy);
        assert_eq!(set.add(poorer), Added::Copy);
        assert_eq!(set.add(span), Added::Copy);
        assert_eq!(set.len(), 2);
    }
}
