//! Which crate may know which: the shape of the house, as a table.

use std::path::PathBuf;

use anyhow::Context;
use serde_json::Value;

/// The allowed arrows between crates of ours. An arrow that is not here needs a decision record.
const ALLOWED: [(&str, &[&str]); 16] = [
    ("model", &[]),
    ("decode", &["model"]),
    ("journal", &[]),
    ("registry", &["model"]),
    ("catalog", &["model"]),
    ("intake", &["model", "decode", "journal", "registry"]),
    ("lake", &["model", "decode"]),
    ("pipeline", &["model", "decode", "journal", "registry", "lake"]),
    ("query", &["model", "lake"]),
    ("present", &["model", "query"]),
    (
        "archive",
        &[
            "model", "decode", "intake", "journal", "registry", "catalog", "lake", "pipeline",
            "query", "present",
        ],
    ),
    ("cli", &["model", "decode", "registry", "lake", "pipeline", "query", "present", "archive"]),
    ("py", &["archive", "cli", "model", "query"]),
    ("testkit", &["model", "decode"]),
    ("loadgen", &[]),
    ("xtask", &[]),
];

/// Used by tests only, so it may be a dev-dependency of anyone and a dependency of no one.
const TEST_ONLY: &str = "testkit";

/// A crate of the workspace and the crates of the workspace that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// Name without the common prefix, such as `lake`.
    pub(crate) room: String,
    /// Path of its manifest.
    pub(crate) manifest: PathBuf,
    /// Arrows to other crates of the workspace.
    pub(crate) arrows: Vec<Arrow>,
}

/// One dependency on a crate of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrow {
    /// Room that is depended on.
    pub(crate) to: String,
    /// Whether only tests use it.
    pub(crate) dev: bool,
}

/// Takes the packages of the workspace out of `cargo metadata --no-deps`.
///
/// # Errors
/// When the document lacks a field that cargo promises.
pub(crate) fn read_packages(metadata: &Value) -> anyhow::Result<Vec<Package>> {
    let packages = metadata.get("packages").and_then(Value::as_array);
    packages.context("read `packages` of cargo metadata")?.iter().map(read_package).collect()
}

fn read_package(package: &Value) -> anyhow::Result<Package> {
    let text = |key: &str| package.get(key).and_then(Value::as_str);
    let dependencies = package.get("dependencies").and_then(Value::as_array);
    // A path is what tells a crate of ours from one of a registry.
    let ours = dependencies.into_iter().flatten().filter(|d| d.get("path").is_some());
    let arrows = ours.filter_map(|dependency| {
        let to = room(dependency.get("name")?.as_str()?);
        let dev = dependency.get("kind").and_then(Value::as_str) == Some("dev");
        Some(Arrow { to, dev })
    });
    Ok(Package {
        room: room(text("name").context("read `name` of a package")?),
        manifest: text("manifest_path").context("read `manifest_path` of a package")?.into(),
        arrows: arrows.collect(),
    })
}

fn room(package: &str) -> String {
    package.strip_prefix("tracelake-").unwrap_or(package).to_owned()
}

/// One message per arrow that is not allowed, and per crate that the table does not know.
pub(crate) fn check(packages: &[Package]) -> Vec<String> {
    packages.iter().flat_map(check_package).collect()
}

fn check_package(package: &Package) -> Vec<String> {
    let from = &package.room;
    let Some((_, allowed)) = ALLOWED.iter().find(|(room, _)| room == from) else {
        return vec![format!(
            "crate `{from}` is not in the table of allowed arrows (xtask/src/tidy/arrows.rs)"
        )];
    };
    let wrong = package.arrows.iter().filter_map(|arrow| {
        let to = &arrow.to;
        if to == TEST_ONLY {
            return (!arrow.dev)
                .then(|| format!("crate `{from}` ships `{to}`: make it a dev-dependency"));
        }
        let known = allowed.contains(&to.as_str());
        (!known)
            .then(|| format!("arrow `{from}` -> `{to}` is not allowed; allowed: {}", list(allowed)))
    });
    wrong.collect()
}

fn list(rooms: &[&str]) -> String {
    if rooms.is_empty() { "none".to_owned() } else { rooms.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(room: &str, arrows: &[(&str, bool)]) -> Package {
        let arrows = arrows.iter().map(|&(to, dev)| Arrow { to: to.to_owned(), dev });
        Package { room: room.to_owned(), manifest: PathBuf::new(), arrows: arrows.collect() }
    }

    #[test]
    fn allows_the_arrows_of_the_table() {
        let house = [
            package("model", &[]),
            package("lake", &[("model", false), ("decode", false), ("testkit", true)]),
            package("archive", &[("query", false), ("lake", false)]),
        ];
        assert_eq!(check(&house), Vec::<String>::new());
    }

    #[test]
    fn names_an_arrow_that_points_up() {
        let faults = check(&[package("model", &[("lake", false)])]);
        assert_eq!(faults, ["arrow `model` -> `lake` is not allowed; allowed: none"]);
    }

    /// A test may not reach where the code may not: the room would leak through its tests.
    #[test]
    fn a_dev_dependency_is_an_arrow_too() {
        assert_eq!(check(&[package("journal", &[("model", true)])]).len(), 1);
    }

    #[test]
    fn the_testkit_never_ships() {
        let faults = check(&[package("intake", &[("testkit", false)])]);
        assert_eq!(faults, ["crate `intake` ships `testkit`: make it a dev-dependency"]);
    }

    #[test]
    fn a_new_crate_must_be_entered() {
        assert_eq!(check(&[package("utils", &[])]).len(), 1);
    }

    #[test]
    fn reads_rooms_and_arrows_from_metadata() -> anyhow::Result<()> {
        let metadata = serde_json::json!({"packages": [{
            "name": "tracelake-lake",
            "manifest_path": "/x/crates/lake/Cargo.toml",
            "dependencies": [
                {"name": "arrow", "kind": null},
                {"name": "tracelake-model", "kind": null, "path": "/x/crates/model"},
                {"name": "tracelake-testkit", "kind": "dev", "path": "/x/crates/testkit"},
            ],
        }]});
        let mut expected = package("lake", &[("model", false), ("testkit", true)]);
        expected.manifest = "/x/crates/lake/Cargo.toml".into();
        assert_eq!(read_packages(&metadata)?, [expected]);
        Ok(())
    }

    #[test]
    fn the_table_has_no_circle() {
        fn depth(room: &str, left: usize) -> usize {
            assert!(left > 0, "`{room}` is part of a circle");
            let (_, to) = ALLOWED.iter().find(|(name, _)| *name == room).unwrap();
            1 + to.iter().map(|next| depth(next, left - 1)).max().unwrap_or(0)
        }
        for (room, _) in ALLOWED {
            assert!(depth(room, ALLOWED.len()) <= 8);
        }
    }
}
