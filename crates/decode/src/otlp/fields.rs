//! The field numbers of OTLP's protobuf messages, each under the name of its message.
//!
//! Source: `trace.proto`, `common.proto`, `resource.proto` and `trace_service.proto` of
//! opentelemetry-proto 1.10; for what a refusal says `google/rpc/status.proto`,
//! `google/rpc/error_details.proto`, and `Any` and `Duration` of protobuf itself. No other file of
//! the product has such a number. The load generator writes its own spans: one that took them from
//! here could not show a fault in them.

/// Declares a module for each message, with the number of each of its fields.
macro_rules! messages {
    ($($(#[$doc:meta])* $message:ident { $($field:ident = $number:literal,)+ })+) => {
        $(
            $(#[$doc])*
            pub mod $message {
                $(
                    #[doc = concat!("The number of the field `", stringify!($field), "`.")]
                    pub const $field: u32 = $number;
                )+
            }
        )+
    };
}

messages! {
    /// `ExportTraceServiceRequest`.
    export_request {
        RESOURCE_SPANS = 1,
    }
    /// `ExportTraceServiceResponse`.
    export_response {
        PARTIAL_SUCCESS = 1,
    }
    /// `ExportTracePartialSuccess`.
    partial_success {
        REJECTED_SPANS = 1,
        ERROR_MESSAGE = 2,
    }
    /// `ResourceSpans`.
    resource_spans {
        RESOURCE = 1,
        SCOPE_SPANS = 2,
        SCHEMA_URL = 3,
        // What `scope_spans` was until 2022.
        INSTRUMENTATION_LIBRARY_SPANS = 1000,
    }
    /// `ScopeSpans`.
    scope_spans {
        SCOPE = 1,
        SPANS = 2,
        SCHEMA_URL = 3,
    }
    /// `Resource`.
    resource {
        ATTRIBUTES = 1,
        DROPPED_ATTRIBUTES_COUNT = 2,
    }
    /// `InstrumentationScope`.
    scope {
        NAME = 1,
        VERSION = 2,
        ATTRIBUTES = 3,
        DROPPED_ATTRIBUTES_COUNT = 4,
    }
    /// `Span`.
    span {
        TRACE_ID = 1,
        SPAN_ID = 2,
        TRACE_STATE = 3,
        PARENT_SPAN_ID = 4,
        NAME = 5,
        KIND = 6,
        START_TIME_UNIX_NANO = 7,
        END_TIME_UNIX_NANO = 8,
        ATTRIBUTES = 9,
        DROPPED_ATTRIBUTES_COUNT = 10,
        EVENTS = 11,
        DROPPED_EVENTS_COUNT = 12,
        LINKS = 13,
        DROPPED_LINKS_COUNT = 14,
        STATUS = 15,
        FLAGS = 16,
    }
    /// `Span.Event`.
    event {
        TIME_UNIX_NANO = 1,
        NAME = 2,
        ATTRIBUTES = 3,
        DROPPED_ATTRIBUTES_COUNT = 4,
    }
    /// `Span.Link`.
    link {
        TRACE_ID = 1,
        SPAN_ID = 2,
        TRACE_STATE = 3,
        ATTRIBUTES = 4,
        DROPPED_ATTRIBUTES_COUNT = 5,
        FLAGS = 6,
    }
    /// `Status` of a span.
    status {
        MESSAGE = 2,
        CODE = 3,
    }
    /// `KeyValue`: an attribute.
    key_value {
        KEY = 1,
        VALUE = 2,
    }
    /// `AnyValue`: its fields are one oneof.
    any_value {
        STRING_VALUE = 1,
        BOOL_VALUE = 2,
        INT_VALUE = 3,
        DOUBLE_VALUE = 4,
        ARRAY_VALUE = 5,
        KVLIST_VALUE = 6,
        BYTES_VALUE = 7,
    }
    /// `ArrayValue`.
    array_value {
        VALUES = 1,
    }
    /// `KeyValueList`.
    key_value_list {
        VALUES = 1,
    }
    /// `google.rpc.Status`: the answer to a request that was refused.
    rpc_status {
        CODE = 1,
        MESSAGE = 2,
        DETAILS = 3,
    }
    /// `google.protobuf.Any`.
    any {
        TYPE_URL = 1,
        VALUE = 2,
    }
    /// `google.rpc.RetryInfo`.
    retry_info {
        RETRY_DELAY = 1,
    }
    /// `google.protobuf.Duration`.
    duration {
        SECONDS = 1,
        NANOS = 2,
    }
}
