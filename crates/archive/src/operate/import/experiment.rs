//! The experiment that an import is told to use.

use std::path::Path;

use tracelake_model::ExperimentId;
use tracelake_model::names::printable;
use tracelake_registry::{LifecycleStage, NewExperiment, Registry, RegistryErrorKind};

use crate::fault::{Fault, FaultKind};
use crate::folder::Archive;

/// The experiment that the user means; made if there is none of that name, unless `look` only.
///
/// # Errors
/// [`FaultKind::ExperimentNotFound`] when it is deleted, or when no experiment has the id.
pub async fn experiment(
    data_dir: &Path,
    text: &str,
    look: bool,
) -> anyhow::Result<Option<ExperimentId>> {
    let archive = Archive::open(data_dir).await?;
    let found = find_experiment(&archive.registry, text, look).await;
    archive.registry.close().await;
    found
}

async fn find_experiment(
    registry: &Registry,
    text: &str,
    look: bool,
) -> anyhow::Result<Option<ExperimentId>> {
    let by_id = text.parse::<ExperimentId>().ok();
    let found = match &by_id {
        Some(id) => registry.experiment(id).await,
        None => registry.experiment_by_name(text).await,
    };
    match found {
        Ok(found) if found.lifecycle_stage == LifecycleStage::Deleted => {
            let message = format!("experiment `{}` is deleted", printable(text));
            Err(Fault::new(FaultKind::ExperimentNotFound, message)
                .with_hint("restore it with the MLflow client, or choose another")
                .into())
        }
        Ok(found) => Ok(Some(found.experiment_id)),
        Err(error) if error.kind() == RegistryErrorKind::NotFound => match by_id {
            Some(id) => {
                let message = format!("no experiment has the id {id}");
                Err(Fault::new(FaultKind::ExperimentNotFound, message)
                    .with_hint("name one by its name to make it")
                    .into())
            }
            None if look => Ok(None),
            None => {
                let new = NewExperiment { name: text.to_owned(), ..Default::default() };
                Ok(Some(registry.create_experiment(&new).await?))
            }
        },
        Err(error) => Err(error.into()),
    }
}
