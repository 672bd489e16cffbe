use proptest::prelude::*;

use super::*;

/// Any value as a message, to any depth that matters.
fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        Just(Vec::new()),
        any::<String>()
            .prop_map(|text| scalar(|w| w.bytes(any_value::STRING_VALUE, text.as_bytes()))),
        any::<bool>()
            .prop_map(|value| scalar(|w| w.number(any_value::BOOL_VALUE, u64::from(value)))),
        any::<i64>()
            .prop_map(|value| scalar(|w| w.number(any_value::INT_VALUE, value.cast_unsigned()))),
        any::<f64>()
            .prop_filter("one NaN is enough", |value| !value.is_nan())
            .prop_map(|value| scalar(|w| w.fixed64(any_value::DOUBLE_VALUE, value.to_bits()))),
        Just(scalar(|w| w.fixed64(any_value::DOUBLE_VALUE, f64::NAN.to_bits()))),
        any::<Vec<u8>>().prop_map(|bytes| scalar(|w| w.bytes(any_value::BYTES_VALUE, &bytes))),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|elements| scalar(|w| {
                w.message(any_value::ARRAY_VALUE, |array| {
                    elements.iter().for_each(|e| array.bytes(array_value::VALUES, e))
                });
            })),
            prop::collection::vec(("[$]{0,2}[a-z]{0,3}|[$]{0,3}bytes|[$]{0,2}double", inner), 0..6)
                .prop_map(|entries| scalar(|w| {
                    w.message(any_value::KVLIST_VALUE, |list| {
                        for (key, value) in &entries {
                            list.message(key_value_list::VALUES, |entry| {
                                entry.bytes(key_value::KEY, key.as_bytes());
                                entry.bytes_nonzero(key_value::VALUE, value);
                            });
                        }
                    });
                })),
        ]
    })
}

proptest! {
    /// Scenario: any attribute value, nested, with odd keys, doubles and bytes.
    /// Guarantees: JSON text and back is the identity, and the text is JSON.
    #[test]
    fn text_and_back_is_the_identity(message in any_message()) {
        let text = to_json(ValueView::new(&message));
        prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        prop_assert_eq!(json_to_message(&text).unwrap(), message);
    }
}

/// Scenario: integers past 2^53 and doubles that look like integers.
/// Guarantees: each keeps its type and every digit.
#[test]
fn numbers_keep_type_and_digits() {
    for (value, text) in [
        (ValueView::Int(i64::MAX), "9223372036854775807"),
        (ValueView::Int(9_007_199_254_740_993), "9007199254740993"),
        (ValueView::Double(1.0), "1.0"),
        (ValueView::Double(-0.0), "-0.0"),
        (ValueView::Double(1e300), "1e300"),
        (ValueView::Double(f64::NEG_INFINITY), "{\"$double\":\"-Infinity\"}"),
        (ValueView::Bytes(&[0, 255]), "{\"$bytes\":\"AP8=\"}"),
    ] {
        assert_eq!(to_json(value), text);
    }
}

/// Scenario: arrays and maps within one another, as deep as may be accepted, and a million deep.
/// Guarantees: the first are read, the others are an error and no end of the stack.
#[test]
fn nesting_is_bounded() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = |depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
        assert!(json_to_message(&nested(MAX_NESTING_DEPTH)).is_ok());
        assert!(json_to_message(&nested(1_000_000)).is_err());
        assert!(json_to_message(&open.repeat(1_000_000)).is_err());
    }
}
