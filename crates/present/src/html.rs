//! A table for a page or a notebook.

use std::fmt::Write as _;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use crate::error::PresentError;
use crate::hostile::escaped;
use crate::options::RenderOptions;
use crate::shown_row::shown_row;

/// The first `max_rows` rows as an HTML `<table>`, and a line that counts all of them.
///
/// Text is escaped for HTML and stripped of characters that act, and cut as
/// [`RenderOptions::max_cell`] says; there is no script, style sheet or link in it.
///
/// # Errors
/// [`PresentError::Value`] for a value that has no text.
pub fn render_html(
    schema: &Schema,
    batches: &[RecordBatch],
    max_rows: usize,
    options: &RenderOptions,
) -> Result<String, PresentError> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let mut html = String::from("<div><table class=\"dataframe\">\n<thead><tr>");
    for field in schema.fields() {
        html.push_str("<th>");
        push_text(&mut html, &escaped(field.name(), |_| false));
        html.push_str("</th>");
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    let mut left = max_rows;
    for batch in batches {
        for row in 0..batch.num_rows().min(left) {
            html.push_str("<tr>");
            for value in shown_row(batch, row, options)? {
                let align = if value.is_number { " style=\"text-align:right\"" } else { "" };
                html.push_str("<td");
                html.push_str(align);
                html.push('>');
                push_text(&mut html, &value.text);
                html.push_str("</td>");
            }
            html.push_str("</tr>\n");
        }
        left -= batch.num_rows().min(left);
    }
    html.push_str("</tbody></table><p>");
    let noun = if rows == 1 { "row" } else { "rows" };
    // Writing to a string does not fail.
    if max_rows < rows {
        write!(html, "{max_rows} of {rows} {noun}").ok();
    } else {
        write!(html, "{rows} {noun}").ok();
    }
    html.push_str("</p></div>");
    Ok(html)
}

fn push_text(html: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn batch() -> RecordBatch {
        let texts: StringArray =
            [Some("<script>alert('x')</script>"), None, Some("a\u{202e}b & \"c\"")]
                .into_iter()
                .collect();
        let numbers = Int64Array::from(vec![1, 2, 3]);
        RecordBatch::try_from_iter([
            ("<b>", Arc::new(texts) as ArrayRef),
            ("n", Arc::new(numbers) as ArrayRef),
        ])
        .unwrap()
    }

    /// Scenario: markup in a column's name and in cells, a reordering mark, more rows than shown.
    /// Guarantees: no tag but those of the table, nothing that acts, the count says what is left out.
    #[test]
    fn strangers_write_no_markup() {
        let batch = batch();
        let rows = std::slice::from_ref(&batch);
        let html = render_html(&batch.schema(), rows, 2, &RenderOptions::default()).unwrap();
        assert!(!html.contains("<script") && !html.contains("<b>"), "{html}");
        assert!(
            html.contains("&lt;script&gt;alert(&#39;x&#39;)") && html.contains("<td>null</td>")
        );
        assert!(html.ends_with("<p>2 of 3 rows</p></div>"), "{html}");
        let html = render_html(&batch.schema(), rows, 9, &RenderOptions::default()).unwrap();
        assert!(html.contains("a\\u{202e}b &amp; &quot;c&quot;"), "{html}");
        assert!(html.ends_with("<p>3 rows</p></div>"), "{html}");
    }
}
