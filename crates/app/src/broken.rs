//! Steps that the test build leaves out on purpose, to show that the simulation and the crash
//! harness find it.
//!
//! Release builds have no such switch: there a [`Broken`] is nothing at all.

/// Which step is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Broken {
    #[cfg(debug_assertions)]
    step: Option<Step>,
}

/// A step without which acknowledged data is lost or doubled.
#[cfg(debug_assertions)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// `fdatasync` before the acknowledgement.
    Sync,
    /// The look, at a replay, whether a planned epoch is in its table already.
    Txn,
    /// What is unsettled goes on into the next epoch.
    Carry,
}

#[cfg(debug_assertions)]
impl Broken {
    /// Leaves out `step`.
    #[cfg(test)]
    pub(crate) const fn without(step: Option<Step>) -> Self {
        Self { step }
    }

    /// What the environment says: `TRACELAKE_BREAK=sync`, `txn` or `carry`.
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        let step = match std::env::var("TRACELAKE_BREAK").ok().as_deref() {
            None | Some("") => None,
            Some("sync") => Some(Step::Sync),
            Some("txn") => Some(Step::Txn),
            Some("carry") => Some(Step::Carry),
            Some(other) => anyhow::bail!("TRACELAKE_BREAK=`{other}`: sync, txn or carry"),
        };
        if let Some(step) = step {
            tracing::error!(?step, "this process is broken on purpose and loses data");
        }
        Ok(Self { step })
    }

    pub(crate) fn leaves_out_sync(self) -> bool {
        self.step == Some(Step::Sync)
    }
}

impl Broken {
    #[cfg(debug_assertions)]
    pub(crate) fn leaves_out_txn(self) -> bool {
        self.step == Some(Step::Txn)
    }

    #[cfg(not(debug_assertions))]
    pub(crate) const fn leaves_out_txn(self) -> bool {
        false
    }

    #[cfg(debug_assertions)]
    pub(crate) fn leaves_out_carry(self) -> bool {
        self.step == Some(Step::Carry)
    }

    #[cfg(not(debug_assertions))]
    pub(crate) const fn leaves_out_carry(self) -> bool {
        false
    }
}
