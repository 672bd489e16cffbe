//! The table's properties, clustering and protocol.

use tracelake_lake::{LakeError, TableSnapshot};
use tracelake_model::names::printable;
use tracelake_model::schema::CLUSTERING_COLUMNS;

use super::Finding;

pub(super) fn change_data_feed(snapshot: &TableSnapshot, setup: &str) -> Finding {
    property(snapshot, "delta.enableChangeDataFeed", setup)
}

pub(super) fn deletion_vectors(snapshot: &TableSnapshot, setup: &str) -> Finding {
    property(snapshot, "delta.enableDeletionVectors", setup)
}

/// Whether a property is `true`.
fn property(snapshot: &TableSnapshot, key: &str, setup: &str) -> Finding {
    match snapshot.properties().get(key) {
        Some(value) if value == "true" => Finding::ok(format!("{key} = true")),
        other => {
            let found = other.map_or("not set".to_owned(), |value| printable(value));
            Finding::failed(format!("{key}: {found}"), format!("{setup} switches it on"))
        }
    }
}

/// Whether the table has liquid clustering: the feature and its domain, with columns.
pub(super) fn clustering(snapshot: &TableSnapshot) -> Finding {
    let by = CLUSTERING_COLUMNS.join(", ");
    let hint = format!("in Spark: ALTER TABLE ... CLUSTER BY ({by})");
    match snapshot.clustering_columns() {
        Ok(Some(columns)) if !columns.is_empty() => {
            Finding::ok(format!("by {}", printable(&columns.join(", "))))
        }
        Ok(Some(_)) => Finding::note("switched off: CLUSTER BY NONE", hint),
        Ok(None) => Finding::failed("no domain `delta.clustering`, or not the feature", hint),
        Err(error) => Finding::failed(error.to_string(), hint),
    }
}

/// Features of readers that common readers other than Spark have.
const WIDELY_READ: [&str; 3] = ["deletionVectors", "timestampNtz", "vacuumProtocolCheck"];

/// Whether tracelake may write the table, and others can read it.
pub(super) fn protocol(snapshot: &TableSnapshot, setup: &str) -> Finding {
    let features = match snapshot.features() {
        Ok(features) => features,
        Err(error) => return failed_protocol(&error),
    };
    if let Some(unsupported) = features.unsupported {
        return Finding::failed(
            format!(
                "needs the writer feature `{}`, which tracelake lacks",
                printable(&unsupported)
            ),
            "drop that feature (in Spark: ALTER TABLE ... DROP FEATURE), or choose another table",
        );
    }
    // Without the feature the clustering line fails, and says more.
    let mut missing = features.missing.iter().filter(|name| *name != "clustering").peekable();
    if missing.peek().is_some() {
        let found = format!("lacks the features {}", listed(missing));
        return Finding::failed(found, format!("{setup} adds them"));
    }
    let mut rare =
        features.reader.iter().filter(|name| !WIDELY_READ.contains(&name.as_str())).peekable();
    if rare.peek().is_some() {
        return Finding::note(
            format!("readers must know {}", listed(rare)),
            "not every reader does; Spark 4 and Databricks do",
        );
    }
    Finding::ok(format!("readers must know {}", listed(features.reader.iter())))
}

fn listed<'a>(names: impl Iterator<Item = &'a String>) -> String {
    printable(&names.map(String::as_str).collect::<Vec<_>>().join(", "))
}

fn failed_protocol(error: &LakeError) -> Finding {
    Finding::failed(error.to_string(), "bring the table's log back from a backup")
}
