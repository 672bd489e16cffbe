//! The intake over a real journal and registry, driven through its router and over loopback.

#[cfg(test)]
mod later_changes;
#[cfg(test)]
mod memory_store;
#[cfg(test)]
mod mlflow_rest;
#[cfg(test)]
mod otlp_grpc;
#[cfg(test)]
mod otlp_http;
#[cfg(test)]
mod recorded;
#[cfg(test)]
mod support;
#[cfg(test)]
mod trace_reads;
