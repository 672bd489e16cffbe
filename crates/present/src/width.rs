//! How many columns of a terminal a text takes, and how to make it take fewer.
//!
//! Counted are grapheme clusters: an East Asian character takes two columns, a combining mark
//! none, an emoji made of several characters two.

use unicode_segmentation::UnicodeSegmentation as _;
use unicode_width::UnicodeWidthStr as _;

/// Characters that are drawn over one another at the most. What is stacked higher runs over the
/// lines above and below.
const MAX_CLUSTER_CHARS: usize = 16;

/// What marks a cut.
const DOTS: &str = "...";

/// Columns that `text` takes. It must have no line breaks.
pub(crate) fn columns(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.graphemes(true).map(cluster_columns).sum() }
}

/// `text` cut to `max_columns`, the cut marked by three dots.
pub(crate) fn cut(text: &str, max_columns: usize) -> String {
    // Bytes are never fewer than columns, and marks piled up are the rare case.
    if text.is_ascii() && text.len() <= max_columns {
        return text.to_owned();
    }
    let kept_columns = max_columns.saturating_sub(DOTS.len());
    let (mut kept, mut used, mut kept_end) = (String::new(), 0_usize, 0_usize);
    for cluster in text.graphemes(true) {
        used += cluster_columns(cluster);
        if max_columns < used {
            kept.truncate(kept_end);
            kept.extend(DOTS.chars().take(max_columns));
            return kept;
        }
        kept.extend(cluster.chars().take(MAX_CLUSTER_CHARS));
        if used <= kept_columns {
            kept_end = kept.len();
        }
    }
    kept
}

fn cluster_columns(cluster: &str) -> usize {
    cluster.width()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: text shorter, as long as, and longer than the limit.
    /// Guarantees: the result never exceeds the limit.
    #[test]
    fn cut_text_fits() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abc...");
        assert_eq!(cut("abcdefg", 2), "..");
        assert_eq!(cut("abcdefg", 0), "");
    }

    /// Scenario: characters of two columns, of none, and made of several.
    /// Guarantees: columns are counted, not characters; none is split; marks do not pile up.
    #[test]
    fn wide_and_combining_characters_are_counted_as_drawn() {
        let wide = "\u{4f60}\u{597d}\u{4e16}\u{754c}";
        assert_eq!(columns(wide), 8);
        assert_eq!(cut(wide, 8), wide);
        assert_eq!(cut(wide, 7), "\u{4f60}\u{597d}...");
        assert_eq!(cut(wide, 6), "\u{4f60}...");
        assert_eq!(columns("e\u{301}"), 1);
        assert_eq!(cut("e\u{301}e\u{301}", 2), "e\u{301}e\u{301}");
        let family = "\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467}";
        assert_eq!(columns(family), 2);
        let pile = format!("a{}b", "\u{301}".repeat(5000));
        assert!(cut(&pile, 10).chars().count() <= 2 * MAX_CLUSTER_CHARS);
    }
}
