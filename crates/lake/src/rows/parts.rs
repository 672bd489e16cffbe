//! Traces that are too large for one row.
//!
//! Such a trace has a **head**, which is its row for everybody who asks about the trace, and **parts**:
//! further rows, numbered from 1, that have spans and nothing else. The head says what the trace is as a
//! whole, its counts and sums among it, and has the spans that decide the rest: first and last roots, first
//! and last spans, the first failed one. So what is derived of the head's spans is what would be derived
//! of all, and a head that is amended costs nothing for the spans in the parts.
//!
//! What the parts' spans add to the head's numbers and times is [`Beyond`]. It is kept nowhere: it is what
//! the head says more than its own spans do.

use std::collections::{BTreeSet, HashMap, HashSet};

use tracelake_decode::conventions::{
    Meaning, TraceMeaning, interpret, interpret_trace_of, root_tag_keys,
};
use tracelake_decode::order::{in_order, tags_span};
use tracelake_decode::{Fingerprinter, SpanDigest, SpanRecord};
use tracelake_model::{TokenUsage, TraceCost};

use super::traces::{SpanDurations, earliest_start, latest_end};

/// Most spans of a row.
pub(crate) const MAX_ROW_SPANS: usize = 100_000;

/// Most bytes of a row's spans, each with its resource and scope; a single span may have more.
pub(crate) const MAX_ROW_BYTES: usize = 64 << 20;

/// Most spans of a part, whose number is not bounded: few enough that one takes little memory as it is written
/// or read.
const MAX_PART_SPANS: usize = 25_000;

/// Most bytes of a part's spans; a single span may have more.
const MAX_PART_BYTES: usize = 16 << 20;

/// Bytes of spans from which on a row is not written anew for a little that came.
pub const LARGE_ROW_BYTES: usize = 8 << 20;

/// Roots, and spans, at each end of their order that a head keeps.
const KEPT_AT_EACH_END: usize = 2;

/// Bytes of a head's spans beside its first and its last root, of those that give its columns a value.
const COLUMNS_BYTES: usize = 16 << 20;

/// The same, of further spans.
const HEAD_BYTES: usize = 1 << 20;

/// Bytes of `spans` as rows count them.
pub(crate) fn spans_bytes(spans: &[SpanRecord]) -> usize {
    spans.iter().map(SpanRecord::weight_bytes).sum()
}

/// True when one row holds `spans`.
pub(crate) fn fits_a_row(spans: &[SpanRecord]) -> bool {
    spans.len() <= MAX_ROW_SPANS && (spans.len() < 2 || spans_bytes(spans) <= MAX_ROW_BYTES)
}

/// What the spans in a trace's parts add to the numbers of its head.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Beyond {
    pub(super) spans: u64,
    pub(super) errors: u64,
    pub(super) total_duration_ns: i64,
    pub(super) max_duration_ns: Option<i64>,
    pub(super) usage: TokenUsage,
    pub(super) cost: TraceCost,
    pub(super) models: Vec<String>,
    /// Earliest start, microseconds since the Unix epoch.
    pub(super) start_micros: Option<i64>,
    /// Latest end, milliseconds since the Unix epoch.
    pub(super) end_millis: Option<i64>,
}

impl Beyond {
    /// Spans in the parts.
    #[must_use]
    pub const fn spans(&self) -> u64 {
        self.spans
    }

    /// Notes that the spans of a part are beside those of the head.
    pub(super) fn take_out(&mut self, spans: u64) {
        self.spans = self.spans.saturating_sub(spans);
    }

    /// What `spans` add when they go to a part.
    pub(crate) fn of(spans: &[SpanRecord]) -> Self {
        let spans_of: Vec<&SpanRecord> = spans.iter().collect();
        let meanings: Vec<Meaning<'_>> = spans.iter().map(|span| interpret(&span.view())).collect();
        let TraceMeaning { usage, cost, .. } = interpret_trace_of(&spans_of, &meanings, None);
        let durations = SpanDurations::new(spans);
        let mut models: Vec<String> = Vec::new();
        for model in meanings.iter().filter_map(|meaning| meaning.model.as_deref()) {
            if !models.iter().any(|known| known == model) {
                models.push(model.to_owned());
            }
        }
        let errors = spans.iter().filter(|span| span.view().is_error()).count();
        Self {
            spans: spans.len() as u64,
            errors: errors as u64,
            total_duration_ns: durations.total_ns,
            max_duration_ns: durations.max_ns,
            usage,
            cost,
            models,
            start_micros: earliest_start(&spans_of),
            end_millis: latest_end(spans),
        }
    }

