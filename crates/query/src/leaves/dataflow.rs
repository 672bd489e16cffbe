//! Follows nested columns through a logical plan and notes which parts of them are used.
//!
//! Every output column of a plan node either is a part of a table's column, unchanged (a *path*),
//! or is opaque. Selecting, renaming, filtering, sorting, unnesting and taking a field keep a
//! path; any other use of a path marks all that lies below it.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, HigherOrderFunction, ScalarFunction};
use datafusion::logical_expr::{Distinct, Expr, Join, LogicalPlan, Subquery, TableScan, Unnest};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Leaves, Step};

/// Used parts by table key, then by column name.
pub(crate) type UsedColumns = BTreeMap<String, BTreeMap<String, Leaves>>;

/// Finds the parts of each table's columns that `plan` uses. `plan` must be unoptimized.
///
/// `table_key` names the tables that may be narrowed; for other scans it answers `None`. Returns
/// `None` if the plan holds something that forbids narrowing altogether.
pub(crate) fn used_columns(
    plan: &LogicalPlan,
    table_key: &dyn Fn(&TableScan) -> Option<String>,
) -> Option<UsedColumns> {
    let mut walk = Walk { table_key, used: UsedColumns::new(), outer: Vec::new(), lost: false };
    let root = walk.plan(plan);
    walk.mark_outputs(&root);
    (!walk.lost).then_some(walk.used)
}

/// A part of a table's column.
#[derive(Clone, Debug, PartialEq)]
struct Path {
    table: String,
    column: String,
    steps: Vec<Step>,
}

impl Path {
    fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }
}

/// The output columns of a plan node, aligned with its schema.
#[derive(Clone, Debug)]
struct Outputs {
    schema: Arc<DFSchema>,
    paths: Vec<Option<Path>>,
}

impl Outputs {
    fn opaque(plan: &LogicalPlan) -> Self {
        let schema = Arc::clone(plan.schema());
        let paths = vec![None; schema.fields().len()];
        Self { schema, paths }
    }

    fn get(&self, column: &Column) -> Option<Option<Path>> {
        let index = self.schema.maybe_index_of_column(column)?;
        self.paths.get(index).cloned()
    }
}

/// What an expression may refer to.
struct Scope<'a> {
    inputs: &'a [&'a Outputs],
    lambdas: Vec<(String, Option<Path>)>,
}

impl<'a> Scope<'a> {
    fn new(inputs: &'a [&'a Outputs]) -> Self {
        Self { inputs, lambdas: Vec::new() }
    }
}

struct Walk<'a> {
    table_key: &'a dyn Fn(&TableScan) -> Option<String>,
    used: UsedColumns,
    /// Columns that a subquery may refer to, innermost last.
    outer: Vec<Outputs>,
    /// Something refers to what we cannot see: nothing may be narrowed.
    lost: bool,
}

