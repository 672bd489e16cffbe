//! The model that answered, and who runs it.

use std::borrow::Cow;

use super::candidates::Candidates;
use super::json_text::Model;
use super::keys::Key;
use super::payloads::Found;

/// Model name: MLflow's own attribute, the conventions in order, then the member `model` of the
/// inputs and of the outputs.
pub(super) fn model<'a>(
    found: &Candidates<'a>,
    inputs: Option<&Found<'a>>,
    outputs: Option<&Found<'a>>,
) -> Option<Cow<'a, str>> {
    if found.get(Key::MlflowModel).is_some() {
        return name(found, Key::MlflowModel);
    }
    let keys = [
        Key::LlmResponseModelName,
        Key::LlmModelName,
        Key::LlmRequestModelName,
        Key::EmbeddingModelName,
        Key::GenAiResponseModel,
        Key::GenAiRequestModel,
        Key::LangfuseModelName,
    ];
    if let Some(model) = keys.into_iter().find_map(|key| name(found, key)) {
        return Some(model);
    }
    for payload in [inputs, outputs].into_iter().flatten() {
        match &payload.members.model {
            Model::Absent => {}
            Model::Name(model) => return Some(model.clone()),
            Model::Other => return None,
        }
    }
    None
}

/// Provider: MLflow's own attribute, then the conventions in order.
pub(super) fn provider<'a>(found: &Candidates<'a>) -> Option<Cow<'a, str>> {
    if found.get(Key::MlflowProvider).is_some() {
        return name(found, Key::MlflowProvider);
    }
    let keys = [Key::LlmProvider, Key::GenAiProviderName, Key::GenAiSystem];
    keys.into_iter().find_map(|key| name(found, key))
}

fn name<'a>(found: &Candidates<'a>, key: Key) -> Option<Cow<'a, str>> {
    found.text(key).filter(|name| !name.is_empty())
}
