//! Assessments: feedback, expectations and issues on a trace or span.

use tracelake_model::{Assessment, TraceId};

use super::messages::{MembersWriter, Message, shape, to_value};
use super::time::rfc3339_of_micros;
use crate::error::DecodeError;
use crate::otlp_json::document::{self, Json};
use crate::otlp_json::members::{Fault, Path};

/// Reads an assessment: the body `{"assessment": {...}}` of MLflow's call or the assessment itself.
///
/// The members `feedback`, `expectation` and `issue` are kept as compact JSON text, in order and
/// digit by digit. The trace is known from the call's path and not read here.
///
/// # Errors
/// [`DecodeError::Json`] when the body is not JSON, [`DecodeError::Shape`] when a member has
/// another type.
pub fn read_assessment(body: &[u8]) -> Result<Assessment, DecodeError> {
    let body = String::from_utf8_lossy(body);
    let document = document::parse(&body)?;
    let read = match document.member(&["assessment"]) {
        Some(inner) => assessment(inner, Path::Root.member("assessment")),
        None => assessment(&document, Path::Root),
    };
    read.map_err(shape)
}

/// The assessment in MLflow's wire form, as answers have it. `trace_id` is the trace it is about.
///
/// Reading it back is the identity, unless a kept text has numbers that only it can hold, of more
/// than 64 bits.
#[must_use]
pub fn write_assessment(assessment: &Assessment, trace_id: Option<TraceId>) -> serde_json::Value {
    to_value(&assessment_json(assessment, trace_id))
}

pub(super) fn assessment(value: &Json<'_>, path: Path<'_>) -> Result<Assessment, Fault> {
    let message = Message::new(value, path)?;
    let source = message.read(&["source", "source"], |source, path| {
        let source = Message::new(source, path)?;
        let source_type = source.read(&["source_type", "sourceType"], source_type)?;
        Ok((source_type, source.text(&["source_id", "sourceId"])?))
    })?;
    let (source_type, source_id) = source.unwrap_or_default();
    let id = message.text(&["assessment_id", "assessmentId"])?;
    Ok(Assessment {
        assessment_id: id.unwrap_or_default(),
        assessment_name: message.text(&["assessment_name", "assessmentName"])?,
        span_id: message.text(&["span_id", "spanId"])?,
        source_type,
        source_id,
        create_time_micros: message.time(&["create_time", "createTime"])?,
        last_update_time_micros: message.time(&["last_update_time", "lastUpdateTime"])?,
        feedback_json: message.json(&["feedback", "feedback"]),
        expectation_json: message.json(&["expectation", "expectation"]),
        issue_json: message.json(&["issue", "issue"]),
        rationale: message.text(&["rationale", "rationale"])?,
        metadata: message.map(&["metadata", "metadata"])?,
        overrides: message.text(&["overrides", "overrides"])?,
        valid: message.boolean(&["valid", "valid"])?,
    })
}

pub(super) fn assessment_json(assessment: &Assessment, trace_id: Option<TraceId>) -> Json<'_> {
    let mut out = MembersWriter::default();
    let id = assessment.assessment_id.as_str();
    out.text("assessment_id", Some(id).filter(|id| !id.is_empty()));
    out.text("assessment_name", assessment.assessment_name.as_deref());
    out.owned_text("trace_id", trace_id.map(TraceId::to_mlflow));
    out.text("span_id", assessment.span_id.as_deref());
    if assessment.source_type.is_some() || assessment.source_id.is_some() {
        let mut source = MembersWriter::default();
        source.text("source_type", assessment.source_type.as_deref());
        source.text("source_id", assessment.source_id.as_deref());
        out.json("source", source.into_object());
    }
    out.owned_text("create_time", assessment.create_time_micros.and_then(rfc3339_of_micros));
    let updated = assessment.last_update_time_micros.and_then(rfc3339_of_micros);
    out.owned_text("last_update_time", updated);
    for (name, text) in [
        ("feedback", &assessment.feedback_json),
        ("expectation", &assessment.expectation_json),
        ("issue", &assessment.issue_json),
    ] {
        if let Some(text) = text {
            // A text that is not JSON was not written by this service; it is given as it is.
            let value = document::parse(text).unwrap_or_else(|_| Json::Text(text.into()));
            out.json(name, value);
        }
    }
    out.text("rationale", assessment.rationale.as_deref());
    out.map("metadata", &assessment.metadata);
    out.text("overrides", assessment.overrides.as_deref());
    if let Some(valid) = assessment.valid {
        out.json("valid", Json::Bool(valid));
    }
    out.into_object()
}

/// The name of a `SourceType`, which protobuf's JSON may also give as a number.
fn source_type(value: &Json<'_>, path: Path<'_>) -> Result<String, Fault> {
    match value {
        Json::Text(name) => Ok(name.clone().into_owned()),
        Json::Number("0") => Ok("SOURCE_TYPE_UNSPECIFIED".into()),
        Json::Number("1") => Ok("HUMAN".into()),
        Json::Number("2") => Ok("LLM_JUDGE".into()),
        Json::Number("3") => Ok("CODE".into()),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => {
            Err(path.expected("HUMAN, LLM_JUDGE or CODE", value))
        }
    }
}
