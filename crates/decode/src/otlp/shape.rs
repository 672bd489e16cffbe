//! The shape of OTLP messages: one table of field types, walked three ways.
//!
//! [`check`] decides whether bytes are well formed, [`replace_invalid_text`] mends strings that
//! are not UTF-8, [`canonical`] gives equal content equal bytes. Unknown fields are legal in
//! protobuf; they are reported, so that the span's own bytes can be kept beside its row.

use super::fields::{
    any_value, array_value, event, key_value, key_value_list, link, resource, scope, span, status,
};
use crate::wire::{Fields, WireError, WireValue};
use crate::writer::MessageWriter;

/// A message type of OTLP traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Resource,
    Scope,
    Span,
    Status,
    Event,
    Link,
    KeyValue,
    AnyValue,
    ArrayValue,
    KeyValueList,
}

/// The type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FieldType {
    Varint,
    Fixed64,
    Fixed32,
    Text,
    Bytes,
    One(Message),
    Many(Message),
}

impl Message {
    /// The type of field `number`, `None` for a field that this version of OTLP does not have.
    const fn field(self, number: u32) -> Option<FieldType> {
        use FieldType::{Bytes, Fixed32, Fixed64, Many, One, Text, Varint};
        let kind = match (self, number) {
            (Self::Resource, resource::ATTRIBUTES)
            | (Self::Scope, scope::ATTRIBUTES)
            | (Self::Span, span::ATTRIBUTES)
            | (Self::Event, event::ATTRIBUTES)
            | (Self::Link, link::ATTRIBUTES)
            | (Self::KeyValueList, key_value_list::VALUES) => Many(Self::KeyValue),
            (Self::Span, span::EVENTS) => Many(Self::Event),
            (Self::Span, span::LINKS) => Many(Self::Link),
            (Self::ArrayValue, array_value::VALUES) => Many(Self::AnyValue),
            (Self::Span, span::STATUS) => One(Self::Status),
            (Self::KeyValue, key_value::VALUE) => One(Self::AnyValue),
            (Self::AnyValue, any_value::ARRAY_VALUE) => One(Self::ArrayValue),
            (Self::AnyValue, any_value::KVLIST_VALUE) => One(Self::KeyValueList),
            (Self::Scope, scope::NAME | scope::VERSION)
            | (Self::Span, span::TRACE_STATE | span::NAME)
            | (Self::Status, status::MESSAGE)
            | (Self::Event, event::NAME)
            | (Self::Link, link::TRACE_STATE)
            | (Self::KeyValue, key_value::KEY)
            | (Self::AnyValue, any_value::STRING_VALUE) => Text,
            (Self::Span, span::TRACE_ID | span::SPAN_ID | span::PARENT_SPAN_ID)
            | (Self::Link, link::TRACE_ID | link::SPAN_ID)
            | (Self::AnyValue, any_value::BYTES_VALUE) => Bytes,
            (Self::Span, span::START_TIME_UNIX_NANO | span::END_TIME_UNIX_NANO)
            | (Self::Event, event::TIME_UNIX_NANO)
            | (Self::AnyValue, any_value::DOUBLE_VALUE) => Fixed64,
            (Self::Span, span::FLAGS) | (Self::Link, link::FLAGS) => Fixed32,
            (Self::Resource, resource::DROPPED_ATTRIBUTES_COUNT)
            | (Self::Scope, scope::DROPPED_ATTRIBUTES_COUNT)
            | (Self::Event, event::DROPPED_ATTRIBUTES_COUNT)
            | (Self::Link, link::DROPPED_ATTRIBUTES_COUNT)
            | (Self::Status, status::CODE)
            | (Self::AnyValue, any_value::BOOL_VALUE | any_value::INT_VALUE)
            | (
                Self::Span,
                span::KIND
                | span::DROPPED_ATTRIBUTES_COUNT
                | span::DROPPED_EVENTS_COUNT
                | span::DROPPED_LINKS_COUNT,
            ) => Varint,
            _ => return None,
        };
        Some(kind)
    }
}

/// What a walk over a well-formed message found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Findings {
    /// A string is not UTF-8.
    pub invalid_text: bool,
    /// There is a field that the table has no column for, or a single field came twice.
    pub beyond_columns: bool,
    /// The bytes are their own [`canonical`] form.
    pub canonical: bool,
}

