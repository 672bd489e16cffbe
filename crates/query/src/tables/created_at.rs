//! Bounds on `created_at` that a statement's filters imply, for skipping files.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};

use arrow::datatypes::{DataType, TimeUnit};

use crate::source::CreatedAtBounds;

const CREATED_AT: &str = "created_at";

/// The bounds that hold for every row that all of `filters` let through.
///
/// Comparisons with literals, also inside `AND` and `BETWEEN`, are understood; whatever else is
/// in a filter only makes the bounds wider than they could be.
pub(crate) fn created_at_bounds(filters: &[Expr]) -> CreatedAtBounds {
    let mut bounds = CreatedAtBounds::default();
    for filter in filters {
        tighten(&mut bounds, filter);
    }
    bounds
}

fn tighten(bounds: &mut CreatedAtBounds, filter: &Expr) {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            tighten(bounds, left);
            tighten(bounds, right);
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            if is_created_at(left) {
                apply(bounds, *op, right);
            } else if is_created_at(right)
                && let Some(op) = op.swap()
            {
                apply(bounds, op, left);
            }
        }
        Expr::Between(Between { expr, negated: false, low, high }) if is_created_at(expr) => {
            apply(bounds, Operator::GtEq, low);
            apply(bounds, Operator::LtEq, high);
        }
        _ => {}
    }
}

fn apply(bounds: &mut CreatedAtBounds, op: Operator, literal: &Expr) {
    let Some((floor, ceiling)) = literal_micros(literal) else { return };
    if matches!(op, Operator::Gt | Operator::GtEq | Operator::Eq) {
        let tightest = bounds.from_micros.map_or(floor, |from| from.max(floor));
        bounds.from_micros = Some(tightest);
    }
    if matches!(op, Operator::Lt | Operator::LtEq | Operator::Eq) {
        let tightest = bounds.to_micros.map_or(ceiling, |to| to.min(ceiling));
        bounds.to_micros = Some(tightest);
    }
}

/// The column itself, or a cast of it that keeps its order and its instants.
fn is_created_at(expr: &Expr) -> bool {
    match expr {
        Expr::Column(column) => column.name == CREATED_AT,
        Expr::Cast(cast) => {
            let keeps_instants = matches!(
                cast.field.data_type(),
                DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, _)
            );
            keeps_instants && is_created_at(&cast.expr)
        }
        _ => false,
    }
}

/// A timestamp literal in microseconds, rounded down and rounded up.
fn literal_micros(expr: &Expr) -> Option<(i64, i64)> {
    let Expr::Literal(value, _) = expr else { return None };
    let exact = |micros: Option<i64>| micros.map(|micros| (micros, micros));
    match value {
        ScalarValue::TimestampSecond(Some(value), _) => exact(value.checked_mul(1_000_000)),
        ScalarValue::TimestampMillisecond(Some(value), _) => exact(value.checked_mul(1_000)),
        ScalarValue::TimestampMicrosecond(Some(value), _) => exact(Some(*value)),
        ScalarValue::TimestampNanosecond(Some(value), _) => {
            let floor = value.div_euclid(1_000);
            let ceiling = if value.rem_euclid(1_000) == 0 { floor } else { floor + 1 };
            Some((floor, ceiling))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::{col, lit};

    fn micros(value: i64) -> Expr {
        lit(ScalarValue::TimestampMicrosecond(Some(value), Some("UTC".into())))
    }

    fn nanos(value: i64) -> Expr {
        lit(ScalarValue::TimestampNanosecond(Some(value), None))
    }

    /// Scenario: two-sided range written as a conjunction, one side turned around.
    /// Guarantees: both bounds are found, the tightest of each side wins.
    #[test]
    fn conjunction_gives_the_tightest_bounds() {
        let filter = col("created_at").gt_eq(micros(10)).and(micros(90).gt(col("created_at")));
        let tighter = col("created_at").gt(micros(20));
        let bounds = created_at_bounds(&[filter, tighter, col("trace_id").eq(lit("x"))]);
        assert_eq!(bounds, CreatedAtBounds { from_micros: Some(20), to_micros: Some(90) });
    }

    /// Scenario: bounds that do not fall on a microsecond.
    /// Guarantees: they are widened, never tightened.
    #[test]
    fn nanoseconds_are_rounded_outwards() {
        let bounds = created_at_bounds(&[
            col("created_at").gt_eq(nanos(1_500)),
            col("created_at").lt_eq(nanos(-1_500)),
        ]);
        assert_eq!(bounds, CreatedAtBounds { from_micros: Some(1), to_micros: Some(-1) });
    }

    /// Scenario: a range inside `OR`, a negated range, another column.
    /// Guarantees: none of them bounds anything.
    #[test]
    fn what_is_not_a_conjunction_bounds_nothing() {
        let either = col("created_at").gt(micros(5)).or(col("trace_id").eq(lit("x")));
        let outside = col("created_at").not_between(micros(1), micros(2));
        let other = col("updated_at").gt(micros(7));
        assert_eq!(created_at_bounds(&[either, outside, other]), CreatedAtBounds::default());
    }

    /// Scenario: BETWEEN and equality.
    /// Guarantees: both are closed ranges.
    #[test]
    fn between_and_equality_are_closed_ranges() {
        let bounds = created_at_bounds(&[col("created_at").between(micros(3), micros(8))]);
        assert_eq!(bounds, CreatedAtBounds { from_micros: Some(3), to_micros: Some(8) });
        let bounds = created_at_bounds(&[col("created_at").eq(micros(4))]);
        assert_eq!(bounds, CreatedAtBounds { from_micros: Some(4), to_micros: Some(4) });
    }
}
