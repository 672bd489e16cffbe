//! The real binary on a small archive: whole commands, as a person sees them.
//!
//! Snapshots are in `snapshots/`; `INSTA_UPDATE=always` writes them anew.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made fails the test")]

mod fixture;

use fixture::Archive;
use insta::assert_snapshot;

const FAILED: &str = "tr-000000000000000000000000000000f1";
const DAY: [&str; 4] = ["--since", "2026-11-22", "--until", "2026-11-23"];

fn with_day<'a>(command: &[&'a str]) -> Vec<&'a str> {
    [command, &DAY].concat()
}

/// The commands that `tracelake help` lists.
fn commands(archive: &Archive) -> Vec<String> {
    let help = String::from_utf8(archive.run(&["--help"], &[]).stdout).unwrap();
    let (_, listed) = help.split_once("\nCommands:\n").unwrap();
    let (listed, _) = listed.split_once("\n\n").unwrap();
    // Names stand at the third column, what they do further right or below.
    let named = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = named.filter_map(|line| line.split_whitespace().next().map(str::to_owned));
    names.filter(|name| name != "help").collect()
}

/// Scenario: each question, in each text format.
/// Guarantees: the answers, their layout, and what is done to control codes and formulas.
#[test]
fn answers() {
    let archive = Archive::new();
    assert_snapshot!("traces", archive.transcript(&with_day(&["traces"])));
    assert_snapshot!("errors", archive.transcript(&with_day(&["errors"])));
    assert_snapshot!("performance", archive.transcript(&with_day(&["performance"])));
    let nothing = ["traces", "--since", "2020-01-01", "--until", "2020-01-02"];
    assert_snapshot!("nothing_found", archive.transcript(&nothing));
    let sql = "SELECT s['name'] AS name, s['status'] AS status, s['inputs'] AS inputs, \
               s['start_time'] AS start FROM (SELECT unnest(spans) s FROM traces UNION ALL \
               SELECT unnest(spans) FROM production.monitoring.agents) ORDER BY start";
    for format in ["table", "json", "jsonl", "csv"] {
        let shown = archive.transcript(&["sql", sql, "--format", format]);
        assert_snapshot!(format!("sql_{format}"), shown);
    }
}

/// Scenario: a failed trace, in short and in full, its id in upper case; one in another table.
/// Guarantees: the header, the tree, the bars, and no control code.
#[test]
fn show() {
    let archive = Archive::new();
    assert_snapshot!("show", archive.transcript(&["show", FAILED]));
    let upper = FAILED.to_uppercase();
    assert_snapshot!("show_full", archive.transcript(&["show", &upper, "--full"]));
    let other = "000000000000000000000000000000f2";
    assert_snapshot!("show_other_table", archive.transcript(&["show", other]));
    let json = archive.run(&["show", FAILED, "--format", "jsonl"], &[]);
    let row: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(row["spans"][2]["events"][0]["name"], "exception");
    let narrow = archive.run(&["show", other, "tracelake.default.traces"], &[]);
    assert_eq!(narrow.code, 1, "only the table named is looked into");
}

/// Scenario: a trace is shown in short and in full.
/// Guarantees: what is not shown is not read.
#[test]
fn show_reads_what_it_shows() {
    let archive = Archive::new();
    let bytes = |full: bool| {
        let mut arguments = vec!["-vv", "show", FAILED];
        if full {
            arguments.push("--full");
        }
        let ran =
            archive.run(&arguments, &[("TRACELAKE_LOG", "tracelake_archive::ask::lookup=debug")]);
        let (_, after) = ran.stderr.split_once("bytes_scanned=").unwrap();
        let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u64>().unwrap()
    };
    assert!(bytes(false) < bytes(true));
}

/// Scenario: what cannot be done, in each way that a person is likely to meet.
/// Guarantees: what is wrong, what to do, and the exit code.
#[test]
fn errors() {
    let archive = Archive::new();
    let cases: [(&str, &[&str]); 8] = [
        ("unknown_trace", &["show", "tr-00000000000000000000000000000099"]),
        ("no_trace_id", &["show", "tr-\u{1b}[31mf1"]),
        ("unknown_table", &["traces", "production.monitoring.missing"]),
        ("no_table_name", &["traces", "../etc/passwd"]),
        ("unknown_column", &["sql", "SELECT status FROM traces"]),
        ("no_query", &["sql", "DROP TABLE traces"]),
        ("unknown_format", &["traces", "--format", "xml"]),
        ("no_output_folder", &["traces", "--output", "missing/out.csv"]),
    ];
    for (name, arguments) in cases {
        assert_snapshot!(format!("error_{name}"), archive.transcript(arguments));
    }
    let elsewhere = archive.transcript(&["traces", "--data-dir", "no-archive"]);
    assert_snapshot!("error_no_data_folder", elsewhere);
}

