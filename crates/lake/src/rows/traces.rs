//! The trace-level columns, and the batch as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Float64Builder, Int32Builder, Int64Builder,
    RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use tracelake_decode::conventions::{
    Meaning, TraceMeaning, interpret, interpret_of, interpret_trace_of,
};
use tracelake_decode::mlflow_keys;
use tracelake_decode::{SpanRecord, Start};
use tracelake_model::schema::traces_schema;
use tracelake_model::{
    Assessment, ExperimentId, TokenUsage, TraceCost, TraceId, TraceInfo, TraceState,
};

use super::columns::{
    Finish, Finished, MapColumn, Offsets, element_fields, field_of, struct_array, struct_fields,
};
use super::ordered::{Ordered, ordered};
use super::parts::{Beyond, LARGE_ROW_BYTES, digests, earlier, spans_bytes, sum_cost, sum_usage};
use super::said::Said;
use super::spans::SpanColumns;

/// By whose word a trace belongs to its experiment: a later one stands over an earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExperimentBy {
    /// Nobody's: it is where changes to the trace were sent.
    #[default]
    Nobody,
    /// That of the first request with spans of it, or of the settings for that request.
    Request,
    /// That of a resource: the first span in order whose resource names one.
    Spans,
    /// A client's, by `start_trace`.
    Client,
}

/// A settled trace: all that one row is made of.
#[derive(Clone, Debug)]
pub struct TraceDraft {
    /// The trace.
    pub trace_id: TraceId,
    /// Experiment that it belongs to.
    pub experiment_id: Option<ExperimentId>,
    /// By whose word.
    pub experiment_by: ExperimentBy,
    /// MLflow run that the first request named that named one.
    pub run_id: Option<String>,
    /// What clients said of the trace as a whole.
    pub info: Option<TraceInfo>,
    /// The `start_trace` requests in `info`, each by itself, in the order of arrival, when there are
    /// several. A row does not have them.
    pub starts: Vec<Start>,
    /// Its spans in the order of first arrival, copies removed. Those of a row are in the order of
    /// the spans, but that the one that gives the tags is last.
    pub spans: Vec<SpanRecord>,
    /// The row was written by a version that had no order of the spans: they stand, and are read,
    /// as they arrived, until one is added.
    pub keeps_order: bool,
    /// When the row was first archived, microseconds since the Unix epoch.
    pub created_at_micros: i64,
    /// When the row was last changed, microseconds since the Unix epoch.
    pub updated_at_micros: i64,
    /// 1 at first archive, one more per change.
    pub revision: i32,
    /// The trace was deleted before these pieces of it came: they take the place of what a row
    /// holds.
    pub replaces: bool,
    /// Number of the part that it is of its trace; `None` for the row of the trace.
    pub part: Option<i32>,
    /// What the spans in its parts add to its numbers, when it has parts.
    pub beyond: Option<Box<Beyond>>,
}

impl TraceDraft {
    /// A trace of which nothing is known.
    #[must_use]
    pub const fn new(trace_id: TraceId) -> Self {
        Self {
            trace_id,
            experiment_id: None,
            experiment_by: ExperimentBy::Nobody,
            run_id: None,
            info: None,
            starts: Vec::new(),
            spans: Vec::new(),
            keeps_order: false,
            created_at_micros: 0,
            updated_at_micros: 0,
            revision: 1,
            replaces: false,
            part: None,
            beyond: None,
        }
    }

    /// Bytes of its spans, each with its resource and scope.
    #[must_use]
    pub fn spans_bytes(&self) -> usize {
        spans_bytes(&self.spans)
    }

    /// Spans of the trace, those in its parts included.
    #[must_use]
    pub fn all_spans(&self) -> u64 {
        self.spans.len() as u64 + self.beyond.as_ref().map_or(0, |beyond| beyond.spans())
    }

