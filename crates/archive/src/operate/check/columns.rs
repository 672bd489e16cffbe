//! The table's columns beside the contract and beside what tracelake adds.

use arrow::datatypes::{DataType, Field, Fields, Schema};
use tracelake_model::names::printable;
use tracelake_model::schema::{
    CONTRACT_COLUMNS, CONTRACT_SPAN_FIELDS, TABLE_COMMENT, child, traces_schema,
};

use super::{Finding, units};
use crate::folder::catalog::column_type;

const CONTRACT_HINT: &str = "the contract's columns never change: bring the table's log back to \
                             the version before, or set up another table";

/// Whether the contract's columns come first, with their names, order, types and nullability.
pub(super) fn judge_contract(schema: &Schema) -> Finding {
    let ours = traces_schema();
    match contract_fault(ours.fields(), schema.fields(), CONTRACT_COLUMNS, "") {
        Some(fault) => Finding::failed(fault, CONTRACT_HINT),
        None => Finding::ok(format!(
            "{CONTRACT_COLUMNS} columns as the contract has them, {CONTRACT_SPAN_FIELDS} fields \
             of a span"
        )),
    }
}

/// The first of the leading `count` fields of `ours` that `found` does not have in its place.
fn contract_fault(ours: &Fields, found: &Fields, count: usize, path: &str) -> Option<String> {
    ours.iter().take(count).enumerate().find_map(|(index, our)| {
        let name = format!("{path}{}", our.name());
        let Some(theirs) = child(found, our.name()) else {
            return Some(format!("no column `{name}`"));
        };
        let place = found.iter().position(|field| field.name() == our.name());
        if place != Some(index) {
            let place = place.unwrap_or_default() + 1;
            return Some(format!("column `{name}` is number {place}, expected {}", index + 1));
        }
        field_fault(our, theirs, &name)
    })
}

fn field_fault(our: &Field, theirs: &Field, name: &str) -> Option<String> {
    if our.is_nullable() != theirs.is_nullable() {
        let word = |nullable: bool| if nullable { "nullable" } else { "NOT NULL" };
        return Some(format!(
            "column `{name}` is {}, expected {}",
            word(theirs.is_nullable()),
            word(our.is_nullable())
        ));
    }
    type_fault(our.data_type(), theirs.data_type(), name)
}

fn type_fault(our: &DataType, theirs: &DataType, name: &str) -> Option<String> {
    match (our, theirs) {
        (DataType::Struct(ours), DataType::Struct(found)) => {
            contract_fault(ours, found, CONTRACT_SPAN_FIELDS, &format!("{name}."))
        }
        (DataType::List(ours), DataType::List(found)) => {
            field_fault(ours, found, &format!("{name}.element"))
        }
        (DataType::Map(ours, _), DataType::Map(found, _)) if pair(ours) == pair(found) => None,
        (our, theirs) if our == theirs => None,
        (our, theirs) => {
            Some(format!("column `{name}` is {}, expected {}", type_text(theirs), type_text(our)))
        }
    }
}

/// Types of a map's key and value, and whether they may be null.
fn pair(entries: &Field) -> Option<Vec<(&DataType, bool)>> {
    match entries.data_type() {
        DataType::Struct(fields) => {
            Some(fields.iter().map(|field| (field.data_type(), field.is_nullable())).collect())
        }
        _ => None,
    }
}

/// The type as Spark writes it.
fn type_text(data_type: &DataType) -> String {
    let text = column_type(data_type).map(|known| known.type_text());
    printable(&text.unwrap_or_else(|_| data_type.to_string()))
}

/// Whether the columns are there that tracelake adds behind the contract's, and no other column
/// asks for values that it does not have.
pub(super) fn judge_added(schema: &Schema, setup: &str) -> Finding {
    let mut faults = Faults::default();
    let ours = traces_schema();
    faults.look(ours.fields(), schema.fields(), "");
    if let Some(wrong) = faults.wrong.first() {
        return Finding::failed(wrong.clone(), "set up another table, or drop that column");
    }
    if let Some(first) = faults.missing.first() {
        let found = match faults.missing.len() {
            1 => format!("lacks `{first}`"),
            many => format!("lacks `{first}` and {} more", many - 1),
        };
        return Finding::failed(found, format!("{setup} adds them"));
    }
    let others = schema.fields().len().saturating_sub(ours.fields().len());
    let beside = match others {
        0 => String::new(),
        many => format!(", {} of others", units::count(many, "column")),
    };
    Finding::ok(format!("{} behind the contract's{beside}", ours.fields().len() - CONTRACT_COLUMNS))
}

/// What the columns of others and those that tracelake adds lack.
#[derive(Default)]
struct Faults {
    missing: Vec<String>,
    wrong: Vec<String>,
}

impl Faults {
    /// The contract's own fields are judged by [`judge_contract`], so only what is not theirs is
    /// named here.
    fn look(&mut self, ours: &Fields, found: &Fields, path: &str) {
        let contract = match path {
            "" => CONTRACT_COLUMNS,
            "spans." => CONTRACT_SPAN_FIELDS,
            "trace_info." => ours.len(),
            _ => 0,
        };
        for (index, our) in ours.iter().enumerate() {
            let name = format!("{path}{}", our.name());
            match child(found, our.name()) {
                None if index < contract => {}
                None => self.missing.push(name),
                Some(theirs) => {
                    self.look_into(our.data_type(), theirs.data_type(), &name, index < contract);
                }
            }
        }
        for theirs in found {
            if child(ours, theirs.name()).is_none() && !theirs.is_nullable() {
                let name = printable(theirs.name());
                self.wrong
                    .push(format!("column `{path}{name}` is NOT NULL, and has no value here"));
            }
        }
    }

