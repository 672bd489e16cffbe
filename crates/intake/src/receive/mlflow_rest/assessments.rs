//! `/mlflow/traces/{trace}/assessments`.
//!
//! An assessment is always written whole. So a change of one reads it, changes it and writes it,
//! while no other call changes the trace.

use std::sync::Arc;

use axum::extract::State;
use serde_json::{Value, json};
use tracelake_decode::assessment_fingerprint;
use tracelake_decode::mlflow_json::{read_assessment, write_assessment};
use tracelake_model::names::printable;
use tracelake_model::{Assessment, Clock, TraceChange, TraceId, TraceInfo};

use super::parameters::{Parameters, wrong_type};
use super::reply::{Answer, MlflowError, Reply};
use super::trace_path::{AssessmentPath, TracePath, change, find};
use crate::intake::Intake;

const MAX_ID_CHARS: usize = 50;

/// `POST`, `{"assessment"}`: the trace has this assessment too.
///
/// The id is made here unless the client has one, and so are times that it does not give. Such an id
/// follows from what the client sent, so that the same sent again is the same assessment: it is
/// answered as it is by then. One that
/// overrides another makes the other invalid. Unlike MLflow this holds for expectations also, and
/// they keep a rationale. An id that is taken is refused, with MLflow's words but as a request that
/// cannot succeed: MLflow answers 500, which its client repeats for minutes.
pub(super) async fn create(
    State(intake): State<Arc<Intake>>,
    TracePath(trace_id): TracePath,
    parameters: Parameters,
) -> Reply {
    parameters.required("assessment")?;
    let sent = read_assessment(parameters.body())?;
    let has_id = !sent.assessment_id.is_empty();
    let assessment = completed(sent, trace_id, intake.clock())?;
    let held = intake.lock_traces(&[trace_id]).await;
    let trace = find(&intake, trace_id).await?;
    match known(&trace.info, &assessment.assessment_id) {
        Ok(_) if has_id => {
            return Err(MlflowError::already_exists(format!(
                "Failed to create assessment for trace '{}' due to a constraint violation.",
                trace_id.to_mlflow()
            )));
        }
        Ok(known) => return Ok(answer(known, trace_id)),
        Err(_) => {}
    }
    let mut changes = Vec::with_capacity(2);
    if let Some(overridden) = &assessment.overrides {
        let mut other = known(&trace.info, overridden)?.clone();
        other.valid = Some(false);
        changes.push(TraceChange::PutAssessment(Box::new(other)));
    }
    changes.push(TraceChange::PutAssessment(Box::new(assessment.clone())));
    change(&intake, &trace, changes).await?;
    drop(held);
    Ok(answer(&assessment, trace_id))
}

/// `GET`: the assessment.
pub(super) async fn get(State(intake): State<Arc<Intake>>, path: AssessmentPath) -> Reply {
    let trace = find(&intake, path.trace_id).await?;
    Ok(answer(known(&trace.info, &path.assessment_id)?, path.trace_id))
}

/// `PATCH`, `{"assessment", "update_mask"}`: the members that the mask names are as given,
/// metadata is merged by key. Source, span and validity cannot be changed. What changes nothing, such
/// as a call that is sent again, leaves the time of the last change as it is.
pub(super) async fn update(
    State(intake): State<Arc<Intake>>,
    path: AssessmentPath,
    parameters: Parameters,
) -> Reply {
    parameters.required("assessment")?;
    let mask = read_mask(parameters.required("update_mask")?)?;
    let sent = read_assessment(parameters.body())?;
    let held = intake.lock_traces(&[path.trace_id]).await;
    let trace = find(&intake, path.trace_id).await?;
    let known = known(&trace.info, &path.assessment_id)?;
    let mut assessment = known.clone();
    apply_mask(&mut assessment, sent, &mask)?;
    if assessment == *known {
        return Ok(answer(known, path.trace_id));
    }
    assessment.last_update_time_micros = Some(now_micros(intake.clock()));
    let put = TraceChange::PutAssessment(Box::new(assessment.clone()));
    change(&intake, &trace, vec![put]).await?;
    drop(held);
    Ok(answer(&assessment, path.trace_id))
}

