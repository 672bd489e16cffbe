//! Sums over a trace in which a span with data hides its descendants.
//!
//! Agents report the sum of their model calls, so that a flat sum would count those twice. Of
//! spans that share an id all are counted, and any of them hides the descendants of that id. A
//! circle of parents, which no root leads to, begins at its first span.

use std::collections::{HashMap, HashSet};

use tracelake_model::{SpanId, TokenUsage, TraceCost};

use crate::request::SpanRecord;

/// The spans of a trace, parents before children; linear in time and space.
#[derive(Debug)]
pub(super) struct Tree {
    steps: Vec<Step>,
}

/// A span on the way down.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// Position of the span.
    span: usize,
    /// Number of the span's id, counted in the order of steps.
    id: usize,
    /// Number of the parent's id, `None` where the way begins.
    parent_id: Option<usize>,
}

impl Tree {
    /// Orders `spans`.
    pub(super) fn new(spans: &[&SpanRecord]) -> Self {
        let ids: HashSet<SpanId> = spans.iter().map(|span| span.span_id).collect();
        let mut children: HashMap<SpanId, Vec<usize>> = HashMap::new();
        let mut starts = Vec::new();
        for (index, span) in spans.iter().enumerate() {
            match span.parent.filter(|parent| ids.contains(parent)) {
                Some(parent) => children.entry(parent).or_default().push(index),
                None => starts.push(index),
            }
        }
        let mut steps = Vec::with_capacity(spans.len());
        let mut numbers: HashMap<SpanId, usize> = HashMap::with_capacity(ids.len());
        let mut visited = vec![false; spans.len()];
        let mut waiting = Vec::new();
        for start in starts.into_iter().chain(0..spans.len()) {
            waiting.push((start, None));
            while let Some((index, parent_id)) = waiting.pop() {
                let (Some(span), Some(visited)) = (spans.get(index), visited.get_mut(index)) else {
                    continue;
                };
                if std::mem::replace(visited, true) {
                    continue;
                }
                let next_number = numbers.len();
                let id = *numbers.entry(span.span_id).or_insert(next_number);
                steps.push(Step { span: index, id, parent_id });
                let below = children.remove(&span.span_id).unwrap_or_default();
                waiting.extend(below.into_iter().map(|child| (child, Some(id))));
            }
        }
        Self { steps }
    }

    /// The data that no ancestor's data hides; `data` is in the order of the spans.
    pub(super) fn topmost<T: Copy>(&self, data: &[Option<T>]) -> Vec<T> {
        // By number of the id: some span of that id has data, or an ancestor's id has.
        let mut covered = vec![false; self.steps.len()];
        for step in &self.steps {
            if let Some(covered) = covered.get_mut(step.id)
                && data.get(step.span).is_some_and(Option::is_some)
            {
                *covered = true;
            }
        }
        let mut topmost = Vec::new();
        for step in &self.steps {
            let hidden = step.parent_id.is_some_and(|id| covered.get(id) == Some(&true));
            if let Some(covered) = covered.get_mut(step.id) {
                *covered |= hidden;
            }
            if let (false, Some(Some(data))) = (hidden, data.get(step.span)) {
                topmost.push(*data);
            }
        }
        topmost
    }
}

/// Sums token counts; nothing when there are none. A sum past 64 bits is unknown.
pub(super) fn sum_usage(usages: &[TokenUsage]) -> TokenUsage {
    if usages.is_empty() {
        return TokenUsage::default();
    }
    let sum = |count: fn(&TokenUsage) -> Option<i64>| {
        let sum: i128 = usages.iter().filter_map(count).map(i128::from).sum();
        i64::try_from(sum).ok()
    };
    // Cache counts stay unknown until a span tells one; the others are zero, as in MLflow.
    let told = |count: fn(&TokenUsage) -> Option<i64>| {
        usages.iter().any(|usage| count(usage).is_some()).then(|| sum(count)).flatten()
    };
    TokenUsage {
        input_tokens: sum(|usage| usage.input_tokens),
        output_tokens: sum(|usage| usage.output_tokens),
        total_tokens: sum(|usage| usage.total_tokens),
        cache_read_input_tokens: told(|usage| usage.cache_read_input_tokens),
        cache_creation_input_tokens: told(|usage| usage.cache_creation_input_tokens),
    }
}

/// Sums costs; nothing when there are none.
pub(super) fn sum_cost(costs: &[TraceCost]) -> TraceCost {
    if costs.is_empty() {
        return TraceCost::default();
    }
    let sum = |amount: fn(&TraceCost) -> Option<f64>| {
        let sum: f64 = costs.iter().filter_map(amount).sum();
        sum.is_finite().then_some(sum)
    };
    TraceCost {
        input_cost: sum(|cost| cost.input_cost),
        output_cost: sum(|cost| cost.output_cost),
        total_cost: sum(|cost| cost.total_cost),
    }
}
