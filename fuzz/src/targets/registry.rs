//! The filter of `experiments/search`: any text is an answer or a clear refusal, never a fault of
//! the database.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Runtime;
use tracelake_model::SystemClock;
use tracelake_registry::{ExperimentQuery, Registry, RegistryErrorKind, ViewType};

thread_local! {
    static REGISTRY: OnceCell<(Runtime, Registry)> = const { OnceCell::new() };
}

/// The first byte says whether the rest is the filter or an order.
pub(crate) fn experiment_filter(data: &[u8]) {
    let Some((choice, text)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(text).into_owned();
    let mut query = ExperimentQuery { view: ViewType::All, ..ExperimentQuery::default() };
    match choice % 4 {
        0 => query.order_by = vec![text],
        1 => query.page_token = Some(text),
        _ => query.filter = text,
    }
    REGISTRY.with(|cell| {
        let (runtime, registry) = cell.get_or_init(open);
        if let Err(error) = runtime.block_on(registry.search_experiments(&query)) {
            assert_eq!(error.kind(), RegistryErrorKind::InvalidParameter, "{query:?}: {error}");
        }
    });
}

fn open() -> (Runtime, Registry) {
    let folder: PathBuf =
        std::env::temp_dir().join(format!("tracelake-fuzz-registry-{}", std::process::id()));
    std::fs::remove_dir_all(&folder).ok();
    std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let registry =
        runtime.block_on(Registry::open(&folder, Arc::new(SystemClock))).expect("a registry");
    (runtime, registry)
}
