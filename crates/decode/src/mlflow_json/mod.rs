//! MLflow's own JSON: `traces.json`, trace infos, assessments.
//!
//! Sources: `mlflow/entities/{span,trace_info,assessment,link}.py` of MLflow 3.17 (Apache-2.0) and
//! the JSON form of its protobuf messages `TraceInfoV3` and `Assessment`. Member names are read in
//! snake_case and camelCase, null means absent, unknown members are not kept.

mod assessment;
mod attributes;
mod messages;
mod spans;
mod time;
mod trace_file;
mod trace_info;

pub use assessment::{read_assessment, write_assessment};
pub use spans::traces_json_to_protobuf;
pub use trace_file::{MlflowTrace, TraceFile, read_trace_file};
pub use trace_info::{StartTrace, read_start_trace, start_trace_body, write_trace_info};
