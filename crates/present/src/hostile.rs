//! Takes the sting out of text that strangers wrote.

/// Whether a terminal or an editor may act on `character` instead of showing it: control codes,
/// reordering of text, line separators, and marks that cannot be seen.
pub(crate) fn is_dangerous(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{00AD}'
                | '\u{061C}'
                | '\u{180E}'
                | '\u{200B}'
                | '\u{200E}'
                | '\u{200F}'
                | '\u{2028}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}'
                | '\u{FEFF}'
                | '\u{FFF9}'..='\u{FFFB}'
                | '\u{E0000}'..='\u{E007F}'
        )
}

/// `text` with every dangerous character that `keep` does not spare written out as an escape.
pub(crate) fn escaped(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if is_dangerous(character) && !keep(character) {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    safe
}

/// Whether a spreadsheet would take a cell that starts like `text` for a formula.
pub(crate) fn looks_like_formula(text: &str) -> bool {
    text.starts_with([
        '=', '+', '-', '@', '\t', '\r', '\n', '\u{FF1D}', '\u{FF0B}', '\u{FF0D}', '\u{FF20}',
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: escape sequences, C1 codes, reordering marks, line breaks.
    /// Guarantees: nothing that acts is left, ordinary text of any script is.
    #[test]
    fn nothing_that_acts_is_left() {
        let text = "a\u{1b}[31mb\u{9b}2Jc\u{202E}d\u{2066}e\nf\u{7f}g\u{200b}\u{e0041}";
        let safe = escaped(text, |_| false);
        assert!(!safe.chars().any(is_dangerous), "{safe:?}");
        assert!(safe.starts_with("a\\u{1b}[31mb\\u{9b}2Jc\\u{202e}d"), "{safe}");
        let plain = "gr\u{fc}n \u{4f60}\u{597d} \u{1F468}\u{200D}\u{1F469} \"x\" 'y' \\";
        assert_eq!(escaped(plain, |_| false), plain);
    }
}
