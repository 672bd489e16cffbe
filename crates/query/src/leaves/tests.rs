//! Which leaves of which columns a statement is found to use, over many forms of SQL.

use std::sync::Arc;

use datafusion::common::{TableReference, tree_node::TreeNodeRecursion};

use super::narrow::leaf_names;
use super::*;
use crate::fixture;

const ALL: &str = "everything";

/// Plans `sql` over the table `t` and lists the leaves of its narrowed nested columns.
async fn leaves(sql: &str, columns: &[&str]) -> String {
    use datafusion::prelude::{SessionConfig, SessionContext};
    let config = SessionConfig::new().set_str("datafusion.sql_parser.dialect", "databricks");
    let context = SessionContext::new_with_config(config);
    let table = datafusion::datasource::MemTable::try_new(fixture::schema(), vec![vec![]]).unwrap();
    context.register_table("t", Arc::new(table)).unwrap();
    let plan = context.state().create_logical_plan(sql).await.unwrap();
    let key = |scan: &datafusion::logical_expr::TableScan| {
        (scan.table_name == TableReference::bare("t")).then(|| "t".to_owned())
    };
    let Some(used) = used_columns(&plan, &key) else { return ALL.to_owned() };
    let schema = narrow_schema(&fixture::schema(), used.get("t").unwrap_or(&BTreeMap::new()));
    // Both plans must agree on everything but the declared types.
    plan.apply_with_subqueries(|_| Ok(TreeNodeRecursion::Continue)).unwrap();
    let mut found = Vec::new();
    for column in columns {
        let field = schema.field_with_name(column).unwrap();
        if field == fixture::schema().field_with_name(column).unwrap() {
            found.push(format!("{column}: all"));
        } else {
            found.push(leaf_names(field).join(" "));
        }
    }
    found.join("; ")
}

async fn span_leaves(sql: &str) -> String {
    leaves(sql, &["spans"]).await.replace("spans.", "").replace("spans: all", "all")
}

/// Scenario: the questions that are asked of spans, in the ways SQL has to ask them.
/// Guarantees: only what is named is used, beside the anchor `status`.
#[tokio::test]
async fn uses_only_what_is_named() {
    let cases = [
        ("select trace_id from t", "status"),
        ("select count(*) from t", "status"),
        (
            "select trace_id from t where array_any_match(spans, s -> s['status'] = 'ERROR')",
            "status",
        ),
        (
            "select trace_id from t where array_any_match(spans, s -> s['name'] = 'x')",
            "name status",
        ),
        (
            "select cardinality(array_filter(spans, s -> s['span_type'] = 'LLM')) from t",
            "span_type status",
        ),
        ("select array_transform(spans, s -> s['name']) from t", "name status"),
        ("select array_first(spans, s -> s['status'] = 'ERROR')['name'] from t", "name status"),
        ("select sum(cardinality(spans)), max(array_length(spans)) from t", "status"),
        ("select count(spans) from t where spans is not null and not empty(spans)", "status"),
        ("select spans[1]['name'], spans[-1]['kind'] from t", "name status kind"),
        ("select spans[cast(cardinality(spans) as bigint)]['span_id'] from t", "span_id status"),
        (
            "with u as (select trace_id, unnest(spans) as s from t) \
             select s['name'], count(*) from u where s['status'] = 'ERROR' group by s['name']",
            "name status",
        ),
        (
            "select x.s.name from (select s, trace_id from (select unnest(spans) s, trace_id from t) \
             where trace_id > 'a' order by trace_id limit 3) x",
            "name status",
        ),
        (
            "select sum(s['end_time_unix_nano'] - s['start_time_unix_nano']) from \
             (select unnest(spans) as s from t)",
            "status start_time_unix_nano end_time_unix_nano",
        ),
        (
            "select a.spans[1]['name'], b.spans[1]['kind'] from t a join t b on a.trace_id = b.trace_id",
            "name status kind",
        ),
        (
            "select trace_id from t where trace_id in (select trace_id from t where spans[1]['kind'] = 'x')",
            "status kind",
        ),
        (
            "select array_any_match(spans, s -> array_any_match(s['events'], e -> e['name'] = s['name'])) from t",
            "name status events.name",
        ),
        (
            "select array_any_match(spans, s -> cardinality(s['events']) > 1) from t",
            "status events.time_unix_nano",
        ),
        (
            "select unnest(e)['name'] from (select s['events'] e from (select unnest(spans) s from t))",
            "status events.name",
        ),
        ("select spans[1]['metadata']['model'] from t", "status metadata.*"),
        ("select array_slice(spans, 1, 2)[1]['name'] from t", "name status"),
        (
            "select row_number() over (partition by spans[1]['name'] order by created_at) from t",
            "name status",
        ),
        (
            "select case when spans[1]['name'] = 'a' then spans[1]['kind'] end from t",
            "name status kind",
        ),
        (
            "select first_value(spans[1]['name'] order by spans[1]['kind']) from t",
            "name status kind",
        ),
        ("select count(*) filter (where spans[1]['name'] is null) from t", "name status"),
    ];
    for (sql, expected) in cases {
        assert_eq!(span_leaves(sql).await, expected, "{sql}");
    }
}

