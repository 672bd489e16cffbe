//! Hashes of what clients change beside spans. They are kept on disk: what is hashed never changes.

use tracelake_model::Assessment;

/// The hash of a key, an id or a value: the first 8 bytes of its BLAKE3 hash.
#[must_use]
pub fn text_hash(text: &str) -> u64 {
    first_bytes(&blake3::hash(text.as_bytes()))
}

/// The hash of what an assessment says, its id left out.
#[must_use]
pub fn assessment_hash(assessment: &Assessment) -> u64 {
    let Assessment {
        assessment_id: _,
        assessment_name,
        span_id,
        source_type,
        source_id,
        create_time_micros,
        last_update_time_micros,
        feedback_json,
        expectation_json,
        issue_json,
        rationale,
        metadata,
        overrides,
        valid,
    } = assessment;
    let mut hasher = blake3::Hasher::new();
    let mut put = |bytes: Option<&[u8]>| {
        // Length first, so that no two sequences are the same bytes.
        let length = bytes.map_or(u64::MAX, |bytes| bytes.len() as u64);
        hasher.update(&length.to_le_bytes());
        hasher.update(bytes.unwrap_or_default());
    };
    for text in [
        assessment_name,
        span_id,
        source_type,
        source_id,
        feedback_json,
        expectation_json,
        issue_json,
        rationale,
        overrides,
    ] {
        put(text.as_ref().map(String::as_bytes));
    }
    for time in [create_time_micros, last_update_time_micros] {
        put(time.map(i64::to_le_bytes).as_ref().map(<[u8; 8]>::as_slice));
    }
    put(valid.map(|valid| [u8::from(valid)]).as_ref().map(<[u8; 1]>::as_slice));
    for (key, value) in metadata {
        put(Some(key.as_bytes()));
        put(Some(value.as_bytes()));
    }
    first_bytes(&hasher.finalize())
}

fn first_bytes(hash: &blake3::Hash) -> u64 {
    hash.as_bytes().first_chunk().copied().map(u64::from_le_bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: an assessment, and others that differ from it in one field or in where a text is.
    /// Guarantees: each has a hash of its own, that does not depend on the id, and never changes.
    #[test]
    fn each_content_has_a_hash_of_its_own() {
        let one = Assessment {
            assessment_id: "a-1".into(),
            assessment_name: Some("good".into()),
            feedback_json: Some("{\"value\":true}".into()),
            create_time_micros: Some(5),
            metadata: [("k".to_owned(), "v".to_owned())].into(),
            valid: Some(true),
            ..Assessment::default()
        };
        let others = [
            Assessment { rationale: Some(String::new()), ..one.clone() },
            Assessment { valid: Some(false), ..one.clone() },
            Assessment { valid: None, ..one.clone() },
            Assessment {
                create_time_micros: None,
                last_update_time_micros: Some(5),
                ..one.clone()
            },
            Assessment { metadata: [("kv".to_owned(), String::new())].into(), ..one.clone() },
            Assessment {
                feedback_json: None,
                issue_json: one.feedback_json.clone(),
                ..one.clone()
            },
        ];
        let mut hashes: Vec<u64> = others.iter().map(assessment_hash).collect();
        hashes.push(assessment_hash(&one));
        let same = Assessment { assessment_id: "a-2".into(), ..one.clone() };
        assert_eq!(assessment_hash(&same), assessment_hash(&one));
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), others.len() + 1);
        assert_eq!(text_hash("abc"), 3_697_813_978_277_427_044);
    }
}
