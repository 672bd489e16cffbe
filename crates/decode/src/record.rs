//! What the journal keeps beside the raw request bytes, and how both become spans again.
//!
//! A header is compact JSON: it is written once per request and read by people in an emergency.
//! Everything that decoding depends on is in it, so that a replay decodes to the same spans and
//! sends them to the same tables, whatever settings and bindings say by then.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tracelake_model::{ExperimentId, Limits, TableName, TraceChanges, TraceInfo};

use crate::content_encoding::{ContentEncoding, decompress};
use crate::error::DecodeError;
use crate::request::{DecodedSpans, SpanSource, Unnaming, decode_otlp};
use crate::{mlflow_json, otlp_json};

/// What kind of request a journal record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// `ExportTraceServiceRequest` as protobuf.
    OtlpProtobuf,
    /// `ExportTraceServiceRequest` as JSON.
    OtlpJson,
    /// MLflow's `traces.json`: the spans of one trace.
    MlflowTracesJson,
    /// MLflow's `start_trace` body: facts about one trace.
    MlflowStartTrace,
    /// Spans of an unsettled trace, carried over from an earlier segment, as OTLP protobuf.
    CarriedTrace,
    /// The same of spans whose resources name an experiment that does not count: the request's stood over it, or
    /// it was not known when they came.
    CarriedUnnamed,
    /// What clients said of an unsettled trace, carried over from an earlier segment, as JSON:
    /// [`CarriedWords`].
    CarriedWords,
    /// Changes to traces beside their spans, as JSON: a list of [`TraceChanges`].
    TraceChanges,
}

/// Which table the spans of an experiment go to, as it was when the request arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The experiment.
    #[serde(rename = "e")]
    pub experiment_id: ExperimentId,
    /// Its table.
    #[serde(rename = "t")]
    pub table: TableName,
}

fn is_default(limits: &Limits) -> bool {
    *limits == Limits::default()
}

/// Which limits a header stands for that names none: those of the first form had no bound on a span.
const HEADER_FORM: u8 = 1;

/// The form of a header; the first one did not say.
#[derive(Deserialize)]
struct HeaderForm {
    #[serde(rename = "v", default)]
    form: u8,
    #[serde(rename = "l", default)]
    limits: Option<serde::de::IgnoredAny>,
}

/// Header of a journal record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordHeader {
    /// How to read the payload.
    #[serde(rename = "k")]
    pub kind: RecordKind,
    /// Content encoding of the payload.
    #[serde(rename = "ce", default, skip_serializing_if = "ContentEncoding::is_identity")]
    pub encoding: ContentEncoding,
    /// When the request arrived, nanoseconds since the Unix epoch.
    #[serde(rename = "at")]
    pub received_at_unix_nano: u64,
    /// Where spans go. The first is for spans that name no experiment of their own.
    #[serde(rename = "r")]
    pub routes: Vec<Route>,
    /// MLflow run that the request names.
    #[serde(rename = "run", default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The trace, where the payload does not say (`traces.json`).
    #[serde(rename = "tr", default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Limits that applied when the request was answered: a replay accepts and refuses the same.
    #[serde(rename = "l", default, skip_serializing_if = "is_default")]
    pub limits: Limits,
    /// How the spans came, where the payload is not as received (carried over).
    #[serde(rename = "src", default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SpanSource>,
}

impl RecordHeader {
    /// The header's bytes in the journal.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = format!("{{\"v\":{HEADER_FORM},").into_bytes();
        let form = bytes.len();
        if serde_json::to_writer(&mut bytes, self).is_err() {
            return Bytes::new();
        }
        // The brace that opens the header stands before its form.
        bytes.remove(form);
        bytes.into()
    }

    /// Reads a header from the journal.
    ///
    /// # Errors
    /// [`DecodeError::Json`] when the bytes are not a header, or one of a form that a later version
    /// writes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let fault = |reason: String| DecodeError::Json { reason };
        let mut header: Self = serde_json::from_slice(bytes).map_err(|e| fault(e.to_string()))?;
        let HeaderForm { form, limits } =
            serde_json::from_slice(bytes).map_err(|e| fault(e.to_string()))?;
        if HEADER_FORM < form {
            return Err(fault(format!("a later version wrote this header, in form {form}")));
        }
        if form < HEADER_FORM && limits.is_none() {
            header.limits.max_span_bytes = usize::MAX;
        }
        Ok(header)
    }

    /// The route of spans that name `experiment`, or of those that name none.
    #[must_use]
    pub fn route(&self, experiment: Option<&ExperimentId>) -> Option<&Route> {
        self.routes.get(self.route_place(experiment))
    }

    /// The place among [`Self::routes`] of the one that [`Self::route`] gives.
    #[must_use]
    pub fn route_place(&self, experiment: Option<&ExperimentId>) -> usize {
        let named =
            |id: &ExperimentId| self.routes.iter().position(|route| route.experiment_id == *id);
        experiment.and_then(named).unwrap_or_default()
    }
}

