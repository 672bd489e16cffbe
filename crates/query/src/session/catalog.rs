//! The tables of one statement, under the names that the statement uses.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList,
    MemorySchemaProvider, SchemaProvider,
};
use datafusion::common::{Result, TableReference};
use datafusion::execution::object_store::{
    DefaultObjectStoreRegistry, ObjectStoreRegistry, ObjectStoreUrl,
};
use datafusion::execution::runtime_env::RuntimeEnv;
use object_store::ObjectStore;
use tracelake_model::TableName;

use crate::error::QueryError;
use crate::source::{TableResolver, TableSource};
use crate::tables::{ScanCounters, TracesTable};

/// Catalog and schema of a table that is named without them.
pub(crate) const DEFAULT_CATALOG: &str = "tracelake";
pub(crate) const DEFAULT_SCHEMA: &str = "default";

/// The bare name that stands for the statement's default table.
const DEFAULT_TABLE_NAME: &str = "traces";

const INFORMATION_SCHEMA: &str = "information_schema";

/// Catalog, schema and table as the planner looks them up.
type PlannerName = (String, String, String);

/// The tables that one statement names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalog {
    tables: BTreeMap<PlannerName, (String, Arc<TracesTable>)>,
    stores: Vec<(ObjectStoreUrl, Arc<dyn ObjectStore>)>,
    counters: Arc<ScanCounters>,
    missing: Vec<String>,
    known: Vec<String>,
    shows_schemas: bool,
}

impl Catalog {
    /// Opens what `references` name.
    ///
    /// A name that is not found is only an error if planning then fails: it may be a table
    /// function.
    pub(crate) async fn open(
        resolver: &dyn TableResolver,
        references: Vec<TableReference>,
        default_table: Option<&TableName>,
    ) -> std::result::Result<Self, QueryError> {
        let mut catalog = Self {
            known: resolver.names().iter().map(ToString::to_string).collect(),
            ..Self::default()
        };
        for reference in references {
            if reference.schema() == Some(INFORMATION_SCHEMA) {
                catalog.shows_schemas = true;
                continue;
            }
            let default = default_table
                .filter(|_| reference == TableReference::bare(DEFAULT_TABLE_NAME))
                .cloned();
            let name = reference.clone().resolve(DEFAULT_CATALOG, DEFAULT_SCHEMA);
            let planner_name =
                (name.catalog.to_string(), name.schema.to_string(), name.table.to_string());
            let wanted = match default {
                Some(table) => Some(table),
                None => TableName::new(&name.catalog, &name.schema, &name.table).ok(),
            };
            catalog.add(resolver, planner_name, wanted, &reference.to_string()).await?;
        }
        if catalog.shows_schemas {
            for name in resolver.names() {
                let planner_name =
                    (name.catalog().into(), name.schema().into(), name.table().into());
                let written = name.to_string();
                catalog.add(resolver, planner_name, Some(name), &written).await?;
            }
        }
        Ok(catalog)
    }

    async fn add(
        &mut self,
        resolver: &dyn TableResolver,
        planner_name: PlannerName,
        wanted: Option<TableName>,
        written: &str,
    ) -> std::result::Result<(), QueryError> {
        if self.tables.contains_key(&planner_name) {
            return Ok(());
        }
        let Some(name) = wanted else {
            self.missing.push(written.to_owned());
            return Ok(());
        };
        let resolved = resolver.resolve(&name).await;
        match resolved.map_err(|source| QueryError::Table { table: name.to_string(), source })? {
            Some(source) => self.insert(planner_name, name.to_string(), source),
            None => {
                self.missing.push(written.to_owned());
                Ok(())
            }
        }
    }

    fn insert(
        &mut self,
        planner_name: PlannerName,
        name: String,
        source: Arc<dyn TableSource>,
    ) -> std::result::Result<(), QueryError> {
        // Each table gets an address of its own, so that stores with different roots cannot be
        // taken for one another.
        let address = format!("traces://table{}", self.stores.len());
        let url = ObjectStoreUrl::parse(address)
            .map_err(|error| QueryError::Setup { message: error.to_string() })?;
        self.stores.push((url.clone(), source.location().store));
        let declared = source.schema();
        let table = TracesTable::new(source, declared, url, Arc::clone(&self.counters));
        self.tables.insert(planner_name, (name, Arc::new(table)));
        Ok(())
    }

    /// The error for a table that was not found, if one was not.
    pub(crate) fn missing_table(&self) -> Option<QueryError> {
        let table = self.missing.first()?.clone();
        Some(QueryError::UnknownTable { table, known: self.known.clone() })
    }

    /// Whether the statement asks what columns tables have.
    pub(crate) const fn shows_schemas(&self) -> bool {
        self.shows_schemas
    }

    /// What the scans of these tables were given to read.
    pub(crate) fn counters(&self) -> &ScanCounters {
        &self.counters
    }

    /// The same tables, each under the schema that `declare` gives for it.
    pub(crate) fn map_tables(
        &self,
        mut declare: impl FnMut(&str, &TracesTable) -> SchemaRef,
    ) -> Self {
        let mut mapped = self.clone();
        for (name, table) in mapped.tables.values_mut() {
            *table = Arc::new(table.with_declared(declare(name, table)));
        }
        mapped
    }

    /// `base` with these tables' stores and nothing else to reach.
    pub(crate) fn runtime(&self, base: &RuntimeEnv) -> Arc<RuntimeEnv> {
        let registry = DefaultObjectStoreRegistry::new();
        for (url, store) in &self.stores {
            registry.register_store(url.as_ref(), Arc::clone(store));
        }
        Arc::new(RuntimeEnv {
            memory_pool: Arc::clone(&base.memory_pool),
            disk_manager: Arc::clone(&base.disk_manager),
            cache_manager: Arc::clone(&base.cache_manager),
            object_store_registry: Arc::new(registry),
        })
    }

    /// The tables as the planner looks them up.
    pub(crate) fn provider_list(&self) -> Result<Arc<dyn CatalogProviderList>> {
        let list = MemoryCatalogProviderList::new();
        for ((catalog, schema, table_name), (_, table)) in &self.tables {
            let catalog_provider = match list.catalog(catalog) {
                Some(provider) => provider,
                None => {
                    let provider: Arc<dyn CatalogProvider> = Arc::new(MemoryCatalogProvider::new());
                    list.register_catalog(catalog.clone(), Arc::clone(&provider));
                    provider
                }
            };
            let schema_provider = match catalog_provider.schema(schema) {
                Some(provider) => provider,
                None => {
                    let provider: Arc<dyn SchemaProvider> = Arc::new(MemorySchemaProvider::new());
                    catalog_provider.register_schema(schema, Arc::clone(&provider))?;
                    provider
                }
            };
            schema_provider.register_table(table_name.clone(), Arc::clone(table) as _)?;
        }
        Ok(Arc::new(list))
    }
}
