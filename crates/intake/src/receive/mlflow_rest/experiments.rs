//! `/mlflow/experiments/*`.

use std::sync::Arc;

use axum::extract::State;
use serde_json::{Map, Value, json};
use tracelake_registry::{Experiment, ExperimentQuery, NewExperiment, Tag, ViewType};

use super::parameters::{Parameters, wrong_type};
use super::reply::{Answer, MlflowError, Reply};
use crate::intake::Intake;

pub(super) async fn create(State(intake): State<Arc<Intake>>, parameters: Parameters) -> Reply {
    let new = NewExperiment {
        name: parameters.required_text("name")?,
        artifact_location: parameters.text("artifact_location")?,
        tags: parameters.tags("tags")?,
    };
    let id = intake.registry().create_experiment(&new).await?;
    Ok(Answer(json!({"experiment_id": id.as_str()})))
}

pub(super) async fn get(State(intake): State<Arc<Intake>>, parameters: Parameters) -> Reply {
    let id = parameters.experiment_id()?;
    let experiment = intake.registry().experiment(&id).await?;
    Ok(Answer(json!({"experiment": to_json(&experiment)})))
}

pub(super) async fn get_by_name(
    State(intake): State<Arc<Intake>>,
    parameters: Parameters,
) -> Reply {
    let name = parameters.required_text("experiment_name")?;
    let experiment = intake.registry().experiment_by_name(&name).await?;
    Ok(Answer(json!({"experiment": to_json(&experiment)})))
}

pub(super) async fn search(State(intake): State<Arc<Intake>>, parameters: Parameters) -> Reply {
    let defaults = ExperimentQuery::default();
    let query = ExperimentQuery {
        view: view_type(&parameters)?,
        max_results: parameters.number("max_results")?.unwrap_or(defaults.max_results),
        filter: parameters.text("filter")?.unwrap_or_default(),
        order_by: parameters.texts("order_by")?,
        page_token: parameters.text("page_token")?,
    };
    let page = intake.registry().search_experiments(&query).await?;
    let mut answer = Map::new();
    if !page.experiments.is_empty() {
        answer.insert("experiments".into(), page.experiments.iter().map(to_json).collect());
    }
    if let Some(token) = page.next_page_token {
        answer.insert("next_page_token".into(), token.into());
    }
    Ok(Answer(Value::Object(answer)))
}

pub(super) async fn update(State(intake): State<Arc<Intake>>, parameters: Parameters) -> Reply {
    let id = parameters.experiment_id()?;
    let new_name = parameters.required_text("new_name")?;
    intake.registry().rename_experiment(&id, &new_name).await?;
    Ok(Answer::empty())
}

pub(super) async fn delete(State(intake): State<Arc<Intake>>, parameters: Parameters) -> Reply {
    intake.registry().delete_experiment(&parameters.experiment_id()?).await?;
    Ok(Answer::empty())
}

pub(super) async fn restore(State(intake): State<Arc<Intake>>, parameters: Parameters) -> Reply {
    intake.registry().restore_experiment(&parameters.experiment_id()?).await?;
    Ok(Answer::empty())
}

pub(super) async fn set_tag(State(intake): State<Arc<Intake>>, parameters: Parameters) -> Reply {
    let id = parameters.experiment_id()?;
    let tag = Tag {
        key: parameters.required_text("key")?,
        value: parameters.text("value")?.unwrap_or_default(),
    };
    intake.registry().set_experiment_tag(&id, &tag).await?;
    Ok(Answer::empty())
}

pub(super) async fn delete_tag(State(intake): State<Arc<Intake>>, parameters: Parameters) -> Reply {
    let id = parameters.experiment_id()?;
    let key = parameters.required_text("key")?;
    intake.registry().delete_experiment_tag(&id, &key).await?;
    Ok(Answer::empty())
}

/// `ViewType` by name or number, as protobuf's JSON has it.
fn view_type(parameters: &Parameters) -> Result<ViewType, MlflowError> {
    if let Ok(Some(name)) = parameters.text("view_type") {
        match name.as_str() {
            "ACTIVE_ONLY" => return Ok(ViewType::ActiveOnly),
            "DELETED_ONLY" => return Ok(ViewType::DeletedOnly),
            "ALL" => return Ok(ViewType::All),
            _ => {}
        }
    }
    match parameters.number("view_type")? {
        None | Some(1) => Ok(ViewType::ActiveOnly),
        Some(2) => Ok(ViewType::DeletedOnly),
        Some(3) => Ok(ViewType::All),
        Some(other) => Err(wrong_type("view_type", &other.into())),
    }
}

fn to_json(experiment: &Experiment) -> Value {
    let mut json = json!({
        "experiment_id": experiment.experiment_id.as_str(),
        "name": experiment.name,
        "artifact_location": experiment.artifact_location,
        "lifecycle_stage": experiment.lifecycle_stage.as_str(),
        "last_update_time": experiment.last_update_time_ms,
        "creation_time": experiment.creation_time_ms,
        "workspace": "default",
    });
    if let (Some(members), false) = (json.as_object_mut(), experiment.tags.is_empty()) {
        let tags = experiment.tags.iter().map(|tag| json!({"key": tag.key, "value": tag.value}));
        members.insert("tags".into(), tags.collect());
    }
    json
}
