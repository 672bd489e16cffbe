//! Every input that fuzzing kept, through the properties that fuzzing checks (`make fuzz`).

#[cfg(test)]
#[path = "../../../fuzz/src/targets/decode.rs"]
mod decode;
#[cfg(test)]
#[path = "../../../fuzz/src/targets/names.rs"]
mod names;

use std::path::Path;

/// Checks one input.
type Check = fn(&[u8]);

/// Every target of this room and its property.
const TARGETS: [(&str, Check); 10] = [
    ("otlp_protobuf", decode::otlp_protobuf),
    ("otlp_json", decode::otlp_json),
    ("traces_json", decode::traces_json),
    ("trace_file", decode::trace_file),
    ("start_trace", decode::start_trace),
    ("assessment", decode::assessment),
    ("content_encoding", decode::content_encoding),
    ("record", decode::record),
    ("any_value", decode::any_value),
    ("names", names::names),
];

/// Scenario: the committed corpus of every target of this room.
/// Guarantees: each property holds, for good, for every input that once broke or once reached it.
#[test]
fn every_kept_input_has_its_property() {
    for (target, property) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
        let mut inputs = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            // The last one printed is the one that failed.
            println!("{}", path.display());
            property(&std::fs::read(path).unwrap());
            inputs += 1;
        }
        assert!(0 < inputs, "no inputs for {target}");
    }
}
