//! What a restored registry may lack, found again or said: tables by their folders, experiments and
//! bindings by what the ledger says traces came for.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracelake_lake::{DataFolder, Lake, Table};
use tracelake_model::{Clock, ExperimentId, TableName};
use tracelake_pipeline::ledger::{Mark, read_blocks};
use tracelake_registry::{Registry, RegistryErrorKind, Restored};
use tracing::{error, info};

/// Opens the registry of the data folder that this process owns; a damaged one is restored from its
/// backup, and what that lacks is found again or logged.
///
/// # Errors
/// As [`Registry::open_or_restore`].
pub(crate) async fn open_registry_or_restore(
    folder: &DataFolder,
    clock: &Arc<dyn Clock>,
) -> Result<Registry, tracelake_registry::RegistryError> {
    let (registry, restored) = Registry::open_or_restore(folder.root(), Arc::clone(clock)).await?;
    if let Some(Restored { reason, moved_to, last_given_id }) = restored {
        let moved_to = moved_to.map(|path| path.display().to_string());
        error!(reason, moved_to, last_given_id, "registry restored from its backup");
        // It is whole already: what cannot be found must not keep the service from starting.
        if let Err(error) = find_tables(folder, &registry).await {
            error!(error = format!("{error:#}"), "tables not looked for");
        }
        match lost_routes(folder, &registry).await {
            Ok(lost) => lost.iter().for_each(|lost| error!("{lost}")),
            Err(error) => {
                error!(error = format!("{error:#}"), "bindings not compared with the ledger");
            }
        }
    }
    Ok(registry)
}

/// Registers the tables that lie in the folder.
async fn find_tables(folder: &DataFolder, registry: &Registry) -> anyhow::Result<()> {
    let known = registry.tables().await?;
    let lake = Lake::new()?;
    for name in folder.tables()? {
        if !known.iter().any(|table| table.name == name) {
            let table = Table::at(&lake, folder.table(&name))?;
            registry.register_table(&name, table.url().as_str()).await?;
            info!(table = %name, "table found again");
        }
    }
    Ok(())
}

/// For each experiment the table that traces came for last, by the ledger.
fn routes_by_ledger(
    folder: &DataFolder,
) -> std::io::Result<BTreeMap<ExperimentId, (u64, TableName)>> {
    let mut routes: BTreeMap<ExperimentId, (u64, TableName)> = BTreeMap::new();
    read_blocks(&folder.ledger(), Mark::default(), None, &mut |block| {
        for cell in block.cells {
            let is_newer =
                routes.get(&cell.experiment_id).is_none_or(|(hour, _)| *hour <= cell.hour);
            if is_newer {
                routes.insert(cell.experiment_id, (cell.hour, cell.table));
            }
        }
        Ok(())
    })?;
    Ok(routes)
}

/// What the ledger says of experiments and where their traces went, and the registry does not.
pub(crate) async fn lost_routes(
    folder: &DataFolder,
    registry: &Registry,
) -> anyhow::Result<Vec<String>> {
    let ledger = folder.clone();
    let routes = tokio::task::spawn_blocking(move || routes_by_ledger(&ledger)).await??;
    let mut lost = Vec::new();
    for (id, (_, table)) in routes {
        match registry.experiment(&id).await {
            Err(error) if error.kind() == RegistryErrorKind::NotFound => {
                lost.push(format!(
                    "traces of experiment {id} came for `{table}`, and the restored registry does not have it: its name is lost, its traces are in that table: `tracelake enable {table} --experiment NAME` binds the one that its clients use from now on"
                ));
                continue;
            }
            found => drop(found?),
        }
        let route = registry.experiment_route(&id).await?;
        let is_known = route.is_some_and(|route| {
            let is_default =
                |past: &tracelake_registry::PastTable| past.was_default && past.name == table;
            route.table.as_ref() == Some(&table)
                || (route.table.is_none() && route.past.iter().any(is_default))
        });
        if !is_known {
            lost.push(format!(
                "traces of experiment {id} came for `{table}` last, and the restored registry does not bind it there: `tracelake enable {table} --experiment {id}` binds it again"
            ));
        }
    }
    Ok(lost)
}

#[cfg(test)]
mod tests {
    use tracelake_decode::RecordKind;
    use tracelake_journal::SegmentNumber;
    use tracelake_model::SystemClock;
    use tracelake_registry::EarlierTraces;
    use tracelake_testkit::records::spans;
    use uuid::Uuid;

    use super::*;
    use tracelake_pipeline::ledger::Ledger;

    /// Scenario: the ledger has traces of experiment 0 for a table; the registry binds it elsewhere,
    /// or nowhere, or there, or has that table for its default.
    /// Guarantees: the first two are said, with what to do.
    #[tokio::test]
    async fn bindings_that_the_ledger_contradicts_are_said() {
        let place = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(place.path()).unwrap();
        std::fs::create_dir(folder.journal()).unwrap();
        let retention = std::time::Duration::from_secs(86_400);
        let fs = Arc::new(tracelake_journal::RealFs);
        let mut ledger = Ledger::of(fs, &folder, Uuid::from_u128(7), retention);
        ledger.note(&spans(1, 0..1, RecordKind::OtlpProtobuf));
        ledger.write(SegmentNumber::new(1), 0, 0).unwrap();
        let registry = Registry::open(folder.root(), Arc::new(SystemClock)).await.unwrap();
        let zero = ExperimentId::default_experiment();
        let [here, other]: [TableName; 2] = ["a.b.c", "d.e.f"].map(|name| name.parse().unwrap());
        for table in [&here, &other] {
            registry.register_table(table, &format!("file:///{table}/")).await.unwrap();
        }
        let lost = async || lost_routes(&folder, &registry).await.unwrap();
        let bind = async |table| registry.bind(&zero, table, 0, EarlierTraces::Stay).await.unwrap();
        let [said]: [String; 1] = lost().await.try_into().unwrap();
        assert!(said.contains("`tracelake enable a.b.c --experiment 0`"), "{said}");
        bind(&other).await;
        assert_eq!(lost().await.len(), 1);
        bind(&here).await;
        assert_eq!(lost().await, Vec::<String>::new());
        registry.unbind(&zero).await.unwrap();
        registry.note_default_table(&here).await.unwrap();
        assert_eq!(lost().await, Vec::<String>::new());
    }
}