    fn look_into(&mut self, ours: &DataType, found: &DataType, name: &str, contract: bool) {
        match (ours, found) {
            (DataType::Struct(ours), DataType::Struct(found)) => {
                self.look(ours, found, &format!("{name}."));
            }
            (DataType::List(ours), DataType::List(found)) => {
                self.look_into(ours.data_type(), found.data_type(), name, contract);
            }
            (DataType::Map(ours, _), DataType::Map(found, _)) if pair(ours) == pair(found) => {}
            (ours, found) if ours == found || contract => {}
            (ours, found) => self.wrong.push(format!(
                "column `{name}` is {}, expected {}",
                type_text(found),
                type_text(ours)
            )),
        }
    }
}

/// Whether the table and the contract's columns say what they are.
pub(super) fn judge_comments(schema: &Schema, table_comment: Option<&str>) -> Finding {
    let quoted = |comment: Option<&str>| {
        comment.map_or("no comment".to_owned(), |text| format!("`{}`", printable(text)))
    };
    if table_comment != Some(TABLE_COMMENT) {
        return Finding::failed(
            format!("the table has {}, expected `{TABLE_COMMENT}`", quoted(table_comment)),
            format!("in Spark: COMMENT ON TABLE ... IS '{TABLE_COMMENT}'"),
        );
    }
    let ours = traces_schema();
    let mut others = 0_usize;
    for (index, our) in ours.fields().iter().enumerate() {
        let Some(theirs) = child(schema.fields(), our.name()) else { continue };
        let (our_comment, their_comment) = (comment(our), comment(theirs));
        if our_comment == their_comment {
            continue;
        }
        if CONTRACT_COLUMNS <= index {
            others += 1;
            continue;
        }
        let (name, wanted) = (our.name(), our_comment.unwrap_or_default());
        return Finding::failed(
            format!("column `{name}` has {}, expected `{wanted}`", quoted(their_comment)),
            format!("in Spark: ALTER TABLE ... ALTER COLUMN {name} COMMENT '{wanted}'"),
        );
    }
    match others {
        0 => Finding::ok(format!("table: {TABLE_COMMENT}; each column has its own")),
        many => Finding::note(
            format!("{} have another comment", units::count(many, "added column")),
            "nothing depends on them",
        ),
    }
}

fn comment(field: &Field) -> Option<&str> {
    field.metadata().get("comment").map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use std::sync::Arc;

    fn with(change: impl Fn(&mut Vec<Field>)) -> Schema {
        let mut fields: Vec<Field> =
            traces_schema().fields().iter().map(|field| field.as_ref().clone()).collect();
        change(&mut fields);
        Schema::new(fields)
    }

    /// Scenario: the schema itself, a type, an order, a nullability and a nested name changed.
    /// Guarantees: the contract's line names the column; the others stay content.
    #[test]
    fn the_contract_is_held_to_the_letter() {
        let good = with(|_| {});
        assert_eq!(judge_contract(&good).verdict, Verdict::Ok);
        assert_eq!(judge_added(&good, "setup").verdict, Verdict::Ok);
        assert_eq!(judge_comments(&good, Some(TABLE_COMMENT)).verdict, Verdict::Ok);
        let cases: [(Schema, &str); 4] = [
            (with(|f| f[2] = f[2].clone().with_data_type(DataType::Int64)), "`run_id` is bigint"),
            (with(|f| f.swap(1, 2)), "`experiment_id` is number 3, expected 2"),
            (with(|f| f[5] = f[5].clone().with_nullable(true)), "`created_at` is nullable"),
            (with(|f| f[3] = f[3].clone().with_data_type(renamed(f[3].data_type()))), "status"),
        ];
        for (schema, text) in cases {
            let finding = judge_contract(&schema);
            assert_eq!(finding.verdict, Verdict::Failed, "{}", finding.found);
            assert!(finding.found.contains(text), "{}", finding.found);
            assert_eq!(judge_added(&schema, "setup").verdict, Verdict::Ok);
        }
    }

    /// Scenario: an added column missing, of another type, nested, and a strict one of others.
    /// Guarantees: the added columns' line fails, the contract's does not.
    #[test]
    fn added_columns_are_judged_apart() {
        let strict = Field::new("theirs", DataType::Utf8, false);
        let cases: [(Schema, &str); 3] = [
            (with(|f| drop(f.remove(8))), "lacks `request_preview`"),
            (with(|f| f[7] = f[7].clone().with_data_type(DataType::Utf8)), "is string"),
            (with(|f| f.push(strict.clone())), "`theirs` is NOT NULL"),
        ];
        for (schema, text) in cases {
            let finding = judge_added(&schema, "setup");
            assert_eq!(finding.verdict, Verdict::Failed);
            assert!(finding.found.contains(text), "{}", finding.found);
            assert_eq!(judge_contract(&schema).verdict, Verdict::Ok);
        }
    }

    fn renamed(info: &DataType) -> DataType {
        let DataType::Struct(fields) = info else { return info.clone() };
        let rename = |field: &Arc<Field>| match field.name().as_str() {
            "status" => field.as_ref().clone().with_name("state"),
            _ => field.as_ref().clone(),
        };
        DataType::Struct(fields.iter().map(rename).collect())
    }
}
