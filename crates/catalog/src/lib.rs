//! The catalog room: tables as Unity Catalog knows them.
//!
//! Comes in: a table's name, location and columns; calls of Unity Catalog's REST API. Goes out:
//! entries of a Unity Catalog, and the answers of one. The catalog that runs within this process
//! ([`EmbeddedCatalog`]) is a library's, kept in one SQLite file that several processes may have
//! open at once. Any other is spoken to over HTTP ([`UnityClient`]). [`ensure_table`] works on both.
//!
//! This room refuses to know Delta logs and Arrow. It never reads or writes what lies at a storage
//! location: a location is text that it keeps.

mod calls;
mod client;
mod columns;
mod embedded;
mod error;
mod names;
mod register;
mod wire;

pub use calls::UnityCatalog;
pub use client::{ClientOptions, UnityClient};
pub use columns::{Column, ColumnType, ListType, MapType};
pub use embedded::{API_PATH, EmbeddedCatalog};
pub use error::{CatalogError, CatalogErrorKind};
pub use names::same_location;
pub use register::{Registration, TableSpec, ensure_table};
pub use wire::{
    CatalogInfo, ColumnInfo, CreateCatalog, CreateSchema, CreateTable, Page, SchemaInfo, TableInfo,
};