/// `DELETE`: there is no such assessment, and the one that it overrode is valid again. Succeeds
/// also when there was none, as in MLflow.
pub(super) async fn delete(State(intake): State<Arc<Intake>>, path: AssessmentPath) -> Reply {
    let AssessmentPath { trace_id, assessment_id } = path;
    let held = intake.lock_traces(&[trace_id]).await;
    let found = intake.traces().find(&[trace_id]).await?;
    let Some(trace) = found.into_iter().next() else { return Ok(Answer::empty()) };
    let Ok(assessment) = known(&trace.info, &assessment_id) else { return Ok(Answer::empty()) };
    let mut changes = Vec::with_capacity(2);
    if let Some(overridden) = &assessment.overrides
        && let Ok(other) = known(&trace.info, overridden)
    {
        let restored = Assessment { valid: Some(true), ..other.clone() };
        changes.push(TraceChange::PutAssessment(Box::new(restored)));
    }
    changes.push(TraceChange::DeleteAssessment { assessment_id });
    change(&intake, &trace, changes).await?;
    drop(held);
    Ok(Answer::empty())
}

fn answer(assessment: &Assessment, trace_id: TraceId) -> Answer {
    Answer(json!({"assessment": write_assessment(assessment, Some(trace_id))}))
}

fn known<'a>(info: &'a TraceInfo, id: &str) -> Result<&'a Assessment, MlflowError> {
    info.assessments.iter().find(|known| known.assessment_id == id).ok_or_else(|| {
        MlflowError::not_found(format!(
            "Assessment with ID '{}' not found for trace '{}'",
            printable(id),
            info.trace_id.to_mlflow()
        ))
    })
}

/// What the client sent, checked, with id and times.
fn completed(
    sent: Assessment,
    trace_id: TraceId,
    clock: &dyn Clock,
) -> Result<Assessment, MlflowError> {
    check_value(&sent)?;
    check_source(sent.source_type.as_deref())?;
    let now = now_micros(clock);
    let time = |sent: Option<i64>| sent.filter(|micros| *micros != 0).or(Some(now));
    let assessment_id = if sent.assessment_id.is_empty() {
        format!("a-{:032x}", assessment_fingerprint(trace_id, &sent))
    } else {
        check_id(sent.assessment_id.clone())?
    };
    // Protobuf cannot tell an empty text from one that is absent.
    let text = |text: Option<String>| text.filter(|text| !text.is_empty());
    Ok(Assessment {
        assessment_id,
        create_time_micros: time(sent.create_time_micros),
        last_update_time_micros: time(sent.last_update_time_micros),
        span_id: text(sent.span_id),
        source_id: text(sent.source_id),
        rationale: text(sent.rationale),
        overrides: text(sent.overrides),
        valid: Some(true),
        ..sent
    })
}

fn check_id(id: String) -> Result<String, MlflowError> {
    if MAX_ID_CHARS < id.chars().count() || id.chars().any(char::is_control) {
        return Err(wrong_type("assessment_id", &Value::String(id)));
    }
    Ok(id)
}

/// Exactly one of feedback, expectation and issue, each an object.
fn check_value(assessment: &Assessment) -> Result<(), MlflowError> {
    let given = [
        ("feedback", &assessment.feedback_json),
        ("expectation", &assessment.expectation_json),
        ("issue", &assessment.issue_json),
    ];
    let mut values = given.iter().filter_map(|(name, text)| Some((*name, text.as_deref()?)));
    let Some((name, text)) = values.next() else {
        return Err(MlflowError::invalid("Unknown assessment type: None".to_owned()));
    };
    if values.next().is_some() {
        return Err(MlflowError::invalid(
            "Exactly one of `expectation`, `feedback`, or `issue` should be specified.".to_owned(),
        ));
    }
    check_object(name, text)?;
    if name == "expectation" {
        check_expectation(text)?;
    }
    Ok(())
}

