//! Bounds functions that make much of little: `repeat('x', 2000000000)` is one short call.
//!
//! What a function allocates while it makes its result is in no account of the engine's memory
//! pool. So the size of the result is told from the arguments before the function is called.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::compute::cast;
use arrow::compute::kernels::length::length;
use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature,
};

/// Bytes that one call may make, for all rows of a batch.
const MAX_RESULT_BYTES: i64 = 64 << 20;

/// Functions, and how to tell the bytes of one row of their result.
const AMPLIFIERS: [(&str, Estimate); 8] = [
    ("repeat", repeated_text),
    ("replace", replaced_text),
    ("lpad", padded_text),
    ("rpad", padded_text),
    ("array_repeat", repeated_elements),
    ("array_resize", resized_elements),
    ("range", series),
    ("generate_series", series),
];

type Estimate = fn(&Arguments) -> Option<i64>;

/// Puts a bound on each of them in `state`.
pub(super) fn bound_amplifiers(state: &mut SessionState) -> Result<()> {
    for (name, estimate) in AMPLIFIERS {
        let inner = state.udf(name)?;
        state.register_udf(Arc::new(ScalarUDF::new_from_impl(Bounded { inner, estimate })))?;
    }
    Ok(())
}

/// The arguments of one call as arrays; scalars as arrays of one row.
struct Arguments(Vec<ArrayRef>);

impl Arguments {
    fn rows(&self) -> usize {
        self.0.iter().map(|array| array.len()).max().unwrap_or_default()
    }

    /// An argument as whole numbers; dates and times in their own unit. `None` when it is absent
    /// or no number.
    fn numbers(&self, index: usize) -> Option<Int64Array> {
        let numbers = cast(self.0.get(index)?, &DataType::Int64).ok()?;
        numbers.as_any().downcast_ref::<Int64Array>().cloned()
    }

    /// Sum over all rows of what `bytes` says for the numbers of a row. Null counts as 0.
    fn sum<const N: usize>(&self, indices: [usize; N], bytes: fn([i64; N]) -> i64) -> Option<i64> {
        let mut columns = Vec::with_capacity(N);
        for index in indices {
            columns.push(self.numbers(index)?);
        }
        let mut sum = 0_i64;
        for row in 0..self.rows() {
            let mut values = [0; N];
            for (value, column) in values.iter_mut().zip(&columns) {
                *value = number_at(column, row);
            }
            sum = sum.saturating_add(bytes(values).max(0));
        }
        Some(sum)
    }
}

/// The value in `row`, or that of the only row.
fn number_at(column: &Int64Array, row: usize) -> i64 {
    let row = if column.len() == 1 { 0 } else { row };
    if column.is_valid(row) { column.value(row) } else { 0 }
}

fn repeated_text(arguments: &Arguments) -> Option<i64> {
    let lengths = length(arguments.0.first()?).ok()?;
    let with_lengths = Arguments(vec![lengths, Arc::clone(arguments.0.get(1)?)]);
    with_lengths.sum([0, 1], |[length, count]| length.saturating_mul(count))
}

/// Every place may be one that is replaced: one for each of the bytes that are looked for.
fn replaced_text(arguments: &Arguments) -> Option<i64> {
    let mut lengths = Vec::with_capacity(3);
    for text in arguments.0.get(..3)? {
        lengths.push(length(text).ok()?);
    }
    Arguments(lengths).sum([0, 1, 2], |[text, from, to]| {
        (text / from.max(1)).saturating_add(1).saturating_mul(to)
    })
}

/// A character takes up to four bytes.
fn padded_text(arguments: &Arguments) -> Option<i64> {
    arguments.sum([1], |[characters]| characters.saturating_mul(4))
}

fn repeated_elements(arguments: &Arguments) -> Option<i64> {
    let element = arguments.0.first()?;
    let bytes = element.get_array_memory_size() / element.len().max(1);
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX).max(8);
    Some(arguments.sum([1], |[count]| count)?.saturating_mul(bytes))
}

