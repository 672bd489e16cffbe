//! Parameters of a call: members of a JSON body, or of the query of a `GET`.

use axum::RequestExt;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, Query, Request};
use bytes::Bytes;
use http::{Method, header};
use serde_json::{Map, Value};
use std::sync::Arc;
use tracelake_model::ExperimentId;
use tracelake_model::names::printable;
use tracelake_registry::Tag;

use super::reply::MlflowError;
use crate::intake::Intake;
use crate::receive::{ReadBody, admit_and_read, headers};

/// Longest body of a call that is not about spans.
const MAX_BODY_BYTES: u64 = 4 << 20;
/// Parameters of a query that are lists even when they occur once.
const LISTS: [&str; 3] = ["order_by", "trace_ids", "experiment_ids"];

/// The parameters of one call.
#[derive(Debug)]
pub(super) struct Parameters {
    members: Map<String, Value>,
    body: Bytes,
}

impl FromRequest<Arc<Intake>> for Parameters {
    type Rejection = MlflowError;

    async fn from_request(mut request: Request, intake: &Arc<Intake>) -> Result<Self, MlflowError> {
        if request.method() == Method::GET {
            let pairs: Result<Query<Vec<(String, String)>>, QueryRejection> =
                request.extract_parts().await;
            let Query(pairs) =
                pairs.map_err(|_| MlflowError::invalid("Invalid query string.".to_owned()))?;
            return Ok(Self::from_query(pairs));
        }
        let (parts, body) = request.into_parts();
        // A `DELETE` may come without a body and a type; no page can send one unasked.
        if parts.method != Method::DELETE || parts.headers.contains_key(header::CONTENT_TYPE) {
            require_json(&parts.headers)?;
        }
        let ReadBody { bytes: body, reservation } =
            admit_and_read(intake, &parts.headers, body, MAX_BODY_BYTES).await?;
        let members = if body.is_empty() {
            Map::new()
        } else {
            match serde_json::from_slice(&body) {
                Ok(Value::Object(members)) => members,
                _ => return Err(MlflowError::invalid("The body is not a JSON object.".to_owned())),
            }
        };
        drop(reservation);
        Ok(Self { members, body })
    }
}

/// MLflow takes nothing else, and a page of another origin cannot send this type unasked.
pub(super) fn require_json(headers: &http::HeaderMap) -> Result<(), MlflowError> {
    if headers::media_type(headers) == "application/json" {
        return Ok(());
    }
    let message = "Bad Request. Content-Type must be one of ['application/json'].".to_owned();
    Err(MlflowError::invalid(message))
}

impl Parameters {
    /// Of a key that occurs more than once the last counts, but for those that are lists.
    fn from_query(pairs: Vec<(String, String)>) -> Self {
        let mut members = Map::new();
        for (key, value) in pairs {
            if LISTS.contains(&key.as_str()) {
                let list = members.entry(key).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(list) = list {
                    list.push(Value::String(value));
                }
            } else {
                members.insert(key, Value::String(value));
            }
        }
        Self { members, body: Bytes::new() }
    }

    /// The body as received, for what must be read digit by digit.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// A member of any type that must be there.
    pub(super) fn required(&self, name: &str) -> Result<&Value, MlflowError> {
        match self.members.get(name) {
            None | Some(Value::Null) => Err(missing(name)),
            Some(Value::String(text)) if text.is_empty() => Err(missing(name)),
            Some(value) => Ok(value),
        }
    }

    /// True when the parameter is given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.get(name).is_some_and(|value| !value.is_null())
    }

    /// A text that must be there and not empty.
    pub(super) fn required_text(&self, name: &str) -> Result<String, MlflowError> {
        match self.text(name)? {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(missing(name)),
        }
    }

    /// A text that may be absent or null.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, MlflowError> {
        match self.members.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(wrong_type(name, other)),
        }
    }

    /// The experiment that the call is about.
    pub(super) fn experiment_id(&self) -> Result<ExperimentId, MlflowError> {
        Ok(headers::parse_experiment(&self.required_text("experiment_id")?)?)
    }

    /// A whole number, written as such or as text.
    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, MlflowError> {
        match self.members.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value @ Value::Number(number)) => {
                number.as_i64().map(Some).ok_or_else(|| wrong_type(name, value))
            }
            Some(value @ Value::String(text)) => {
                text.trim().parse().map(Some).map_err(|_| wrong_type(name, value))
            }
            Some(other) => Err(wrong_type(name, other)),
        }
    }

    /// A truth value, written as such or as text; false when absent.
    pub(super) fn flag(&self, name: &str) -> Result<bool, MlflowError> {
        match self.members.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(other) => Err(MlflowError::invalid(format!(
                "Invalid boolean value: {}, must be 'true' or 'false'.",
                printable(&other.to_string())
            ))),
        }
    }

    /// A list of texts, empty when absent.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, MlflowError> {
        let mut texts = Vec::new();
        for value in self.list(name)? {
            let Value::String(text) = value else { return Err(wrong_type(name, value)) };
            texts.push(text.clone());
        }
        Ok(texts)
    }

    /// A list of `{"key", "value"}`, empty when absent.
    pub(super) fn tags(&self, name: &str) -> Result<Vec<Tag>, MlflowError> {
        let mut tags = Vec::new();
        for value in self.list(name)? {
            let key = value.get("key").and_then(Value::as_str);
            let text = value.get("value").map_or(Some(""), Value::as_str);
            let (Some(key), Some(text)) = (key, text) else { return Err(wrong_type(name, value)) };
            tags.push(Tag { key: key.to_owned(), value: text.to_owned() });
        }
        Ok(tags)
    }

    /// A list of anything, empty when absent.
    pub(super) fn list(&self, name: &str) -> Result<&[Value], MlflowError> {
        match self.members.get(name) {
            None | Some(Value::Null) => Ok(&[]),
            Some(Value::Array(list)) => Ok(list),
            Some(other) => Err(wrong_type(name, other)),
        }
    }
}

/// MLflow's words for a required parameter that is absent.
pub(super) fn missing(name: &str) -> MlflowError {
    MlflowError::invalid(format!(
        "Missing value for required parameter '{name}'. See the API docs for more information \
         about request parameters."
    ))
}

/// MLflow's words for a value of another type, Python's names of the types included.
pub(super) fn wrong_type(name: &str, value: &Value) -> MlflowError {
    let kind = match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    };
    MlflowError::invalid(format!(
        "Invalid value {} for parameter '{name}' supplied:  Hint: Value was of type '{kind}'. \
         See the API docs for more information about request parameters.",
        printable(&value.to_string())
    ))
}
