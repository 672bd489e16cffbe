//! Finds experiments by filter, in pages.

use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sqlx::{QueryBuilder, Row, Sqlite};

use super::filter::{Attribute, Clause, TextComparator, parse_filter, parse_order};
use super::{COLUMNS, Experiment, Tag, experiment};
use crate::error::{RegistryError, storage};
use crate::{LifecycleStage, Registry};

/// Most experiments in one page, as MLflow has it.
const MAX_RESULTS_LIMIT: i64 = 50_000;
const MAX_ORDER_ENTRIES: usize = 16;

/// The tags that were set, and those that show the binding.
const ALL_TAGS: &str = "(SELECT experiment_id, key, value FROM experiment_tags \
     UNION ALL SELECT experiment_id, 'tracelake.archive.table', table_name FROM bindings \
     UNION ALL SELECT experiment_id, 'tracelake.archive.enabledAt', \
     strftime('%Y-%m-%dT%H:%M:%fZ', enabled_at_micros / 1000000.0, 'unixepoch') FROM bindings)";

/// Which stages a search looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ViewType {
    /// `ACTIVE_ONLY`.
    #[default]
    ActiveOnly,
    /// `DELETED_ONLY`.
    DeletedOnly,
    /// `ALL`.
    All,
}

/// What to search for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExperimentQuery {
    /// Stages to look at.
    pub view: ViewType,
    /// Experiments in one page, 1 to 50,000.
    pub max_results: i64,
    /// Clauses joined by `AND`; empty for all.
    pub filter: String,
    /// Keys with `ASC` or `DESC`; newest first when empty.
    pub order_by: Vec<String>,
    /// Where to go on, from an earlier page.
    pub page_token: Option<String>,
}

impl Default for ExperimentQuery {
    fn default() -> Self {
        Self {
            view: ViewType::ActiveOnly,
            max_results: 1_000,
            filter: String::new(),
            order_by: Vec::new(),
            page_token: None,
        }
    }
}

/// One page of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExperimentPage {
    /// The experiments, in the order asked for.
    pub experiments: Vec<Experiment>,
    /// Where the next page starts, if there is one.
    pub next_page_token: Option<String>,
}

impl Registry {
    /// Searches experiments.
    ///
    /// # Errors
    /// [`RegistryError::InvalidFilter`], [`RegistryError::InvalidPageToken`],
    /// [`RegistryError::InvalidValue`] for `max_results`, or storage.
    pub async fn search_experiments(
        &self,
        query: &ExperimentQuery,
    ) -> Result<ExperimentPage, RegistryError> {
        check_max_results(query.max_results)?;
        let offset = read_page_token(query.page_token.as_deref())?;
        let mut sql = build(query, offset)?;
        let failed = storage("search experiments");
        let rows = sql.build().fetch_all(&self.pool).await.map_err(&failed)?;
        let mut experiments =
            rows.iter().map(experiment).collect::<Result<Vec<_>, _>>().map_err(&failed)?;
        let limit = usize::try_from(query.max_results).unwrap_or(usize::MAX);
        let more = limit < experiments.len();
        experiments.truncate(limit);
        self.fill_tags(&mut experiments).await?;
        let next_page_token = more.then(|| write_page_token(offset + query.max_results));
        Ok(ExperimentPage { experiments, next_page_token })
    }

    /// Reads the tags of `experiments`.
    pub(super) async fn fill_tags(
        &self,
        experiments: &mut [Experiment],
    ) -> Result<(), RegistryError> {
        let failed = storage("read experiment tags");
        let ids: Vec<&str> = experiments.iter().map(|e| e.experiment_id.as_str()).collect();
        let query = format!(
            "SELECT experiment_id, key, value FROM {ALL_TAGS} \
             WHERE experiment_id IN (SELECT value FROM json_each(?)) ORDER BY experiment_id, key",
        );
        let rows = sqlx::query(&query)
            .bind(format!("[{}]", ids.join(",")))
            .fetch_all(&self.pool)
            .await
            .map_err(&failed)?;
        let mut tags: HashMap<i64, Vec<Tag>> = HashMap::new();
        for row in rows {
            let tag = Tag {
                key: row.try_get(1).map_err(&failed)?,
                value: row.try_get(2).map_err(&failed)?,
            };
            tags.entry(row.try_get(0).map_err(&failed)?).or_default().push(tag);
        }
        for experiment in experiments {
            experiment.tags = tags.remove(&experiment.experiment_id.number()).unwrap_or_default();
        }
        Ok(())
    }
}

fn check_max_results(max_results: i64) -> Result<(), RegistryError> {
    let reason = if max_results < 1 {
        ". It must be a positive integer"
    } else if MAX_RESULTS_LIMIT < max_results {
        ". It must be at most 50000"
    } else {
        return Ok(());
    };
    let value = max_results.to_string();
    Err(RegistryError::InvalidValue { parameter: "max_results", value, reason })
}

