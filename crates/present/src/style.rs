//! Colour, where a terminal has it. It only underlines what the words already say.

use std::fmt::Write as _;

use comfy_table::Color;

use crate::width::{columns, cut};

/// What a piece of text is, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing special.
    Plain,
    /// A heading or a name.
    Strong,
    /// Labels, nulls, what is there for completeness.
    Faint,
    /// A failure.
    Bad,
    /// A success.
    Good,
    /// Something unfinished or doubtful.
    Doubtful,
}

impl Tone {
    /// The tone of a word that is a state, such as a status.
    pub(crate) fn of_word(text: &str) -> Self {
        match text {
            "ERROR" | "FAIL" | "FAILED" => Self::Bad,
            "OK" | "PASS" | "PASSED" => Self::Good,
            "IN_PROGRESS" | "WARN" | "WARNING" | "SKIPPED" => Self::Doubtful,
            _ => Self::Plain,
        }
    }

    /// The colour of a table's cell.
    pub(crate) const fn color(self) -> Option<Color> {
        match self {
            Self::Plain | Self::Strong => None,
            Self::Faint => Some(Color::DarkGrey),
            Self::Bad => Some(Color::Red),
            Self::Good => Some(Color::Green),
            Self::Doubtful => Some(Color::Yellow),
        }
    }

    /// The parameter of the escape sequence that switches it on.
    const fn code(self) -> Option<u8> {
        match self {
            Self::Plain => None,
            Self::Strong => Some(1),
            Self::Faint => Some(2),
            Self::Bad => Some(31),
            Self::Good => Some(32),
            Self::Doubtful => Some(33),
        }
    }
}

/// One line made of pieces, each with its tone. The pieces must be safe to show already.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line(Vec<(Tone, String)>);

impl Line {
    /// Adds a piece.
    pub(crate) fn push(&mut self, tone: Tone, text: impl Into<String>) {
        self.0.push((tone, text.into()));
    }

    /// Columns taken so far.
    pub(crate) fn columns(&self) -> usize {
        self.0.iter().map(|(_, text)| columns(text)).sum()
    }

    /// Adds spaces up to column `width`.
    pub(crate) fn pad_to(&mut self, width: usize) {
        self.push(Tone::Plain, " ".repeat(width.saturating_sub(self.columns())));
    }

    /// The line, without spaces at its end, cut to `width` columns if there is a width.
    pub(crate) fn text(&self, width: Option<usize>, color: bool) -> String {
        let plain: String = self.0.iter().map(|(_, text)| text.as_str()).collect();
        let plain = plain.trim_end();
        let shown = width.map_or_else(|| plain.to_owned(), |width| cut(plain, width));
        if !color {
            return shown;
        }
        self.painted(&shown)
    }

    /// `shown` is the line, perhaps cut; the tones are laid over it from the left.
    fn painted(&self, shown: &str) -> String {
        let mut rest = shown.chars();
        let mut line = String::with_capacity(shown.len() + 16);
        for (tone, text) in &self.0 {
            let piece: String = rest.by_ref().take(text.chars().count()).collect();
            match tone.code() {
                Some(code) if !piece.trim().is_empty() => {
                    // Writing to a String cannot fail.
                    write!(line, "\u{1b}[{code}m{piece}\u{1b}[0m").ok();
                }
                _ => line.push_str(&piece),
            }
        }
        line.extend(rest);
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a line of three tones, whole and cut.
    /// Guarantees: without colour it is the plain text; with colour the same text and width.
    #[test]
    fn tones_do_not_change_the_text() {
        let mut line = Line::default();
        line.push(Tone::Strong, "name");
        line.pad_to(8);
        line.push(Tone::Bad, "ERROR");
        line.push(Tone::Plain, "  ");
        assert_eq!(line.text(None, false), "name    ERROR");
        assert_eq!(line.text(None, true), "\u{1b}[1mname\u{1b}[0m    \u{1b}[31mERROR\u{1b}[0m");
        assert_eq!(line.text(Some(11), false), "name    ...");
        assert_eq!(line.text(Some(11), true), "\u{1b}[1mname\u{1b}[0m    \u{1b}[31m...\u{1b}[0m");
    }
}
