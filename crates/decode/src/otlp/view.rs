//! Borrowed views of OTLP messages: fields are read from the received bytes when asked for.
//!
//! Views are lenient; whether bytes are well formed is decided once, in [`crate::request`]. A string
//! that is not UTF-8 cannot be met after that and reads as empty.

use smallvec::SmallVec;
use tracelake_model::{SpanId, TraceId};

use super::fields::{
    any_value, array_value, event, key_value, key_value_list, link, resource, scope, span, status,
};
use crate::wire::{Fields, Repeated, WireValue};

/// Any attribute value, without ownership.
#[derive(Clone, Copy, Debug)]
pub enum ValueView<'a> {
    /// No value was set.
    Empty,
    /// `string_value`.
    String(&'a str),
    /// `bool_value`.
    Bool(bool),
    /// `int_value`.
    Int(i64),
    /// `double_value`.
    Double(f64),
    /// `array_value`.
    Array(ArrayView<'a>),
    /// `kvlist_value`.
    KeyValues(KeyValuesView<'a>),
    /// `bytes_value`.
    Bytes(&'a [u8]),
}

impl<'a> ValueView<'a> {
    /// Reads the message `AnyValue`. Of several members the last one counts.
    #[must_use]
    pub fn new(message: &'a [u8]) -> Self {
        let mut fields = Fields::new(message);
        let mut value = ValueView::Empty;
        while let Ok(Some(field)) = fields.next_field() {
            value = match field {
                (any_value::STRING_VALUE, WireValue::Bytes(bytes)) => {
                    ValueView::String(utf8(bytes))
                }
                (any_value::BOOL_VALUE, WireValue::Varint(number)) => ValueView::Bool(number != 0),
                (any_value::INT_VALUE, WireValue::Varint(number)) => {
                    ValueView::Int(number.cast_signed())
                }
                (any_value::DOUBLE_VALUE, WireValue::Fixed64(bits)) => {
                    ValueView::Double(f64::from_bits(bits))
                }
                (any_value::ARRAY_VALUE, WireValue::Bytes(bytes)) => {
                    ValueView::Array(ArrayView { message: bytes })
                }
                (any_value::KVLIST_VALUE, WireValue::Bytes(bytes)) => {
                    ValueView::KeyValues(KeyValuesView { message: bytes })
                }
                (any_value::BYTES_VALUE, WireValue::Bytes(bytes)) => ValueView::Bytes(bytes),
                _ => value,
            };
        }
        value
    }

    /// The text of a string value.
    #[must_use]
    pub const fn as_str(self) -> Option<&'a str> {
        match self {
            ValueView::String(text) => Some(text),
            ValueView::Empty
            | ValueView::Bool(_)
            | ValueView::Int(_)
            | ValueView::Double(_)
            | ValueView::Array(_)
            | ValueView::KeyValues(_)
            | ValueView::Bytes(_) => None,
        }
    }
}

/// An `ArrayValue`.
#[derive(Clone, Copy, Debug)]
pub struct ArrayView<'a> {
    message: &'a [u8],
}

impl<'a> ArrayView<'a> {
    /// The elements in order.
    pub fn iter(self) -> impl Iterator<Item = ValueView<'a>> {
        Repeated::new(self.message, array_value::VALUES).map(ValueView::new)
    }
}

/// A `KeyValueList`, in the order sent; keys may repeat.
#[derive(Clone, Copy, Debug)]
pub struct KeyValuesView<'a> {
    message: &'a [u8],
}

impl<'a> KeyValuesView<'a> {
    /// The entries in order.
    pub fn iter(self) -> impl Iterator<Item = KeyValueView<'a>> {
        Repeated::new(self.message, key_value_list::VALUES).map(KeyValueView::new)
    }
}

/// One attribute.
#[derive(Clone, Copy, Debug)]
pub struct KeyValueView<'a> {
    /// Attribute name.
    pub key: &'a str,
    /// The message `AnyValue`, not yet read.
    value: &'a [u8],
}

impl<'a> KeyValueView<'a> {
    /// Reads the message `KeyValue`; the value is read by [`Self::value`].
    #[must_use]
    pub fn new(message: &'a [u8]) -> Self {
        let mut fields = Fields::new(message);
        let mut view = Self { key: "", value: &[] };
        while let Ok(Some((number, value))) = fields.next_field() {
            match number {
                key_value::KEY => view.key = text(value),
                key_value::VALUE => view.value = value.bytes(),
                _ => {}
            }
        }
        view
    }

    /// The attribute's value.
    #[must_use]
    pub fn value(&self) -> ValueView<'a> {
        ValueView::new(self.value)
    }
}

