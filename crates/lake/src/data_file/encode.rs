//! Rows become a Parquet file, of which a row group is in memory at a time, by as many threads as there are idle cores.
//!
//! The caller makes the rows, batch by batch. A thread takes them and encodes the columns; a second one
//! helps it: of each batch both take whichever column is next, so that one of them does all the work
//! while the other's core is needed elsewhere.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowLeafColumn, compute_leaves,
};
use parquet::errors::ParquetError;

use super::format::{ROW_GROUP_ROWS, writer_properties};
use super::{EncodedFile, FileStats};

/// What is known of the rows of a file before they are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// About how many there are.
    pub count: usize,
    /// Some of them are large.
    pub has_large: bool,
}

/// The file that [`encode_batches`] writes of `batches`.
#[cfg(test)]
pub(crate) fn encode_file(
    schema: &SchemaRef,
    batches: &[RecordBatch],
) -> Result<(EncodedFile, Vec<u8>), ParquetError> {
    let count = batches.iter().map(RecordBatch::num_rows).sum();
    let rows = Expected { count, has_large: false };
    let mut bytes = Vec::new();
    let mut batches = batches.iter().cloned().map(Ok);
    let file = encode_batches(schema, rows, &mut batches, &mut bytes)?;
    Ok((file, bytes))
}

/// Writes `batches`, all of one schema, to `out` as one file with statistics; `rows` is what is known of
/// them. Batches are taken one by one, so that no more than a few are in memory.
pub(crate) fn encode_batches(
    schema: &SchemaRef,
    rows: Expected,
    batches: &mut dyn Iterator<Item = Result<RecordBatch, ParquetError>>,
    out: &mut (dyn Write + Send),
) -> Result<EncodedFile, ParquetError> {
    std::thread::scope(|scope| {
        let (hand_over, taken) = sync_channel(BATCHES_AHEAD);
        let encoder = std::thread::Builder::new()
            .name("encode".to_owned())
            .spawn_scoped(scope, move || encode_taken(schema, rows, taken, out))?;
        for batch in batches {
            if hand_over.send(batch?).is_err() {
                // It ended with an error, which is read below.
                break;
            }
        }
        drop(hand_over);
        encoder.join().map_err(|_| panicked())?
    })
}

/// Batches that may wait for the thread that encodes them.
const BATCHES_AHEAD: usize = 1;

/// Rows from which on a second thread is worth being started.
const ROWS_FOR_TWO: usize = 256;

/// Bytes of encoded columns at which a row group ends, whatever rows it has: they are in memory until then.
const ROW_GROUP_BYTES: usize = 16 << 20;

fn encode_taken(
    schema: &SchemaRef,
    rows: Expected,
    batches: Receiver<RecordBatch>,
    out: &mut (dyn Write + Send),
) -> Result<EncodedFile, ParquetError> {
    let properties = writer_properties(rows)?;
    let writer = ArrowWriter::try_new(out, Arc::clone(schema), Some(properties))?;
    let (mut file, columns) = writer.into_serialized_writer()?;
    let mut group = RowGroup {
        schema,
        stats: FileStats::new(schema)?,
        batches,
        ahead: None,
        has_helper: ROWS_FOR_TWO <= rows.count,
    };
    let mut index = 0;
    while group.has_more() {
        let chunks = group.encode(columns.create_column_writers(index)?)?;
        let mut row_group = file.next_row_group()?;
        for chunk in chunks {
            chunk.append_to_row_group(&mut row_group)?;
        }
        row_group.close()?;
        index += 1;
    }
    file.finish()?;
    Ok(EncodedFile { size_bytes: file.bytes_written(), stats: group.stats.finish()? })
}

/// The rows that come, one row group after the other.
struct RowGroup<'a> {
    schema: &'a Schema,
    stats: FileStats,
    batches: Receiver<RecordBatch>,
    /// Taken and not encoded yet.
    ahead: Option<RecordBatch>,
    has_helper: bool,
}

