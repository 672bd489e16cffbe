//! Reads single JSON members as the types of OTLP fields, and says where one is wrong.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use tracelake_model::ids::hex_digit;
use tracelake_model::names::printable;

use super::document::Json;

/// Where in a document a value is; shown as `resourceSpans[0].resource`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Path<'p> {
    Root,
    Member(&'p Self, &'p str),
    Element(&'p Self, usize),
}

impl<'p> Path<'p> {
    pub(crate) const fn member(&'p self, name: &'p str) -> Self {
        Self::Member(self, name)
    }

    pub(crate) const fn element(&'p self, index: usize) -> Self {
        Self::Element(self, index)
    }

    /// The fault that `found` is here instead of what is expected.
    pub(crate) fn expected(&self, expected: &'static str, found: &Json<'_>) -> Fault {
        let found = match found {
            Json::Null => "null".to_owned(),
            Json::Bool(_) => "a boolean".to_owned(),
            Json::Number(digits) => printable(digits),
            Json::Text(text) => format!("`{}`", printable(text)),
            Json::Array(_) => "an array".to_owned(),
            Json::Object(_) => "an object".to_owned(),
        };
        Fault { path: self.to_string(), expected, found }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => formatter.write_str("$"),
            Path::Member(Path::Root, name) => formatter.write_str(&printable(name)),
            Path::Member(parent, name) => write!(formatter, "{parent}.{}", printable(name)),
            Path::Element(parent, index) => write!(formatter, "{parent}[{index}]"),
        }
    }
}

/// A value that cannot be what its place demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) path: String,
    pub(crate) expected: &'static str,
    pub(crate) found: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: expected {}, found {}", self.path, self.expected, self.found)
    }
}

pub(crate) fn text<'j>(value: &'j Json<'_>, path: Path<'_>) -> Result<&'j str, Fault> {
    match value {
        Json::Text(text) => Ok(text),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => {
            Err(path.expected("a string", value))
        }
    }
}

pub(crate) fn boolean(value: &Json<'_>, path: Path<'_>) -> Result<bool, Fault> {
    match value {
        Json::Bool(value) => Ok(*value),
        Json::Null | Json::Text(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => {
            Err(path.expected("a boolean", value))
        }
    }
}

/// The elements of a list; null is an empty one.
pub(crate) fn list<'j, 'a>(value: &'j Json<'a>, path: Path<'_>) -> Result<&'j [Json<'a>], Fault> {
    match value {
        Json::Array(elements) => Ok(elements),
        Json::Null => Ok(&[]),
        Json::Bool(_) | Json::Number(_) | Json::Text(_) | Json::Object(_) => {
            Err(path.expected("an array", value))
        }
    }
}

/// Members of an object: names as sent, in the order sent.
pub(crate) type Members<'a> = [(std::borrow::Cow<'a, str>, Json<'a>)];

pub(crate) fn object<'j, 'a>(
    value: &'j Json<'a>,
    path: Path<'_>,
) -> Result<&'j Members<'a>, Fault> {
    match value {
        Json::Object(members) => Ok(members),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) | Json::Array(_) => {
            Err(path.expected("an object", value))
        }
    }
}

/// An integer of any width as a number or in a string, exact to the last digit.
pub(crate) fn integer<T: TryFrom<i128>>(
    value: &Json<'_>,
    path: Path<'_>,
    expected: &'static str,
) -> Result<T, Fault> {
    let number = match value {
        Json::Number(digits) => exact_integer(digits),
        Json::Text(text) => exact_integer(text.trim()),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    };
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| path.expected(expected, value))
}

/// The integer that a decimal text denotes, `None` for a fraction. `1.5e3` is 1500.
pub(crate) fn exact_integer(text: &str) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (sign, unsigned) = match mantissa.strip_prefix('-') {
        Some(unsigned) => ("-", unsigned),
        None => ("", mantissa),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = format!("{whole}{fraction}");
    if whole.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    if digits.bytes().all(|digit| digit == b'0') {
        return Some(0);
    }
    let scale = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let places = usize::try_from(scale.unsigned_abs()).ok()?;
    if 0 <= scale {
        let zeros = "0".repeat(Some(places).filter(|places| *places < 40)?);
        return format!("{sign}{digits}{zeros}").parse().ok();
    }
    let (kept, dropped) = digits.split_at_checked(digits.len().checked_sub(places)?)?;
    let exact = dropped.bytes().all(|digit| digit == b'0');
    if exact { format!("{sign}{kept}").parse().ok() } else { None }
}

/// A double as a number or in a string, also `NaN`, `Infinity` and `-Infinity`.
pub(crate) fn double(value: &Json<'_>, path: Path<'_>) -> Result<f64, Fault> {
    let number = match value {
        Json::Number(digits) => double_of(digits),
        Json::Text(text) => double_of(text.trim()),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    };
    number.ok_or_else(|| path.expected("a number", value))
}

/// The double nearest to a JSON number token.
pub(crate) fn double_of(digits: &str) -> Option<f64> {
    match digits {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        // Rust also reads `inf` and `nan`, which no sender means.
        _ if digits.bytes().any(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
        _ => None,
    }
}

/// Bytes in base64, standard or for URLs, padded or not.
pub(crate) fn base64_bytes(text: &str) -> Option<Vec<u8>> {
    const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let alphabet =
        if text.contains(['-', '_']) { &alphabet::URL_SAFE } else { &alphabet::STANDARD };
    GeneralPurpose::new(alphabet, CONFIG).decode(text).ok()
}

/// The bytes of an id of `length` bytes: hex digits in either case (also behind `0x`, also of
/// another length, for the decoder to refuse by name), base64 with its padding, or a UUID.
pub(crate) fn id_bytes(text: &str, length: usize) -> Option<Vec<u8>> {
    let base64_length = length.div_ceil(3) * 4;
    if text.len() == base64_length && text.ends_with('=') {
        return base64_bytes(text).filter(|bytes| bytes.len() == length);
    }
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let without_hyphens;
    let digits = if length == 16 && is_uuid(digits) {
        without_hyphens = digits.replace('-', "");
        &without_hyphens
    } else {
        digits
    };
    if digits.len() % 2 == 1 {
        return None;
    }
    let pairs = digits.as_bytes().chunks_exact(2);
    pairs.map(|pair| Some(hex_digit(pair[0])? << 4 | hex_digit(pair[1])?)).collect()
}

fn is_uuid(text: &str) -> bool {
    let hyphens = [8, 13, 18, 23];
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| (byte == b'-') == hyphens.contains(&at))
}
