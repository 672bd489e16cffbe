//! Rules about what stands in a file.

use std::path::Path;

/// Every crate takes the workspace's lints.
pub(crate) fn check_manifest(path: &Path, content: &str) -> Option<String> {
    let has = content.lines().skip_while(|line| line.trim() != "[lints]").nth(1);
    let inherits = has.is_some_and(|line| line.replace(' ', "") == "workspace=true");
    (!inherits).then(|| format!("{}: add `[lints] workspace = true`", path.display()))
}

/// A crate's root says what comes in, what goes out and what the room refuses to know. A module of
/// the Python package says what it is for.
pub(crate) fn check_module_doc(name: &str, content: &str) -> Option<String> {
    let first = content.lines().next().unwrap_or_default();
    let root = ["src/lib.rs", "src/main.rs"].iter().any(|end| name.ends_with(end));
    if root && !first.starts_with("//! ") {
        return Some(format!("{name}: begin with a module doc (`//! ...`)"));
    }
    let python = name.starts_with("crates/") && name.ends_with(".py");
    (python && !first.starts_with("\"\"\""))
        .then(|| format!("{name}: begin with a docstring of the module"))
}

/// Words with which a comment tells what was, which is the business of the version control.
const HISTORY_WORDS: [&str; 7] =
    ["anymore", "formerly", "improved", "previously", "renamed from", "used to be", "was renamed"];

/// Comments and docs say what holds, not what came before it.
pub(crate) fn check_history(name: &str, content: &str) -> Vec<String> {
    let comments: Vec<(usize, &str)> = match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("rs") => comments_after(content, "//").collect(),
        Some("py" | "pyi") => comments_after(content, "#").chain(docstrings(content)).collect(),
        _ => Vec::new(),
    };
    let told = comments.iter().filter_map(|(line, text)| {
        let text = text.to_lowercase();
        let word = HISTORY_WORDS.iter().find(|word| text.contains(*word))?;
        Some(format!("{name}:{line}: `{word}` tells history, say what holds"))
    });
    told.take(3).collect()
}

/// Lines from one, with what follows the first `mark` in them.
fn comments_after<'a>(content: &'a str, mark: &str) -> impl Iterator<Item = (usize, &'a str)> {
    let split = move |(index, line): (usize, &'a str)| Some((index + 1, line.split_once(mark)?.1));
    content.lines().enumerate().filter_map(split)
}

/// Lines from one that lie within triple quotes or touch them.
fn docstrings(content: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut inside = false;
    content.lines().enumerate().filter_map(move |(index, line)| {
        let quotes = line.matches("\"\"\"").count();
        let within = inside || quotes > 0;
        inside ^= quotes % 2 == 1;
        within.then_some((index + 1, line))
    })
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
    fn a_module_of_the_python_package_begins_with_a_docstring() {
        let name = "crates/py/python/tracelake/results.py";
        assert_eq!(check_module_doc(name, "\"\"\"Results.\"\"\"\n"), None);
        assert!(check_module_doc(name, "import os\n").is_some());
        assert_eq!(check_module_doc("tests/e2e/a.py", "import os\n"), None);
    }

    #[test]
    fn comments_and_docstrings_tell_no_history_and_code_may() {
        let told = |name, content| check_history(name, content).len();
        assert_eq!(told("a.rs", "fn improved() {}\n/\u{2f}/ Formerly a list.\n"), 1);
        assert_eq!(told("a.py", "x = previously  # an id\n# It used to be a list.\n"), 1);
        assert_eq!(told("a.pyi", "\"\"\"One.\n\nWas renamed.\n\"\"\"\nimproved: int\n"), 1);
        assert_eq!(told("a.toml", "# improved\n"), 0);
        let faults = check_history("a.rs", "\n/\u{2f} not anymore\n");
        assert_eq!(faults, ["a.rs:2: `anymore` tells history, say what holds"]);
    }

    #[test]
    fn names_line_and_character_of_what_is_not_ascii() {
        let faults = check_ascii("a.rs", "fn a() {}\n// caf\u{e9}\n");
        assert_eq!(faults, ["a.rs:2: U+00E9 is not ASCII, escape it"]);
        assert_eq!(check_ascii("a.rs", "plain\n"), Vec::<String>::new());
    }
}
