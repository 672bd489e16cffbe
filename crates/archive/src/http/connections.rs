//! The door for HTTP: connections, answered at whatever date the system shows.
//!
//! hyper keeps the text of the date once per thread, makes it anew with each poll of a connection, whether
//! it is sent or not, and panics where a date is before 1970 or past what HTTP can say. While the wall
//! clock is behind the text that a thread has, it makes none. So a thread takes its first look while the
//! date can be said ([`know_date`], as the threads of a service start), and one that has none waits with its
//! connections ([`AtAnyDate`]). What is sent is the date of the data folder's clock ([`dated`]).

use std::cell::Cell;
use std::future::Future;
use std::io::Cursor;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware::map_response;
use axum::response::Response;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tracelake_model::{Clock, SystemClock};
use tracing::{debug, error};

/// Wait after a connection could not be taken, such as for want of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// How often a connection looks whether the date can be said.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

thread_local! {
    /// Whether hyper has a date on this thread.
    static KNOWS_DATE: Cell<bool> = const { Cell::new(false) };
}

/// True once hyper has a date on this thread: from then on it needs no other one to go on.
pub fn know_date() -> bool {
    if KNOWS_DATE.get() {
        return true;
    }
    // What it shows at the end of its range may be past it.
    let now = SystemClock.now_unix_nano();
    if now == 0 || now == u64::MAX {
        return false;
    }
    // A connection that is at its end looks at the date and ends.
    let nobody = TowerToHyperService::new(Router::new());
    let builder = Builder::new(TokioExecutor::new()).http1_only();
    let ended = TokioIo::new(Cursor::new(Vec::new()));
    let connection = std::pin::pin!(builder.serve_connection(ended, nobody));
    let looked = connection.poll(&mut Context::from_waker(Waker::noop()));
    KNOWS_DATE.set(looked.is_ready());
    looked.is_ready()
}

/// Gives each answer the date of `clock`, so that hyper looks for none.
pub(crate) fn dated(router: Router, clock: Arc<dyn Clock>) -> Router {
    router.layer(map_response(move |mut answer: Response| {
        if let Some(date) = date_text(clock.now_unix_nano()) {
            answer.headers_mut().insert(header::DATE, date);
        }
        std::future::ready(answer)
    }))
}

/// A date as HTTP has it.
fn date_text(unix_nano: u64) -> Option<HeaderValue> {
    let seconds = i64::try_from(unix_nano / 1_000_000_000).ok()?;
    let date = chrono::DateTime::from_timestamp(seconds, 0)?;
    HeaderValue::try_from(date.format("%a, %d %b %Y %H:%M:%S GMT").to_string()).ok()
}

/// Takes connections until `stop`, then lets those end that are there.
pub(crate) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().auto_date_header(false);
    builder.http2().auto_date_header(false);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    error!(%error, "a connection ended by a defect");
                }
                continue;
            }
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(
                    builder.clone(),
                    stream,
                    router.clone(),
                    stop.clone(),
                ));
            }
            Err(error) if is_of_one(&error) => {}
            Err(error) => {
                error!(%error, "no connection taken");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// True when a connection was gone before it was taken.
fn is_of_one(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn connection(
    builder: Builder<TokioExecutor>,
    stream: TcpStream,
    router: Router,
    stop: CancellationToken,
) {
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut is_stopping = false;
    loop {
        tokio::select! {
            ended = (AtAnyDate { connection: connection.as_mut(), wait: None }) => {
                if let Err(error) = ended {
                    debug!(error, "connection");
                }
                return;
            }
            () = stop.cancelled(), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Goes on with a connection on threads that know a date.
struct AtAnyDate<'a, F> {
    connection: Pin<&'a mut F>,
    wait: Option<Pin<Box<Sleep>>>,
}

impl<F: Future> Future for AtAnyDate<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        while !know_date() {
            let wait = self.wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK_AGAIN)));
            if wait.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.wait = None;
        }
        self.connection.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the first date of a clock, that of the RFC's example, a leap day, and the last one.
    /// Guarantees: each in the form of RFC 9110.
    #[test]
    fn dates_are_as_http_has_them() {
        let text = |nano| date_text(nano).map(|text| text.to_str().unwrap().to_owned());
        assert_eq!(text(0).as_deref(), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
        let example = 784_111_777_000_000_000;
        assert_eq!(text(example).as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        let leap_day = 1_835_481_599_999_999_999;
        assert_eq!(text(leap_day).as_deref(), Some("Tue, 29 Feb 2028 23:59:59 GMT"));
        assert_eq!(text(u64::MAX).as_deref(), Some("Sun, 21 Jul 2554 23:34:33 GMT"));
    }

    /// Scenario: a thread looks at the date for the first time.
    /// Guarantees: hyper has it from then on, without a runtime.
    #[test]
    fn a_thread_knows_the_date_after_one_look() {
        assert!(!KNOWS_DATE.get());
        assert!(know_date());
        assert!(KNOWS_DATE.get());
    }
}