    /// Adds what further spans say.
    pub(crate) fn add(&mut self, other: Self) {
        self.spans = self.spans.saturating_add(other.spans);
        self.errors = self.errors.saturating_add(other.errors);
        self.total_duration_ns = self.total_duration_ns.saturating_add(other.total_duration_ns);
        self.max_duration_ns = self.max_duration_ns.max(other.max_duration_ns);
        self.usage = sum_usage(&self.usage, &other.usage);
        self.cost = sum_cost(&self.cost, &other.cost);
        self.start_micros = earlier(self.start_micros, other.start_micros);
        self.end_millis = self.end_millis.max(other.end_millis);
        for model in other.models {
            if !self.models.contains(&model) {
                self.models.push(model);
            }
        }
    }
}

/// The earlier one of what is known.
pub(super) fn earlier(left: Option<i64>, right: Option<i64>) -> Option<i64> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (one, None) | (None, one) => one,
    }
}

/// Both counts together.
pub(super) fn sum_usage(left: &TokenUsage, right: &TokenUsage) -> TokenUsage {
    let sum = |left: Option<i64>, right: Option<i64>| match (left, right) {
        (Some(left), Some(right)) => left.checked_add(right),
        (one, None) | (None, one) => one,
    };
    TokenUsage {
        input_tokens: sum(left.input_tokens, right.input_tokens),
        output_tokens: sum(left.output_tokens, right.output_tokens),
        total_tokens: sum(left.total_tokens, right.total_tokens),
        cache_read_input_tokens: sum(left.cache_read_input_tokens, right.cache_read_input_tokens),
        cache_creation_input_tokens: sum(
            left.cache_creation_input_tokens,
            right.cache_creation_input_tokens,
        ),
    }
}

/// Both costs together.
pub(super) fn sum_cost(left: &TraceCost, right: &TraceCost) -> TraceCost {
    let sum = |left: Option<f64>, right: Option<f64>| match (left, right) {
        (Some(left), Some(right)) => Some(left + right).filter(|sum| sum.is_finite()),
        (one, None) | (None, one) => one,
    };
    TraceCost {
        input_cost: sum(left.input_cost, right.input_cost),
        output_cost: sum(left.output_cost, right.output_cost),
        total_cost: sum(left.total_cost, right.total_cost),
    }
}

/// What is more in `whole` than in `own`.
pub(super) fn usage_beyond(whole: &TokenUsage, own: &TokenUsage) -> TokenUsage {
    let rest = |whole: Option<i64>, own: Option<i64>| {
        let rest = whole?.checked_sub(own.unwrap_or_default())?;
        (rest != 0 || own.is_none()).then_some(rest)
    };
    TokenUsage {
        input_tokens: rest(whole.input_tokens, own.input_tokens),
        output_tokens: rest(whole.output_tokens, own.output_tokens),
        total_tokens: rest(whole.total_tokens, own.total_tokens),
        cache_read_input_tokens: rest(whole.cache_read_input_tokens, own.cache_read_input_tokens),
        cache_creation_input_tokens: rest(
            whole.cache_creation_input_tokens,
            own.cache_creation_input_tokens,
        ),
    }
}

/// What is more in `whole` than in `own`.
pub(super) fn cost_beyond(whole: &TraceCost, own: &TraceCost) -> TraceCost {
    let rest = |whole: Option<f64>, own: Option<f64>| {
        let rest = whole? - own.unwrap_or_default();
        (rest != 0.0 || own.is_none()).then_some(rest)
    };
    TraceCost {
        input_cost: rest(whole.input_cost, own.input_cost),
        output_cost: rest(whole.output_cost, own.output_cost),
        total_cost: rest(whole.total_cost, own.total_cost),
    }
}

/// Takes the spans out of `spans` that do not decide what a trace is as a whole, both in their order, and
/// says what they add up to.
pub(crate) fn take_rest(spans: &mut Vec<SpanRecord>) -> (Vec<SpanRecord>, Beyond) {
    let kept = deciding(spans);
    let mut rest = Vec::with_capacity(spans.len().saturating_sub(kept.len()));
    let mut index = 0;
    spans.retain(|span| {
        let keep = kept.contains(&index);
        index += 1;
        if !keep {
            rest.push(span.clone());
        }
        keep
    });
    let beyond = Beyond::of(&rest);
    (rest, beyond)
}

