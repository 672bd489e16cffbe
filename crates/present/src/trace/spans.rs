//! The tree of spans: a line with a bar of time for each, and below it what it said.

use std::io::Write;

use arrow::array::{Array as _, RecordBatch, StructArray};

use super::details::write_details;
use super::tree::{Adopted, Node, Placed, plan_tree};
use super::units::{count, duration};
use super::view::{entries, integer, structs, text, timestamp_nanos, unquoted};
use super::{LABEL_COLUMNS, Layout};
use crate::error::PresentError;
use crate::hostile::escaped;
use crate::style::{Line, Tone};
use crate::width::cut;

/// Columns by which a child stands further right than its parent.
const INDENT: usize = 2;

/// Columns of the duration and the space before it.
const DURATION_COLUMNS: usize = 14;

/// Columns of the status and the space before it.
const STATUS_COLUMNS: usize = 8;

/// Columns of the tokens and the space before them.
const TOKEN_COLUMNS: usize = 14;

/// Columns below which a bar says nothing.
const MIN_BAR: usize = 8;

/// Columns above which a bar says no more.
const MAX_BAR: usize = 48;

/// Writes all spans of the trace at `row`.
pub(super) fn write_spans(
    batch: &RecordBatch,
    row: usize,
    layout: &Layout,
    out: &mut dyn Write,
) -> Result<(), PresentError> {
    let Some(spans) = structs(batch, "spans", row) else {
        let mut line = Line::default();
        line.push(Tone::Strong, "no spans");
        writeln!(out)?;
        return layout.write(&line, out);
    };
    let nodes: Vec<Node> = (0..spans.len()).map(|at| node(&spans, at)).collect();
    let failed = (0..spans.len()).filter(|at| is_failed(&spans, *at)).count();
    let mut title = Line::default();
    title.push(Tone::Strong, format!("{} spans", spans.len()));
    let all = integer(batch, "span_count", row).and_then(|all| usize::try_from(all).ok());
    if let Some(all) = all.filter(|all| spans.len() < *all) {
        title.push(Tone::Plain, format!(" of {all}"));
        title.push(Tone::Faint, " (the others are more than is shown at once)");
    }
    if 0 < failed {
        title.push(Tone::Bad, format!(", {failed} with status ERROR"));
    }
    writeln!(out)?;
    layout.write(&title, out)?;
    let scale = Scale::over(&nodes, layout.width);
    for placed in plan_tree(&nodes) {
        let indent = write_span_line(&spans, &nodes, placed, &scale, layout, out)?;
        write_texts(&spans, placed, indent + INDENT, layout, out)?;
        if layout.full {
            let start = nodes[placed.index].start;
            write_details(&spans, placed.index, (indent + INDENT, start), layout, out)?;
        }
    }
    Ok(())
}

fn node(spans: &StructArray, at: usize) -> Node {
    // Senders write 0 for a time that they do not know.
    let time = |exact: &str, rounded: &str| {
        let exact = integer(spans, exact, at);
        exact.or_else(|| timestamp_nanos(spans, rounded, at)).filter(|nanos| *nanos != 0)
    };
    Node {
        id: text(spans, "span_id", at),
        parent: text(spans, "parent_span_id", at),
        start: time("start_time_unix_nano", "start_time"),
        end: time("end_time_unix_nano", "end_time"),
    }
}

fn is_failed(spans: &StructArray, at: usize) -> bool {
    text(spans, "status", at).as_deref() == Some("ERROR")
}

/// Writes the line of one span; gives the column at which its name stands.
fn write_span_line(
    spans: &StructArray,
    nodes: &[Node],
    placed: Placed,
    scale: &Scale,
    layout: &Layout,
    out: &mut dyn Write,
) -> Result<usize, PresentError> {
    let at = placed.index;
    let name_columns = scale.name_columns;
    let wanted = placed.depth.saturating_mul(INDENT);
    let indent = wanted.min(name_columns / 2);
    let mut line = Line::default();
    line.pad_to(indent);
    if indent < wanted {
        line.push(Tone::Faint, format!(">{} ", placed.depth));
    }
    let left = name_columns.saturating_sub(line.columns());
    let name = text(spans, "name", at).unwrap_or_else(|| "(no name)".to_owned());
    let span_type = text(spans, "span_type", at).filter(|kind| kind != "UNKNOWN");
    let suffix = span_type.map(|kind| escaped(&format!("  {kind}"), |_| false)).unwrap_or_default();
    let suffix = cut(&suffix, left / 2);
    let for_name = left.saturating_sub(crate::width::columns(&suffix));
    line.push(Tone::Strong, cut(&escaped(&name, |_| false), for_name));
    line.push(Tone::Faint, suffix);
    line.pad_to(name_columns);

    let status = text(spans, "status", at).filter(|status| status != "UNSET").unwrap_or_default();
    let tone = Tone::of_word(&status);
    if let Some(bar) = scale.bar(&nodes[at]) {
        line.push(Tone::Plain, "  [");
        line.push(if tone == Tone::Bad { tone } else { Tone::Plain }, bar);
        line.push(Tone::Plain, "]");
    }
    let (tone_of_time, time) = duration_text(&nodes[at]);
    line.push(tone_of_time, format!("{time:>DURATION_COLUMNS$}"));
    line.push(tone, format!("  {}", escaped(&status, |_| false)));
    line.pad_to(scale.status_end);
    line.push(Tone::Faint, tokens(spans, at));
    layout.write(&line, out)?;
    Ok(indent)
}