    /// Takes the spans of one of its parts in.
    pub(crate) fn take_in(&mut self, part: Self) {
        if let Some(beyond) = &mut self.beyond {
            beyond.take_out(part.spans.len() as u64);
        }
        self.spans.extend(part.spans);
    }

    /// True when a client's `start_trace` is in it.
    #[must_use]
    pub fn is_finalized(&self) -> bool {
        self.info.as_ref().is_some_and(TraceInfo::is_finalized)
    }

    /// True when it makes no row by itself: it has neither spans nor a `start_trace`, only changes
    /// to what is elsewhere.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.spans.is_empty() && !self.is_finalized()
    }

    /// The spans as the row has them.
    #[must_use]
    pub fn spans_in_order(&self) -> Vec<SpanRecord> {
        ordered(&self.spans, self.keeps_order).spans.into_iter().cloned().collect()
    }

    /// All that is known of the trace as a whole, with what the spans say by themselves.
    #[must_use]
    pub fn full_info(&self) -> TraceInfo {
        let facts = TraceFacts::new(self, TraceFacts::of_spans(&self.spans, self.keeps_order));
        let mut info = self.info.clone().unwrap_or(TraceInfo::new(self.trace_id));
        info.request_time_micros = facts.request_time_micros;
        info.execution_duration_ms = facts.execution_duration_ms;
        info.state = facts.state;
        info.request_preview = facts.request_preview;
        info.response_preview = facts.response_preview;
        info.tags = facts.tags;
        if let Some(name) = facts.tagged_name
            && !info.deleted_tags.contains(mlflow_keys::TRACE_NAME)
        {
            info.tags.entry(mlflow_keys::TRACE_NAME.to_owned()).or_insert(name);
        }
        info
    }

    /// The run that a client said, or that a request named, or that the trace was linked to first: the value of
    /// the column.
    pub(crate) fn named_run(&self) -> Option<&String> {
        let info = self.info.as_ref();
        let said = info.and_then(|info| info.trace_metadata.get(mlflow_keys::SOURCE_RUN));
        let linked = info.and_then(|info| info.linked_runs.first());
        said.or(self.run_id.as_ref()).or(linked)
    }
}

/// Writes traces as one batch of the table's schema, a row each, in the order given.
///
/// # Errors
/// [`ArrowError`] if the builders and the schema disagree, which no input can cause.
pub fn encode<'t>(
    traces: impl IntoIterator<Item = &'t TraceDraft>,
) -> Result<RecordBatch, ArrowError> {
    let mut encoder = RowEncoder::default();
    traces.into_iter().for_each(|trace| encoder.push(trace));
    encoder.finish()
}

/// Writes traces as batches of rows. What one batch took in memory is kept ready for the next.
#[derive(Debug, Default)]
pub struct RowEncoder {
    columns: TraceColumns,
    spans: SpanColumns,
}

impl RowEncoder {
    /// Adds the row of `trace` to the batch.
    pub fn push(&mut self, trace: &TraceDraft) {
        let mut errors = 0;
        // Of a part nothing is asked but its spans.
        let is_part = trace.part.is_some();
        let mut meanings = Vec::with_capacity(if is_part { 0 } else { trace.spans.len() });
        let ordered = ordered(&trace.spans, trace.keeps_order);
        for record in &ordered.spans {
            let (view, attributes) = record.view_with_attributes();
            let meaning = interpret_of(&view, &attributes);
            self.spans.append(record, &view, &attributes, &meaning);
            errors += usize::from(view.is_error());
            if !is_part {
                meanings.push(meaning);
            }
        }
        self.spans.end_trace();
        match trace.part {
            Some(part) => self.columns.append_part(trace, part),
            None => self.columns.append(trace, &ordered, &meanings, errors),
        }
    }

    /// The batch of the rows since the last call.
    ///
    /// # Errors
    /// [`ArrowError`] if the builders and the schema disagree, which no input can cause.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let schema = traces_schema();
        let mut done = self.columns.finish(&schema)?;
        done.push("spans", self.spans.finish()?);
        let arrays = done.in_order(schema.fields())?;
        RecordBatch::try_new(schema, arrays)
    }
}

