use std::sync::Arc;
use tracelake_decode::DecodedRecord;
use tracelake_intake::*;
use tracelake_journal::*;
use tracelake_model::*;
use tracelake_registry::Registry;
#[tokio::main]
async fn main() {
    let dir = std::path::PathBuf::from(std::env::args().nth(1).unwrap());
    let registry = Arc::new(Registry::open(&dir, Arc::new(SystemClock)).await.unwrap());
    let (journal, mut events, _) =
        Journal::<DecodedRecord>::open(JournalOptions::new(dir.join("journal"))).unwrap();
    let intake = Arc::new(Intake::new(IntakeParts {
        journal: Arc::new(journal),
        registry,
        clock: Arc::new(SystemClock),
        limits: Limits::default(),
        settings: IntakeSettings::new("a.b.c".parse().unwrap()),
        admission: None,
    }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("PORT {}", listener.local_addr().unwrap().port());
    let router = http_router(intake).layer(axum::middleware::from_fn(
        |request: axum::extract::Request, next: axum::middleware::Next| async move {
            let line = format!("{} {}", request.method(), request.uri());
            let answer = next.run(request).await;
            if std::env::var("QUIET").is_err() {
                println!("{line} -> {}", answer.status());
            }
            answer
        },
    ));
    std::thread::spawn(move || {
        while let Some(event) = events.blocking_recv() {
            if std::env::var("QUIET").is_ok() {
                continue;
            }
            if let Event::Appended { attachment, .. } = event {
                match &attachment.content {
                    tracelake_decode::RecordContent::Spans(s) => println!(
                        "  journal {:?} {} spans {} rejects",
                        attachment.header.kind,
                        s.spans.len(),
                        s.rejects.len()
                    ),
                    tracelake_decode::RecordContent::TraceInfo(i) => println!(
                        "  journal info {} announced {:?}",
                        i.trace_id,
                        i.announced_spans()
                    ),
                }
            }
        }
    });
    axum::serve(listener, router).await.unwrap();
}
