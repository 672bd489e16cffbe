//! How large the terminal is.

use terminal_size::{Height, Width};

/// Columns and lines of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    /// None where the terminal does not say.
    pub(super) lines: Option<usize>,
}

impl Size {
    /// The terminal on standard output; `COLUMNS` and `LINES` win over what it says itself. None
    /// when nobody knows the columns.
    pub(super) fn of_stdout() -> Option<Self> {
        let own = terminal_size::terminal_size_of(std::io::stdout());
        let own = own.map(|(Width(columns), Height(lines))| (columns, lines));
        Self::from(own, |name| std::env::var(name).ok())
    }

    fn from(own: Option<(u16, u16)>, variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        // A terminal without a size, such as that of a script, says 0.
        let set = |name: &str| variable(name).and_then(|text| text.parse().ok());
        let known = |size: u16| (0 < size).then(|| usize::from(size));
        let of = |name: &str, own: Option<u16>| {
            set(name).filter(|size| 0 < *size).or_else(|| own.and_then(known))
        };
        let columns = of("COLUMNS", own.map(|(columns, _)| columns))?;
        Some(Self { columns, lines: of("LINES", own.map(|(_, lines)| lines)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a terminal with and without a size, variables that are numbers and that are not.
    /// Guarantees: variables win, nonsense is passed over, zero means unknown.
    #[test]
    fn variables_win_over_the_terminal() {
        let size = |own, columns: &'static str| {
            Size::from(own, |name| (name == "COLUMNS").then(|| columns.to_owned()))
        };
        assert_eq!(size(Some((80, 24)), ""), Some(Size { columns: 80, lines: Some(24) }));
        assert_eq!(size(Some((80, 24)), "40"), Some(Size { columns: 40, lines: Some(24) }));
        assert_eq!(size(Some((80, 0)), "wide"), Some(Size { columns: 80, lines: None }));
        assert_eq!(size(Some((0, 0)), "0"), None);
        assert_eq!(size(None, "100"), Some(Size { columns: 100, lines: None }));
    }
}