fn duration_text(node: &Node) -> (Tone, String) {
    match (node.start, node.end) {
        (Some(start), Some(end)) => {
            let nanos = i128::from(end) - i128::from(start);
            (if nanos < 0 { Tone::Doubtful } else { Tone::Plain }, duration(nanos))
        }
        (Some(_), None) => (Tone::Doubtful, "unfinished".to_owned()),
        (None, Some(_)) => (Tone::Doubtful, "no start".to_owned()),
        (None, None) => (Tone::Doubtful, "no times".to_owned()),
    }
}

fn tokens(spans: &StructArray, at: usize) -> String {
    let of = |name: &str| integer(spans, name, at);
    let text = match (of("input_tokens"), of("output_tokens"), of("total_tokens")) {
        (None, None, None) => return String::new(),
        (None, None, Some(total)) => count(total),
        (input, output, _) => {
            format!("{}+{}", count(input.unwrap_or(0)), count(output.unwrap_or(0)))
        }
    };
    format!("  {text} tok")
}

/// What the span said: inputs, outputs, why it failed, and why it stands where it stands.
fn write_texts(
    spans: &StructArray,
    placed: Placed,
    indent: usize,
    layout: &Layout,
    out: &mut dyn Write,
) -> Result<(), PresentError> {
    let at = placed.index;
    for (label, name) in [("in", "inputs"), ("out", "outputs")] {
        if let Some(value) = text(spans, name, at) {
            layout.write_labelled(indent, label, (Tone::Plain, &value), out)?;
        }
    }
    if let Some(message) = text(spans, "status_message", at) {
        let (label, tone) =
            if is_failed(spans, at) { ("error", Tone::Bad) } else { ("message", Tone::Plain) };
        layout.write_labelled(indent, label, (tone, &message), out)?;
    }
    // In full the event is shown with all its attributes.
    if let Some(exception) = exception(spans, at).filter(|_| !layout.full) {
        layout.write_labelled(indent, "exception", (Tone::Bad, &exception), out)?;
    }
    let note = match placed.adopted {
        None => return Ok(()),
        Some(Adopted::ParentMissing) => {
            let parent = text(spans, "parent_span_id", at).unwrap_or_default();
            format!("its parent {parent} is not in this trace")
        }
        Some(Adopted::Cycle) => "its parents lead back to itself".to_owned(),
    };
    layout.write_labelled(indent, "note", (Tone::Doubtful, &note), out)
}

/// Type and message of the first exception event.
fn exception(spans: &StructArray, at: usize) -> Option<String> {
    let events = structs(spans, "events", at)?;
    let found =
        (0..events.len()).find(|e| text(&events, "name", *e).as_deref() == Some("exception"))?;
    let attributes = entries(&events, "attributes", found);
    let of = |key: &str| {
        attributes.iter().find(|(name, _)| name == key).map(|(_, value)| unquoted(value))
    };
    let parts: Vec<String> =
        [of("exception.type"), of("exception.message")].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(": "))
}

/// Where the columns of the tree stand, and the time that a bar's columns stand for.
#[derive(Clone, Copy, Debug)]
struct Scale {
    name_columns: usize,
    /// Columns of a bar; none when lines are too short for one.
    bar_columns: Option<usize>,
    status_end: usize,
    begin: i64,
    total_nanos: i128,
}

impl Scale {
    fn over(nodes: &[Node], width: usize) -> Self {
        let facts = DURATION_COLUMNS + STATUS_COLUMNS + TOKEN_COLUMNS;
        let rest = width.saturating_sub(facts);
        let name_columns = (rest * 3 / 5).max(LABEL_COLUMNS).min(rest.max(LABEL_COLUMNS));
        // Two spaces and the brackets.
        let bar = rest.saturating_sub(name_columns + 4);
        let bar_columns = (MIN_BAR <= bar).then_some(bar.min(MAX_BAR));
        let name_columns = if bar_columns.is_some() { name_columns } else { rest };
        let times = || nodes.iter().flat_map(|node| [node.start, node.end]).flatten();
        let begin = times().min().unwrap_or_default();
        let end = times().max().unwrap_or_default();
        Self {
            name_columns,
            bar_columns,
            status_end: name_columns
                + bar_columns.map_or(0, |bar| bar + 4)
                + DURATION_COLUMNS
                + STATUS_COLUMNS,
            begin,
            total_nanos: i128::from(end) - i128::from(begin),
        }
    }

    /// The bar of a span: blank where it did not run. Reversed times count as turned around, a
    /// span without an end runs to the end.
    fn bar(&self, node: &Node) -> Option<String> {
        let columns = self.bar_columns?;
        let Some(start) = node.start.or(node.end) else { return Some(" ".repeat(columns)) };
        let column = |time: i64| {
            let passed = i128::from(time) - i128::from(self.begin);
            let scaled = passed * i128::try_from(columns).unwrap_or_default();
            usize::try_from(scaled / self.total_nanos.max(1)).unwrap_or_default().min(columns)
        };
        let end = node.end.map_or(columns, column);
        let (from, to) = (column(start).min(end), column(start).max(end));
        // Every span has at least one column, inside of the bar.
        let from = from.min(columns - 1);
        let filled = to.saturating_sub(from).max(1);
        let after = columns.saturating_sub(from + filled);
        Some(format!("{}{}{}", " ".repeat(from), "=".repeat(filled), " ".repeat(after)))
    }
}
