//! Refuses statements whose planning would take too much stack, memory or time.
//!
//! Planner and optimizer recurse once per level of a statement, copy a common table expression
//! to every place that names it, and know no limit of their own. So levels and tables are counted
//! here before they see the statement. Long lists of values are flat, and cost nothing here.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::common::config::Dialect;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr, ObjectName, Query, Select, SetExpr, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::dialect_from_str;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::error::QueryError;

/// Bytes of one statement: some 25,000 trace ids in a list.
pub(super) const MAX_STATEMENT_BYTES: usize = 1 << 20;
/// Operators and keywords of one statement: each may be a level of what the parser builds.
pub(super) const MAX_OPERATORS: usize = 5_000;
/// Operators, joins, set operations and subqueries within one another.
pub(super) const MAX_LEVELS: usize = 400;
/// Tables read, those of common table expressions counted each time that they are named.
pub(super) const MAX_RELATIONS: usize = 200;

/// Columns of `CUBE`, in all: each one doubles what is grouped.
pub(super) const MAX_CUBE_COLUMNS: usize = 12;

/// Checks the text, before it is parsed.
pub(super) fn check_text(sql: &str, dialect: &Dialect) -> Result<(), QueryError> {
    if MAX_STATEMENT_BYTES < sql.len() {
        return Err(QueryError::TooComplex { what: "bytes", limit: MAX_STATEMENT_BYTES });
    }
    let Some(dialect) = dialect_from_str(dialect) else { return Ok(()) };
    // What is no sequence of tokens is told by the parser.
    let Ok(tokens) = Tokenizer::new(dialect.as_ref(), sql).tokenize() else { return Ok(()) };
    let operators = tokens.iter().filter(|token| is_operator(token)).count();
    if MAX_OPERATORS < operators {
        return Err(QueryError::TooComplex {
            what: "operators and keywords",
            limit: MAX_OPERATORS,
        });
    }
    Ok(())
}

/// Whether a token may add a level. Parentheses do as well; the parser bounds these itself.
fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => word.keyword != Keyword::NoKeyword && word.quote_style.is_none(),
        Token::EOF
        | Token::Whitespace(_)
        | Token::Comma
        | Token::LParen
        | Token::RParen
        | Token::Period
        | Token::SemiColon
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_) => false,
        _ => true,
    }
}

/// Checks the statement, before it is planned.
pub(super) fn check_statement(statement: &Statement) -> Result<(), QueryError> {
    match statement {
        Statement::Statement(statement) => {
            let mut measure = Measure::default();
            match statement.visit(&mut measure) {
                ControlFlow::Break(error) => Err(error),
                ControlFlow::Continue(()) => Ok(()),
            }
        }
        Statement::Explain(explain) => check_statement(&explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => Ok(()),
    }
}

/// A query while it is walked.
#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    /// Levels that the query itself adds.
    own_levels: usize,
    /// Levels below which it stands.
    outer_level: usize,
    /// The deepest level met in it.
    deepest: usize,
    relations: usize,
}

/// What naming a common table expression stands for.
#[derive(Clone, Copy, Debug)]
struct Weight {
    levels: usize,
    relations: usize,
}

#[derive(Debug, Default)]
struct Measure {
    level: usize,
    cube_columns: usize,
    frames: Vec<Frame>,
    /// Common table expressions by name. Of two with one name the heavier counts.
    known: HashMap<String, Weight>,
    /// The names of bodies that are still to be walked, by their address in the statement.
    bodies: HashMap<usize, String>,
}

impl Measure {
    fn reach(&mut self, level: usize) -> ControlFlow<QueryError> {
        if let Some(frame) = self.frames.last_mut() {
            frame.deepest = frame.deepest.max(level);
        }
        if MAX_LEVELS < level {
            let what = "levels of operators, joins and subqueries";
            return ControlFlow::Break(QueryError::TooComplex { what, limit: MAX_LEVELS });
        }
        ControlFlow::Continue(())
    }

    fn enter(&mut self, levels: usize) -> ControlFlow<QueryError> {
        self.level = self.level.saturating_add(levels);
        self.reach(self.level)
    }

    fn leave(&mut self, levels: usize) {
        self.level = self.level.saturating_sub(levels);
    }

    fn add_relations(&mut self, relations: usize) -> ControlFlow<QueryError> {
        let Some(frame) = self.frames.last_mut() else { return ControlFlow::Continue(()) };
        frame.relations = frame.relations.saturating_add(relations);
        if MAX_RELATIONS < frame.relations {
            let what = "tables";
            return ControlFlow::Break(QueryError::TooComplex { what, limit: MAX_RELATIONS });
        }
        ControlFlow::Continue(())
    }
}

impl Visitor for Measure {
    type Break = QueryError;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<QueryError> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.bodies.insert(address(&cte.query), cte.alias.name.value.to_lowercase());
        }
        let own_levels = 1 + set_levels(&query.body);
        self.frames.push(Frame { own_levels, outer_level: self.level, ..Frame::default() });
        self.enter(own_levels)
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<QueryError> {
        let Some(frame) = self.frames.pop() else { return ControlFlow::Continue(()) };
        self.leave(frame.own_levels);
        if let Some(name) = self.bodies.remove(&address(query)) {
            let levels = frame.deepest.saturating_sub(frame.outer_level);
            let weight = self.known.entry(name).or_insert(Weight { levels: 0, relations: 1 });
            weight.levels = weight.levels.max(levels);
            weight.relations = weight.relations.max(frame.relations);
        }
        self.reach(frame.deepest)?;
        self.add_relations(frame.relations)
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<QueryError> {
        self.enter(join_levels(select))
    }

    fn post_visit_select(&mut self, select: &Select) -> ControlFlow<QueryError> {
        self.leave(join_levels(select));
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<QueryError> {
        let name = match relation.0.as_slice() {
            [part] => part.as_ident().map(|name| name.value.to_lowercase()),
            _ => None,
        };
        let weight = name.and_then(|name| self.known.get(&name).copied());
        let weight = weight.unwrap_or(Weight { levels: 1, relations: 1 });
        self.reach(self.level.saturating_add(weight.levels))?;
        self.add_relations(weight.relations)
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<QueryError> {
        if let Expr::Cube(columns) = expression {
            self.cube_columns = self.cube_columns.saturating_add(columns.len());
        }
        if MAX_CUBE_COLUMNS < self.cube_columns {
            let what = "columns in CUBE";
            return ControlFlow::Break(QueryError::TooComplex { what, limit: MAX_CUBE_COLUMNS });
        }
        self.enter(1)
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<QueryError> {
        self.leave(1);
        ControlFlow::Continue(())
    }
}

fn address(query: &Query) -> usize {
    std::ptr::from_ref(query) as usize
}

/// How deep the set operations of a query's body lie within one another.
fn set_levels(body: &SetExpr) -> usize {
    let mut deepest = 0;
    let mut open = vec![(body, 0_usize)];
    while let Some((body, level)) = open.pop() {
        deepest = deepest.max(level);
        if let SetExpr::SetOperation { left, right, .. } = body {
            open.push((left, level + 1));
            open.push((right, level + 1));
        }
    }
    deepest
}

/// Each table after the first is a join above the ones before.
fn join_levels(select: &Select) -> usize {
    let joins: usize = select.from.iter().map(|from| from.joins.len()).sum();
    joins + select.from.len().saturating_sub(1)
}
