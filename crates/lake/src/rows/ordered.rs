//! The order in which a row has its spans.

use tracelake_decode::order::{in_order, tags_span};
use tracelake_decode::{ResourceView, SpanRecord};

/// The spans of a row, and which of them gives the tags.
pub(super) struct Ordered<'a> {
    /// The spans, in the order of the row.
    pub(super) spans: Vec<&'a SpanRecord>,
    tags_of: Option<usize>,
}

impl<'a> Ordered<'a> {
    /// The span that gives the tags.
    pub(super) fn tags_of(&self) -> Option<&'a SpanRecord> {
        self.spans.get(self.tags_of?).copied()
    }

    /// Position of the span that gives the tags, where it is not the one that would without regard to
    /// arrival.
    pub(super) fn arrived_last(&self) -> Option<usize> {
        let tags_of = self.tags_of?;
        let place = |span: &SpanRecord| (span.start_time_unix_nano, span.span_id);
        let this = self.spans.get(tags_of)?;
        let shares_place = self.spans.get(tags_of + 1).is_some_and(|n| place(n) == place(this));
        shares_place.then_some(tags_of)
    }
}

/// The spans of a row in their order; those of a row that keeps its order as they are.
pub(super) fn ordered(spans: &[SpanRecord], keeps_order: bool) -> Ordered<'_> {
    if keeps_order {
        let has_attributes =
            |s: &SpanRecord| ResourceView::new(&s.group.resource).attributes().next().is_some();
        return Ordered {
            spans: spans.iter().collect(),
            tags_of: spans.iter().position(has_attributes),
        };
    }
    let ordered = in_order(spans);
    let tags_of = tags_span(spans).and_then(|position| {
        let span = spans.get(position)?;
        // It is at the end in most traces.
        ordered.iter().rposition(|other| std::ptr::eq(*other, span))
    });
    Ordered { spans: ordered, tags_of }
}
