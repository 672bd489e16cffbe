use proptest::prelude::*;

use super::*;

fn reason(text: &str) -> String {
    parse(text).map_or_else(|error| error.to_string(), |value| format!("read as {value:?}"))
}

/// Scenario: strings with every kind of escape, lone and paired surrogates.
/// Guarantees: pairs are one character, a lone one is U+FFFD and its neighbours are kept.
#[test]
fn a_lone_surrogate_spoils_one_character() {
    let cases = [
        (r#""a\"\\\/\b\f\n\r\t\u0041""#, "a\"\\/\u{8}\u{c}\n\r\tA"),
        (r#""\ud83d\udca1!""#, "\u{1f4a1}!"),
        (r#""x\ud83dy""#, "x\u{fffd}y"),
        (r#""\ud83d""#, "\u{fffd}"),
        (r#""\ud83d\u0041""#, "\u{fffd}A"),
        (r#""\ud83d\ud83d\udca1""#, "\u{fffd}\u{1f4a1}"),
        (r#""\udca1\n""#, "\u{fffd}\n"),
        (r#""\\ud83d""#, "\\ud83d"),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(text).unwrap(), Json::Text(expected.into()), "{text}");
    }
}

/// Scenario: documents broken in each way they can be.
/// Guarantees: each is refused with its place, none panics.
#[test]
fn broken_documents_are_refused_with_their_place() {
    let deep = "[".repeat(501);
    for (text, expected) in [
        ("", "json: unexpected end at line 1 column 1"),
        ("{\"a\":1\n,}", "json: expected a member name at line 2 column 2"),
        ("[1 2]", "json: expected `,` or `]` at line 1 column 4"),
        ("{} x", "json: text after the document at line 1 column 4"),
        ("\"a", "json: string without end at line 1 column 2"),
        ("\"\\u12\u{e9}4\"", "json: expected four hex digits at line 1 column 4"),
        ("\"\\x\"", "json: unknown escape at line 1 column 3"),
        ("01", "json: broken number at line 1 column 1"),
        ("-", "json: broken number at line 1 column 1"),
        ("1.", "json: broken number at line 1 column 1"),
        ("nul", "json: expected a value at line 1 column 1"),
        (&deep, "json: nested deeper than 500 levels at line 1 column 501"),
    ] {
        assert_eq!(reason(text), expected, "{text:.20}");
    }
    let at_the_limit = format!("{}{}", "[".repeat(500), "]".repeat(500));
    assert!(parse(&at_the_limit).is_ok());
}

proptest! {
    /// Scenario: any JSON value, written by serde_json and by this module.
    /// Guarantees: reading and writing is the identity, and both agree.
    #[test]
    fn agrees_with_serde_json(value in any_json()) {
        let text = serde_json::to_string(&value).unwrap();
        let document = parse(&text).unwrap();
        prop_assert_eq!(&document.to_text(), &text);
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        prop_assert_eq!(parse(&pretty).unwrap(), document);
    }

    /// Scenario: text that is almost JSON.
    /// Guarantees: no panic, and whatever serde_json reads is read here.
    #[test]
    fn reads_all_that_serde_json_reads(text in "[\\[\\]{}:, \"\\\\u019.eE+a-f\u{e9}ntrul-]{0,24}") {
        let ours = parse(&text);
        if serde_json::from_str::<serde_json::Value>(&text).is_ok() {
            prop_assert!(ours.is_ok(), "{:?}", ours);
        }
    }
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}
