//! Which files are meant: the paths named, and what lies below those that are folders.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use tracelake_model::names::printable;

use super::layout::ArchivePlace;

/// One file to be read, or standard input.
#[derive(Clone, Debug)]
pub(super) struct Input {
    /// Canonical; `None` for standard input.
    pub path: Option<PathBuf>,
    /// For messages: as named, control characters escaped.
    pub shown: String,
    /// Named on the command line, not found in a folder.
    pub named: bool,
    pub size_bytes: u64,
    pub modified_unix_nano: u64,
    pub place: Option<ArchivePlace>,
}

/// What was found, in the order of the paths named, within folders by name.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    pub files: Vec<Input>,
    /// Passed over on purpose: (what, why).
    pub skipped: Vec<(String, String)>,
    /// Should have been read and cannot: (what, why).
    pub failed: Vec<(String, String)>,
}

/// `path` for a message. Longer ones than a message takes keep their end, which tells files apart.
pub(super) fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    let length = text.chars().count();
    if length <= 80 {
        return printable(&text);
    }
    let tail: String = text.chars().skip(length - 77).collect();
    format!("...{}", printable(&tail))
}

/// Finds the files that `paths` mean. Symbolic links to folders within a folder are not followed,
/// so that no link can lead in a circle; `own` is the data folder, which is not read into itself.
pub(super) fn find(paths: &[PathBuf], own: &Path) -> Inputs {
    let mut finder = Finder {
        own: own.canonicalize().unwrap_or_else(|_| own.to_owned()),
        seen: HashSet::new(),
        found: Inputs::default(),
    };
    for path in paths {
        if path.as_os_str() == "-" {
            finder.stdin();
        } else {
            finder.named(path);
        }
    }
    finder.found
}

struct Finder {
    own: PathBuf,
    seen: HashSet<PathBuf>,
    found: Inputs,
}

impl Finder {
    fn stdin(&mut self) {
        if self.seen.insert(PathBuf::from("-")) {
            self.found.files.push(Input {
                path: None,
                shown: "standard input".to_owned(),
                named: true,
                size_bytes: 0,
                modified_unix_nano: 0,
                place: None,
            });
        }
    }

    fn named(&mut self, path: &Path) {
        let resolved = path.canonicalize().and_then(|full| Ok((full.metadata()?, full)));
        match resolved {
            Err(error) => self.fail(path, error.to_string()),
            Ok((facts, full)) if facts.is_dir() => {
                if full.starts_with(&self.own) {
                    return self.fail(path, "the data folder itself is not imported".to_owned());
                }
                self.folder(full);
            }
            Ok((facts, full)) if facts.is_file() => self.file(path, full, &facts, true),
            Ok(_) => self.fail(path, "not a regular file; `-` reads standard input".to_owned()),
        }
    }

    fn folder(&mut self, root: PathBuf) {
        let mut waiting = vec![root];
        while let Some(path) = waiting.pop() {
            let Ok(facts) = path.symlink_metadata() else {
                self.fail(&path, "it is gone".to_owned());
                continue;
            };
            if facts.is_symlink() {
                self.link(&path);
            } else if facts.is_file() {
                self.file(&path, path.clone(), &facts, false);
            } else if !facts.is_dir() {
                self.skip(&path, "not a regular file");
            } else if path == self.own {
                self.skip(&path, "the data folder itself");
            } else {
                match children(&path) {
                    Ok(children) => waiting.extend(children),
                    Err(error) => self.fail(&path, error.to_string()),
                }
            }
        }
    }

    fn link(&mut self, path: &Path) {
        match path.canonicalize().and_then(|full| Ok((full.metadata()?, full))) {
            Ok((facts, full)) if facts.is_file() => self.file(path, full, &facts, false),
            Ok((facts, _)) if facts.is_dir() => {
                self.skip(path, "a symbolic link to a folder; name the folder to read it");
            }
            Ok(_) => self.skip(path, "not a regular file"),
            Err(_) => self.skip(path, "a symbolic link that leads nowhere"),
        }
    }

    fn file(&mut self, path: &Path, full: PathBuf, facts: &std::fs::Metadata, named: bool) {
        if !self.seen.insert(full.clone()) {
            return;
        }
        let modified = facts.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        self.found.files.push(Input {
            place: ArchivePlace::of(&full),
            path: Some(full),
            shown: shown(path),
            named,
            size_bytes: facts.len(),
            modified_unix_nano: modified
                .and_then(|at| u64::try_from(at.as_nanos()).ok())
                .unwrap_or_default(),
        });
    }

    fn skip(&mut self, path: &Path, why: &str) {
        self.found.skipped.push((shown(path), why.to_owned()));
    }

    fn fail(&mut self, path: &Path, why: String) {
        self.found.failed.push((shown(path), why));
    }
}

/// The entries of a folder, last name first: they are taken from the end.
fn children(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.push(entry?.path());
    }
    names.sort_unstable_by(|left, right| right.cmp(left));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a folder with files, a folder in it, links in a circle, a dangling link, the data
    /// folder itself, and one file named twice.
    /// Guarantees: each file once, in the order of names; the rest is told, not followed.
    #[cfg(unix)]
    #[test]
    fn finds_each_file_once() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir_all(at("in/b")).unwrap();
        std::fs::create_dir_all(at("in/data")).unwrap();
        for name in ["in/c.pb", "in/b/2.json", "in/a.jsonl", "in/data/x.pb"] {
            std::fs::write(at(name), b"x").unwrap();
        }
        symlink(at("in"), at("in/b/circle")).unwrap();
        symlink(at("in/self"), at("in/self")).unwrap();
        symlink(at("in/c.pb"), at("in/d.pb")).unwrap();
        let paths = [at("in"), at("in/a.jsonl"), at("missing")];
        let found = find(&paths, &at("in/data"));
        let names: Vec<_> = found.files.iter().map(|file| file.path.clone().unwrap()).collect();
        let root = root.path().canonicalize().unwrap();
        let expected = ["in/a.jsonl", "in/b/2.json", "in/c.pb"].map(|name| root.join(name));
        assert_eq!(names, expected);
        assert_eq!(found.skipped.len(), 3, "{:?}", found.skipped);
        assert_eq!(found.failed.len(), 1, "{:?}", found.failed);
    }

    /// Scenario: a name with terminal escape codes, and one longer than a line.
    /// Guarantees: no control character is shown; the end of the long one is.
    #[test]
    fn names_are_shown_safely() {
        assert_eq!(shown("a\u{1b}[31m\n".as_ref()), "a\\u{1b}[31m\\u{a}");
        let long = format!("{}/end.pb", "x".repeat(300));
        assert!(shown(long.as_ref()).ends_with("/end.pb"));
    }
}