/// Scenario: the help of tracelake and of each command.
/// Guarantees: its text; every command has examples, and the exit codes are said.
#[test]
fn help() {
    let archive = Archive::new();
    let page = |arguments: &[&str]| {
        let ran = archive.run(arguments, &[]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        String::from_utf8(ran.stdout).unwrap()
    };
    let root = page(&["--help"]);
    assert!(root.contains("Exit codes:"), "{root}");
    assert_snapshot!("help", root);
    for command in commands(&archive) {
        let text = page(&[&command, "--help"]);
        assert!(text.contains("\nExample"), "no example in the help of {command}:\n{text}");
        // What others read only by scripts is held by its examples alone.
        if matches!(command.as_str(), "traces" | "errors" | "performance" | "sql" | "show" | "man")
        {
            assert_snapshot!(format!("help_{command}"), text);
        }
    }
}

/// Scenario: manual pages into a folder, and one to standard output.
/// Guarantees: one page for each command and one for all; examples and exit codes are in them.
#[test]
fn manual_pages() {
    let archive = Archive::new();
    let ran = archive.run(&["man", "--output", "man1"], &[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let mut pages: Vec<String> = std::fs::read_dir(archive.path().join("man1"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    let mut expected: Vec<String> =
        commands(&archive).iter().map(|command| format!("tracelake-{command}.1")).collect();
    expected.extend(
        ["tracelake", "tracelake-parked-list", "tracelake-parked-retry"]
            .map(|page| format!("{page}.1")),
    );
    expected.sort();
    assert_eq!(pages, expected);
    let root = std::fs::read_to_string(archive.path().join("man1/tracelake.1")).unwrap();
    assert!(root.starts_with(".") && root.contains("Exit codes"), "{root}");
    let one = archive.run(&["man", "traces"], &[]);
    let one = String::from_utf8(one.stdout).unwrap();
    assert_eq!(
        one,
        std::fs::read_to_string(archive.path().join("man1/tracelake-traces.1")).unwrap()
    );
    assert!(one.contains("tracelake traces production.monitoring.agent_traces"), "{one}");
    assert_eq!(archive.run(&["man", "no-such"], &[]).code, 1);
}

/// Scenario: completion scripts of every shell.
/// Guarantees: they know the commands and the values of formats.
#[test]
fn completions_know_commands_and_values() {
    let archive = Archive::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let ran = archive.run(&["completions", shell], &[]);
        let script = String::from_utf8(ran.stdout).unwrap();
        for command in commands(&archive) {
            assert!(script.contains(&command), "{shell} does not know {command}");
        }
        // These two shells complete names of options, not their values.
        if !matches!(shell, "powershell" | "elvish") {
            for value in ["jsonl", "parquet", "never"] {
                assert!(script.contains(value), "{shell} does not know {value}");
            }
        }
    }
}

/// Scenario: every format into a file over an old one; a statement that fails; no folder.
/// Guarantees: the file has what standard output would have had; a failure leaves the old one.
#[test]
fn output_files_are_whole_or_untouched() {
    let archive = Archive::new();
    let file = archive.path().join("out");
    for format in ["table", "json", "jsonl", "csv", "arrow", "parquet"] {
        let sql = ["sql", "SELECT trace_id, spans FROM traces", "--format", format];
        let printed = archive.run(&sql, &[]);
        assert_eq!(printed.code, 0, "{}", printed.stderr);
        let written = archive.run(&[&sql[..], &["--output", "out"]].concat(), &[]);
        assert_eq!((written.code, written.stdout.len()), (0, 0), "{}", written.stderr);
        assert_eq!(std::fs::read(&file).unwrap(), printed.stdout, "{format}");
    }
    let before = std::fs::read(&file).unwrap();
    let failed = archive.run(&["sql", "SELECT 1/0", "--output", "out"], &[]);
    assert_eq!(failed.code, 1);
    assert_eq!(std::fs::read(&file).unwrap(), before);
    let left = std::fs::read_dir(archive.path()).unwrap().count();
    assert_eq!(left, 2, "the archive and one file");
}

/// Scenario: colour asked for, forced by the environment, forbidden; output is no terminal.
/// Guarantees: the flag wins; without one there is none unless it is forced.
#[test]
fn colour_follows_the_flag_and_the_environment() {
    let archive = Archive::new();
    let colored = |arguments: &[&str], variables: &[(&str, &str)]| {
        let command = [&with_day(&["errors"])[..], arguments].concat();
        archive.run(&command, variables).stdout.contains(&0x1b)
    };
    assert!(!colored(&[], &[]));
    assert!(colored(&["--color", "always"], &[("NO_COLOR", "1")]));
    assert!(colored(&[], &[("CLICOLOR_FORCE", "1")]));
    assert!(!colored(&["--color", "never"], &[("CLICOLOR_FORCE", "1")]));
    assert!(!colored(&["--format", "csv", "--color", "always"], &[]), "colour is for tables");
}
