use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use super::*;
use crate::error::CatalogErrorKind;

/// A server that answers every request with the same bytes and keeps what it was sent.
async fn server(answer: String) -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/api/2.1/unity-catalog", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&seen);
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut bytes = vec![0; 4096];
            let read = connection.read(&mut bytes).await.unwrap_or(0);
            kept.lock().await.push_str(&String::from_utf8_lossy(&bytes[..read]));
            connection.write_all(answer.as_bytes()).await.ok();
        }
    });
    (url, seen)
}

/// An answer that is as long as it says.
fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn client(url: &str) -> UnityClient {
    let token = Some("hush-hush".to_owned());
    let timeout = Duration::from_millis(500);
    UnityClient::new(&ClientOptions {
        token,
        timeout,
        max_answer_bytes: 1000,
        ..ClientOptions::new(url)
    })
    .unwrap()
}

fn name() -> TableName {
    "prod.m%n.t".parse().unwrap()
}

/// Scenario: a server that writes integers as strings and members that nobody knows.
/// Guarantees: the answer is read; the name goes into the path encoded, the token into a header.
#[tokio::test]
async fn reads_what_servers_write_differently() {
    let body = r#"{"name":"t","created_at":"17","owner":null,"browse_only":false}"#;
    let (url, seen) = server(answer("200 OK", body)).await;
    let table = client(&url).table(&name()).await.unwrap();
    assert_eq!(table.created_at, Some(17));
    let seen = seen.lock().await;
    assert!(seen.starts_with("GET /api/2.1/unity-catalog/tables/prod.m%25n.t HTTP"), "{seen}");
    assert!(seen.contains("authorization: Bearer hush-hush"), "{seen}");
}

/// Scenario: a server that sends the client elsewhere.
/// Guarantees: it does not go there, and says so.
#[tokio::test]
async fn follows_no_redirect() {
    let (elsewhere, seen) = server(answer("200 OK", "{}")).await;
    let head = format!("HTTP/1.1 302 Found\r\nlocation: {elsewhere}\r\ncontent-length: 0\r\n\r\n");
    let (url, _) = server(head).await;
    let error = client(&url).table(&name()).await.unwrap_err();
    assert!(error.to_string().contains("redirect"), "{error}");
    assert!(seen.lock().await.is_empty());
}

/// Scenario: answers that are too long, no JSON, errors, or never end.
/// Guarantees: each is an error of the right kind that names call and server, never the token.
#[tokio::test]
async fn bad_answers_are_errors() {
    let taken = r#"{"error_code":"TABLE_ALREADY_EXISTS","message":"there"}"#;
    let cut_short = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_owned();
    let cases = [
        (answer("200 OK", &" ".repeat(2000)), CatalogErrorKind::Unavailable),
        (answer("200 OK", "<ht>"), CatalogErrorKind::Unavailable),
        (answer("404 x", ""), CatalogErrorKind::NotFound),
        (answer("503 x", ""), CatalogErrorKind::Unavailable),
        (answer("400 x", taken), CatalogErrorKind::AlreadyExists),
        (cut_short, CatalogErrorKind::Unavailable),
    ];
    for (answer, kind) in cases {
        let (url, _) = server(answer).await;
        let error = client(&url).table(&name()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("get table `prod.m%n.t` at `127.0.0.1:"), "{error}");
        assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
    }
}

/// Scenario: URLs that are none of a server, and options in a log line.
/// Guarantees: refused without the password; the token is not shown.
#[test]
fn refuses_urls_that_are_no_servers() {
    for wrong in ["", "file:///etc", "ftp://h/", "http://user:pass@h/"] {
        let error = UnityClient::new(&ClientOptions::new(wrong)).unwrap_err();
        assert!(!error.to_string().contains("pass"), "{error}");
    }
    let options = ClientOptions { token: Some("hush".into()), ..ClientOptions::new("http://h") };
    assert!(!format!("{options:?}").contains("hush"));
    assert!(!format!("{:?}", client("http://h")).contains("hush"));
}
