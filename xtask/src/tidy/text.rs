//! Rules about what stands in a file.

use std::path::Path;

/// Every crate takes the workspace's lints.
pub(crate) fn check_manifest(path: &Path, content: &str) -> Option<String> {
    let has = content.lines().skip_while(|line| line.trim() != "[lints]").nth(1);
    let inherits = has.is_some_and(|line| line.replace(' ', "") == "workspace=true");
    (!inherits).then(|| format!("{}: add `[lints] workspace = true`", path.display()))
}

/// A crate's root says what comes in, what goes out and what the room refuses to know.
pub(crate) fn check_module_doc(name: &str, content: &str) -> Option<String> {
    let root = ["src/lib.rs", "src/main.rs"].iter().any(|end| name.ends_with(end));
    let documented = content.lines().next().is_some_and(|line| line.starts_with("//! "));
    (root && !documented).then(|| format!("{name}: begin with a module doc (`//! ...`)"))
}

/// Sources are ASCII, so that what a reader sees is what a compiler sees.
pub(crate) fn check_ascii(name: &str, content: &str) -> Vec<String> {
    let foreign = content.lines().enumerate().filter_map(|(index, line)| {
        let found = line.chars().find(|c| !c.is_ascii())?;
        Some(format!("{name}:{}: U+{:04X} is not ASCII, escape it", index + 1, u32::from(found)))
    });
    foreign.take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_without_the_lints_is_a_fault() {
        let path = Path::new("crates/x/Cargo.toml");
        assert_eq!(check_manifest(path, "[package]\n\n[lints]\nworkspace = true\n"), None);
        assert!(check_manifest(path, "[package]\nworkspace = true\n").is_some());
        assert!(check_manifest(path, "[lints.rust]\nunsafe_code = \"deny\"\n").is_some());
    }

    #[test]
    fn only_a_crate_root_must_begin_with_a_doc() {
        assert_eq!(check_module_doc("crates/x/src/lib.rs", "//! The x room.\n"), None);
        assert_eq!(check_module_doc("crates/x/src/part.rs", "use y;\n"), None);
        assert!(check_module_doc("crates/x/src/lib.rs", "mod y;\n").is_some());
        assert!(check_module_doc("xtask/src/main.rs", "").is_some());
    }

    #[test]
    fn names_line_and_character_of_what_is_not_ascii() {
        let faults = check_ascii("a.rs", "fn a() {}\n// caf\u{e9}\n");
        assert_eq!(faults, ["a.rs:2: U+00E9 is not ASCII, escape it"]);
        assert_eq!(check_ascii("a.rs", "plain\n"), Vec::<String>::new());
    }
}
