//! What a table asks of writers, and whether tracelake can do that.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::TableSnapshot;
use crate::error::LakeError;

/// Writer features that every commit of ours honours.
const KNOWN_WRITER_FEATURES: [&str; 6] = [
    "appendOnly",
    "invariants",
    "changeDataFeed",
    "deletionVectors",
    "clustering",
    "domainMetadata",
];

/// The features that a table gets, and what they are worth to its readers.
pub(crate) const OUR_WRITER_FEATURES: [&str; 5] =
    ["changeDataFeed", "clustering", "deletionVectors", "domainMetadata", "invariants"];

/// Features that readers must know as well.
pub(crate) const OUR_READER_FEATURES: [&str; 1] = ["deletionVectors"];

/// A table's protocol, as far as writers care.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Protocol {
    pub min_writer_version: i32,
    #[serde(default)]
    pub reader_features: Option<Vec<String>>,
    #[serde(default)]
    pub writer_features: Option<Vec<String>>,
}

impl Protocol {
    pub(crate) fn of(snapshot: &TableSnapshot) -> Result<Self, LakeError> {
        let protocol = snapshot.snapshot.table_configuration().protocol();
        serde_json::to_value(protocol).and_then(serde_json::from_value).map_err(|error| {
            LakeError::Row { path: snapshot.table().name(), reason: error.to_string() }
        })
    }

    /// The features a legacy version number stands for, or the list of a modern one, as far as
    /// the table uses them: `configuration` and `schema` tell for the legacy ones.
    pub(crate) fn active_writer_features(&self, uses: &LegacyUses) -> BTreeSet<String> {
        if let Some(features) = &self.writer_features {
            return features.iter().cloned().collect();
        }
        let mut features = BTreeSet::new();
        let mut add = |from: i32, used: bool, name: &str| {
            if from <= self.min_writer_version && used {
                features.insert(name.to_owned());
            }
        };
        add(2, true, "appendOnly");
        add(2, true, "invariants");
        add(3, uses.check_constraints, "checkConstraints");
        add(4, true, "changeDataFeed");
        add(4, uses.generated_columns, "generatedColumns");
        add(5, uses.column_mapping, "columnMapping");
        add(6, uses.identity_columns, "identityColumns");
        features
    }

    /// True when amendments can be written: deletion vectors and everything else we set up.
    pub(crate) fn has_all_of_ours(&self) -> bool {
        let has = |list: &Option<Vec<String>>, name: &str| {
            list.as_ref().is_some_and(|list| list.iter().any(|feature| feature == name))
        };
        OUR_WRITER_FEATURES.iter().all(|name| has(&self.writer_features, name))
            && OUR_READER_FEATURES.iter().all(|name| has(&self.reader_features, name))
    }
}

/// Which features of a legacy protocol a table really uses.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LegacyUses {
    pub check_constraints: bool,
    pub generated_columns: bool,
    pub column_mapping: bool,
    pub identity_columns: bool,
}

impl LegacyUses {
    /// Looks at a table's properties and schema text.
    pub(crate) fn of<'a>(
        mut properties: impl Iterator<Item = (&'a str, &'a str)> + Clone,
        schema: &str,
    ) -> Self {
        Self {
            check_constraints: properties
                .clone()
                .any(|(key, _)| key.starts_with("delta.constraints.")),
            generated_columns: schema.contains("delta.generationExpression"),
            column_mapping: properties
                .any(|(key, value)| key == "delta.columnMapping.mode" && value != "none"),
            identity_columns: schema.contains("delta.identity."),
        }
    }
}

/// Refuses a table that needs a feature which our commits would not honour.
pub(crate) fn check_writable(
    table: &str,
    features: &BTreeSet<String>,
    schema: &str,
) -> Result<(), LakeError> {
    let refuse = |feature: &str| {
        Err(LakeError::UnsupportedFeature { table: table.to_owned(), feature: feature.to_owned() })
    };
    if let Some(unknown) = features.iter().find(|f| !KNOWN_WRITER_FEATURES.contains(&f.as_str())) {
        return refuse(unknown);
    }
    if schema.contains("delta.invariants") {
        return refuse("invariants with an expression");
    }
    Ok(())
}
