//! A round without the traces whose rows cannot be read, so that one damaged row keeps nothing else out.

use tracelake_model::TraceId;
use tracing::error;

use super::amendment::Plan;
use super::merge::Age;
use super::{Found, TableWriter};
use crate::error::LakeError;
use crate::rows::TraceDraft;

/// A plan, and what it is of.
pub(super) struct Readable<'a> {
    pub(super) plan: Plan,
    pub(super) late: Vec<&'a TraceDraft>,
    pub(super) unreadable: Vec<TraceId>,
    /// What is wrong with one of them.
    pub(super) fault: Option<String>,
}

impl TableWriter {
    /// Plans the amendment of `late` traces; of those alone whose rows can be read, when others may be left out
    /// by `may_leave`.
    pub(super) fn plan_readable<'a>(
        &mut self,
        late: &[&'a TraceDraft],
        found: &Found,
        age: Age,
        limit: usize,
        may_leave: bool,
    ) -> Result<Readable<'a>, LakeError> {
        match self.plan_amendment(late, found, age, limit) {
            Ok(plan) => {
                let late = late.to_vec();
                return Ok(Readable { plan, late, unreadable: Vec::new(), fault: None });
            }
            Err(fault) if !may_leave || !fault.is_of_rows() => return Err(fault),
            Err(_) => {}
        }
        let mut readable = Vec::with_capacity(late.len());
        let mut deferred = Vec::new();
        let mut unreadable = Vec::new();
        let mut named = None;
        // By halves: most can be read.
        let mut left = vec![late];
        while let Some(some) = left.pop() {
            match self.plan_amendment(some, found, age, limit) {
                Ok(plan) => {
                    // What memory has no room for was not looked at.
                    let looked_at = |piece: &&&TraceDraft| !plan.deferred.contains(&piece.trace_id);
                    readable.extend(some.iter().filter(looked_at).copied());
                    deferred.extend(plan.deferred);
                }
                Err(fault) if !fault.is_of_rows() => return Err(fault),
                Err(fault) => match some {
                    [] => return Err(fault),
                    [one] => {
                        error!(trace = %one.trace_id.to_mlflow(), error = %fault, "its row cannot be read: what came late waits");
                        unreadable.push(one.trace_id);
                        named = Some(fault.to_string());
                    }
                    several => left.extend(<[_; 2]>::from(several.split_at(several.len() / 2))),
                },
            }
        }
        let mut plan = self.plan_amendment(&readable, found, age, limit)?;
        plan.deferred.extend(unreadable.iter().copied().chain(deferred));
        Ok(Readable { plan, late: readable, unreadable, fault: named })
    }
}
