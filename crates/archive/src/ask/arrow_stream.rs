//! Reads an Arrow IPC stream from another process, which is not trusted.
//!
//! The decoder of the library allocates what a compressed buffer says of itself, takes any number
//! of rows for columns that need no bytes, and takes a stream without its end for whole. So each
//! message is looked at before the decoder gets it.
//!
//! Format: <https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format>.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::{MessageHeader, RecordBatch as BatchHeader, root_as_message};

/// Media type of an Arrow IPC stream, as registered with IANA.
pub(crate) const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

/// What a message begins with.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// Bytes before the metadata of a message: that, and the length of the metadata.
const PREFIX_BYTES: usize = 8;
/// Longest metadata of a message: a schema of some thousand columns.
const MAX_METADATA_BYTES: usize = 16 << 20;
/// Rows of a message that need no bytes, such as those of a column that is nothing but null.
const MAX_FREE_ROWS: u64 = 1 << 20;

/// Decodes a stream as it comes.
#[derive(Debug, Default)]
pub(crate) struct ArrowStream {
    decoder: StreamDecoder,
    /// The beginning of the next message.
    pending: Vec<u8>,
    batches: Vec<RecordBatch>,
    ended: bool,
}

impl ArrowStream {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// When they are no Arrow stream, or one that no server of ours would send.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), ArrowError> {
        if self.ended && !bytes.is_empty() {
            return Err(wrong("bytes behind the end"));
        }
        self.pending.extend_from_slice(bytes);
        while let Some(length) = self.message_length()? {
            let rest = self.pending.split_off(length);
            let message = std::mem::replace(&mut self.pending, rest);
            self.decode(Buffer::from(message))?;
            if self.ended && !self.pending.is_empty() {
                return Err(wrong("bytes behind the end"));
            }
        }
        Ok(())
    }

    fn decode(&mut self, mut message: Buffer) -> Result<(), ArrowError> {
        while !message.is_empty() {
            // The library panics at types that it does not know. After an error nobody goes on
            // with this stream, so a decoder in the middle of something does no harm.
            let decoding = AssertUnwindSafe(|| self.decoder.decode(&mut message));
            let decoded = catch_unwind(decoding).map_err(|_| wrong("it cannot be decoded"))?;
            self.batches.extend(decoded?);
        }
        Ok(())
    }

    /// The schema and all rows.
    ///
    /// # Errors
    /// When the stream broke off.
    pub(crate) fn finish(mut self) -> Result<(SchemaRef, Vec<RecordBatch>), ArrowError> {
        if !self.ended || !self.pending.is_empty() {
            return Err(wrong("it broke off"));
        }
        self.decoder.finish()?;
        let schema = self.decoder.schema().ok_or_else(|| wrong("it has no schema"))?;
        Ok((schema, self.batches))
    }

    /// Length of the first message, when all of it is there.
    fn message_length(&mut self) -> Result<Option<usize>, ArrowError> {
        let Some((prefix, rest)) = self.pending.split_first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let [a, b, c, d, size @ ..] = *prefix;
        if [a, b, c, d] != CONTINUATION {
            return Err(wrong("a message without its mark"));
        }
        let size = usize::try_from(u32::from_le_bytes(size)).unwrap_or(usize::MAX);
        if size == 0 {
            self.ended = true;
            return Ok((!self.pending.is_empty()).then_some(PREFIX_BYTES));
        }
        if MAX_METADATA_BYTES < size {
            return Err(wrong("metadata without an end"));
        }
        let Some(metadata) = rest.get(..size) else { return Ok(None) };
        let body = checked_body_bytes(metadata)?;
        let whole = PREFIX_BYTES.saturating_add(size).saturating_add(body);
        Ok((whole <= self.pending.len()).then_some(whole))
    }
}

