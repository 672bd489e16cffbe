//! Experiments, bindings and routes in real files.

use std::sync::Arc;

use tempfile::TempDir;
use tracelake_model::{ExperimentId, SystemClock, TableName};
use tracelake_registry::{
    EarlierTraces, ExperimentQuery, LifecycleStage, NewExperiment, Registry, RegistryError,
    RegistryErrorKind, Tag, ViewType,
};

async fn open(folder: &TempDir) -> Registry {
    Registry::open(folder.path(), Arc::new(SystemClock)).await.unwrap()
}

fn named(name: &str) -> NewExperiment {
    NewExperiment { name: name.into(), ..NewExperiment::default() }
}

fn tag(key: &str, value: &str) -> Tag {
    Tag { key: key.into(), value: value.into() }
}

fn id(text: &str) -> ExperimentId {
    text.parse().unwrap()
}

async fn names(registry: &Registry, query: &ExperimentQuery) -> Vec<String> {
    let page = registry.search_experiments(query).await.unwrap();
    page.experiments.into_iter().map(|experiment| experiment.name).collect()
}

fn filter(filter: &str) -> ExperimentQuery {
    ExperimentQuery {
        filter: filter.into(),
        order_by: vec!["name ASC".into()],
        ..ExperimentQuery::default()
    }
}

/// Scenario: a new folder, then a second open of it.
/// Guarantees: experiment 0 is there, ids start at 1, the archiver's id stays the same.
#[tokio::test]
async fn a_new_registry_has_the_default_experiment_and_one_id() {
    let folder = TempDir::new().unwrap();
    let first = open(&folder).await;
    let default = first.experiment(&ExperimentId::default_experiment()).await.unwrap();
    assert_eq!(default.name, "Default");
    assert_eq!(default.artifact_location, "mlflow-artifacts:/0");
    assert_eq!(default.lifecycle_stage, LifecycleStage::Active);
    assert_eq!(first.create_experiment(&named("a")).await.unwrap().as_str(), "1");
    let again = open(&folder).await;
    assert_eq!(first.archiver_id(), again.archiver_id());
    assert_eq!(again.create_experiment(&named("b")).await.unwrap().as_str(), "2");
}

/// Scenario: an experiment through its whole life, with every call that MLflow refuses.
/// Guarantees: each refusal has MLflow's kind and words, and changes nothing.
#[tokio::test]
async fn an_experiment_lives_by_the_rules_of_mlflow() {
    let folder = TempDir::new().unwrap();
    let registry = open(&folder).await;
    let mut new = named("agents");
    new.tags = vec![tag("team", "x"), tag("team", "y")];
    let one = registry.create_experiment(&new).await.unwrap();
    let made = registry.experiment_by_name("agents").await.unwrap();
    assert_eq!(
        (made.artifact_location.as_str(), &made.tags),
        ("mlflow-artifacts:/1", &vec![tag("team", "y")])
    );
    assert_eq!(made.creation_time_ms, made.last_update_time_ms);

    let refused = registry.create_experiment(&named("agents")).await.unwrap_err();
    assert_eq!(refused.kind(), RegistryErrorKind::AlreadyExists);
    assert_eq!(refused.to_string(), "Experiment(name=agents) already exists.");
    let refused = registry.experiment(&id("7")).await.unwrap_err();
    assert_eq!(refused.to_string(), "No Experiment with id=7 exists");
    let refused = registry.experiment_by_name("none").await.unwrap_err();
    assert_eq!(refused.to_string(), "Could not find experiment with name 'none'");
    let refused = registry.restore_experiment(&one).await.unwrap_err();
    assert_eq!(refused.kind(), RegistryErrorKind::NotFound);
    let refused = registry.delete_experiment_tag(&one, "gone").await.unwrap_err();
    assert_eq!(refused.to_string(), "No tag with name: gone in experiment with id 1");

    registry.rename_experiment(&one, "agents 2").await.unwrap();
    let refused = registry.rename_experiment(&one, "Default").await.unwrap_err();
    assert!(matches!(refused, RegistryError::ExperimentExists { .. }));
    registry.delete_experiment_tag(&one, "team").await.unwrap();
    registry.delete_experiment(&one).await.unwrap();
    let refused = registry.set_experiment_tag(&one, &tag("a", "b")).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "The experiment 1 must be in the 'active' state. Current state is deleted."
    );
    let refused = registry.rename_experiment(&one, "agents 3").await.unwrap_err();
    assert_eq!(refused.kind(), RegistryErrorKind::InvalidState);
    let refused = registry.create_experiment(&named("agents 2")).await.unwrap_err();
    assert_eq!(refused.kind(), RegistryErrorKind::AlreadyExists);
    registry.restore_experiment(&one).await.unwrap();
    registry.set_experiment_tag(&one, &tag("a/b c", "")).await.unwrap();
    assert_eq!(registry.experiment(&one).await.unwrap().tags, [tag("a/b c", "")]);
}

