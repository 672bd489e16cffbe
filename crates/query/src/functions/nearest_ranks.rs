//! `nearest_ranks(BIGINT)`: exact percentiles of a group in one pass.
//!
//! The answer is a list of the values at the nearest ranks of [`PERCENTS`], null for a group
//! without values: what `array_sort(array_agg(value))` has at the positions
//! `ceil(n * percent / 100)`, counted from 1, without null values. Values are kept as they are,
//! 8 bytes each, once for all percentiles. The engine's `array_agg` takes time by the square of
//! its input, and its `percentile_cont` interpolates in floats, as no other engine does.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, Int64Builder, ListArray, ListBuilder,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

/// The percentiles, in the order of the answer.
pub(crate) const PERCENTS: [usize; 3] = [50, 95, 99];

/// The function's name in SQL.
pub(crate) const NAME: &str = "nearest_ranks";

const VALUE_BYTES: usize = size_of::<i64>();

/// The function; see the module.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct NearestRanks {
    signature: Signature,
}

impl NearestRanks {
    pub(crate) fn new() -> Self {
        Self { signature: Signature::exact(vec![DataType::Int64], Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for NearestRanks {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(list_type())
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let name = format_state_name(args.name, "values");
        Ok(vec![Arc::new(Field::new(name, list_type(), true))])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return Err(DataFusionError::NotImplemented(format!("{NAME} of DISTINCT values")));
        }
        Ok(Box::<OneGroup>::default())
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(
        &self,
        _: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::<Groups>::default())
    }
}

fn list_type() -> DataType {
    DataType::List(Arc::new(element()))
}

fn element() -> Field {
    Field::new_list_field(DataType::Int64, true)
}

/// The values of each group.
#[derive(Debug, Default)]
struct Groups {
    values: Vec<Vec<i64>>,
    /// Bytes that the inner vectors hold; counting them anew for each batch would be quadratic.
    value_bytes: usize,
}

impl Groups {
    fn group(&mut self, index: usize) -> Result<&mut Vec<i64>> {
        self.values.get_mut(index).ok_or_else(|| internal("a group that was not announced"))
    }

    fn extend(&mut self, index: usize, added: &[i64]) -> Result<()> {
        let group = self.group(index)?;
        let before = group.capacity();
        if before < group.len() + added.len() {
            // A quarter more instead of twice as much: these vectors are most of the memory.
            group.reserve_exact(added.len().max(group.len() / 4).max(4));
        }
        group.extend_from_slice(added);
        let grown = group.capacity() - before;
        self.value_bytes += grown * VALUE_BYTES;
        Ok(())
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<Vec<i64>> {
        let taken = emit_to.take_needed(&mut self.values);
        let freed: usize = taken.iter().map(Vec::capacity).sum();
        self.value_bytes = self.value_bytes.saturating_sub(freed * VALUE_BYTES);
        taken
    }
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.values.resize(total_num_groups, Vec::new());
        let values = integers(values)?;
        for (row, group) in group_indices.iter().enumerate() {
            if counts(values, opt_filter, row) {
                self.extend(*group, &[values.value(row)])?;
            }
        }
        Ok(())
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.values.resize(total_num_groups, Vec::new());
        let lists = values
            .first()
            .and_then(|array| array.as_list_opt::<i32>())
            .ok_or_else(|| internal("a state that is no list"))?;
        for (list, group) in lists.iter().zip(group_indices) {
            if let Some(list) = list {
                self.extend(*group, integers(&[list])?.values())?;
            }
        }
        Ok(())
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let groups = self.take(emit_to);
        let total: usize = groups.iter().map(Vec::len).sum();
        i32::try_from(total).map_err(|_| internal("more values than one array holds"))?;
        let offsets = OffsetBuffer::from_lengths(groups.iter().map(Vec::len));
        let mut values = Vec::with_capacity(total);
        for group in groups {
            values.extend(group);
        }
        let values = Arc::new(Int64Array::from(values));
        Ok(vec![Arc::new(ListArray::try_new(Arc::new(element()), offsets, values, None)?)])
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let mut ranks = ListBuilder::new(Int64Builder::new());
        for mut values in self.take(emit_to) {
            for percent in PERCENTS {
                if let Some(value) = nearest_rank(&mut values, percent) {
                    ranks.values().append_value(value);
                }
            }
            ranks.append(!values.is_empty());
        }
        Ok(Arc::new(ranks.finish()))
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let values = integers(values)?;
        let mut lists = ListBuilder::new(Int64Builder::new());
        for row in 0..values.len() {
            let counted = counts(values, opt_filter, row);
            if counted {
                lists.values().append_value(values.value(row));
            }
            lists.append(counted);
        }
        Ok(vec![Arc::new(lists.finish())])
    }

    fn size(&self) -> usize {
        self.values.capacity() * size_of::<Vec<i64>>() + self.value_bytes
    }
}

/// A statement without groups: the same with one group.
#[derive(Debug, Default)]
struct OneGroup(Groups);

impl Accumulator for OneGroup {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values.first().map_or(0, |array| array.len());
        self.0.update_batch(values, &vec![0; rows], None, 1)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let rows = states.first().map_or(0, |array| array.len());
        self.0.merge_batch(states, &vec![0; rows], 1)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.values.resize(1, Vec::new());
        let states = GroupsAccumulator::state(&mut self.0, EmitTo::All)?;
        states.iter().map(|state| ScalarValue::try_from_array(state, 0)).collect()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.0.values.resize(1, Vec::new());
        let ranks = GroupsAccumulator::evaluate(&mut self.0, EmitTo::All)?;
        ScalarValue::try_from_array(&ranks, 0)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + GroupsAccumulator::size(&self.0)
    }
}

/// The value at position `ceil(n * percent / 100)` of `n` sorted values, in any order now.
fn nearest_rank(values: &mut [i64], percent: usize) -> Option<i64> {
    let rank = (values.len() * percent).div_ceil(100);
    let index = rank.checked_sub(1)?;
    Some(*values.select_nth_unstable(index).1)
}

fn counts(values: &Int64Array, filter: Option<&BooleanArray>, row: usize) -> bool {
    values.is_valid(row) && filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
}

fn integers(values: &[ArrayRef]) -> Result<&Int64Array> {
    values
        .first()
        .and_then(|array| array.as_primitive_opt::<Int64Type>())
        .ok_or_else(|| internal("values that are no BIGINT"))
}

fn internal(found: &str) -> DataFusionError {
    DataFusionError::Internal(format!("{NAME}: {found}"))
}

#[cfg(test)]
mod tests {
    use crate::error::QueryError;
    use crate::fixture::{TestTable, ask, engine_with, number};
    use crate::session::QueryLimits;

