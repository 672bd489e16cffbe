//! Shows what is longer than the screen in a pager.
//!
//! Nothing is started for what fits: lines are kept until there are more than the screen has.

use std::io::{Stdout, Write};
use std::process::{Child, Command, Stdio};

/// Writes to standard output, by way of a pager once there is more than a screen of it.
#[derive(Debug)]
pub(super) struct Pager {
    screen_lines: usize,
    screen_columns: usize,
    command: Option<String>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Not yet more than the screen holds.
    Waiting(Vec<u8>),
    /// More than that, and a pager shows it.
    Paged { child: Child, interrupts: Interrupts },
    /// More than that, and there is no pager.
    Plain(Stdout),
}

impl Pager {
    /// For a screen of so many lines and columns, with the pager that the environment names.
    pub(super) fn new(screen_lines: usize, screen_columns: usize) -> Self {
        let command = pager_command(|name| std::env::var(name).ok());
        Self { screen_lines, screen_columns, command, state: State::Waiting(Vec::new()) }
    }

    /// Hands on what is left and waits until the reader leaves the pager.
    ///
    /// # Errors
    /// When standard output fails.
    pub(super) fn finish(self) -> std::io::Result<()> {
        match self.state {
            State::Waiting(text) => {
                let mut out = std::io::stdout().lock();
                out.write_all(&text)?;
                out.flush()
            }
            State::Plain(mut out) => out.flush(),
            State::Paged { mut child, interrupts } => {
                drop(child.stdin.take());
                // Its exit code says how it was left, not whether all was shown.
                let waited = child.wait().map(drop);
                drop(interrupts);
                waited
            }
        }
    }

    fn overflow(&mut self) -> std::io::Result<()> {
        let State::Waiting(text) = &mut self.state else { return Ok(()) };
        let text = std::mem::take(text);
        let started = self.command.as_deref().and_then(start);
        self.state = match started {
            Some(child) => State::Paged { child, interrupts: Interrupts::leave_to_pager() },
            None => State::Plain(std::io::stdout()),
        };
        self.write_all(&text)
    }

    /// Whether `text` takes more lines than the screen has, the prompt's line left free. Escape
    /// sequences are counted as if they took room, which starts a pager a little early.
    fn is_longer_than_screen(&self, text: &[u8]) -> bool {
        let columns = self.screen_columns.max(1);
        let lines: usize = text
            .split(|byte| *byte == b'\n')
            .map(|line| 1 + line.len().saturating_sub(1) / columns)
            .sum();
        self.screen_lines < lines
    }
}

impl Write for Pager {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &mut self.state {
            State::Waiting(text) => {
                text.extend_from_slice(bytes);
                let text = std::mem::take(text);
                let overflows = self.is_longer_than_screen(&text);
                self.state = State::Waiting(text);
                if overflows {
                    self.overflow()?;
                }
                Ok(bytes.len())
            }
            State::Plain(out) => out.write(bytes),
            State::Paged { child, .. } => match &mut child.stdin {
                Some(stdin) => stdin.write(bytes),
                None => Err(std::io::ErrorKind::BrokenPipe.into()),
            },
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match &mut self.state {
            State::Waiting(_) | State::Paged { .. } => Ok(()),
            State::Plain(out) => out.flush(),
        }
    }
}

/// The pager to start: `$TRACELAKE_PAGER`, `$PAGER`, or less. Empty, or `cat`: none.
fn pager_command(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let named = ["TRACELAKE_PAGER", "PAGER"].into_iter().find_map(variable);
    let command = named.unwrap_or_else(|| "less".to_owned());
    let command = command.trim();
    (!command.is_empty() && command != "cat").then(|| command.to_owned())
}

/// Starts the pager; none if it is not there. Like git: less leaves again when all fits, passes
/// colours on, and does not clear the screen, unless `$LESS` says otherwise.
fn start(command: &str) -> Option<Child> {
    let mut words = command.split_whitespace();
    let needs_shell = command.contains(['\'', '"', '\\', '$', '`', '|', ';', '&', '<', '>', '(']);
    let mut process = match words.next() {
        Some(program) if !needs_shell => {
            let mut process = Command::new(program);
            process.args(words);
            process
        }
        _ => {
            let mut process = Command::new("sh");
            process.args(["-c", command]);
            process
        }
    };
    if std::env::var_os("LESS").is_none() {
        process.env("LESS", "FRX");
    }
    process.stdin(Stdio::piped()).spawn().ok()
}

/// While a pager owns the terminal, an interrupt is its business: in less it ends a search, and
/// must not kill the process that waits for it.
#[derive(Debug)]
struct Interrupts {
    #[cfg(unix)]
    _signal: Option<tokio::signal::unix::Signal>,
}

impl Interrupts {
    fn leave_to_pager() -> Self {
        Self {
            // Once a listener exists, the signal no longer ends the process.
            #[cfg(unix)]
            _signal: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: variables set, empty, to `cat`, and none.
    /// Guarantees: our own wins, empty and `cat` mean no pager, less is the last resort.
    #[test]
    fn the_pager_is_the_one_named() {
        let named = |own: Option<&str>, general: Option<&str>| {
            pager_command(|name| match name {
                "TRACELAKE_PAGER" => own.map(str::to_owned),
                _ => general.map(str::to_owned),
            })
        };
        assert_eq!(named(Some("most -s"), Some("more")).as_deref(), Some("most -s"));
        assert_eq!(named(None, Some("more")).as_deref(), Some("more"));
        assert_eq!(named(Some(""), Some("more")), None);
        assert_eq!(named(None, Some(" cat ")), None);
        assert_eq!(named(None, None).as_deref(), Some("less"));
    }

    /// Scenario: text shorter than, as long as, and longer than the screen, in lines and in width.
    /// Guarantees: the pager is for what does not fit, the prompt's line included.
    #[test]
    fn only_what_does_not_fit_is_paged() {
        let pager = Pager::new(4, 10);
        assert!(!pager.is_longer_than_screen(b"1\n2\n3\n"));
        assert!(pager.is_longer_than_screen(b"1\n2\n3\n4\n"));
        assert!(!pager.is_longer_than_screen(&[b'x'; 40]));
        assert!(pager.is_longer_than_screen(&[b'x'; 41]));
    }
}