impl RowGroup<'_> {
    fn has_more(&mut self) -> bool {
        if self.ahead.is_none() {
            self.ahead = self.batches.recv().ok();
        }
        self.ahead.is_some()
    }

    /// The next rows that fit into `room`. A batch is cut only if it is larger than a row group.
    fn next(&mut self, room: usize) -> Option<RecordBatch> {
        if !self.has_more() {
            return None;
        }
        let batch = self.ahead.take()?;
        if batch.num_rows() <= room {
            return Some(batch);
        }
        if room < ROW_GROUP_ROWS {
            self.ahead = Some(batch);
            return None;
        }
        self.ahead = Some(batch.slice(room, batch.num_rows() - room));
        Some(batch.slice(0, room))
    }

    /// Encodes the rows of one row group.
    fn encode(
        &mut self,
        columns: Vec<ArrowColumnWriter>,
    ) -> Result<Vec<ArrowColumnChunk>, ParquetError> {
        let columns: Vec<Mutex<ArrowColumnWriter>> = columns.into_iter().map(Mutex::new).collect();
        std::thread::scope(|scope| {
            let mut helper = None;
            if self.has_helper {
                let (hand_over, taken) = sync_channel(1);
                let (done, answers) = sync_channel(1);
                let columns = columns.as_slice();
                std::thread::Builder::new()
                    .name("encode".to_owned())
                    .spawn_scoped(scope, move || help(columns, &taken, &done))?;
                helper = Some((hand_over, answers));
            }
            let mut room = ROW_GROUP_ROWS;
            while encoded_bytes(&columns) < ROW_GROUP_BYTES
                && let Some(batch) = self.next(room)
            {
                room -= batch.num_rows();
                self.stats.add(&batch)?;
                let work = Arc::new(Work::new(self.schema, &batch)?);
                match &helper {
                    None => work.share(&columns)?,
                    Some((hand_over, answers)) => {
                        hand_over.send(Arc::clone(&work)).map_err(|_| panicked())?;
                        let own = work.share(&columns);
                        // The next batch is appended behind all of this one.
                        answers.recv().map_err(|_| panicked())??;
                        own?;
                    }
                }
            }
            Ok::<_, ParquetError>(())
        })?;
        let column = |column: Mutex<ArrowColumnWriter>| {
            column.into_inner().unwrap_or_else(PoisonError::into_inner).close()
        };
        columns.into_iter().map(column).collect()
    }
}

/// Bytes that the columns take, encoded and to be encoded.
fn encoded_bytes(columns: &[Mutex<ArrowColumnWriter>]) -> usize {
    let bytes = |column: &Mutex<ArrowColumnWriter>| {
        column.lock().unwrap_or_else(PoisonError::into_inner).get_estimated_total_bytes()
    };
    columns.iter().map(bytes).sum()
}

/// The columns of a batch.
struct Work {
    leaves: Vec<ArrowLeafColumn>,
    next: AtomicUsize,
}

impl Work {
    fn new(schema: &Schema, batch: &RecordBatch) -> Result<Self, ParquetError> {
        let mut leaves = Vec::new();
        for (field, array) in schema.fields().iter().zip(batch.columns()) {
            leaves.extend(compute_leaves(field, array)?);
        }
        Ok(Self { leaves, next: AtomicUsize::new(0) })
    }

    /// Encodes columns that nobody has taken until there are none.
    fn share(&self, columns: &[Mutex<ArrowColumnWriter>]) -> Result<(), ParquetError> {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let (Some(leaf), Some(column)) = (self.leaves.get(index), columns.get(index)) else {
                return Ok(());
            };
            column.lock().unwrap_or_else(PoisonError::into_inner).write(leaf)?;
        }
    }
}

/// Does a share of each batch, and says so.
fn help(
    columns: &[Mutex<ArrowColumnWriter>],
    batches: &Receiver<Arc<Work>>,
    done: &SyncSender<Result<(), ParquetError>>,
) {
    while let Ok(work) = batches.recv() {
        if done.send(work.share(columns)).is_err() {
            return;
        }
    }
}

