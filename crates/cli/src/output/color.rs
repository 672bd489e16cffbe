//! When to use colour: the flag, then the environment, then whether a terminal is there.

use std::ffi::OsString;
use std::io::IsTerminal;

/// The flag `--color`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless the environment says otherwise
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// What the environment says of colour: `NO_COLOR` (no-color.org), `CLICOLOR` and `CLICOLOR_FORCE`
/// (bixense.com/clicolors), `TERM`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Environment {
    forbids: bool,
    forces: bool,
}

impl Environment {
    /// The environment of this process.
    pub(super) fn read() -> Self {
        Self::from(|name| std::env::var_os(name))
    }

    fn from(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let is = |name: &str, value: &str| variable(name).is_some_and(|found| found == value);
        let is_set = |name: &str| variable(name).is_some_and(|found| !found.is_empty());
        let no_color = is_set("NO_COLOR");
        Self {
            forbids: no_color || is("CLICOLOR", "0") || is("TERM", "dumb"),
            forces: !no_color && is_set("CLICOLOR_FORCE") && !is("CLICOLOR_FORCE", "0"),
        }
    }
}

/// Whether to use colour.
pub(super) const fn wants_color(
    choice: ColorChoice,
    on_terminal: bool,
    environment: &Environment,
) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => environment.forces || on_terminal && !environment.forbids,
    }
}

/// Whether messages on standard error have colour.
pub(crate) fn color_on_stderr() -> bool {
    wants_color(ColorChoice::Auto, std::io::stderr().is_terminal(), &Environment::read())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn colored(choice: ColorChoice, on_terminal: bool, variables: &[(&str, &str)]) -> bool {
        let environment = Environment::from(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| OsString::from(value))
        });
        wants_color(choice, on_terminal, &environment)
    }

    /// Scenario: the flag, a terminal or none, and each variable, alone and against another.
    /// Guarantees: the flag wins, then NO_COLOR, then force; an empty variable says nothing.
    #[test]
    fn the_flag_wins_then_the_environment() {
        use ColorChoice::{Always, Auto, Never};
        assert!(colored(Auto, true, &[]));
        assert!(!colored(Auto, false, &[]));
        assert!(colored(Always, false, &[("NO_COLOR", "1")]));
        assert!(!colored(Never, true, &[("CLICOLOR_FORCE", "1")]));
        assert!(!colored(Auto, true, &[("NO_COLOR", "1")]));
        assert!(colored(Auto, true, &[("NO_COLOR", "")]));
        assert!(colored(Auto, false, &[("CLICOLOR_FORCE", "1")]));
        assert!(!colored(Auto, false, &[("CLICOLOR_FORCE", "0")]));
        assert!(!colored(Auto, true, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
        assert!(!colored(Auto, true, &[("CLICOLOR", "0")]));
        assert!(!colored(Auto, true, &[("TERM", "dumb")]));
    }
}