    /// Scenario: groups of many sizes, null values, a filter, no groups; in one
    /// partition and in several.
    /// Guarantees: the answer is what a sorted list has at the nearest ranks.
    #[tokio::test(flavor = "multi_thread")]
    async fn equals_the_elements_of_a_sorted_list() {
        let values = "(SELECT value % 40 * (value % 3) AS g, \
             CASE WHEN value % 7 = 0 THEN NULL ELSE value * 7919 % 1009 - 500 END AS v \
             FROM generate_series(1, 20000))";
        let lists = "count(v) AS n, array_sort(array_agg(v) FILTER (WHERE v IS NOT NULL)) AS s";
        let wrong = "n < 2 OR cardinality(r) <> 3 OR r[1] <> s[(n * 50 + 99) / 100] \
             OR r[2] <> s[(n * 95 + 99) / 100] OR r[3] <> s[(n * 99 + 99) / 100]";
        for partitions in [1, 4] {
            let limits = QueryLimits { partitions, ..QueryLimits::default() };
            let engine = engine_with(TestTable::new(), limits);
            let groups = format!("SELECT nearest_ranks(v) AS r, {lists} FROM {values} GROUP BY g");
            let one = format!("SELECT nearest_ranks(v) AS r, {lists} FROM {values}");
            let filtered = format!(
                "SELECT nearest_ranks(v) FILTER (WHERE 9 < v) AS r, {lists} \
                 FROM (SELECT g, CASE WHEN 9 < v THEN v END AS v FROM {values}) GROUP BY g"
            );
            for (sql, rows) in [(&groups, 60), (&one, 1), (&filtered, 60)] {
                assert_eq!(number(&engine, &format!("SELECT count(*) FROM ({sql})")).await, rows);
                let sql = format!("SELECT count(*) FROM ({sql}) WHERE {wrong}");
                assert_eq!(number(&engine, &sql).await, 0, "{sql}");
            }
        }
    }

    /// Scenario: no values at all, with groups and without; other types than integers.
    /// Guarantees: null; a text is refused when the statement is planned.
    #[tokio::test]
    async fn nothing_has_no_ranks() {
        let engine = engine_with(TestTable::new(), QueryLimits::default());
        for sql in [
            "SELECT count(*) FROM (SELECT nearest_ranks(total_tokens) r FROM traces) WHERE r IS NULL",
            "SELECT count(*) FROM (SELECT nearest_ranks(CAST(NULL AS BIGINT)) r \
             FROM generate_series(1, 3) GROUP BY value % 1) WHERE r IS NULL AND r[1] IS NULL",
        ] {
            assert_eq!(number(&engine, sql).await, 1, "{sql}");
        }
        let error = ask(&engine, "SELECT nearest_ranks(trace_id) FROM traces").await.unwrap_err();
        assert!(matches!(error, QueryError::Plan { .. }), "{error:?}");
    }
}