fn panicked() -> ParquetError {
    ParquetError::General("the encoder failed".to_owned())
}

#[cfg(test)]
mod tests {
    use std::iter::once;

    use arrow::array::{Int64Array, ListArray, StringArray};
    use arrow::compute::concat_batches;
    use arrow::datatypes::{DataType, Field, Int64Type};
    use bytes::Bytes;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    fn rows(schema: &SchemaRef, first: i64, count: i64) -> RecordBatch {
        let ids = StringArray::from_iter_values((first..first + count).map(|n| format!("tr-{n}")));
        let numbers: Int64Array =
            (first..first + count).map(|n| (n % 3 != 0).then_some(n)).collect();
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(
            (first..first + count).map(|n| Some((0..n % 4).map(Some).collect::<Vec<_>>())),
        );
        let columns: Vec<arrow::array::ArrayRef> =
            vec![Arc::new(ids), Arc::new(numbers), Arc::new(lists)];
        RecordBatch::try_new(Arc::clone(schema), columns).unwrap()
    }

    const fn expected(count: usize) -> Expected {
        Expected { count, has_large: false }
    }

    fn schema() -> SchemaRef {
        let item = Arc::new(Field::new_list_field(DataType::Int64, true));
        Arc::new(Schema::new(vec![
            Field::new("trace_id", DataType::Utf8, false),
            Field::new("total_tokens", DataType::Int64, true),
            Field::new("list", DataType::List(item), true),
        ]))
    }

    /// Scenario: batches of a few rows, of more than a row group, and such that a group would be exceeded;
    /// with and without a second thread.
    /// Guarantees: the file has all rows in order, in groups of no more than so many.
    #[test]
    fn two_threads_write_what_one_does() {
        let schema = schema();
        let mut first = 0;
        let batches: Vec<RecordBatch> = [10, 20_000, 16_384, 16_000, 400, 5]
            .into_iter()
            .map(|count| {
                first += count;
                rows(&schema, first - count, count)
            })
            .collect();
        let all = concat_batches(&schema, &batches).unwrap();
        for announced in [all.num_rows(), 1] {
            let mut each = batches.iter().cloned().map(Ok);
            let mut bytes = Vec::new();
            let file = encode_batches(&schema, expected(announced), &mut each, &mut bytes).unwrap();
            assert_eq!(file.size_bytes, bytes.len());
            let stats: serde_json::Value = serde_json::from_str(&file.stats).unwrap();
            assert_eq!(stats["numRecords"], all.num_rows());
            let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).unwrap();
            let groups: Vec<i64> =
                reader.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
            assert_eq!(groups, [10, 16_384, 3_616, 16_384, 16_000, 405]);
            let read: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
            let read = concat_batches(&read[0].schema(), &read).unwrap();
            assert_eq!(read.columns(), all.columns());
        }
    }

    /// Scenario: no rows at all; rows that could not be made.
    /// Guarantees: a file that says so; the error is told and no thread is left waiting.
    #[test]
    fn nothing_and_a_fault_end_it() {
        let schema = schema();
        let (_, empty) = encode_file(&schema, &[]).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(empty)).unwrap();
        assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
        let fault = Err(ParquetError::General("a row that cannot be made".to_owned()));
        let mut batches = once(Ok(rows(&schema, 0, 300))).chain(once(fault));
        let told =
            encode_batches(&schema, expected(1000), &mut batches, &mut Vec::new()).unwrap_err();
        assert!(told.to_string().contains("cannot be made"), "{told}");
        // More batches than may wait, none of which is of the schema.
        let text = Arc::new(Schema::new(vec![Field::new("trace_id", DataType::Utf8, false)]));
        let ids: arrow::array::ArrayRef = Arc::new(StringArray::from(vec!["tr-1"; 300]));
        let other = RecordBatch::try_new(text, vec![ids]).unwrap();
        let mut batches = (0..50).map(|_| Ok(other.clone()));
        assert!(encode_batches(&schema, expected(1000), &mut batches, &mut Vec::new()).is_err());
    }
}
