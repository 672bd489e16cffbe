use super::filter::{Clause, TextComparator, parse_filter, parse_order};

/// Scenario: filters as MLflow's documentation shows them, quoted in every way.
/// Guarantees: keys, comparators and values come out as meant.
#[test]
fn reads_filters_of_mlflow() {
    let clauses = parse_filter(
        "attribute.name LIKE '%a%' and tags.`my key` != 'it''s' AND tag.\"x.y\" ilike \"B_\" \
         AND tags.gone IS NULL AND creation_time>=12",
    )
    .unwrap();
    assert_eq!(clauses.len(), 5);
    assert_eq!(clauses[0], Clause::Name(TextComparator::Like, "%a%".into()));
    let tag = |key: &str, comparator, value: &str| Clause::Tag {
        key: key.into(),
        comparator,
        value: value.into(),
    };
    assert_eq!(clauses[1], tag("my key", TextComparator::NotEqual, "it's"));
    assert_eq!(clauses[2], tag("x.y", TextComparator::ILike, "B_"));
    assert_eq!(clauses[3], Clause::TagPresent { key: "gone".into(), present: false });
    assert_eq!(parse_filter("  ").unwrap(), []);
}

/// Scenario: filters and orders that MLflow refuses, unclosed quotes, injected SQL.
/// Guarantees: each is refused; none panics.
#[test]
fn refuses_what_is_no_filter() {
    for wrong in [
        "name = 'a' OR name = 'b'",
        "name = 'a' AND",
        "name = a",
        "name > 'a'",
        "nome = 'a'",
        "metric.x = 'a'",
        "name = 'a",
        "name = 'a'; DROP TABLE experiments",
        "name IS NULL",
        "creation_time = 'x'",
        "creation_time LIKE 5",
        "creation_time > 1.5",
        "experiment_id = 'x'",
        "name",
        "name =",
        "= 'a'",
        "tags.`a = 'x'",
    ] {
        assert!(parse_filter(wrong).is_err(), "{wrong}");
    }
    assert!(parse_filter(&"name = 'a' AND ".repeat(10_000)).is_err());
    for wrong in ["", "name sideways", "name ASC x", "tags.a", "name; --"] {
        assert!(parse_order(wrong).is_err(), "{wrong}");
    }
    assert!(parse_order("last_update_time desc").is_ok_and(|(_, ascending)| !ascending));
}