/// Bytes of the body of a message that may be decoded.
fn checked_body_bytes(metadata: &[u8]) -> Result<usize, ArrowError> {
    let message = root_as_message(metadata).map_err(|error| wrong(&error.to_string()))?;
    let body = u64::try_from(message.bodyLength()).map_err(|_| wrong("a negative length"))?;
    let batch: Option<BatchHeader<'_>> = match message.header_type() {
        MessageHeader::Schema if message.header_as_schema().is_some() => None,
        MessageHeader::RecordBatch => {
            Some(message.header_as_record_batch().ok_or_else(|| wrong("no batch"))?)
        }
        MessageHeader::DictionaryBatch => {
            let dictionary = message.header_as_dictionary_batch();
            Some(dictionary.and_then(|it| it.data()).ok_or_else(|| wrong("no dictionary"))?)
        }
        _ => return Err(wrong("a message of another kind")),
    };
    if let Some(batch) = batch {
        if batch.compression().is_some() {
            return Err(wrong("compressed rows, which were not asked for"));
        }
        let rows = u64::try_from(batch.length()).map_err(|_| wrong("a negative count of rows"))?;
        if body.saturating_mul(8).saturating_add(MAX_FREE_ROWS) < rows {
            return Err(wrong("more rows than it has bytes for"));
        }
    }
    usize::try_from(body).map_err(|_| wrong("a length past this machine's memory"))
}

fn wrong(what: &str) -> ArrowError {
    ArrowError::IpcError(what.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, NullArray, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
    use arrow::ipc::{CompressionType, MetadataVersion};

    use super::*;

    fn batch() -> RecordBatch {
        RecordBatch::try_from_iter([
            ("n", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef),
            ("t", Arc::new(StringArray::from(vec![Some("a"), None, Some("c")])) as ArrayRef),
        ])
        .unwrap()
    }

    fn encoded(batch: &RecordBatch, options: IpcWriteOptions) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer =
            StreamWriter::try_new_with_options(&mut bytes, &batch.schema(), options).unwrap();
        writer.write(batch).unwrap();
        writer.write(batch).unwrap();
        writer.finish().unwrap();
        drop(writer);
        bytes
    }

    fn read(bytes: &[u8], step: usize) -> Result<(SchemaRef, Vec<RecordBatch>), ArrowError> {
        let mut stream = ArrowStream::default();
        for part in bytes.chunks(step) {
            stream.push(part)?;
        }
        stream.finish()
    }

    /// Scenario: a stream in parts of every size; one without rows.
    /// Guarantees: the same rows each time.
    #[test]
    fn parts_make_no_difference() {
        let batch = batch();
        let bytes = encoded(&batch, IpcWriteOptions::default());
        for step in [1, 3, 8, 64, bytes.len()] {
            let (schema, batches) = read(&bytes, step).unwrap();
            assert_eq!(schema, batch.schema());
            assert_eq!(batches, [batch.clone(), batch.clone()]);
        }
        let (_, batches) =
            read(&encoded(&batch.slice(0, 0), IpcWriteOptions::default()), 7).unwrap();
        assert!(batches.iter().all(|batch| batch.num_rows() == 0));
    }

    /// Scenario: a stream that ends at every one of its bytes; more behind its end.
    /// Guarantees: only the whole one is taken for whole.
    #[test]
    fn what_breaks_off_is_not_whole() {
        let bytes = encoded(&batch(), IpcWriteOptions::default());
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end], bytes.len()).is_err(), "{end} of {}", bytes.len());
        }
        let more = [bytes.as_slice(), b"x"].concat();
        assert!(read(&more, more.len()).is_err());
    }

    /// Scenario: compressed rows; more rows than there are bytes for; every byte changed in turn.
    /// Guarantees: an error, or rows; never a panic or an allocation that the bytes do not pay for.
    #[test]
    fn hostile_streams_are_errors() {
        let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5).unwrap();
        let compressed = options.clone().try_with_compression(Some(CompressionType::ZSTD)).unwrap();
        let error = read(&encoded(&batch(), compressed), 1 << 20).unwrap_err();
        assert!(error.to_string().contains("compressed"), "{error}");

        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Null, true)]));
        let nulls = Arc::new(NullArray::new(usize::try_from(MAX_FREE_ROWS).unwrap() + 1));
        let many = RecordBatch::try_new(schema, vec![nulls]).unwrap();
        assert!(read(&encoded(&many, IpcWriteOptions::default()), 1 << 20).is_err());

        let bytes = encoded(&batch(), IpcWriteOptions::default());
        for index in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[index] ^= flip;
                let outcome = catch_unwind(|| read(&changed, changed.len()).is_ok());
                assert!(outcome.is_ok(), "byte {index} ^ {flip:#x} panics");
            }
        }
    }
}
