//! Every input that fuzzing kept, through the properties that fuzzing checks (`make fuzz`).

#[cfg(test)]
#[path = "../../../fuzz/src/targets/decode.rs"]
mod decode;
#[cfg(test)]
#[path = "../../../fuzz/src/targets/names.rs"]
mod names;

use std::path::Path;

/// Runs `property` on each file of a target's corpus; the last path printed is the one that failed.
fn replay(target: &str, property: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        property(&std::fs::read(path).unwrap());
        inputs += 1;
    }
    assert!(0 < inputs, "no inputs for {target}");
}

/// Scenario: the committed corpus of every target of this room.
/// Guarantees: each property holds, for good, for every input that once broke or once reached it.
#[test]
fn every_kept_input_has_its_property() {
    replay("otlp_protobuf", decode::otlp_protobuf);
    replay("otlp_json", decode::otlp_json);
    replay("traces_json", decode::traces_json);
    replay("trace_file", decode::trace_file);
    replay("start_trace", decode::start_trace);
    replay("assessment", decode::assessment);
    replay("content_encoding", decode::content_encoding);
    replay("record", decode::record);
    replay("any_value", decode::any_value);
    replay("names", names::names);
}
