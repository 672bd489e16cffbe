//! Makes lambdas survive being moved to a wider input.
//!
//! The physical planner numbers a lambda's parameters behind the columns of the input that the
//! expression was planned for. When an optimizer rule then moves the expression into a scan whose
//! batches have more columns than that, the number of a parameter names one of those columns and
//! evaluation fails. Numbers far beyond any column count mean the same and cannot collide.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::LambdaVariable;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

/// More columns than any batch has.
const FIRST_PARAMETER: usize = 1 << 20;

/// Renumbers lambda parameters in filters and projections. Must run before all other rules.
#[derive(Debug)]
pub(crate) struct LiftLambdaIndices;

impl PhysicalOptimizerRule for LiftLambdaIndices {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(lift_node).map(|lifted| lifted.data)
    }

    fn name(&self) -> &'static str {
        "lift_lambda_indices"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn lift_node(plan: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        let predicate = lift(filter.predicate())?;
        if predicate.transformed {
            let filter = FilterExecBuilder::from(filter).with_predicate(predicate.data).build()?;
            return Ok(Transformed::yes(Arc::new(filter)));
        }
    } else if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let mut lifted_any = false;
        let mut exprs = Vec::with_capacity(projection.expr().len());
        for projected in projection.expr() {
            let expr = lift(&projected.expr)?;
            lifted_any |= expr.transformed;
            exprs.push(ProjectionExpr { expr: expr.data, alias: projected.alias.clone() });
        }
        if lifted_any {
            let projection = ProjectionExec::try_new(exprs, Arc::clone(projection.input()))?;
            return Ok(Transformed::yes(Arc::new(projection)));
        }
    }
    Ok(Transformed::no(plan))
}

fn lift(expr: &Arc<dyn PhysicalExpr>) -> Result<Transformed<Arc<dyn PhysicalExpr>>> {
    Arc::clone(expr).transform_up(|expr| {
        let Some(variable) = expr.downcast_ref::<LambdaVariable>() else {
            return Ok(Transformed::no(expr));
        };
        let index = variable.index() + FIRST_PARAMETER;
        Ok(Transformed::yes(Arc::new(LambdaVariable::new(index, Arc::clone(variable.field())))))
    })
}