/// Scenario: whole values handed out, compared, grouped, turned into text, set-combined.
/// Guarantees: nothing is left out.
#[tokio::test]
async fn whole_use_keeps_everything() {
    let cases = [
        "select * from t",
        "select spans from t",
        "select x.* from (select * from t) x",
        "select spans[1] from t",
        "select unnest(spans) from t",
        "select cast(spans as string) from t",
        "select arrow_typeof(spans) from t",
        "select array_to_string(array_transform(spans, s -> s), ',') from t",
        "select spans, count(*) from t group by spans",
        "select count(*) from t group by spans",
        "select count(distinct spans) from t",
        "select distinct spans from t",
        "select trace_id from t order by spans",
        "select spans[1]['name'] from (select spans from t union all select spans from t)",
        "select trace_id from t where spans = (select max(spans) from t)",
        "select array_filter(spans, s -> s['status'] = 'ERROR') from t",
        "select array_agg(s) from (select unnest(spans) s from t)",
        "select array_any_match(spans, s -> cast(s as string) like '%x%') from t",
        "select coalesce(spans, null)[1]['name'] from t",
        "select named_struct('a', spans)['a'][1]['name'] from t",
        "select lag(spans) over (order by trace_id) from t",
        "select first_value(spans) from t",
        "explain select spans from t",
        "select 1 from t a where exists (select 1 from t b where a.spans = b.spans)",
    ];
    for sql in cases {
        assert_eq!(span_leaves(sql).await, "all", "{sql}");
    }
    assert_eq!(span_leaves("describe t").await, ALL);
}

/// Scenario: correlated subqueries.
/// Guarantees: what a subquery uses of the outer table counts as used.
#[tokio::test]
async fn subqueries_use_the_outer_table() {
    let sql = "select trace_id from t a where exists \
               (select * from t b where b.spans[1]['name'] = a.spans[1]['kind'])";
    assert_eq!(span_leaves(sql).await, "name status kind");
    let sql =
        "select (select max(b.spans[1]['name']) from t b where b.trace_id = a.trace_id) from t a";
    assert_eq!(span_leaves(sql).await, "name status");
    let sql = "select l.n from t a, lateral (select a.spans[1]['kind'] as n) l";
    assert_eq!(span_leaves(sql).await, "status kind");
}

/// Scenario: other nested columns than spans.
/// Guarantees: they are narrowed in the same way; maps stay whole; unused ones keep one leaf.
#[tokio::test]
async fn other_nested_columns() {
    let columns = ["trace_info", "assessments", "tags"];
    assert_eq!(
        leaves("select trace_info.timestamp, tags['env'] from t", &columns).await,
        "trace_info.timestamp trace_info.status; assessments.name; tags: all"
    );
    assert_eq!(
        leaves("select trace_info from t where cardinality(assessments) > 0", &columns).await,
        "trace_info: all; assessments.name; tags: all"
    );
    assert_eq!(
        leaves("select count(trace_info) from t where trace_info is not null", &columns).await,
        "trace_info.status; assessments.name; tags: all"
    );
}

/// Scenario: two lambdas with one parameter name, one inside the other.
/// Guarantees: the inner name hides the outer.
#[tokio::test]
async fn inner_lambda_parameters_hide_outer_ones() {
    let sql = "select array_any_match(spans, s -> array_any_match(s['events'], s -> s['attributes'] = 'x')) from t";
    assert_eq!(span_leaves(sql).await, "status events.attributes");
}