fn resized_elements(arguments: &Arguments) -> Option<i64> {
    arguments.sum([1], |[count]| count.saturating_mul(8))
}

/// Numbers of eight bytes; a series of dates or times is taken for one of its smallest steps when
/// its step is no number of days or less.
fn series(arguments: &Arguments) -> Option<i64> {
    if arguments.0.len() < 2 {
        return arguments.sum([0], |[stop]| stop.saturating_mul(8));
    }
    let Some(step) = arguments.0.get(2) else {
        return arguments.sum([0, 1], |[start, stop]| stop.abs_diff(start).clamp_bytes(1));
    };
    if matches!(step.data_type(), DataType::Interval(_)) {
        return times(arguments);
    }
    arguments
        .sum([0, 1, 2], |[start, stop, step]| stop.abs_diff(start).clamp_bytes(step.unsigned_abs()))
}

/// A series of dates or times by an interval, all in nanoseconds.
fn times(arguments: &Arguments) -> Option<i64> {
    use arrow::array::IntervalMonthDayNanoArray;
    use arrow::datatypes::{IntervalUnit, TimeUnit};
    const DAY_NANOS: i64 = 86_400_000_000_000;
    let nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let unit = DataType::Interval(IntervalUnit::MonthDayNano);
    let steps = cast(arguments.0.get(2)?, &unit).ok()?;
    let steps = steps.as_any().downcast_ref::<IntervalMonthDayNanoArray>()?;
    let steps: Int64Array = steps
        .iter()
        .map(|step| {
            let step = step?;
            let days = i64::from(step.months).saturating_mul(28).saturating_add(step.days.into());
            Some(days.saturating_mul(DAY_NANOS).saturating_add(step.nanoseconds))
        })
        .collect();
    // A time that nanoseconds cannot hold becomes null, and so does not count: the function
    // itself refuses these.
    let start = cast(arguments.0.first()?, &nanos).ok()?;
    let stop = cast(arguments.0.get(1)?, &nanos).ok()?;
    Arguments(vec![start, stop, Arc::new(steps)])
        .sum([0, 1, 2], |[start, stop, step]| stop.abs_diff(start).clamp_bytes(step.unsigned_abs()))
}

trait ClampBytes {
    /// Bytes of so many steps of eight bytes.
    fn clamp_bytes(self, step: u64) -> i64;
}

impl ClampBytes for u64 {
    fn clamp_bytes(self, step: u64) -> i64 {
        i64::try_from(self / step.max(1)).unwrap_or(i64::MAX).saturating_mul(8)
    }
}

/// A function that says no before it makes too much.
#[derive(Debug)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    estimate: Estimate,
}

impl PartialEq for Bounded {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Bounded {}

impl Hash for Bounded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl Bounded {
    fn check(&self, arguments: &[ColumnarValue]) -> Result<()> {
        let mut arrays = Vec::with_capacity(arguments.len());
        for argument in arguments {
            arrays.push(match argument {
                ColumnarValue::Array(array) => Arc::clone(array),
                ColumnarValue::Scalar(scalar) => scalar.to_array_of_size(1)?,
            });
        }
        match (self.estimate)(&Arguments(arrays)) {
            Some(bytes) if MAX_RESULT_BYTES < bytes => {
                Err(DataFusionError::ResourcesExhausted(format!(
                    "{} would make {bytes} bytes at once, at most {MAX_RESULT_BYTES} are allowed",
                    self.name()
                )))
            }
            _ => Ok(()),
        }
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(
        &self,
        arguments: ReturnFieldArgs<'_>,
    ) -> Result<arrow::datatypes::FieldRef> {
        self.inner.return_field_from_args(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.check(&arguments.args)?;
        self.inner.invoke_with_args(arguments)
    }

    fn simplify(
        &self,
        arguments: Vec<Expr>,
        context: &SimplifyContext,
    ) -> Result<ExprSimplifyResult> {
        self.inner.simplify(arguments, context)
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn evaluate_bounds(&self, input: &[&Interval]) -> Result<Interval> {
        self.inner.evaluate_bounds(input)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}
