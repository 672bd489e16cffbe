//! Every request that fuzzing kept, as a row and back (`make fuzz`).

#[cfg(test)]
#[path = "../../../fuzz/src/targets/rows.rs"]
mod properties;

use std::path::Path;

// Where the properties look for it.
use tracelake_lake::rows;

/// Scenario: the committed corpus of requests, of the decoder and of the rows.
/// Guarantees: from the row of a trace its spans are rebuilt, value for value.
#[test]
fn every_kept_request_survives_its_row() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let mut inputs = 0;
    for target in ["rows", "otlp_protobuf"] {
        for entry in std::fs::read_dir(corpus.join(target)).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            properties::rows(&std::fs::read(path).unwrap());
            inputs += 1;
        }
    }
    assert!(0 < inputs);
    let none = rows::encode(&[]).unwrap();
    assert_eq!(none.num_rows(), 0);
}