/// Scenario: names, tags and locations at and past MLflow's limits.
/// Guarantees: the limit itself is accepted; past it the parameter is named.
#[tokio::test]
async fn names_and_tags_have_limits() {
    let folder = TempDir::new().unwrap();
    let registry = open(&folder).await;
    registry.create_experiment(&named(&"\u{e9}".repeat(500))).await.unwrap();
    for wrong in ["", " \t ", "a\u{1b}[0m", &"x".repeat(501)] {
        let refused = registry.create_experiment(&named(wrong)).await.unwrap_err();
        assert_eq!(refused.kind(), RegistryErrorKind::InvalidParameter, "{wrong}");
    }
    let zero = ExperimentId::default_experiment();
    let long = "k".repeat(251);
    for wrong in ["", "../a", "/a", "a//b", "a/.", "a\"b", long.as_str()] {
        let refused = registry.set_experiment_tag(&zero, &tag(wrong, "v")).await.unwrap_err();
        assert_eq!(refused.kind(), RegistryErrorKind::InvalidParameter, "{wrong}");
    }
    let value = "v".repeat(20_001);
    let refused = registry.set_experiment_tag(&zero, &tag("k", &value)).await.unwrap_err();
    assert_eq!(refused.to_string(), "'value' exceeds the maximum length of 20000 characters");
    let mut new = named("elsewhere");
    new.artifact_location = Some("runs:/x".into());
    assert!(registry.create_experiment(&new).await.is_err());
    new.artifact_location = Some("s3://bucket/x".into());
    let made = registry.create_experiment(&new).await.unwrap();
    assert_eq!(registry.experiment(&made).await.unwrap().artifact_location, "s3://bucket/x");
}

/// Scenario: searches by name, tag and stage, with every comparator and a hostile value.
/// Guarantees: exactly the matching experiments, in the order asked for; a value stays a value.
#[tokio::test]
async fn search_filters_and_orders() {
    let folder = TempDir::new().unwrap();
    let registry = open(&folder).await;
    for (name, env) in [("Alpha", "prod"), ("alps", "dev"), ("beta*", "prod")] {
        let new = NewExperiment { tags: vec![tag("env", env)], ..named(name) };
        registry.create_experiment(&new).await.unwrap();
    }
    let search = |text: &str| {
        let query = filter(text);
        let registry = &registry;
        async move { names(registry, &query).await }
    };
    assert_eq!(search("").await, ["Alpha", "Default", "alps", "beta*"]);
    assert_eq!(search("name = 'alps'").await, ["alps"]);
    assert_eq!(search("name LIKE 'al%'").await, ["alps"]);
    assert_eq!(search("name ILIKE 'AL%'").await, ["Alpha", "alps"]);
    assert_eq!(search("name LIKE 'beta*'").await, ["beta*"]);
    assert_eq!(search("name LIKE '*'").await, Vec::<String>::new());
    assert_eq!(search("tags.env != 'dev' AND name != 'Alpha'").await, ["beta*"]);
    assert_eq!(search("tag.env LIKE 'p__d'").await, ["Alpha", "beta*"]);
    assert_eq!(search("tags.env IS NULL").await, ["Default"]);
    assert_eq!(search("tags.env IS NOT NULL AND name ILIKE 'b%'").await, ["beta*"]);
    assert_eq!(search("experiment_id = '2'").await, ["alps"]);
    assert_eq!(search("creation_time > 0 AND name = \"Default\"").await, ["Default"]);
    assert_eq!(search("name = 'x'' OR 1=1 --'").await, Vec::<String>::new());

    registry.delete_experiment(&id("2")).await.unwrap();
    let mut query = filter("");
    query.view = ViewType::DeletedOnly;
    assert_eq!(names(&registry, &query).await, ["alps"]);
    query.view = ViewType::All;
    query.order_by = vec!["experiment_id DESC".into()];
    assert_eq!(names(&registry, &query).await, ["beta*", "alps", "Alpha", "Default"]);
}

/// Scenario: a search in pages of two, bad page sizes, bad tokens.
/// Guarantees: the pages hold each experiment once; what is bad is refused.
#[tokio::test]
async fn search_goes_page_by_page() {
    let folder = TempDir::new().unwrap();
    let registry = open(&folder).await;
    for number in 1..5 {
        registry.create_experiment(&named(&format!("e{number}"))).await.unwrap();
    }
    let mut query = filter("");
    query.max_results = 2;
    let mut found = Vec::new();
    loop {
        let page = registry.search_experiments(&query).await.unwrap();
        found.extend(page.experiments.into_iter().map(|experiment| experiment.name));
        query.page_token = page.next_page_token;
        if query.page_token.is_none() {
            break;
        }
    }
    assert_eq!(found, ["Default", "e1", "e2", "e3", "e4"]);
    for token in ["%%%", "aGVsbG8=", "eyJvZmZzZXQiOiAtNX0="] {
        query.page_token = Some(token.into());
        assert!(registry.search_experiments(&query).await.is_err(), "{token}");
    }
    query.page_token = None;
    for max_results in [0, -1, 50_001, i64::MAX] {
        query.max_results = max_results;
        let refused = registry.search_experiments(&query).await.unwrap_err();
        assert_eq!(refused.kind(), RegistryErrorKind::InvalidParameter);
    }
}

