//! Files that were damaged and are not what the service works with any more.

use std::collections::BTreeMap;

use super::{Checker, Finding};
use crate::folder::moved_aside;
use crate::folder::restored::lost_routes;

/// Of what others are told, by the begin of their names: what took the place of each.
const IN_THEIR_PLACE: [(&str, &str); 3] = [
    ("catalog.db", "tables were entered anew, what clients entered themselves is lost"),
    ("registry.db", "the backup of the registry took its place"),
    ("journal/LEDGER", "`tracelake verify` says what of the ledger is not proven"),
];

impl Checker<'_> {
    /// What was moved aside, and of a registry that was restored what it may lack.
    pub(super) async fn damaged_files(&self) -> Finding {
        let names = match moved_aside(&self.folder) {
            Ok(names) if names.is_empty() => return Finding::ok("none"),
            Ok(names) => names,
            Err(error) => {
                let hint = "look at the data folder";
                return Finding::failed(
                    format!("`{}`: {error}", self.folder.root().display()),
                    hint,
                );
            }
        };
        let mut found = format!("moved aside: {}", names.join(", "));
        let mut hints: BTreeMap<&str, &str> = BTreeMap::new();
        for (begin, place) in IN_THEIR_PLACE {
            if names.iter().any(|name| name.starts_with(begin)) {
                hints.insert(begin, place);
            }
        }
        if hints.contains_key("registry.db")
            && let Ok(Some(registry)) = &self.registry
        {
            match lost_routes(&self.folder, registry).await {
                Ok(lost) => lost.iter().for_each(|lost| {
                    found.push_str("; ");
                    found.push_str(lost);
                }),
                Err(error) => {
                    found.push_str("; bindings not compared with the ledger: ");
                    found.push_str(&format!("{error:#}"));
                }
            }
        }
        let places: Vec<&str> = hints.into_values().collect();
        let hint = format!(
            "{}; delete what was moved aside when nothing of it is needed",
            places.join(", ")
        );
        Finding::note(found, hint)
    }
}
