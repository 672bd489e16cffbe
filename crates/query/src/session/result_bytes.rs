//! What the rows of a result weigh.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;

/// Bytes of the values of `batch`, in whatever larger buffers they lie.
///
/// A few rows cut off a long batch weigh what they are, not what the batch was: pending rows are
/// all in one, and a limit cuts a few off.
pub(crate) fn rows_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(array_bytes).sum()
}

fn array_bytes(array: &ArrayRef) -> usize {
    match array.data_type() {
        DataType::Struct(_) => array.as_struct().columns().iter().map(array_bytes).sum(),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let offsets = list.value_offsets();
            offset_bytes(offsets) + part_bytes(list.values(), offsets)
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let offsets = map.value_offsets();
            let entries = [map.keys(), map.values()];
            offset_bytes(offsets)
                + entries.map(|array| part_bytes(array, offsets)).iter().sum::<usize>()
        }
        DataType::Utf8View | DataType::BinaryView | DataType::Dictionary(..) => {
            array.get_array_memory_size()
        }
        _ => {
            let sliced = array.to_data().get_slice_memory_size();
            sliced.unwrap_or_else(|_| array.get_array_memory_size())
        }
    }
}

fn offset_bytes(offsets: &[i32]) -> usize {
    size_of_val(offsets)
}

/// Bytes of the part of `values` that `offsets` span.
fn part_bytes(values: &ArrayRef, offsets: &[i32]) -> usize {
    let bound = |offset: Option<&i32>| offset.and_then(|offset| usize::try_from(*offset).ok());
    let start = bound(offsets.first()).unwrap_or(0);
    let end = bound(offsets.last()).unwrap_or(start);
    array_bytes(&values.slice(start, end.saturating_sub(start)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{ListArray, MapBuilder, StringArray, StringBuilder, StructArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{Field, Fields};

    /// Scenario: one row in a thousand, with lists, structs, maps and long texts.
    /// Guarantees: it weighs a thousandth, give or take what a slice needs of its own.
    #[test]
    fn a_slice_weighs_what_it_holds() {
        let text = "x".repeat(100);
        let texts: ArrayRef = Arc::new(StringArray::from(vec![text.as_str(); 3_000]));
        let fields = Fields::from(vec![Field::new("text", DataType::Utf8, true)]);
        let spans: ArrayRef =
            Arc::new(StructArray::try_new(fields, vec![Arc::clone(&texts)], None).unwrap());
        let element = Arc::new(Field::new("element", spans.data_type().clone(), true));
        let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(3, 1_000));
        let list: ArrayRef = Arc::new(ListArray::try_new(element, offsets, spans, None).unwrap());
        let mut tags = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        for _ in 0..1_000 {
            tags.keys().append_value("key");
            tags.values().append_value(&text);
            tags.append(true).unwrap();
        }
        let tags: ArrayRef = Arc::new(tags.finish());
        let batch = RecordBatch::try_from_iter([("spans", list), ("tags", tags)]).unwrap();
        let whole = rows_bytes(&batch);
        assert!((400_000..450_000).contains(&whole), "{whole}");
        let one = rows_bytes(&batch.slice(500, 1));
        assert!((400..600).contains(&one), "{one}");
    }
}
