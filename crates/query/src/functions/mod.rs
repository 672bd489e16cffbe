//! Functions beside DataFusion's own: names under which Spark's users know them, and exact
//! percentiles.

pub(crate) mod nearest_ranks;

use std::sync::Arc;

use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::AggregateUDF;

use nearest_ranks::NearestRanks;

/// Spark's names by the function that does the same.
const SCALAR_ALIASES: [(&str, &str); 1] = [("to_unixtime", "unix_timestamp")];
const LAMBDA_ALIASES: [(&str, &str); 2] =
    [("array_filter", "filter"), ("array_transform", "transform")];

/// Adds the functions and aliases to `state`.
pub(crate) fn register(state: &mut SessionState) -> datafusion::common::Result<()> {
    state.register_udaf(Arc::new(AggregateUDF::from(NearestRanks::new())))?;
    for (name, alias) in SCALAR_ALIASES {
        let function = state.udf(name)?.as_ref().clone().with_aliases([alias]);
        state.register_udf(Arc::new(function))?;
    }
    for (name, alias) in LAMBDA_ALIASES {
        let function = state.higher_order_function(name)?.as_ref().clone().with_aliases([alias]);
        state.register_higher_order_function(Arc::new(function))?;
    }
    Ok(())
}
