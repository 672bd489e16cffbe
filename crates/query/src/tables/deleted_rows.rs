//! Turns a deletion vector into the selection of the rows that are left.

use parquet::arrow::arrow_reader::{RowSelection, RowSelector};

/// Selects the rows of a file of `row_count` rows that are not in `deleted`.
///
/// `deleted` is ascending. Returns `None` if an index is out of order or outside the file: then
/// the vector does not belong to this file and nothing may be read by it.
pub(crate) fn surviving_rows(deleted: &[u64], row_count: u64) -> Option<RowSelection> {
    let mut selectors = Vec::new();
    let mut next: u64 = 0;
    for &index in deleted {
        let kept = index.checked_sub(next)?;
        if index >= row_count {
            return None;
        }
        if 0 < kept {
            selectors.push(RowSelector::select(usize::try_from(kept).ok()?));
        }
        selectors.push(RowSelector::skip(1));
        next = index + 1;
    }
    let rest = row_count.checked_sub(next)?;
    if 0 < rest {
        selectors.push(RowSelector::select(usize::try_from(rest).ok()?));
    }
    // Neighbouring selectors of one kind are merged by the conversion.
    Some(RowSelection::from(selectors))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: deletions at the start, in the middle, side by side, and at the end.
    /// Guarantees: exactly the others are selected.
    #[test]
    fn selects_what_is_not_deleted() {
        let selection = surviving_rows(&[0, 3, 4, 9], 10);
        let expected = RowSelection::from(vec![
            RowSelector::skip(1),
            RowSelector::select(2),
            RowSelector::skip(2),
            RowSelector::select(4),
            RowSelector::skip(1),
        ]);
        assert_eq!(selection, Some(expected));
    }

    /// Scenario: an index past the end, one given twice, one out of order.
    /// Guarantees: the vector is refused.
    #[test]
    fn refuses_a_vector_of_another_file() {
        assert_eq!(surviving_rows(&[10], 10), None);
        assert_eq!(surviving_rows(&[2, 2], 10), None);
        assert_eq!(surviving_rows(&[5, 1], 10), None);
    }
}