/// Positions of the spans that decide.
fn deciding(spans: &[SpanRecord]) -> BTreeSet<usize> {
    let places: HashMap<*const SpanRecord, usize> =
        spans.iter().enumerate().map(|(index, span)| (std::ptr::from_ref(span), index)).collect();
    let order: Vec<usize> = in_order(spans)
        .into_iter()
        .filter_map(|span| places.get(&std::ptr::from_ref(span)).copied())
        .collect();
    let is_root = |index: &usize| spans.get(*index).is_some_and(|span| span.parent.is_none());
    let roots: Vec<usize> = order.iter().copied().filter(is_root).collect();
    let mut kept: BTreeSet<usize> =
        roots.first().into_iter().chain(roots.last()).copied().collect();
    let arrived: Vec<usize> = (0..spans.len()).filter(is_root).collect();
    let latest = (0..spans.len()).max_by_key(|i| spans.get(*i).map(|s| s.end_time_unix_nano));
    let earliest = order
        .iter()
        .copied()
        .find(|index| spans.get(*index).is_some_and(|span| span.start_time_unix_nano != 0));
    let failed = order
        .iter()
        .copied()
        .find(|index| spans.get(*index).is_some_and(|span| span.view().is_error()));
    let named = |name: fn(&Meaning<'_>) -> bool| {
        order
            .iter()
            .copied()
            .find(|index| spans.get(*index).is_some_and(|span| name(&interpret(&span.view()))))
    };
    let first = 0..spans.len().min(1);
    let tagged = tags_span(spans);
    let placed = order
        .iter()
        .copied()
        .find(|index| spans.get(*index).is_some_and(|span| span.group.experiment_id.is_some()));
    let session = named(|meaning| meaning.session_id.is_some());
    let user = named(|meaning| meaning.user_id.is_some());
    let columns = [tagged, placed, session, user, failed].into_iter().flatten();
    let columns = columns.chain(tagging_roots(spans, &roots));
    let others = [latest, earliest].into_iter().flatten();
    let others = others.chain(first).chain(ends(&arrived)).chain(ends(&roots)).chain(ends(&order));
    for (wanted, most) in
        [(columns.collect::<Vec<_>>(), COLUMNS_BYTES), (others.collect(), HEAD_BYTES)]
    {
        let mut bytes = 0;
        for index in wanted {
            let span_bytes = spans.get(index).map_or(0, SpanRecord::weight_bytes);
            if !kept.contains(&index) && bytes + span_bytes <= most {
                bytes += span_bytes;
                kept.insert(index);
            }
        }
    }
    kept
}

/// The roots that give a tag its value, the later of two that say the same key, those first that are last.
fn tagging_roots(spans: &[SpanRecord], roots: &[usize]) -> Vec<usize> {
    let mut known: HashSet<String> = HashSet::new();
    let mut tagging = Vec::new();
    for index in roots.iter().rev().copied() {
        let Some(view) = spans.get(index).map(SpanRecord::view) else { continue };
        let mut is_last = false;
        for key in root_tag_keys(&view) {
            is_last |= !known.contains(key) && known.insert(key.to_owned());
        }
        if is_last {
            tagging.push(index);
        }
    }
    tagging
}

/// The first and the last ones.
fn ends(indexes: &[usize]) -> impl Iterator<Item = usize> + '_ {
    let last = indexes.iter().rev().take(KEPT_AT_EACH_END);
    indexes.iter().take(KEPT_AT_EACH_END).chain(last).copied()
}

/// Cuts `spans` into runs of which each fits into a part.
pub(crate) fn cut(spans: Vec<SpanRecord>) -> Vec<Vec<SpanRecord>> {
    let mut rows: Vec<Vec<SpanRecord>> = Vec::new();
    let mut bytes = 0;
    for span in spans {
        let span_bytes = span.weight_bytes();
        match rows.last_mut() {
            Some(row) if row.len() < MAX_PART_SPANS && bytes + span_bytes <= MAX_PART_BYTES => {
                row.push(span);
                bytes += span_bytes;
            }
            _ => {
                rows.push(vec![span]);
                bytes = span_bytes;
            }
        }
    }
    rows
}

/// What `span_digests` says of `spans`.
pub(super) fn digests(spans: &[SpanRecord]) -> Vec<u8> {
    let mut fingerprinter = Fingerprinter::default();
    let mut bytes = Vec::with_capacity(spans.len() * SpanDigest::BYTES);
    for span in spans {
        bytes.extend(fingerprinter.digest(span).to_bytes());
    }
    bytes
}

/// The digests in a value of `span_digests`.
pub(crate) fn read_digests(bytes: &[u8]) -> impl Iterator<Item = SpanDigest> + '_ {
    bytes.as_chunks::<{ SpanDigest::BYTES }>().0.iter().map(|bytes| SpanDigest::from_bytes(*bytes))
}
