//! Moves of earlier traces, as bindings ask for them.

use std::sync::Arc;

use tracelake_model::{ExperimentId, SystemClock, TableName};
use tracelake_registry::{EarlierTraces, Move, MoveState, Registry};

fn name(text: &str) -> TableName {
    text.parse().unwrap()
}

async fn states(registry: &Registry) -> Vec<(String, MoveState, u64)> {
    let moves = registry.moves(Some(&ExperimentId::default_experiment())).await.unwrap();
    let facts = |one: Move| (one.target.to_string(), one.state, one.moved_traces);
    moves.into_iter().map(facts).collect()
}

/// Scenario: an experiment is bound to one table, in the middle of its move to another one, to the
/// first one again, and to none; with and without its earlier traces.
/// Guarantees: a move that stood is called off and comes first until it is settled, one that was
/// done is forgotten, the same way again stands again; `Stay` asks for none.
#[tokio::test]
async fn moves_follow_the_binding() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(folder.path(), Arc::new(SystemClock)).await.unwrap();
    let zero = ExperimentId::default_experiment();
    let (default, first, second) = (name("d.d.d"), name("a.a.first"), name("a.a.second"));
    for table in [&default, &first, &second] {
        registry.register_table(table, &format!("file:///{table}")).await.unwrap();
    }
    registry.note_default_table(&default).await.unwrap();
    let bind = |table, earlier| registry.bind(&zero, table, 1, earlier);

    bind(&first, EarlierTraces::Stay).await.unwrap();
    assert_eq!(states(&registry).await, []);
    bind(&first, EarlierTraces::Move).await.unwrap();
    let one = registry.moves(None).await.unwrap().remove(0);
    assert_eq!((&one.source, &one.target), (&default, &first));
    registry.note_moved(&one, 5).await.unwrap();
    registry.note_move_fault(&one, "why").await.unwrap();
    assert_eq!(registry.moves(None).await.unwrap()[0].fault.as_deref(), Some("why"));

    bind(&second, EarlierTraces::Move).await.unwrap();
    let called_off = ("a.a.first".to_owned(), MoveState::Cancelled, 5);
    let stands = ("a.a.second".to_owned(), MoveState::Pending, 0);
    assert_eq!(states(&registry).await, [called_off, stands.clone()]);
    // What was looked at before it was called off does not end it.
    registry.end_move(&one).await.unwrap();
    assert_eq!(states(&registry).await.len(), 2);
    let one = registry.moves(None).await.unwrap().remove(0);
    registry.end_move(&one).await.unwrap();
    assert_eq!(states(&registry).await, [stands]);

    let one = registry.moves(None).await.unwrap().remove(0);
    registry.end_move(&one).await.unwrap();
    assert_eq!(states(&registry).await, [("a.a.second".to_owned(), MoveState::Done, 0)]);
    registry.unbind(&zero).await.unwrap();
    assert_eq!(states(&registry).await, []);
    bind(&first, EarlierTraces::Move).await.unwrap();
    assert_eq!(states(&registry).await, [("a.a.first".to_owned(), MoveState::Pending, 0)]);
}
