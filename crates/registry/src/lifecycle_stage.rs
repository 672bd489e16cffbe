//! Where an experiment is in its life, in MLflow's words.

/// Where an experiment is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifecycleStage {
    /// In use.
    Active,
    /// Deleted, and restorable.
    Deleted,
}

impl LifecycleStage {
    /// MLflow's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Deleted => "deleted",
        }
    }

    pub(crate) fn parse(text: &str) -> Self {
        if text == "active" { Self::Active } else { Self::Deleted }
    }
}
