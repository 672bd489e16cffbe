//! Headers and metadata that say how to read a request and where it belongs.

use http::{HeaderMap, HeaderName, header};
use tracelake_decode::ContentEncoding;
use tracelake_model::ExperimentId;
use tracelake_model::names::printable;

use crate::error::IntakeError;

const EXPERIMENT: HeaderName = HeaderName::from_static("x-mlflow-experiment-id");
const RUN: HeaderName = HeaderName::from_static("x-mlflow-run-id");
/// MLflow's run ids are 32 hex digits; older and foreign ones are words.
const MAX_RUN_ID_CHARS: usize = 256;

/// What a request says beside its body.
#[derive(Debug)]
pub(super) struct Address {
    /// Compression of the body.
    pub(super) encoding: ContentEncoding,
    /// Experiment of all its spans.
    pub(super) experiment: Option<ExperimentId>,
    /// MLflow run of all its spans.
    pub(super) run_id: Option<String>,
}

/// Reads what a request says beside its body; header `encoding_name` says the compression.
///
/// # Errors
/// As [`encoding`], [`parse_experiment`] and [`run_id`].
pub(super) fn address(
    headers: &HeaderMap,
    encoding_name: &HeaderName,
) -> Result<Address, IntakeError> {
    Ok(Address {
        encoding: encoding(headers, encoding_name)?,
        experiment: experiment(headers)?,
        run_id: run_id(headers)?,
    })
}

/// The length that the client announced.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The media type in lower case, without its parameters. Empty when there is none.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let text = text_of(headers, &header::CONTENT_TYPE).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The compression that header `name` says.
///
/// # Errors
/// [`IntakeError::UnsupportedEncoding`] for an unknown one, or several in a row.
pub(super) fn encoding(
    headers: &HeaderMap,
    name: &HeaderName,
) -> Result<ContentEncoding, IntakeError> {
    let mut values = headers.get_all(name).iter();
    let (first, second) = (values.next(), values.next());
    let Some(first) = first else { return Ok(ContentEncoding::Identity) };
    let known = first.to_str().ok().and_then(ContentEncoding::parse).filter(|_| second.is_none());
    known.ok_or_else(|| IntakeError::UnsupportedEncoding {
        encoding: printable(&String::from_utf8_lossy(first.as_bytes())),
    })
}

fn experiment(headers: &HeaderMap) -> Result<Option<ExperimentId>, IntakeError> {
    text_of(headers, &EXPERIMENT).map(|text| parse_experiment(&text)).transpose()
}

/// Reads an experiment id.
///
/// # Errors
/// [`IntakeError::InvalidExperiment`] for what is no number.
pub(super) fn parse_experiment(text: &str) -> Result<ExperimentId, IntakeError> {
    text.trim().parse().map_err(|_| IntakeError::InvalidExperiment { id: printable(text) })
}

/// The MLflow run that the request names.
///
/// # Errors
/// [`IntakeError::InvalidParameter`] for what cannot be a run id.
fn run_id(headers: &HeaderMap) -> Result<Option<String>, IntakeError> {
    let Some(text) = text_of(headers, &RUN) else { return Ok(None) };
    let fine = !text.is_empty()
        && text.len() <= MAX_RUN_ID_CHARS
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !fine {
        let (parameter, value) = ("run_id", printable(&text));
        return Err(IntakeError::InvalidParameter { parameter, value });
    }
    Ok(Some(text))
}

fn text_of(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}