/// Limits that a walk enforces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WalkLimits {
    pub max_attributes: usize,
    pub max_nesting_depth: usize,
    pub max_events: usize,
}

/// Why a message was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ShapeFault {
    Wire(WireError),
    WireType { message: Message, field: u32 },
    TooMany { message: Message, limit: usize },
    TooDeep { limit: usize },
}

impl std::fmt::Display for ShapeFault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Wire(error) => write!(formatter, "broken protobuf: {}", error.reason),
            Self::WireType { message, field } => {
                write!(formatter, "broken protobuf: wire type of {message:?} field {field}")
            }
            Self::TooMany { message, limit } => {
                write!(formatter, "more than {limit} of {message:?}")
            }
            Self::TooDeep { limit } => {
                write!(formatter, "an attribute value is nested deeper than {limit} levels")
            }
        }
    }
}

/// Walks `bytes` as `message` to the last leaf.
pub(crate) fn check(
    message: Message,
    bytes: &[u8],
    limits: &WalkLimits,
) -> Result<Findings, ShapeFault> {
    let mut findings = Findings { invalid_text: false, beyond_columns: false, canonical: true };
    walk(message, bytes, limits, 0, &mut findings)?;
    Ok(findings)
}

fn walk(
    message: Message,
    bytes: &[u8],
    limits: &WalkLimits,
    depth: usize,
    findings: &mut Findings,
) -> Result<(), ShapeFault> {
    if limits.max_nesting_depth < depth {
        return Err(ShapeFault::TooDeep { limit: limits.max_nesting_depth });
    }
    let mut fields = Fields::new(bytes);
    let mut seen = 0_u32;
    let mut highest = 0;
    let mut counts = [0_usize; 3];
    while let Some((number, value)) = fields.next_field().map_err(ShapeFault::Wire)? {
        let Some(kind) = message.field(number) else {
            findings.beyond_columns = true;
            // Behind an unknown field there may be unknown ones alone.
            highest = u32::MAX;
            continue;
        };
        findings.canonical &= is_in_place(message, highest, number, kind, value);
        highest = number;
        if !matches!(kind, FieldType::Many(_)) {
            // Field numbers are at most 16 here. In a oneof any second member counts as a repeat.
            let bit = if message == Message::AnyValue { 1 } else { 1 << (number & 31) };
            findings.beyond_columns |= seen & bit != 0;
            seen |= bit;
        }
        match (kind, value) {
            (FieldType::Fixed64, WireValue::Fixed64(bits)) => {
                findings.beyond_columns |= message == Message::AnyValue && is_odd_nan(bits);
            }
            (FieldType::Varint, WireValue::Varint(_))
            | (FieldType::Fixed32, WireValue::Fixed32(_))
            | (FieldType::Bytes, WireValue::Bytes(_)) => {}
            (FieldType::Text, WireValue::Bytes(text)) => {
                findings.invalid_text |= simdutf8::basic::from_utf8(text).is_err();
            }
            (FieldType::One(inner), WireValue::Bytes(bytes)) => {
                walk(inner, bytes, limits, depth + nesting(inner), findings)?;
            }
            (FieldType::Many(inner), WireValue::Bytes(bytes)) => {
                count(inner, limits, &mut counts)?;
                walk(inner, bytes, limits, depth + nesting(inner), findings)?;
            }
            _ => return Err(ShapeFault::WireType { message, field: number }),
        }
    }
    findings.canonical &= !fields.overlong();
    Ok(())
}

/// True when a known field would be written like this behind the field `highest`: in the order of the
/// numbers, no default, of a oneof one member.
const fn is_in_place(
    message: Message,
    highest: u32,
    number: u32,
    kind: FieldType,
    value: WireValue<'_>,
) -> bool {
    match (message, kind) {
        // In a oneof a default value is a value. Any number but 0 says true.
        (Message::AnyValue, _) => {
            highest == 0 && (number != any_value::BOOL_VALUE || value.number() <= 1)
        }
        (_, FieldType::Many(_)) => highest <= number,
        _ => highest < number && (value.number() != 0 || !value.bytes().is_empty()),
    }
}

/// Whether `bits` are a double that is not a number and not the usual one: its JSON text says only
/// that it is none.
fn is_odd_nan(bits: u64) -> bool {
    f64::from_bits(bits).is_nan() && bits != f64::NAN.to_bits()
}