/// A span: scalar fields read, repeated ones on demand.
#[derive(Clone, Copy, Debug)]
pub struct SpanView<'a> {
    /// The message `Span`.
    pub message: &'a [u8],
    /// Trace id as sent; 16 bytes when the span was accepted.
    pub trace_id: &'a [u8],
    /// Span id as sent; 8 bytes when the span was accepted.
    pub span_id: &'a [u8],
    /// Parent id as sent; empty or all zero for a root.
    pub parent_span_id: &'a [u8],
    /// W3C trace state.
    pub trace_state: &'a str,
    /// W3C trace flags and OTLP's own bits.
    pub flags: u32,
    /// Name; may be empty.
    pub name: &'a str,
    /// `SpanKind` number; unknown numbers are kept.
    pub kind: i32,
    /// Nanoseconds since the Unix epoch; zero when the sender did not know.
    pub start_time_unix_nano: u64,
    /// Nanoseconds since the Unix epoch; zero when the span never ended.
    pub end_time_unix_nano: u64,
    /// Attributes that the sender dropped.
    pub dropped_attributes_count: u32,
    /// Events that the sender dropped.
    pub dropped_events_count: u32,
    /// Links that the sender dropped.
    pub dropped_links_count: u32,
    /// The status message.
    pub status_message: &'a str,
    /// `StatusCode` number: 0 unset, 1 ok, 2 error; unknown numbers are kept.
    pub status_code: i32,
    /// True when the message `Status` was there, even if empty.
    pub has_status: bool,
    has_events: bool,
    has_links: bool,
}

/// The attributes of a span, read once: who asks several times need not walk the span's bytes again.
pub type AttributeList<'a> = SmallVec<[KeyValueView<'a>; 24]>;

impl<'a> SpanView<'a> {
    /// Reads the message `Span`.
    #[must_use]
    pub fn new(message: &'a [u8]) -> Self {
        Self::read(message, |_| {})
    }

    /// Reads the message `Span`, and its attributes in the order sent.
    #[must_use]
    pub fn with_attributes(message: &'a [u8]) -> (Self, AttributeList<'a>) {
        let mut attributes = AttributeList::new();
        let view = Self::read(message, |attribute| attributes.push(KeyValueView::new(attribute)));
        (view, attributes)
    }

    #[inline]
    fn read(message: &'a [u8], mut attribute: impl FnMut(&'a [u8])) -> Self {
        let mut view = SpanView {
            message,
            trace_id: &[],
            span_id: &[],
            parent_span_id: &[],
            trace_state: "",
            flags: 0,
            name: "",
            kind: 0,
            start_time_unix_nano: 0,
            end_time_unix_nano: 0,
            dropped_attributes_count: 0,
            dropped_events_count: 0,
            dropped_links_count: 0,
            status_message: "",
            status_code: 0,
            has_status: false,
            has_events: false,
            has_links: false,
        };
        let mut fields = Fields::new(message);
        while let Ok(Some((number, value))) = fields.next_field() {
            match number {
                span::TRACE_ID => view.trace_id = value.bytes(),
                span::SPAN_ID => view.span_id = value.bytes(),
                span::TRACE_STATE => view.trace_state = text(value),
                span::PARENT_SPAN_ID => view.parent_span_id = value.bytes(),
                span::NAME => view.name = text(value),
                span::KIND => view.kind = enumeration(value),
                span::START_TIME_UNIX_NANO => view.start_time_unix_nano = value.number(),
                span::END_TIME_UNIX_NANO => view.end_time_unix_nano = value.number(),
                span::ATTRIBUTES => {
                    if let WireValue::Bytes(bytes) = value {
                        attribute(bytes);
                    }
                }
                span::EVENTS => view.has_events = true,
                span::LINKS => view.has_links = true,
                span::DROPPED_ATTRIBUTES_COUNT => view.dropped_attributes_count = low32(value),
                span::DROPPED_EVENTS_COUNT => view.dropped_events_count = low32(value),
                span::DROPPED_LINKS_COUNT => view.dropped_links_count = low32(value),
                span::STATUS => view.read_status(value.bytes()),
                span::FLAGS => view.flags = low32(value),
                _ => {}
            }
        }
        view
    }

    fn read_status(&mut self, message: &'a [u8]) {
        self.has_status = true;
        let mut fields = Fields::new(message);
        while let Ok(Some((number, value))) = fields.next_field() {
            match number {
                status::MESSAGE => self.status_message = text(value),
                status::CODE => self.status_code = enumeration(value),
                _ => {}
            }
        }
    }

    /// Attributes in the order sent; keys may repeat.
    pub fn attributes(&self) -> impl Iterator<Item = KeyValueView<'a>> + use<'a> {
        Repeated::new(self.message, span::ATTRIBUTES).map(KeyValueView::new)
    }

    /// Events in the order sent.
    pub fn events(&self) -> impl Iterator<Item = EventView<'a>> + use<'a> {
        let message = if self.has_events { self.message } else { &[] };
        Repeated::new(message, span::EVENTS).map(EventView::new)
    }

    /// Links in the order sent.
    pub fn links(&self) -> impl Iterator<Item = LinkView<'a>> + use<'a> {
        let message = if self.has_links { self.message } else { &[] };
        Repeated::new(message, span::LINKS).map(LinkView::new)
    }

    /// The first attribute with this key.
    #[must_use]
    pub fn attribute(&self, key: &str) -> Option<ValueView<'a>> {
        first(self.attributes(), key)
    }

    /// The parent's id, `None` for a root (empty or all zero) or an id of another length.
    #[must_use]
    pub fn parent(&self) -> Option<SpanId> {
        let id = SpanId(self.parent_span_id.try_into().ok()?);
        id.is_valid().then_some(id)
    }

    /// The trace id, if it has 16 bytes that are not all zero.
    #[must_use]
    pub fn valid_trace_id(&self) -> Option<TraceId> {
        let id = TraceId(self.trace_id.try_into().ok()?);
        id.is_valid().then_some(id)
    }

    /// The span id, if it has 8 bytes that are not all zero.
    #[must_use]
    pub fn valid_span_id(&self) -> Option<SpanId> {
        let id = SpanId(self.span_id.try_into().ok()?);
        id.is_valid().then_some(id)
    }

    /// True when the status code is `ERROR`. Events and tags have no say in it.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        self.status_code == 2
    }
}