#[derive(Debug, Default)]
struct TraceColumns {
    text: [StringBuilder; TEXT.len()],
    longs: [Int64Builder; LONGS.len()],
    ints: [Int32Builder; INTS.len()],
    costs: [Float64Builder; COSTS.len()],
    times: [TimestampMicrosecondBuilder; TIMES.len()],
    info_text: [StringBuilder; 2],
    info_time: TimestampMicrosecondBuilder,
    tags: MapColumn,
    metadata: MapColumn,
    models: StringBuilder,
    models_rows: usize,
    models_list: Offsets,
    assessments: AssessmentColumns,
    said: StringBuilder,
    runs: StringBuilder,
    runs_rows: usize,
    runs_list: Offsets,
    parts: Int32Builder,
    spans_bytes: Int64Builder,
    digests: BinaryBuilder,
}

const TEXT: [&str; 9] = [
    "trace_id",
    "experiment_id",
    "run_id",
    "trace_name",
    "request_preview",
    "response_preview",
    "client_request_id",
    "session_id",
    "user_id",
];
const LONGS: [&str; 8] = [
    "execution_duration_ms",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "total_span_duration_ns",
    "max_span_duration_ns",
];
const INTS: [&str; 3] = ["span_count", "error_span_count", "revision"];
const COSTS: [&str; 3] = ["input_cost", "output_cost", "total_cost"];
const TIMES: [&str; 2] = ["created_at", "updated_at"];

