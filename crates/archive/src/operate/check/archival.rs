//! Which experiments go to the table, and whether they are there.

use tracelake_model::names::printable;
use tracelake_model::{ExperimentId, TableName};
use tracelake_registry::{Experiment, LifecycleStage, Registry, RegistryError, RegistryErrorKind};

use super::{Checker, Finding, ServiceState, units};

/// What was found of the way from experiments to the table.
pub(super) struct Archival {
    pub binding: Finding,
    pub experiment: Finding,
    /// An active experiment whose traces go to the table.
    pub target: Option<ExperimentId>,
}

impl Archival {
    fn unjudged(binding: Finding) -> Self {
        let experiment = Finding::skipped("not judged: see `archival enabled`");
        Self { binding, experiment, target: None }
    }
}

impl Checker<'_> {
    pub(super) async fn archival(&self, state: &ServiceState, table_is_there: bool) -> Archival {
        let hint = format!("`tracelake enable {} --experiment NAME`", self.request.table);
        let registry = match &self.registry {
            Ok(Some(registry)) => registry,
            Ok(None) if !table_is_there => return self.unknown_table(),
            Ok(None) => {
                let found = "this data folder has no experiments and bindings";
                return Archival::unjudged(Finding::failed(found, hint));
            }
            Err(reason) => {
                let hint = "bring `registry.db` back from a backup";
                return Archival::unjudged(Finding::failed(reason.clone(), hint));
            }
        };
        let judged = match &self.request.experiment {
            Some(text) => self.named(registry, state, text).await,
            None => self.bound(registry, state, table_is_there).await,
        };
        judged.unwrap_or_else(|error| {
            let hint = "look at `registry.db`";
            Archival::unjudged(Finding::failed(error.to_string(), hint))
        })
    }

    fn unknown_table(&self) -> Archival {
        let skipped = || Finding::skipped("not judged: see `table in storage`");
        Archival { binding: skipped(), experiment: skipped(), target: None }
    }

    fn is_default_table(&self, state: &ServiceState) -> bool {
        let serving = match state {
            ServiceState::Running(running) => running.status.default_table.as_ref(),
            _ => None,
        };
        *serving.unwrap_or(&self.request.settings.default_table) == self.request.table
    }

    /// The experiment that was asked for.
    async fn named(
        &self,
        registry: &Registry,
        state: &ServiceState,
        text: &str,
    ) -> Result<Archival, RegistryError> {
        let Some(experiment) = find(registry, text).await? else {
            return Ok(Archival {
                binding: Finding::skipped("not judged: see `experiment`"),
                experiment: Finding::failed(
                    format!("no experiment `{}`", printable(text)),
                    format!(
                        "`tracelake setup {} --experiment NAME` creates one, as does \
                         mlflow.set_experiment(NAME)",
                        self.request.table
                    ),
                ),
                target: None,
            });
        };
        let bound = registry.binding(&experiment.experiment_id).await?;
        let binding = self.judge_binding(&experiment, bound.as_ref(), state);
        let is_active = experiment.lifecycle_stage == LifecycleStage::Active;
        let goes_here = !binding.is_broken();
        let target = (is_active && goes_here).then(|| experiment.experiment_id.clone());
        Ok(Archival { binding, experiment: judge_stage(&experiment), target })
    }

    fn judge_binding(
        &self,
        experiment: &Experiment,
        bound: Option<&TableName>,
        state: &ServiceState,
    ) -> Finding {
        let table = &self.request.table;
        let id = &experiment.experiment_id;
        let hint = format!("`tracelake enable {table} --experiment {id}`");
        match bound {
            Some(bound) if bound == table => {
                Finding::ok(format!("experiment {}", shown(experiment)))
            }
            Some(other) => {
                let found = format!("experiment {} is archived to `{other}`", shown(experiment));
                Finding::failed(found, hint)
            }
            None if self.is_default_table(state) => {
                Finding::ok("the table of every experiment without one of its own")
            }
            None => {
                Finding::failed(format!("not enabled for experiment {}", shown(experiment)), hint)
            }
        }
    }

    /// The experiments that are bound to the table, or all without a binding for the default one.
    async fn bound(
        &self,
        registry: &Registry,
        state: &ServiceState,
        table_is_there: bool,
    ) -> Result<Archival, RegistryError> {
        let table = &self.request.table;
        let mut bindings = registry.bindings().await?;
        bindings.retain(|binding| binding.table == *table);
        let is_default = self.is_default_table(state);
        if bindings.is_empty() && !is_default {
            if !table_is_there && registry.table(table).await?.is_none() {
                return Ok(self.unknown_table());
            }
            let found = "no experiment is archived to this table";
            let hint = format!("`tracelake enable {table} --experiment NAME`");
            return Ok(Archival::unjudged(Finding::failed(found, hint)));
        }
        let mut experiments = Vec::with_capacity(bindings.len() + 1);
        for binding in &bindings {
            experiments.push(registry.experiment(&binding.experiment_id).await?);
        }
        let binding = if is_default {
            Finding::ok("the table of every experiment without one of its own")
        } else {
            let first = experiments.first().map(shown).unwrap_or_default();
            Finding::ok(match experiments.len() {
                1 => format!("experiment {first}"),
                many => format!("{many} experiments, the first is {first}"),
            })
        };
        let usual = &self.request.settings.default_experiment;
        if is_default && registry.binding(usual).await?.is_none() {
            experiments.push(registry.experiment(usual).await?);
        }
        let active =
            |experiment: &&Experiment| experiment.lifecycle_stage == LifecycleStage::Active;
        let target = experiments.iter().find(active).map(|one| one.experiment_id.clone());
        Ok(Archival { binding, experiment: judge_stages(&experiments), target })
    }
}

