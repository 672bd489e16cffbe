//! Files and functions that have grown long. The answer may be a reason, so these are remarks.

const MAX_FILE_LINES: usize = 600;
const MAX_FUNCTION_LINES: usize = 80;

/// One remark per file with too many production lines and per function that is too long.
pub(crate) fn remarks(name: &str, content: &str) -> Vec<String> {
    if is_test_file(name) {
        return Vec::new();
    }
    let lines: Vec<&str> = production_lines(content).collect();
    let mut remarks = Vec::new();
    if sized(name) && lines.len() > MAX_FILE_LINES {
        remarks.push(format!("{name}: {} production lines (over {MAX_FILE_LINES})", lines.len()));
    }
    let found =
        if name.ends_with(".rs") { functions(&lines) } else { python_functions(name, &lines) };
    let long = found.into_iter().filter(|f| f.lines > MAX_FUNCTION_LINES);
    remarks.extend(long.map(|f| {
        format!("{name}:{}: `{}` has {} lines (over {MAX_FUNCTION_LINES})", f.at, f.name, f.lines)
    }));
    remarks
}

fn sized(name: &str) -> bool {
    [".rs", ".py", ".pyi"].iter().any(|ending| name.ends_with(ending))
}

fn is_test_file(name: &str) -> bool {
    name.starts_with("tests/")
        || name.ends_with("/tests.rs")
        || name.contains("/tests/")
        || name.contains("/benches/")
}

/// The lines before the tests of a file; by the house style those come last.
fn production_lines(content: &str) -> impl Iterator<Item = &str> {
    content.lines().take_while(|line| line.trim_end() != "#[cfg(test)]")
}

#[derive(Debug, PartialEq, Eq)]
struct Function {
    name: String,
    /// Line of its signature, from one.
    at: usize,
    /// Lines from the signature to the closing brace.
    lines: usize,
}

/// Finds functions by the indentation that rustfmt gives: a body ends at the first closing brace
/// that stands as far left as the signature.
fn functions(lines: &[&str]) -> Vec<Function> {
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        let rest = lines.iter().skip(index);
        if let Some(length) = rest.clone().position(|line| *line == closing) {
            found.push(Function { name, at: index + 1, lines: length + 1 });
        }
    }
    found
}

/// Finds functions of Python: a body ends before the next line that is indented no deeper.
fn python_functions(name: &str, lines: &[&str]) -> Vec<Function> {
    if !name.ends_with(".py") {
        return Vec::new();
    }
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(name) = python_function_name(line) else { continue };
        let body = lines.iter().skip(index + 1).take_while(|next| {
            // A signature over several lines closes as far left as it began.
            next.trim().is_empty() || indent(next) > indent(line) || next.trim().starts_with(')')
        });
        found.push(Function { name, at: index + 1, lines: body.count() + 1 });
    }
    found
}

fn python_function_name(line: &str) -> Option<String> {
    let rest = line.trim_start();
    let rest = rest.strip_prefix("async ").unwrap_or(rest).strip_prefix("def ")?;
    rest.split_once('(').map(|(name, _)| name.to_owned())
}

fn function_name(line: &str) -> Option<String> {
    let mut rest = line.trim_start();
    for word in ["pub(crate) ", "pub(super) ", "pub ", "const ", "async ", "unsafe "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let name = rest.strip_prefix("fn ")?;
    // A signature that ends here has no body: a trait's, or one that fits in its line.
    let bodiless = line.trim_end().ends_with(';') || line.trim_end().ends_with('}');
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    if bodiless { None } else { name.get(..end).map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(lines: usize) -> String {
        "    let x = 1;\n".repeat(lines)
    }

    #[test]
    fn remarks_on_a_long_function_with_its_line() {
        let source = format!("use a;\n\npub(crate) async fn long(\n) {{\n{}}}\n", body(90));
        assert_eq!(remarks("a.rs", &source), ["a.rs:3: `long` has 93 lines (over 80)"]);
    }

    #[test]
    fn a_function_of_an_impl_ends_at_its_own_brace() {
        let source = format!("impl A {{\n    fn short() {{\n{}    }}\n}}\n", body(3));
        let lines: Vec<&str> = source.lines().collect();
        assert_eq!(functions(&lines), [Function { name: "short".to_owned(), at: 2, lines: 5 }]);
    }

    #[test]
    fn tests_do_not_count() {
        let source = format!("fn a() {{}}\n\n#[cfg(test)]\nmod tests {{\n{}}}\n", body(700));
        assert_eq!(remarks("a.rs", &source), Vec::<String>::new());
        assert_eq!(remarks("crates/a/src/tests.rs", &body(700)), Vec::<String>::new());
        assert_eq!(remarks("crates/a/src/a.rs", &body(700)).len(), 1);
    }

    #[test]
    fn remarks_on_a_long_function_of_python() {
        let source =
            format!("def short():\n    pass\n\n\ndef long(\n    a\n) -> int:\n{}", body(90));
        let found = remarks("crates/py/python/tracelake/a.py", &source);
        assert_eq!(found, ["crates/py/python/tracelake/a.py:5: `long` has 93 lines (over 80)"]);
        assert_eq!(remarks("Cargo.toml", &"a = 1\n".repeat(700)), Vec::<String>::new());
    }

    #[test]
    fn signatures_without_a_body_are_passed_over() {
        assert_eq!(function_name("    fn of_a_trait(&self);"), None);
        assert_eq!(function_name("fn one() { body }"), None);
        assert_eq!(function_name("    pub const fn name<T>("), Some("name".to_owned()));
    }
}
