//! Every journal file that fuzzing kept, through the properties that fuzzing checks (`make fuzz`).

#[cfg(test)]
#[path = "../../../fuzz/src/targets/journal.rs"]
mod properties;

use std::path::Path;

/// Scenario: the committed corpus of damaged segments and carries.
/// Guarantees: whole records come out, the rest is named, opening cuts no record off.
#[test]
fn every_kept_file_is_read_as_far_as_it_is_whole() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/journal");
    let mut inputs = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        properties::journal(&std::fs::read(path).unwrap());
        inputs += 1;
    }
    assert!(0 < inputs);
}