impl TraceColumns {
    fn append(
        &mut self,
        trace: &TraceDraft,
        ordered: &Ordered<'_>,
        meanings: &[Meaning<'_>],
        errors: usize,
    ) {
        let meaning = interpret_trace_of(&ordered.spans, meanings, ordered.tags_of());
        let facts = TraceFacts::new(trace, TraceFacts::of_meaning(&ordered.spans, meaning));
        self.append_size(trace);
        self.append_text(trace, &facts);
        self.said.append_value(Said::of(trace, ordered).to_text());
        self.info_text[0].append_value(
            trace
                .info
                .as_ref()
                .and_then(|info| info.client_request_id.clone())
                .unwrap_or_else(|| trace.trace_id.to_mlflow()),
        );
        self.info_time.append_option(facts.request_time_micros);
        self.info_text[1].append_value(facts.state.as_str());
        self.append_numbers(trace, &facts, errors);
        for (key, value) in &facts.tags {
            self.tags.entry(key, value);
        }
        self.tags.end();
        if let Some(info) = &trace.info {
            for (key, value) in &info.trace_metadata {
                self.metadata.entry(key, value);
            }
            for assessment in &info.assessments {
                self.assessments.append(assessment);
            }
            for run in &info.linked_runs {
                self.runs.append_value(run);
                self.runs_rows += 1;
            }
        }
        self.runs_list.end(self.runs_rows);
        self.metadata.end();
        self.assessments.end_trace();
        let mut models: Vec<&str> = Vec::new();
        for model in meanings.iter().filter_map(|meaning| meaning.model.as_deref()) {
            if !models.contains(&model) {
                models.push(model);
                self.models.append_value(model);
                self.models_rows += 1;
            }
        }
        let beyond = trace.beyond.iter().flat_map(|beyond| &beyond.models);
        for model in beyond.filter(|model| !models.contains(&model.as_str())) {
            self.models.append_value(model);
            self.models_rows += 1;
        }
        self.models_list.end(self.models_rows);
    }

    /// The row of a part: whose it is and how large, and nothing of what its trace is as a whole.
    fn append_part(&mut self, trace: &TraceDraft, part: i32) {
        let known = [
            Some(trace.trace_id.to_mlflow()),
            trace.experiment_id.as_ref().map(ToString::to_string),
            trace.run_id.clone(),
        ];
        let nothing = std::iter::repeat(None);
        for (builder, value) in self.text.iter_mut().zip(known.into_iter().chain(nothing)) {
            builder.append_option(value);
        }
        self.info_text.iter_mut().for_each(StringBuilder::append_null);
        self.said.append_null();
        let spans: Vec<&SpanRecord> = trace.spans.iter().collect();
        self.info_time.append_option(earliest_start(&spans));
        self.longs.iter_mut().for_each(Int64Builder::append_null);
        let [span_count, error_span_count, revision] = &mut self.ints;
        span_count.append_null();
        error_span_count.append_null();
        revision.append_value(trace.revision);
        self.costs.iter_mut().for_each(Float64Builder::append_null);
        for (builder, value) in
            self.times.iter_mut().zip([trace.created_at_micros, trace.updated_at_micros])
        {
            builder.append_value(value);
        }
        self.tags.end();
        self.metadata.end();
        self.assessments.end_trace();
        self.runs_list.end(self.runs_rows);
        self.models_list.end(self.models_rows);
        self.parts.append_value(part);
        self.append_digests(trace, spans_bytes(&trace.spans));
    }

    /// How large a large row is, and what is in it: so that what comes later need not read it.
    fn append_size(&mut self, trace: &TraceDraft) {
        self.parts.append_null();
        let bytes = spans_bytes(&trace.spans);
        if bytes < LARGE_ROW_BYTES && trace.beyond.is_none() {
            self.spans_bytes.append_null();
            self.digests.append_null();
        } else {
            self.append_digests(trace, bytes);
        }
    }

    fn append_digests(&mut self, trace: &TraceDraft, bytes: usize) {
        self.spans_bytes.append_value(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.digests.append_value(digests(&trace.spans));
    }

    fn append_text(&mut self, trace: &TraceDraft, facts: &TraceFacts) {
        let info = trace.info.as_ref();
        for (builder, value) in self.text.iter_mut().zip([
            Some(trace.trace_id.to_mlflow()),
            trace.experiment_id.as_ref().map(ToString::to_string),
            trace.named_run().cloned(),
            facts.trace_name.clone(),
            facts.request_preview.clone(),
            facts.response_preview.clone(),
            info.and_then(|info| info.client_request_id.clone()),
            facts.session_id.clone(),
            facts.user_id.clone(),
        ]) {
            builder.append_option(value);
        }
    }

    fn append_numbers(&mut self, trace: &TraceDraft, facts: &TraceFacts, errors: usize) {
        let usage = &facts.meaning.usage;
        let mut durations = SpanDurations::new(&trace.spans);
        let mut spans = trace.spans.len() as u64;
        let mut errors = errors as u64;
        if let Some(beyond) = &trace.beyond {
            durations.total_ns = durations.total_ns.saturating_add(beyond.total_duration_ns);
            durations.max_ns = durations.max_ns.max(beyond.max_duration_ns);
            spans = spans.saturating_add(beyond.spans);
            errors = errors.saturating_add(beyond.errors);
        }
        for (builder, value) in self.longs.iter_mut().zip([
            facts.execution_duration_ms,
            usage.input_tokens,
            usage.output_tokens,
            usage.total_tokens,
            usage.cache_read_input_tokens,
            usage.cache_creation_input_tokens,
            Some(durations.total_ns),
            durations.max_ns,
        ]) {
            builder.append_option(value);
        }
        let count = |number: u64| i32::try_from(number).unwrap_or(i32::MAX);
        for (builder, value) in
            self.ints.iter_mut().zip([count(spans), count(errors), trace.revision])
        {
            builder.append_value(value);
        }
        let cost = &facts.meaning.cost;
        for (builder, value) in
            self.costs.iter_mut().zip([cost.input_cost, cost.output_cost, cost.total_cost])
        {
            builder.append_option(value);
        }
        for (builder, value) in
            self.times.iter_mut().zip([trace.created_at_micros, trace.updated_at_micros])
        {
            builder.append_value(value);
        }
    }

    fn finish(&mut self, schema: &SchemaRef) -> Result<Finished, ArrowError> {
        let fields = schema.fields();
        let mut done = Finished::default();
        for (name, builder) in TEXT.into_iter().zip(&mut self.text) {
            done.push(name, builder.array());
        }
        for (name, builder) in LONGS.into_iter().zip(&mut self.longs) {
            done.push(name, builder.array());
        }
        for (name, builder) in INTS.into_iter().zip(&mut self.ints) {
            done.push(name, builder.array());
        }
        for (name, builder) in COSTS.into_iter().zip(&mut self.costs) {
            done.push(name, builder.array());
        }
        for (name, builder) in TIMES.into_iter().zip(&mut self.times) {
            done.push(name, builder.array());
        }
        let info_fields = struct_fields(field_of(fields, "trace_info")?.data_type())?;
        let [request_id, status] = &mut self.info_text;
        let info = vec![request_id.array(), self.info_time.array(), status.array()];
        done.push("trace_info", struct_array(info_fields, info)?);
        done.push("tags", self.tags.finish()?);
        done.push("trace_metadata", self.metadata.finish()?);
        (self.models_rows, self.runs_rows) = (0, 0);
        let models = field_of(fields, "models")?.data_type();
        done.push("models", self.models_list.finish_list(models, self.models.array())?);
        let runs = field_of(fields, "linked_run_ids")?.data_type();
        done.push("linked_run_ids", self.runs_list.finish_list(runs, self.runs.array())?);
        let assessments = field_of(fields, "assessments")?.data_type();
        done.push("assessments", self.assessments.finish(assessments)?);
        done.push("said", self.said.array());
        done.push("part", self.parts.array());
        done.push("spans_bytes", self.spans_bytes.array());
        done.push("span_digests", self.digests.array());
        Ok(done)
    }
}

/// What a row says of the trace as a whole: the client's word first, the spans' otherwise.
#[derive(Debug)]
pub(super) struct TraceFacts {
    meaning: TraceMeaning,
    pub(super) state: TraceState,
    pub(super) request_time_micros: Option<i64>,
    pub(super) execution_duration_ms: Option<i64>,
    trace_name: Option<String>,
    /// Name that the root gives as a tag.
    tagged_name: Option<String>,
    pub(super) request_preview: Option<String>,
    pub(super) response_preview: Option<String>,
    session_id: Option<String>,
    user_id: Option<String>,
    pub(super) tags: BTreeMap<String, String>,
}

impl TraceFacts {
    /// What the spans alone say.
    pub(super) fn of_spans(spans: &[SpanRecord], keeps_order: bool) -> Self {
        let ordered = ordered(spans, keeps_order);
        let meanings: Vec<Meaning<'_>> =
            ordered.spans.iter().map(|span| interpret(&span.view())).collect();
        let meaning = interpret_trace_of(&ordered.spans, &meanings, ordered.tags_of());
        Self::of_meaning(&ordered.spans, meaning)
    }

    pub(super) const fn usage(&self) -> &TokenUsage {
        &self.meaning.usage
    }

    pub(super) const fn cost(&self) -> &TraceCost {
        &self.meaning.cost
    }

    fn of_meaning(spans: &[&SpanRecord], mut meaning: TraceMeaning) -> Self {
        Self {
            state: meaning.state,
            request_time_micros: earliest_start(spans),
            execution_duration_ms: derived_duration_ms(spans),
            tagged_name: meaning.trace_name.clone(),
            trace_name: meaning.trace_name.take().or_else(|| root_name(spans)),
            request_preview: meaning.request_preview.take(),
            response_preview: meaning.response_preview.take(),
            session_id: meaning.session_id.take(),
            user_id: meaning.user_id.take(),
            tags: std::mem::take(&mut meaning.tags),
            meaning,
        }
    }

    fn new(trace: &TraceDraft, mut facts: Self) -> Self {
        if let Some(beyond) = &trace.beyond {
            facts.add_beyond(&trace.spans, beyond);
        }
        if let Some(info) = &trace.info {
            let metadata = |key: &str| info.trace_metadata.get(key).cloned();
            if info.state != TraceState::Unspecified {
                facts.state = info.state;
            }
            let prefer = |own: &mut Option<String>, said: Option<String>| {
                if said.is_some() {
                    *own = said;
                }
            };
            facts.request_time_micros = info.request_time_micros.or(facts.request_time_micros);
            facts.execution_duration_ms =
                info.execution_duration_ms.or(facts.execution_duration_ms);
            prefer(&mut facts.trace_name, info.tags.get(mlflow_keys::TRACE_NAME).cloned());
            prefer(&mut facts.request_preview, info.request_preview.clone());
            prefer(&mut facts.response_preview, info.response_preview.clone());
            prefer(&mut facts.session_id, metadata(mlflow_keys::TRACE_SESSION));
            prefer(&mut facts.user_id, metadata(mlflow_keys::TRACE_USER));
            if let Some(usage) = metadata(mlflow_keys::TRACE_TOKEN_USAGE)
                && let Ok(usage) = serde_json::from_str(&usage)
            {
                facts.meaning.usage = usage;
            }
            if let Some(cost) = metadata(mlflow_keys::TRACE_COST)
                && let Ok(cost) = serde_json::from_str(&cost)
            {
                facts.meaning.cost = cost;
            }
            facts.tags.extend(info.tags.clone());
            facts.tags.retain(|key, _| !info.deleted_tags.contains(key));
        }
        facts
    }
}

impl TraceFacts {
    /// Adds what the spans in parts say; a root's counts stand for all below it.
    fn add_beyond(&mut self, spans: &[SpanRecord], beyond: &Beyond) {
        let roots = spans.iter().filter(|span| span.parent.is_none());
        let of_roots: Vec<(TokenUsage, TraceCost)> = roots
            .map(|root| {
                let meaning = interpret(&root.view());
                (meaning.usage, meaning.cost)
            })
            .collect();
        if of_roots.iter().all(|(usage, _)| usage.is_empty()) {
            self.meaning.usage = sum_usage(&self.meaning.usage, &beyond.usage);
        }
        if of_roots.iter().all(|(_, cost)| *cost == TraceCost::default()) {
            self.meaning.cost = sum_cost(&self.meaning.cost, &beyond.cost);
        }
        self.request_time_micros = earlier(self.request_time_micros, beyond.start_micros);
        let start = self.request_time_micros.map(|micros| micros.div_euclid(1_000));
        let end = latest_end(spans).max(beyond.end_millis);
        let duration = start.zip(end).and_then(|(start, end)| end.checked_sub(start));
        self.execution_duration_ms = duration;
    }
}

/// Earliest start that is known (zero is not), in microseconds.
pub(super) fn earliest_start(spans: &[&SpanRecord]) -> Option<i64> {
    let earliest = spans.iter().map(|span| span.start_time_unix_nano).filter(|n| *n != 0).min()?;
    i64::try_from(earliest / 1_000).ok()
}

/// Latest end that is known, in milliseconds.
pub(super) fn latest_end(spans: &[SpanRecord]) -> Option<i64> {
    let latest = spans.iter().map(|span| span.end_time_unix_nano).max().filter(|n| *n != 0)?;
    i64::try_from(latest / 1_000_000).ok()
}

/// From the earliest known start to the latest end, whole milliseconds as MLflow rounds them.
fn derived_duration_ms(spans: &[&SpanRecord]) -> Option<i64> {
    let start = spans.iter().map(|span| span.start_time_unix_nano).filter(|n| *n != 0).min()?;
    let end = spans.iter().map(|span| span.end_time_unix_nano).max().filter(|n| *n != 0)?;
    let milliseconds = |nanos: u64| i64::try_from(nanos / 1_000_000).ok();
    Some(milliseconds(end)? - milliseconds(start)?)
}

fn root_name(spans: &[&SpanRecord]) -> Option<String> {
    let root = spans
        .iter()
        .filter(|span| span.parent.is_none())
        .min_by_key(|span| span.start_time_unix_nano)?;
    Some(root.view().name.to_owned()).filter(|name| !name.is_empty())
}

/// Durations over the spans whose both times are known; a reversed span counts negative.
#[derive(Debug, Default)]
pub(super) struct SpanDurations {
    pub(super) total_ns: i64,
    pub(super) max_ns: Option<i64>,
}

impl SpanDurations {
    pub(super) fn new(spans: &[SpanRecord]) -> Self {
        let mut durations = Self::default();
        for span in spans {
            let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
            if start != 0 && end != 0 {
                let wide = i128::from(end) - i128::from(start);
                let duration =
                    i64::try_from(wide).unwrap_or(if wide < 0 { i64::MIN } else { i64::MAX });
                durations.total_ns = durations.total_ns.saturating_add(duration);
                durations.max_ns = durations.max_ns.max(Some(duration));
            }
        }
        durations
    }
}

#[derive(Debug, Default)]
struct AssessmentColumns {
    list: Offsets,
    rows: usize,
    text: [StringBuilder; ASSESSMENT_TEXT.len()],
    source: [StringBuilder; 2],
    times: [TimestampMicrosecondBuilder; 2],
    metadata: MapColumn,
    valid: BooleanBuilder,
}

const ASSESSMENT_TEXT: [&str; 8] = [
    "assessment_id",
    "assessment_name",
    "span_id",
    "feedback",
    "expectation",
    "issue",
    "rationale",
    "overrides",
];

impl AssessmentColumns {
    fn append(&mut self, assessment: &Assessment) {
        self.rows += 1;
        for (builder, value) in self.text.iter_mut().zip([
            Some(&assessment.assessment_id),
            assessment.assessment_name.as_ref(),
            assessment.span_id.as_ref(),
            assessment.feedback_json.as_ref(),
            assessment.expectation_json.as_ref(),
            assessment.issue_json.as_ref(),
            assessment.rationale.as_ref(),
            assessment.overrides.as_ref(),
        ]) {
            builder.append_option(value);
        }
        let source = [&assessment.source_type, &assessment.source_id];
        for (builder, value) in self.source.iter_mut().zip(source) {
            builder.append_option(value.as_ref());
        }
        let times = [assessment.create_time_micros, assessment.last_update_time_micros];
        for (builder, value) in self.times.iter_mut().zip(times) {
            builder.append_option(value);
        }
        for (key, value) in &assessment.metadata {
            self.metadata.entry(key, value);
        }
        self.metadata.end();
        self.valid.append_option(assessment.valid);
    }

    fn end_trace(&mut self) {
        self.list.end(self.rows);
    }

    fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
        let fields = element_fields(data_type)?;
        let mut done = Finished::default();
        for (name, builder) in ASSESSMENT_TEXT.into_iter().zip(&mut self.text) {
            done.push(name, builder.array());
        }
        let source_fields = struct_fields(field_of(fields, "source")?.data_type())?;
        let source = self.source.iter_mut().map(Finish::array).collect();
        done.push("source", struct_array(source_fields, source)?);
        for (name, builder) in ["create_time", "last_update_time"].into_iter().zip(&mut self.times)
        {
            done.push(name, builder.array());
        }
        done.push("metadata", self.metadata.finish()?);
        done.push("valid", Arc::new(self.valid.finish()));
        self.rows = 0;
        self.list.finish_list(data_type, struct_array(fields, done.in_order(fields)?)?)
    }
}