/// Arrays and maps add a level; nothing else nests without bound.
const fn nesting(message: Message) -> usize {
    matches!(message, Message::ArrayValue | Message::KeyValueList) as usize
}

fn count(inner: Message, limits: &WalkLimits, counts: &mut [usize; 3]) -> Result<(), ShapeFault> {
    let (slot, limit) = match inner {
        Message::KeyValue => (0, limits.max_attributes),
        Message::Event => (1, limits.max_events),
        Message::Link => (2, limits.max_events),
        Message::Resource
        | Message::Scope
        | Message::Span
        | Message::Status
        | Message::AnyValue
        | Message::ArrayValue
        | Message::KeyValueList => return Ok(()),
    };
    counts[slot] += 1;
    if limit < counts[slot] { Err(ShapeFault::TooMany { message: inner, limit }) } else { Ok(()) }
}

/// Rewrites a well-formed message with every string that is not UTF-8 replaced by its lossy
/// reading (U+FFFD for what cannot be read).
pub(crate) fn replace_invalid_text(message: Message, bytes: &[u8]) -> Vec<u8> {
    let mut writer = MessageWriter::new();
    let mut fields = Fields::new(bytes);
    while let Ok(Some((number, value))) = fields.next_field() {
        match (message.field(number), value) {
            (Some(FieldType::Text), WireValue::Bytes(text)) => {
                writer.bytes(number, String::from_utf8_lossy(text).as_bytes());
            }
            (Some(FieldType::One(inner) | FieldType::Many(inner)), WireValue::Bytes(bytes)) => {
                writer.bytes(number, &replace_invalid_text(inner, bytes));
            }
            (_, value) => writer.value(number, value),
        }
    }
    writer.into_bytes()
}

/// The same bytes for the same content: fields in the order of their numbers, defaults left out,
/// the last of a repeated single field. Repeated fields keep their order, unknown ones follow.
pub(crate) fn canonical(message: Message, bytes: &[u8]) -> Vec<u8> {
    let mut known: Vec<(u32, Vec<u8>)> = Vec::new();
    let mut unknown = MessageWriter::new();
    let mut fields = Fields::new(bytes);
    while let Ok(Some((number, value))) = fields.next_field() {
        let mut field = MessageWriter::new();
        let mut repeated = false;
        // In a oneof, a default value is a value.
        let keep_default = message == Message::AnyValue;
        match (message.field(number), value) {
            (Some(FieldType::Many(inner)), WireValue::Bytes(bytes)) => {
                field.bytes(number, &canonical(inner, bytes));
                repeated = true;
            }
            (Some(FieldType::One(inner)), WireValue::Bytes(bytes)) => {
                let inner = canonical(inner, bytes);
                if keep_default || !inner.is_empty() {
                    field.bytes(number, &inner);
                }
            }
            (Some(_), value) => {
                let value = match value {
                    // Any number but 0 says true.
                    WireValue::Varint(bits)
                        if message == Message::AnyValue && number == any_value::BOOL_VALUE =>
                    {
                        WireValue::Varint(u64::from(bits != 0))
                    }
                    other => other,
                };
                if keep_default || value.number() != 0 || !value.bytes().is_empty() {
                    field.value(number, value);
                }
            }
            (None, value) => {
                unknown.value(number, value);
                continue;
            }
        }
        if message == Message::AnyValue {
            known.clear();
        } else if !repeated {
            known.retain(|(other, _)| *other != number);
        }
        known.push((number, field.into_bytes()));
    }
    known.sort_by_key(|(number, _)| *number);
    // Field by field: payloads are long, and an iterator over their bytes takes a step for each.
    let fields = known.iter().map(|(_, field)| field.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(fields + unknown.as_bytes().len());
    known.iter().for_each(|(_, field)| bytes.extend_from_slice(field));
    bytes.extend_from_slice(unknown.as_bytes());
    bytes
}

/// True when `bytes`, a well-formed message, are their own [`canonical`] form, so that they need not be
/// rewritten to be compared.
pub(crate) fn is_canonical(message: Message, bytes: &[u8]) -> bool {
    let limits = WalkLimits {
        max_attributes: usize::MAX,
        max_nesting_depth: usize::MAX,
        max_events: usize::MAX,
    };
    check(message, bytes, &limits).is_ok_and(|findings| findings.canonical)
}