/// By name, and where there is no such name by id.
async fn find(registry: &Registry, text: &str) -> Result<Option<Experiment>, RegistryError> {
    let missing = |error: &RegistryError| error.kind() == RegistryErrorKind::NotFound;
    match registry.experiment_by_name(text).await {
        Err(error) if missing(&error) => {}
        found => return found.map(Some),
    }
    let Ok(id) = text.parse::<ExperimentId>() else { return Ok(None) };
    match registry.experiment(&id).await {
        Err(error) if missing(&error) => Ok(None),
        found => found.map(Some),
    }
}

fn shown(experiment: &Experiment) -> String {
    format!("`{}` (id {})", printable(&experiment.name), experiment.experiment_id)
}

fn judge_stage(experiment: &Experiment) -> Finding {
    match experiment.lifecycle_stage {
        LifecycleStage::Active => Finding::ok(format!("{} is active", shown(experiment))),
        LifecycleStage::Deleted => Finding::failed(
            format!("{} is deleted: its traces are refused", shown(experiment)),
            format!(
                "mlflow.MlflowClient().restore_experiment(\"{}\"), or `tracelake disable \
                 --experiment {}`",
                experiment.experiment_id, experiment.experiment_id
            ),
        ),
    }
}

fn judge_stages(experiments: &[Experiment]) -> Finding {
    let is_deleted = |one: &&Experiment| one.lifecycle_stage == LifecycleStage::Deleted;
    let deleted = experiments.iter().filter(is_deleted).count();
    match experiments {
        [] => Finding::note(
            "the default experiment has a table of its own",
            "name an experiment that comes here by --experiment",
        ),
        [only] => judge_stage(only),
        [first, ..] if deleted == experiments.len() => judge_stage(first),
        all if 0 < deleted => Finding::note(
            format!("{} of {} are deleted", deleted, units::count(all.len(), "experiment")),
            "`tracelake status` lists them",
        ),
        all => Finding::ok(format!("{} active", all.len())),
    }
}
