//! Statements over real tables and what a table writer is about to commit.

use std::sync::Mutex;

use tempfile::TempDir;
use tracelake_lake::{TableWriter, TraceDraft};
use tracelake_model::{Clock, TraceId};
use tracelake_testkit::{FakeClock, spans};

use super::*;
use crate::fixture::{ask, number, rows, table_name};
use crate::session::{QueryEngine, QueryLimits};

/// Spans of trace 1 with the ids that the archive shows: the id in the request plus one.
const THIRD_SPAN: &str = "select count(*) from traces \
     where array_any_match(spans, s -> s['span_id'] = '0000000000000003')";

/// The pending rows of [`table_name`], as a service would know them.
#[derive(Debug, Default)]
struct Service(Mutex<Option<PendingRows>>);

impl Service {
    fn set(&self, pending: Option<PendingRows>) {
        *self.0.lock().unwrap() = pending;
    }
}

#[async_trait]
impl PendingSource for Service {
    async fn pending(&self, table: &TableName) -> Result<Option<PendingRows>, SourceError> {
        let known = table.to_string().eq_ignore_ascii_case(&table_name().to_string());
        Ok(known.then(|| self.0.lock().unwrap().clone()).flatten())
    }
}

struct Fixture {
    _data: TempDir,
    lake: Lake,
    folder: DataFolder,
    service: Arc<Service>,
    clock: Arc<FakeClock>,
    engine: QueryEngine,
}

impl Fixture {
    fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(data.path()).unwrap();
        let lake = Lake::new().unwrap();
        let service = Arc::new(Service::default());
        let tables = LakeTables::new(lake.clone(), folder.clone())
            .with_pending(Arc::clone(&service) as Arc<dyn PendingSource>);
        let engine = QueryEngine::new(Arc::new(tables), QueryLimits::default()).unwrap();
        Self { _data: data, lake, folder, service, clock: Arc::default(), engine }
    }

    fn writer(&self) -> TableWriter {
        let table = Table::at(&self.lake, self.folder.table(&table_name())).unwrap();
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        TableWriter::open(table, "test".to_owned(), clock, 1_000).unwrap()
    }

    /// Traces, spans and distinct traces, as three statements see them.
    async fn counts(&self) -> [i64; 3] {
        let sum = "select coalesce(sum(cardinality(spans)), 0) from traces";
        [
            number(&self.engine, "select count(*) from traces").await,
            number(&self.engine, sum).await,
            number(&self.engine, "select count(distinct trace_id) from traces").await,
        ]
    }
}

fn draft(trace: u128, numbers: std::ops::Range<u64>) -> TraceDraft {
    let request = spans::simple_request(trace, numbers);
    let spans = spans::decoded(&request);
    TraceDraft { spans, ..TraceDraft::new(TraceId((trace + 1).to_be_bytes())) }
}

/// Scenario: rows for a table that has no folder yet, asked for in another case.
/// Guarantees: they are found; without them the table is unknown.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_pending_rows_alone_is_found() {
    let fixture = Fixture::new();
    ask(&fixture.engine, "select * from traces").await.expect_err("no such table");
    let rows_of = tracelake_lake::rows::encode(&[draft(0, 0..3), draft(1, 0..2)]).unwrap();
    fixture.service.set(Some(PendingRows { batches: vec![rows_of], ..PendingRows::default() }));
    assert_eq!(fixture.counts().await, [2, 5, 2]);
    assert_eq!(number(&fixture.engine, THIRD_SPAN).await, 1);
    let sql = "select * from PRODUCTION.monitoring.Agent_Traces";
    assert_eq!(rows(&ask(&fixture.engine, sql).await.unwrap()), 2);
    // The table comes into being meanwhile.
    fixture.writer();
    assert_eq!(fixture.counts().await, [2, 5, 2]);
}

/// Scenario: new traces are seen as pending, then committed while a query holds the old answer.
/// Guarantees: before, meanwhile and after, each is there once.
#[tokio::test(flavor = "multi_thread")]
async fn pending_rows_are_read_with_their_own_version() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    writer.commit_epoch(1, &[draft(0, 0..3)]).unwrap();
    let fresh = [draft(1, 0..2), draft(2, 0..1)];
    fixture.service.set(Some(writer.preview(&fresh).unwrap().into()));
    assert_eq!(fixture.counts().await, [3, 6, 3]);
    writer.commit_epoch(2, &fresh).unwrap();
    assert_eq!(fixture.counts().await, [3, 6, 3]);
    fixture.service.set(None);
    assert_eq!(fixture.counts().await, [3, 6, 3]);
}

/// Scenario: late pieces of archived traces, one of which was amended before, and a new trace.
/// Guarantees: the amended rows are seen in place of the old ones, before, while and after they
/// are committed.
#[tokio::test(flavor = "multi_thread")]
async fn amended_rows_hide_the_old_ones() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    let traces: Vec<TraceDraft> = (0..4).map(|trace| draft(trace, 0..2)).collect();
    writer.commit_epoch(1, &traces).unwrap();
    writer.commit_epoch(2, &[draft(3, 2..3)]).unwrap();
    assert_eq!(fixture.counts().await, [4, 9, 4]);
    assert_eq!(number(&fixture.engine, THIRD_SPAN).await, 1);

    let late = [draft(1, 2..4), draft(3, 3..4), draft(9, 0..1)];
    let pending = PendingRows::from(writer.preview(&late).unwrap());
    assert_eq!(pending.hidden_rows.values().map(Vec::len).sum::<usize>(), 2);
    fixture.service.set(Some(pending));
    for round in 0..3 {
        assert_eq!(fixture.counts().await, [5, 13, 5], "round {round}");
        assert_eq!(number(&fixture.engine, THIRD_SPAN).await, 2);
        let sql = "select max(cardinality(spans)) from traces \
                   where trace_id like '%00000000000000000000000000000002'";
        assert_eq!(number(&fixture.engine, sql).await, 4);
        let all = ask(&fixture.engine, "select * from traces").await.unwrap();
        assert_eq!(rows(&all), 5);
        let sql = "select count(*) from traces where revision > 1";
        assert_eq!(number(&fixture.engine, sql).await, 2);
        match round {
            0 => drop(writer.commit_epoch(3, &late).unwrap()),
            _ => fixture.service.set(None),
        }
    }
}

/// Scenario: hidden rows that a deletion vector has already, and ones of another file.
/// Guarantees: each row once and in order; other files are let be.
#[test]
fn hidden_rows_join_the_deleted_ones() {
    let hidden = BTreeMap::from([("a".to_owned(), vec![1, 4, 9])]);
    assert_eq!(with_hidden(vec![0, 4, 7], "a", &hidden), [0, 1, 4, 7, 9]);
    assert_eq!(with_hidden(vec![3], "b", &hidden), [3]);
}
