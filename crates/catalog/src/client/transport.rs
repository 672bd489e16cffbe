//! One call over HTTP: its URL, its body, its bounded answer.

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracelake_model::names::printable;
use url::{Host, Url};

use super::{ClientOptions, UnityClient};
use crate::error::{CatalogError, Securable};
use crate::wire::ErrorBody;

/// A call that is not sent yet.
#[derive(Debug)]
pub(super) struct Call {
    method: Method,
    /// What it does to what, for messages.
    what: String,
    segments: Vec<String>,
    parameters: Vec<(&'static str, String)>,
    body: Option<Vec<u8>>,
}

impl Call {
    /// Asks for the one of that full name.
    pub(super) fn get(kind: Securable, name: &str) -> Self {
        let what = format!("get {} `{name}`", kind.as_str());
        Self::new(Method::GET, what, vec![kind.plural(), name])
    }

    /// Takes the one of that full name away.
    pub(super) fn delete(kind: Securable, name: &str) -> Self {
        let what = format!("delete {} `{name}`", kind.as_str());
        Self::new(Method::DELETE, what, vec![kind.plural(), name])
    }

    /// Makes one of that full name, as `new` says.
    pub(super) fn create(
        kind: Securable,
        name: &str,
        new: &impl Serialize,
    ) -> Result<Self, CatalogError> {
        let what = format!("create {} `{name}`", kind.as_str());
        let mut call = Self::new(Method::POST, what, vec![kind.plural()]);
        let body = serde_json::to_vec(new)
            .map_err(|error| CatalogError::invalid(&call.what, error.to_string()))?;
        call.body = Some(body);
        Ok(call)
    }

    /// Asks for a page of those below `parents`: the catalog, and the schema.
    pub(super) fn list(kind: Securable, parents: &[&str], page_token: Option<&str>) -> Self {
        let of =
            if parents.is_empty() { String::new() } else { format!(" of `{}`", parents.join(".")) };
        let mut call =
            Self::new(Method::GET, format!("list {}{of}", kind.plural()), vec![kind.plural()]);
        let parents = ["catalog_name", "schema_name"].into_iter().zip(parents.iter().copied());
        let page = page_token.map(|token| ("page_token", token));
        call.parameters =
            parents.chain(page).map(|(name, value)| (name, value.to_owned())).collect();
        call
    }

    fn new(method: Method, what: String, segments: Vec<&str>) -> Self {
        let segments = segments.into_iter().map(str::to_owned).collect();
        Self { method, what, segments, parameters: Vec::new(), body: None }
    }
}

pub(super) fn connect(options: &ClientOptions) -> Result<UnityClient, CatalogError> {
    let wrong = |reason| CatalogError::Url { url: shown_url(&options.url), reason };
    let base = Url::parse(options.url.trim_end_matches('/')).map_err(|_| wrong("no URL"))?;
    if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
        return Err(wrong("expected http or https"));
    }
    if base.password().is_some() || !base.username().is_empty() {
        return Err(wrong("has a user; give a token instead"));
    }
    let mut headers = HeaderMap::new();
    if let Some(token) = &options.token {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| wrong("its token has characters that no header may have"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let mut builder = reqwest::Client::builder()
        .timeout(options.timeout)
        .default_headers(headers)
        .redirect(reqwest::redirect::Policy::none());
    if is_loopback(&base) {
        builder = builder.no_proxy();
    }
    let server = server_of(&base);
    let http = builder.build().map_err(|source| CatalogError::Unreachable {
        call: "prepare calls".to_owned(),
        server: server.clone(),
        source,
    })?;
    Ok(UnityClient { http, base, server, max_answer_bytes: options.max_answer_bytes })
}

fn server_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// A URL for messages: without what stands before an `@`.
fn shown_url(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, rest)) => format!("...@{}", printable(rest)),
        None => printable(url),
    }
}

impl UnityClient {
    pub(super) async fn send<T: DeserializeOwned>(&self, call: Call) -> Result<T, CatalogError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(&call.segments);
        }
        if !call.parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.parameters);
        }
        let mut request = self.http.request(call.method, url);
        if let Some(body) = call.body {
            request = request.header("content-type", "application/json").body(body);
        }
        let unreachable = |source: reqwest::Error| CatalogError::Unreachable {
            call: call.what.clone(),
            server: self.server.clone(),
            source: source.without_url(),
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let bytes = self.read(&call.what, response).await?;
        if !status.is_success() {
            return Err(self.refused(call.what, status.as_u16(), &bytes));
        }
        // Some servers answer a delete with nothing at all.
        let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(text).map_err(|error| CatalogError::Answer {
            call: call.what,
            server: self.server.clone(),
            reason: format!(
                "the answer is not what the API says: {}",
                printable(&error.to_string())
            ),
        })
    }

    async fn read(&self, what: &str, mut response: Response) -> Result<Vec<u8>, CatalogError> {
        let mut bytes = Vec::new();
        loop {
            let chunk = response.chunk().await.map_err(|source| CatalogError::Unreachable {
                call: what.to_owned(),
                server: self.server.clone(),
                source: source.without_url(),
            })?;
            let Some(chunk) = chunk else { return Ok(bytes) };
            if self.max_answer_bytes < bytes.len().saturating_add(chunk.len()) {
                return Err(CatalogError::Answer {
                    call: what.to_owned(),
                    server: self.server.clone(),
                    reason: format!("the answer has over {} bytes", self.max_answer_bytes),
                });
            }
            bytes.extend_from_slice(&chunk);
        }
    }

    fn refused(&self, call: String, status: u16, bytes: &[u8]) -> CatalogError {
        let body: ErrorBody = serde_json::from_slice(bytes).unwrap_or_default();
        let message = match body.message.as_str() {
            "" if (300..400).contains(&status) => "a redirect, which is not followed".to_owned(),
            "" => "no reason given".to_owned(),
            message => printable(message),
        };
        CatalogError::Refused {
            call,
            server: self.server.clone(),
            status,
            code: printable(&body.error_code),
            message,
        }
    }
}