fn check_object(name: &str, text: &str) -> Result<(), MlflowError> {
    if text.starts_with('{') {
        return Ok(());
    }
    Err(wrong_type(&format!("assessment.{name}"), &Value::String(text.to_owned())))
}

fn check_expectation(text: &str) -> Result<(), MlflowError> {
    let members: Value = serde_json::from_str(text).unwrap_or_default();
    let given = ["value", "serialized_value", "serializedValue"]
        .iter()
        .any(|name| members.get(name).is_some_and(|value| !value.is_null()));
    if given {
        return Ok(());
    }
    Err(MlflowError::invalid("The `value` field must be specified.".to_owned()))
}

fn check_source(source_type: Option<&str>) -> Result<(), MlflowError> {
    match source_type {
        None | Some("HUMAN" | "LLM_JUDGE" | "CODE" | "SOURCE_TYPE_UNSPECIFIED") => Ok(()),
        Some(other) => Err(MlflowError::invalid(format!(
            "Invalid assessment source type: {}. Valid source types: ['HUMAN', 'LLM_JUDGE', \
             'CODE', 'SOURCE_TYPE_UNSPECIFIED']",
            printable(other)
        ))),
    }
}

/// A member that a mask can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Masked {
    Name,
    Expectation,
    Feedback,
    Rationale,
    Metadata,
}

/// A field mask: names joined by commas, or `{"paths": [...]}`. Names of other members are passed
/// over, as MLflow does; `valid`, which it fails on, is refused.
fn read_mask(mask: &Value) -> Result<Vec<Masked>, MlflowError> {
    let paths: Vec<&str> = match (mask, mask.get("paths")) {
        (Value::String(text), _) => text.split(',').map(str::trim).collect(),
        (_, Some(Value::Array(paths))) => paths.iter().filter_map(Value::as_str).collect(),
        _ => return Err(wrong_type("update_mask", mask)),
    };
    let mut named = Vec::with_capacity(paths.len());
    for path in paths {
        named.extend(match path {
            "assessment_name" | "assessmentName" => Some(Masked::Name),
            "expectation" => Some(Masked::Expectation),
            "feedback" => Some(Masked::Feedback),
            "rationale" => Some(Masked::Rationale),
            "metadata" => Some(Masked::Metadata),
            "valid" => {
                let message = "`valid` cannot be updated, override or delete assessments instead.";
                return Err(MlflowError::invalid(message.to_owned()));
            }
            _ => None,
        });
    }
    Ok(named)
}

fn apply_mask(
    assessment: &mut Assessment,
    sent: Assessment,
    mask: &[Masked],
) -> Result<(), MlflowError> {
    let invalid = |message: &str| Err(MlflowError::invalid(message.to_owned()));
    let names = |masked| mask.contains(&masked);
    if names(Masked::Expectation) && names(Masked::Feedback) {
        return invalid("Cannot specify both `expectation` and `feedback` parameters.");
    }
    if names(Masked::Expectation) {
        let text = sent.expectation_json.unwrap_or_default();
        if assessment.expectation_json.is_none() {
            return invalid("Cannot update expectation value on a Feedback assessment.");
        }
        check_object("expectation", &text)?;
        check_expectation(&text)?;
        assessment.expectation_json = Some(text);
    }
    if names(Masked::Feedback) {
        let text = sent.feedback_json.unwrap_or_default();
        if assessment.feedback_json.is_none() {
            return invalid("Cannot update feedback value on an Expectation assessment.");
        }
        check_object("feedback", &text)?;
        assessment.feedback_json = Some(text);
    }
    if names(Masked::Name) {
        assessment.assessment_name = sent.assessment_name;
    }
    if names(Masked::Rationale) {
        assessment.rationale = sent.rationale;
    }
    if names(Masked::Metadata) {
        assessment.metadata.extend(sent.metadata);
    }
    Ok(())
}

/// The time in whole milliseconds, as MLflow keeps it.
fn now_micros(clock: &dyn Clock) -> i64 {
    i64::try_from(clock.now_unix_nano() / 1_000_000)
        .unwrap_or(i64::MAX / 1_000)
        .saturating_mul(1_000)
}
