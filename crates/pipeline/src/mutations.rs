//! Steps that the test build leaves out on purpose, to show that the simulation and the crash
//! harness find it.
//!
//! Release builds have no such switch: there a [`Broken`] is nothing at all.

/// Which step is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Broken {
    #[cfg(debug_assertions)]
    step: Option<Step>,
}

/// A step without which acknowledged data is lost or doubled, or a promise is broken otherwise. What
/// only the simulation can leave out is there in tests alone.
#[cfg(debug_assertions)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// `fdatasync` before the acknowledgement.
    Sync,
    /// The look, at a replay, whether a planned epoch is in its table already.
    Txn,
    /// What is unsettled goes on into the next epoch.
    Carry,
    /// The syncs of the journal's folders.
    FolderSync,
    /// The syncs of the folders of tables.
    #[cfg(test)]
    TableSync,
    /// The sync of a log before it is believed that something is not there any more.
    #[cfg(test)]
    AbsenceSync,
    /// The sync of a checkpoint before it is named.
    #[cfg(test)]
    CheckpointSync,
    /// Waits by monotonic time instead of wall time.
    #[cfg(test)]
    MonotonicWaits,
    /// What a trace had when it ended is kept apart from what calls said since.
    #[cfg(test)]
    StartApart,
}

#[cfg(debug_assertions)]
impl Broken {
    /// Leaves out `step`.
    #[cfg(test)]
    pub(crate) const fn without(step: Option<Step>) -> Self {
        Self { step }
    }

    /// What the environment says: `TRACELAKE_BREAK=sync`, `txn`, `carry` or `folder-sync`.
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        let step = match std::env::var("TRACELAKE_BREAK").ok().as_deref() {
            None | Some("") => None,
            Some("sync") => Some(Step::Sync),
            Some("txn") => Some(Step::Txn),
            Some("carry") => Some(Step::Carry),
            Some("folder-sync") => Some(Step::FolderSync),
            Some(other) => {
                anyhow::bail!("TRACELAKE_BREAK=`{other}`: sync, txn, carry or folder-sync")
            }
        };
        if let Some(step) = step {
            tracing::error!(?step, "this process is broken on purpose and loses data");
        }
        Ok(Self { step })
    }

    pub(crate) fn leaves_out(self, step: Step) -> bool {
        self.step == Some(step)
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