impl Walk<'_> {
    fn leaves(&mut self, path: &Path) -> &mut Leaves {
        let columns = self.used.entry(path.table.clone()).or_default();
        columns.entry(path.column.clone()).or_default()
    }

    fn mark_whole(&mut self, path: &Path) {
        self.leaves(path).mark_whole(&path.steps);
    }

    fn mark_presence(&mut self, path: &Path) {
        self.leaves(path).mark_presence(&path.steps);
    }

    fn mark_outputs(&mut self, outputs: &Outputs) {
        for path in outputs.paths.iter().flatten() {
            self.mark_whole(path);
        }
    }

    fn plan(&mut self, plan: &LogicalPlan) -> Outputs {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(plan, scan),
            LogicalPlan::Projection(node) => {
                let input = self.plan(&node.input);
                let mut scope_paths = Vec::with_capacity(node.expr.len());
                for expr in &node.expr {
                    scope_paths.push(self.path_of(expr, &mut Scope::new(&[&input])));
                }
                self.aligned(plan, scope_paths)
            }
            LogicalPlan::SubqueryAlias(node) => {
                let input = self.plan(&node.input);
                self.aligned(plan, input.paths)
            }
            LogicalPlan::Filter(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Repartition(_) => self.same_columns(plan),
            LogicalPlan::Window(node) => {
                let input = self.plan(&node.input);
                for expr in &node.window_expr {
                    self.use_whole(expr, &mut Scope::new(&[&input]));
                }
                let mut paths = input.paths;
                paths.resize(plan.schema().fields().len(), None);
                self.aligned(plan, paths)
            }
            LogicalPlan::Aggregate(node) => {
                let input = self.plan(&node.input);
                for expr in node.group_expr.iter().chain(&node.aggr_expr) {
                    self.use_whole(expr, &mut Scope::new(&[&input]));
                }
                Outputs::opaque(plan)
            }
            LogicalPlan::Join(join) => self.join(plan, join),
            LogicalPlan::Unnest(unnest) => self.unnest(plan, unnest),
            LogicalPlan::Subquery(subquery) => {
                let inner = self.plan(&subquery.subquery);
                self.aligned(plan, inner.paths)
            }
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let input = self.plan(input);
                self.mark_outputs(&input);
                Outputs::opaque(plan)
            }
            // Its whole point is the declared schema.
            LogicalPlan::DescribeTable(_) => {
                self.lost = true;
                Outputs::opaque(plan)
            }
            LogicalPlan::Distinct(Distinct::On(_))
            | LogicalPlan::Union(_)
            | LogicalPlan::RecursiveQuery(_)
            | LogicalPlan::EmptyRelation(_)
            | LogicalPlan::Values(_)
            | LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::Extension(_)
            | LogicalPlan::Statement(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Copy(_) => self.everything(plan),
        }
    }

    /// A node that is not followed: all that goes in and all that it says is used whole.
    fn everything(&mut self, plan: &LogicalPlan) -> Outputs {
        let inputs: Vec<Outputs> =
            plan.inputs().into_iter().map(|input| self.plan(input)).collect();
        for input in &inputs {
            self.mark_outputs(input);
        }
        self.use_expressions(plan, &inputs.iter().collect::<Vec<_>>());
        Outputs::opaque(plan)
    }

    /// A node that hands on its only input's columns.
    fn same_columns(&mut self, plan: &LogicalPlan) -> Outputs {
        let inputs = plan.inputs();
        let [input] = inputs.as_slice() else { return self.everything(plan) };
        let input = self.plan(input);
        self.use_expressions(plan, &[&input]);
        self.aligned(plan, input.paths)
    }

    fn use_expressions(&mut self, plan: &LogicalPlan, inputs: &[&Outputs]) {
        for expr in plan.expressions() {
            self.use_whole(&expr, &mut Scope::new(inputs));
        }
    }

    /// `paths` as the outputs of `plan`, if they fit its schema; else they are used whole.
    fn aligned(&mut self, plan: &LogicalPlan, paths: Vec<Option<Path>>) -> Outputs {
        let outputs = Outputs { schema: Arc::clone(plan.schema()), paths };
        if outputs.paths.len() == outputs.schema.fields().len() {
            return outputs;
        }
        self.mark_outputs(&outputs);
        Outputs::opaque(plan)
    }

    fn scan(&mut self, plan: &LogicalPlan, scan: &TableScan) -> Outputs {
        let Some(table) = (self.table_key)(scan) else { return Outputs::opaque(plan) };
        // The planner puts no filters into a scan; an optimizer would, and is not expected here.
        if !scan.filters.is_empty() {
            self.lost = true;
        }
        let paths = plan.schema().fields().iter().map(|field| {
            Some(Path { table: table.clone(), column: field.name().clone(), steps: Vec::new() })
        });
        Outputs { schema: Arc::clone(plan.schema()), paths: paths.collect() }
    }

    fn join(&mut self, plan: &LogicalPlan, join: &Join) -> Outputs {
        let left = self.plan(&join.left);
        // The right side may be lateral and refer to the left.
        self.outer.push(left.clone());
        let right = self.plan(&join.right);
        self.outer.pop();
        for (on_left, on_right) in &join.on {
            self.use_whole(on_left, &mut Scope::new(&[&left, &right]));
            self.use_whole(on_right, &mut Scope::new(&[&left, &right]));
        }
        if let Some(filter) = &join.filter {
            self.use_whole(filter, &mut Scope::new(&[&left, &right]));
        }
        let paths = match join.join_type {
            JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                left.paths.into_iter().chain(right.paths).collect()
            }
            JoinType::LeftSemi | JoinType::LeftAnti => left.paths,
            JoinType::RightSemi | JoinType::RightAnti => right.paths,
            JoinType::LeftMark => left.paths.into_iter().chain([None]).collect(),
            JoinType::RightMark => right.paths.into_iter().chain([None]).collect(),
        };
        self.aligned(plan, paths)
    }

    fn unnest(&mut self, plan: &LogicalPlan, unnest: &Unnest) -> Outputs {
        let input = self.plan(&unnest.input);
        let mut paths = Vec::with_capacity(unnest.dependency_indices.len());
        for (position, &source) in unnest.dependency_indices.iter().enumerate() {
            let Some(path) = input.paths.get(source).cloned().flatten() else {
                paths.push(None);
                continue;
            };
            let is_list = unnest.list_type_columns.iter().any(|(index, _)| *index == source);
            if unnest.struct_type_columns.contains(&source) {
                self.mark_whole(&path);
                paths.push(None);
            } else if is_list {
                self.mark_presence(&path);
                paths.push(self.unnested(plan, unnest, position, source, path));
            } else {
                paths.push(Some(path));
            }
        }
        self.aligned(plan, paths)
    }

    /// The path of an unnested list's elements, at the depth of the output at `position`.
    fn unnested(
        &mut self,
        plan: &LogicalPlan,
        unnest: &Unnest,
        position: usize,
        source: usize,
        path: Path,
    ) -> Option<Path> {
        let output = plan.schema().columns().get(position).cloned();
        let list = unnest
            .list_type_columns
            .iter()
            .find(|(index, list)| *index == source && output.as_ref() == Some(&list.output_column));
        let Some((_, list)) = list else {
            self.mark_whole(&path);
            return None;
        };
        Some((0..list.depth).fold(path, |path, _| path.then(Step::Element)))
    }

    fn subquery(&mut self, subquery: &Subquery, scope: &Scope<'_>) -> Outputs {
        let pushed = scope.inputs.len();
        self.outer.extend(scope.inputs.iter().map(|outputs| (*outputs).clone()));
        let outputs = self.plan(&subquery.subquery);
        self.outer.truncate(self.outer.len().saturating_sub(pushed));
        outputs
    }

    /// Evaluates `expr` as a value that is looked into: whatever path it is, is used whole.
    fn use_whole(&mut self, expr: &Expr, scope: &mut Scope<'_>) {
        if let Some(path) = self.path_of(expr, scope) {
            self.mark_whole(&path);
        }
    }

    /// Evaluates `expr` as a value of which only presence or length matters.
    fn use_presence(&mut self, expr: &Expr, scope: &mut Scope<'_>) {
        if let Some(path) = self.path_of(expr, scope) {
            self.mark_presence(&path);
        }
    }

    /// The path that `expr` is, if it is one. Marks what `expr` uses on the way.
    fn path_of(&mut self, expr: &Expr, scope: &mut Scope<'_>) -> Option<Path> {
        match expr {
            Expr::Alias(alias) => self.path_of(&alias.expr, scope),
            Expr::Column(column) => {
                let found = scope.inputs.iter().find_map(|outputs| outputs.get(column));
                self.found(found)
            }
            Expr::OuterReferenceColumn(_, column) => {
                let found = self.outer.iter().rev().find_map(|outputs| outputs.get(column));
                self.found(found)
            }
            Expr::LambdaVariable(variable) => {
                let bound = scope.lambdas.iter().rev().find(|(name, _)| *name == variable.name);
                let found = bound.map(|(_, path)| path.clone());
                self.found(found)
            }
            Expr::IsNull(inner) | Expr::IsNotNull(inner) => {
                self.use_presence(inner, scope);
                None
            }
            Expr::ScalarFunction(call) => self.scalar_function(call, scope),
            Expr::HigherOrderFunction(call) => self.higher_order(call, scope),
            Expr::AggregateFunction(call) => {
                self.aggregate(call, scope);
                None
            }
            Expr::ScalarSubquery(subquery) => {
                let outputs = self.subquery(subquery, scope);
                self.mark_outputs(&outputs);
                None
            }
            Expr::Exists(exists) => {
                // Only whether there is a row matters.
                self.subquery(&exists.subquery, scope);
                None
            }
            Expr::InSubquery(test) => {
                self.use_whole(&test.expr, scope);
                let outputs = self.subquery(&test.subquery, scope);
                self.mark_outputs(&outputs);
                None
            }
            Expr::SetComparison(test) => {
                self.use_whole(&test.expr, scope);
                let outputs = self.subquery(&test.subquery, scope);
                self.mark_outputs(&outputs);
                None
            }
            _ => {
                self.use_children(expr, scope);
                None
            }
        }
    }

    /// A reference that nothing in sight explains forbids narrowing.
    fn found(&mut self, found: Option<Option<Path>>) -> Option<Path> {
        if found.is_none() {
            self.lost = true;
        }
        found.flatten()
    }

    fn use_children(&mut self, expr: &Expr, scope: &mut Scope<'_>) {
        let walked = expr.apply_children(|child| {
            self.use_whole(child, scope);
            Ok(TreeNodeRecursion::Continue)
        });
        if walked.is_err() {
            self.lost = true;
        }
    }

    fn scalar_function(&mut self, call: &ScalarFunction, scope: &mut Scope<'_>) -> Option<Path> {
        let (first, rest) = call.args.split_first()?;
        match call.func.name() {
            "get_field" => {
                let Some(mut path) = self.path_of(first, scope) else {
                    rest.iter().for_each(|key| self.use_whole(key, scope));
                    return None;
                };
                for (position, key) in rest.iter().enumerate() {
                    let Some(name) = literal_text(key) else {
                        self.mark_whole(&path);
                        for key in rest.iter().skip(position) {
                            self.use_whole(key, scope);
                        }
                        return None;
                    };
                    path = path.then(Step::Field(name));
                }
                Some(path)
            }
            "array_element" => {
                let path = self.path_of(first, scope);
                rest.iter().for_each(|index| self.use_whole(index, scope));
                Some(path?.then(Step::Element))
            }
            // The elements that are left are unchanged.
            "array_slice" | "array_reverse" | "array_pop_front" | "array_pop_back" => {
                let path = self.path_of(first, scope);
                rest.iter().for_each(|bound| self.use_whole(bound, scope));
                path
            }
            "cardinality" | "array_length" | "empty" => {
                self.use_presence(first, scope);
                rest.iter().for_each(|argument| self.use_whole(argument, scope));
                None
            }
            _ => {
                call.args.iter().for_each(|argument| self.use_whole(argument, scope));
                None
            }
        }
    }

    /// `f(list, element -> body)`: the lambda's first parameter is an element of the list.
    fn higher_order(&mut self, call: &HigherOrderFunction, scope: &mut Scope<'_>) -> Option<Path> {
        let name = call.name();
        let known =
            matches!(name, "array_any_match" | "array_filter" | "array_transform" | "array_first");
        let mut list = None;
        for (position, argument) in call.args.iter().enumerate() {
            match argument {
                Expr::Lambda(lambda) => {
                    let element: Option<Path> =
                        list.clone().map(|path: Path| path.then(Step::Element));
                    let depth = scope.lambdas.len();
                    for (index, parameter) in lambda.params.iter().enumerate() {
                        let bound = if index == 0 { element.clone() } else { None };
                        scope.lambdas.push((parameter.clone(), bound));
                    }
                    self.use_whole(&lambda.body, scope);
                    scope.lambdas.truncate(depth);
                }
                list_argument if known && position == 0 => {
                    list = self.path_of(list_argument, scope);
                    if let Some(path) = &list {
                        self.mark_presence(path);
                    }
                }
                other => self.use_whole(other, scope),
            }
        }
        match name {
            "array_filter" => list,
            "array_first" => list.map(|path| path.then(Step::Element)),
            _ => None,
        }
    }

    fn aggregate(&mut self, call: &AggregateFunction, scope: &mut Scope<'_>) {
        let params = &call.params;
        let only_counts = call.func.name() == "count" && !params.distinct;
        for argument in &params.args {
            if only_counts {
                self.use_presence(argument, scope);
            } else {
                self.use_whole(argument, scope);
            }
        }
        if let Some(filter) = &params.filter {
            self.use_whole(filter, scope);
        }
        for sort in &params.order_by {
            self.use_whole(&sort.expr, scope);
        }
    }
}

fn literal_text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(
            ScalarValue::Utf8(Some(text))
            | ScalarValue::Utf8View(Some(text))
            | ScalarValue::LargeUtf8(Some(text)),
            _,
        ) => Some(text.clone()),
        _ => None,
    }
}
