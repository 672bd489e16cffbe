//! Every target: its name, its property, and how much memory it may take.

mod decode;
mod journal;
mod names;
mod registry;
mod rows;

/// One thing that reads bytes from outside.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// Name on the command line, and of its corpus.
    pub(crate) name: &'static str,
    /// Checks the property on one input; panics when it does not hold.
    pub(crate) run: fn(&[u8]),
    /// Memory that any input may take.
    pub(crate) base_bytes: usize,
    /// Memory that each byte of input may take on top.
    pub(crate) bytes_per_byte: usize,
}

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run, base_bytes: 4 << 20, bytes_per_byte: 512 }
}

pub(crate) const ALL: &[Target] = &[
    target("otlp_protobuf", decode::otlp_protobuf),
    target("otlp_json", decode::otlp_json),
    target("traces_json", decode::traces_json),
    target("trace_file", decode::trace_file),
    target("start_trace", decode::start_trace),
    target("assessment", decode::assessment),
    // A zstd window may be 128 MiB, whatever the frame holds.
    Target { base_bytes: 160 << 20, ..target("content_encoding", decode::content_encoding) },
    Target { base_bytes: 160 << 20, ..target("record", decode::record) },
    target("any_value", decode::any_value),
    // A row repeats resource and scope for each span, and builders reserve for many columns.
    Target { base_bytes: 16 << 20, bytes_per_byte: 65_536, ..target("rows", rows::rows) },
    target("names", names::names),
    target("journal", journal::journal),
    target("experiment_filter", registry::experiment_filter),
];