fn build(
    query: &ExperimentQuery,
    offset: i64,
) -> Result<QueryBuilder<'static, Sqlite>, RegistryError> {
    let mut sql = QueryBuilder::new(format!("SELECT {COLUMNS} FROM experiments e WHERE 1 = 1"));
    let stage = match query.view {
        ViewType::ActiveOnly => Some(LifecycleStage::Active),
        ViewType::DeletedOnly => Some(LifecycleStage::Deleted),
        ViewType::All => None,
    };
    if let Some(stage) = stage {
        sql.push(" AND lifecycle_stage = ").push_bind(stage.as_str());
    }
    for clause in parse_filter(&query.filter)? {
        push_clause(&mut sql, clause);
    }
    push_order(&mut sql, &query.order_by)?;
    sql.push(" LIMIT ").push_bind(query.max_results + 1).push(" OFFSET ").push_bind(offset);
    Ok(sql)
}

fn push_clause(sql: &mut QueryBuilder<'static, Sqlite>, clause: Clause) {
    match clause {
        Clause::Name(comparator, value) => {
            sql.push(" AND name");
            push_comparison(sql, comparator, value);
        }
        Clause::Tag { key, comparator, value } => {
            push_tag(sql, " AND", key);
            sql.push(" AND t.value");
            push_comparison(sql, comparator, value);
            sql.push(")");
        }
        Clause::TagPresent { key, present } => {
            push_tag(sql, if present { " AND" } else { " AND NOT" }, key);
            sql.push(")");
        }
        Clause::Number { attribute, comparator, value } => {
            sql.push(" AND ").push(attribute.column()).push(" ").push(comparator).push(" ");
            sql.push_bind(value);
        }
    }
}

fn push_tag(sql: &mut QueryBuilder<'static, Sqlite>, prefix: &str, key: String) {
    sql.push(prefix).push(" EXISTS (SELECT 1 FROM ").push(ALL_TAGS);
    sql.push(" t WHERE t.experiment_id = e.experiment_id AND t.key = ");
    sql.push_bind(key);
}

fn push_comparison(
    sql: &mut QueryBuilder<'static, Sqlite>,
    comparator: TextComparator,
    value: String,
) {
    match comparator {
        TextComparator::Equal => sql.push(" = ").push_bind(value),
        TextComparator::NotEqual => sql.push(" != ").push_bind(value),
        // SQLite's LIKE ignores case, GLOB does not.
        TextComparator::Like => sql.push(" GLOB ").push_bind(like_to_glob(&value)),
        TextComparator::ILike => sql.push(" LIKE ").push_bind(value),
    };
}

fn like_to_glob(pattern: &str) -> String {
    let mut glob = String::with_capacity(pattern.len());
    for character in pattern.chars() {
        match character {
            '%' => glob.push('*'),
            '_' => glob.push('?'),
            '*' | '?' | '[' => glob.extend(['[', character, ']']),
            other => glob.push(other),
        }
    }
    glob
}

fn push_order(
    sql: &mut QueryBuilder<'static, Sqlite>,
    order_by: &[String],
) -> Result<(), RegistryError> {
    let mut entries = Vec::new();
    for entry in order_by.iter().take(MAX_ORDER_ENTRIES) {
        entries.push(parse_order(entry)?);
    }
    if entries.is_empty() {
        entries = vec![(Attribute::CreationTime, false), (Attribute::ExperimentId, true)];
    } else if entries.iter().all(|(attribute, _)| *attribute != Attribute::ExperimentId) {
        entries.push((Attribute::ExperimentId, false));
    }
    let mut separator = " ORDER BY ";
    for (attribute, ascending) in entries {
        sql.push(separator).push(attribute.column()).push(if ascending { " ASC" } else { " DESC" });
        separator = ", ";
    }
    Ok(())
}

/// A token is base64 of `{"offset": N}`, as MLflow's.
fn write_page_token(offset: i64) -> String {
    BASE64_STANDARD.encode(format!("{{\"offset\": {offset}}}"))
}

fn read_page_token(token: Option<&str>) -> Result<i64, RegistryError> {
    let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(0) };
    let invalid = |reason| RegistryError::InvalidPageToken { reason };
    let json = BASE64_STANDARD.decode(token).map_err(|_| invalid("could not base64-decode"))?;
    let json = String::from_utf8(json).map_err(|_| invalid("decoded value is not text"))?;
    json.trim()
        .strip_prefix("{\"offset\":")
        .and_then(|rest| rest.strip_suffix('}'))
        .and_then(|number| number.trim().parse().ok())
        .filter(|offset| (0..i64::from(u32::MAX)).contains(offset))
        .ok_or_else(|| invalid("decoded value has no offset"))
}
