//! Lets through what only reads.

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{SetExpr, Statement as SqlStatement};

use crate::error::QueryError;

/// Refuses every statement but queries and descriptions.
///
/// What a query may hide inside, such as `SELECT .. INTO`, is refused by the plan's own check.
pub(crate) fn check_read_only(statement: &Statement) -> Result<(), QueryError> {
    let reads = match statement {
        Statement::Statement(statement) => reads_only(statement),
        Statement::Explain(explain) => return check_read_only(&explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => false,
    };
    if reads { Ok(()) } else { Err(QueryError::ReadOnly { statement: first_word(statement) }) }
}

fn reads_only(statement: &SqlStatement) -> bool {
    match statement {
        SqlStatement::Explain { statement, .. } => reads_only(statement),
        SqlStatement::Query(query) => !matches!(
            query.body.as_ref(),
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_)
        ),
        other => matches!(
            other,
            SqlStatement::ExplainTable { .. }
                | SqlStatement::ShowTables { .. }
                | SqlStatement::ShowColumns { .. }
                | SqlStatement::ShowFunctions { .. }
                | SqlStatement::ShowVariable { .. }
        ),
    }
}

fn first_word(statement: &Statement) -> String {
    let text = statement.to_string();
    text.split_whitespace().next().unwrap_or_default().to_uppercase()
}