/// A journal record, decoded: the form that assembly takes, live and at replay alike.
#[derive(Clone, Debug)]
pub struct DecodedRecord {
    /// The header.
    pub header: RecordHeader,
    /// What the payload says.
    pub content: RecordContent,
}

/// What the payload of a record says.
#[derive(Clone, Debug)]
pub enum RecordContent {
    /// Spans, and what was refused among them.
    Spans(DecodedSpans),
    /// Facts about one trace.
    TraceInfo(Box<TraceInfo>),
    /// Changes to traces, in order.
    Changes(Vec<TraceChanges>),
    /// What clients said of an unsettled trace.
    Words(Box<CarriedWords>),
}

/// A `start_trace`: what it says, and the experiment that the trace belongs to by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The experiment.
    pub experiment_id: ExperimentId,
    /// What it says; its own fingerprint alone is among [`TraceInfo::starts`].
    pub info: TraceInfo,
}

/// What clients said of an unsettled trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedWords {
    /// All that was said.
    pub info: TraceInfo,
    /// The `start_trace` requests in `info`, in the order of arrival, when there are several: a row
    /// may have some of them.
    pub starts: Vec<Start>,
}

/// The payload of a record of kind [`RecordKind::CarriedWords`].
#[must_use]
pub fn words_body(words: &CarriedWords) -> Vec<u8> {
    serde_json::to_vec(words).unwrap_or_default()
}

fn read_words(body: &[u8]) -> Result<CarriedWords, DecodeError> {
    serde_json::from_slice(body).map_err(|error| DecodeError::Json { reason: error.to_string() })
}

/// The payload of a record of kind [`RecordKind::TraceChanges`].
#[must_use]
pub fn changes_body(changes: &[TraceChanges]) -> Vec<u8> {
    serde_json::to_vec(changes).unwrap_or_default()
}

fn read_changes(body: &[u8]) -> Result<Vec<TraceChanges>, DecodeError> {
    serde_json::from_slice(body).map_err(|error| DecodeError::Json { reason: error.to_string() })
}

/// Decodes a record from its header and the payload as received.
///
/// # Errors
/// [`DecodeError`] when the payload as a whole cannot be read; this is answered before an ack.
pub fn decode_record(header: RecordHeader, payload: &Bytes) -> Result<DecodedRecord, DecodeError> {
    let limits = &header.limits;
    let body = decompress(header.encoding, payload, limits.max_decompressed_bytes)?;
    let content =
        match header.kind {
            RecordKind::OtlpProtobuf | RecordKind::CarriedTrace => RecordContent::Spans(
                decode_otlp(&body, header.source.unwrap_or(SpanSource::Otlp), limits)?,
            ),
            RecordKind::CarriedUnnamed => {
                let source = header.source.unwrap_or(SpanSource::Otlp);
                let mut spans = decode_otlp(&body, source, limits)?;
                let mut unnaming = Unnaming::default();
                spans.spans.iter_mut().for_each(|span| unnaming.apply(span));
                RecordContent::Spans(spans)
            }
            RecordKind::OtlpJson => {
                let (protobuf, rejects) = otlp_json::to_protobuf(&body)?;
                let mut spans = decode_otlp(&protobuf.into(), SpanSource::Otlp, limits)?;
                spans.rejects.extend(rejects);
                RecordContent::Spans(spans)
            }
            RecordKind::MlflowTracesJson => {
                let (protobuf, rejects) =
                    mlflow_json::traces_json_to_protobuf(&body, header.trace_id.as_deref())?;
                let mut spans = decode_otlp(&protobuf.into(), SpanSource::Mlflow, limits)?;
                spans.rejects.extend(rejects);
                RecordContent::Spans(spans)
            }
            RecordKind::MlflowStartTrace => {
                let start = mlflow_json::read_start_trace(&body)?;
                RecordContent::TraceInfo(Box::new(start.info))
            }
            RecordKind::CarriedWords => RecordContent::Words(Box::new(read_words(&body)?)),
            RecordKind::TraceChanges => RecordContent::Changes(read_changes(&body)?),
        };
    Ok(DecodedRecord { header, content })
}