/// Declares views of messages that have attributes: each field with the name of its number in
/// [`super::fields`] and what reads it.
macro_rules! views {
    ($(
        $(#[$doc:meta])*
        $view:ident of $message:ident {
            $($(#[$field_doc:meta])* $field:ident: $type:ty = $read:ident($number:ident),)*
        }
    )+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $view<'a> {
            /// The message as received.
            pub message: &'a [u8],
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl<'a> $view<'a> {
            /// Reads the message.
            #[must_use]
            pub fn new(message: &'a [u8]) -> Self {
                let mut view = Self { message, $($field: Default::default(),)* };
                let mut fields = Fields::new(message);
                while let Ok(Some((number, value))) = fields.next_field() {
                    match number {
                        $($message::$number => view.$field = $read(value),)*
                        _ => {}
                    }
                }
                view
            }

            /// Attributes in the order sent; keys may repeat.
            pub fn attributes(&self) -> impl Iterator<Item = KeyValueView<'a>> + use<'a> {
                Repeated::new(self.message, $message::ATTRIBUTES).map(KeyValueView::new)
            }
        }
    )+};
}

views! {
    /// An event of a span.
    EventView of event {
        /// Nanoseconds since the Unix epoch.
        time_unix_nano: u64 = number(TIME_UNIX_NANO),
        /// Name; may be empty.
        name: &'a str = text(NAME),
        /// Attributes that the sender dropped.
        dropped_attributes_count: u32 = low32(DROPPED_ATTRIBUTES_COUNT),
    }

    /// A link of a span. Ids may have any length: senders are wrong about them.
    LinkView of link {
        /// Trace id as sent.
        trace_id: &'a [u8] = bytes(TRACE_ID),
        /// Span id as sent.
        span_id: &'a [u8] = bytes(SPAN_ID),
        /// W3C trace state.
        trace_state: &'a str = text(TRACE_STATE),
        /// Attributes that the sender dropped.
        dropped_attributes_count: u32 = low32(DROPPED_ATTRIBUTES_COUNT),
        /// W3C trace flags and OTLP's own bits.
        flags: u32 = low32(FLAGS),
    }

    /// A resource: what produced the spans.
    ResourceView of resource {
        /// Attributes that the sender dropped.
        dropped_attributes_count: u32 = low32(DROPPED_ATTRIBUTES_COUNT),
    }

    /// An instrumentation scope: the library that made the spans.
    ScopeView of scope {
        /// Library name.
        name: &'a str = text(NAME),
        /// Library version.
        version: &'a str = text(VERSION),
        /// Attributes that the sender dropped.
        dropped_attributes_count: u32 = low32(DROPPED_ATTRIBUTES_COUNT),
    }
}

impl<'a> ResourceView<'a> {
    /// The first attribute with this key.
    #[must_use]
    pub fn attribute(&self, key: &str) -> Option<ValueView<'a>> {
        first(self.attributes(), key)
    }
}

/// The first of `attributes` with this key.
fn first<'a>(
    mut attributes: impl Iterator<Item = KeyValueView<'a>>,
    key: &str,
) -> Option<ValueView<'a>> {
    attributes.find(|attribute| attribute.key == key).map(|found| found.value())
}

fn utf8(bytes: &[u8]) -> &str {
    simdutf8::basic::from_utf8(bytes).unwrap_or_default()
}

fn text(value: WireValue<'_>) -> &str {
    utf8(value.bytes())
}

const fn bytes(value: WireValue<'_>) -> &[u8] {
    value.bytes()
}

const fn number(value: WireValue<'_>) -> u64 {
    value.number()
}

/// Protobuf enums and uint32 travel as varints; parsers keep the low 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "protobuf defines this truncation")]
const fn low32(value: WireValue<'_>) -> u32 {
    value.number() as u32
}

const fn enumeration(value: WireValue<'_>) -> i32 {
    low32(value).cast_signed()
}