/// Scenario: two owners of one file; one binds, rebinds and unbinds, the other asks for routes.
/// Guarantees: a change is seen by the very next question; unknown names are refused.
#[tokio::test]
async fn routes_follow_changes_of_another_owner() {
    let folder = TempDir::new().unwrap();
    let service = open(&folder).await;
    let command = open(&folder).await;
    let [first, second]: [TableName; 2] = ["a.b.c", "a.b.d"].map(|name| name.parse().unwrap());
    let zero = ExperimentId::default_experiment();
    assert_eq!(service.route(&zero).await.unwrap(), None);
    assert_eq!(service.experiment_route(&id("1")).await.unwrap(), None);

    let refused = command.bind(&zero, &first, 5, EarlierTraces::Stay).await.unwrap_err();
    assert!(matches!(refused, RegistryError::TableNotFound { .. }));
    command.register_table(&first, "file:///x").await.unwrap();
    command.register_table(&first, "file:///x").await.unwrap();
    let refused = command.register_table(&first, "file:///y").await.unwrap_err();
    assert_eq!(refused.kind(), RegistryErrorKind::AlreadyExists);
    command.register_table(&second, "file:///z").await.unwrap();
    assert_eq!(service.tables().await.unwrap().len(), 2);
    assert_eq!(service.table(&first).await.unwrap().unwrap().location_url, "file:///x");
    let refused = command.bind(&id("9"), &first, 5, EarlierTraces::Stay).await.unwrap_err();
    assert!(matches!(refused, RegistryError::ExperimentNotFound { .. }));

    command.bind(&zero, &first, 5, EarlierTraces::Stay).await.unwrap();
    assert_eq!(service.route(&zero).await.unwrap(), Some(first.clone()));
    command.bind(&zero, &second, 6, EarlierTraces::Stay).await.unwrap();
    assert_eq!(service.route(&zero).await.unwrap(), Some(second.clone()));
    assert_eq!(service.bindings().await.unwrap()[0].enabled_at_micros, 6);
    let one = command.create_experiment(&named("a")).await.unwrap();
    let route = service.experiment_route(&one).await.unwrap().unwrap();
    assert_eq!((route.stage, route.table), (LifecycleStage::Active, None));
    command.delete_experiment(&one).await.unwrap();
    let route = service.experiment_route(&one).await.unwrap().unwrap();
    assert_eq!(route.stage, LifecycleStage::Deleted);
    assert_eq!(command.unbind(&zero).await.unwrap(), Some(second));
    assert_eq!(command.unbind(&zero).await.unwrap(), None);
    assert_eq!(service.route(&zero).await.unwrap(), None);
    assert_eq!(service.binding(&zero).await.unwrap(), None);
}

/// Scenario: eight owners open one new folder at once and create experiments.
/// Guarantees: all open, nothing is lost, every name has one id, all have the same archiver id.
#[tokio::test(flavor = "multi_thread")]
async fn several_owners_at_once() {
    let folder = Arc::new(TempDir::new().unwrap());
    let mut owners = tokio::task::JoinSet::new();
    for owner in 0..8 {
        let folder = Arc::clone(&folder);
        owners.spawn(async move {
            let registry = open(&folder).await;
            for number in 0..5 {
                registry.create_experiment(&named(&format!("{owner}-{number}"))).await.unwrap();
            }
            registry.archiver_id()
        });
    }
    let ids = owners.join_all().await;
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]));
    let registry = open(&folder).await;
    assert_eq!(names(&registry, &filter("")).await.len(), 41);
}

/// Scenario: a file of a newer program, and a file that is no database.
/// Guarantees: both are refused with a clear error and left as they are.
#[tokio::test]
async fn refuses_files_it_does_not_know() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(tracelake_registry::REGISTRY_FILE);
    std::fs::write(&path, "not a database, but long enough to look like one".repeat(100)).unwrap();
    let refused = Registry::open(folder.path(), Arc::new(SystemClock)).await.unwrap_err();
    assert_eq!(refused.kind(), RegistryErrorKind::Internal);

    let folder = TempDir::new().unwrap();
    let path = folder.path().join(tracelake_registry::REGISTRY_FILE);
    open(&folder).await.close().await;
    let url = format!("sqlite://{}", path.display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    sqlx::query("INSERT INTO schema_version VALUES (99, 0)").execute(&pool).await.unwrap();
    let refused = Registry::open(folder.path(), Arc::new(SystemClock)).await.unwrap_err();
    assert!(matches!(refused, RegistryError::SchemaTooNew { found: 99, .. }), "{refused}");
}

/// Scenario: many routes asked for one after another.
/// Guarantees: prints what one question costs; bounded far above what it takes.
#[tokio::test]
async fn a_route_costs_little() {
    let folder = TempDir::new().unwrap();
    let registry = open(&folder).await;
    let zero = ExperimentId::default_experiment();
    let start = std::time::Instant::now();
    for _ in 0..2_000 {
        registry.route(&zero).await.unwrap();
    }
    let each = start.elapsed() / 2_000;
    println!("route: {each:?} each");
    assert!(each.as_millis() < 20);
}
