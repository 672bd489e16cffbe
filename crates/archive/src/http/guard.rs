//! Keeps web pages of others away from a service on the machine of who looks at them.
//!
//! A browser sends requests of any page to any address, this machine's included. It says whose page
//! it was in `Origin`, and a page that has its own name resolved to this machine is told by `Host`.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::fault::{Fault, FaultKind};

/// Refuses a request that a page of another server made. Clients that are no browsers send no
/// `Origin`.
pub(crate) async fn refuse_foreign_pages(request: Request, next: Next) -> Response {
    if is_foreign(request.headers()) {
        let message = "a page of another server asks";
        return refusal(message, "ask without a browser, or from a page of this server");
    }
    next.run(request).await
}

/// Refuses a request for a server by a name that can be resolved to any address.
pub(crate) async fn refuse_foreign_names(request: Request, next: Next) -> Response {
    let host = request.uri().host().map(str::to_owned);
    let host = host.or_else(|| Some(host_name(text(request.headers(), HOST)?).to_owned()));
    if host.is_some_and(|host| !is_own_name(&host)) {
        let message = "the request names another server";
        return refusal(message, "name this one by its address, or as localhost");
    }
    next.run(request).await
}

fn refusal(message: &str, hint: &str) -> Response {
    let fault = Fault::new(FaultKind::InvalidParameterValue, message).with_hint(hint);
    let mut response = fault.into_response();
    *response.status_mut() = StatusCode::FORBIDDEN;
    response
}

fn is_foreign(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let origin = origin.to_str().ok().and_then(|origin| Some(origin.split_once("://")?.1));
    origin.is_none() || origin != text(headers, HOST)
}

fn text(headers: &HeaderMap, name: axum::http::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// A host without its port.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// An address, or the one name that every machine resolves to itself.
fn is_own_name(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    /// Scenario: requests of clients, of the service's own pages, and of pages from elsewhere.
    /// Guarantees: only the last are foreign.
    #[test]
    fn pages_of_others_are_foreign() {
        assert!(!is_foreign(&headers(&[("host", "127.0.0.1:5000")])));
        let own = [("host", "127.0.0.1:5000"), ("origin", "http://127.0.0.1:5000")];
        assert!(!is_foreign(&headers(&own)));
        for origin in ["http://evil.example", "null", "http://127.0.0.1:8000", "\u{e9}"] {
            assert!(is_foreign(&headers(&[("host", "127.0.0.1:5000"), ("origin", origin)])));
        }
    }

    /// Scenario: hosts by address, by the machine's own name, and by others.
    /// Guarantees: a name that anyone may point here is not its own.
    #[test]
    fn names_that_move_are_not_its_own() {
        for own in ["127.0.0.1:5000", "localhost", "LOCALHOST:80", "[::1]:5000", "10.1.2.3"] {
            assert!(is_own_name(host_name(own)), "{own}");
        }
        for other in
            ["evil.example", "evil.example:5000", "localhost.evil.example", "1.2.3.4.nip.io"]
        {
            assert!(!is_own_name(host_name(other)), "{other}");
        }
    }
}
