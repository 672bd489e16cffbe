//! The model room: the nouns that every other room shares.
//!
//! Ids, table names, trace facts, size limits, the clock and the Arrow schema of the traces table.
//! Comes in: nothing. Goes out: values. This room does no I/O, knows no wire format and no runtime.

pub mod admission;
pub mod change;
pub mod clock;
pub mod ids;
pub mod limits;
pub mod names;
pub mod schema;
pub mod steady_clock;
pub mod trace_info;

pub use admission::{Admission, Overload};
pub use change::{TraceChange, TraceChanges};
pub use clock::{Clock, SystemClock, Times};
pub use ids::{SpanId, TraceId};
pub use limits::Limits;
pub use names::{ExperimentId, NameError, TableName};
pub use steady_clock::SteadyClock;
pub use trace_info::{Assessment, TokenUsage, TraceCost, TraceInfo, TraceState};
