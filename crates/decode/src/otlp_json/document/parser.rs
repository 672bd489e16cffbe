//! From text to tree, by recursive descent.

use std::borrow::Cow;

use super::Json;
use crate::error::DecodeError;

/// Levels of arrays and objects. Past it, the document is refused.
const MAX_DEPTH: usize = 500;

/// Values in one document: bounds the tree's memory to a few times that of the largest body.
const MAX_VALUES: usize = 10_000_000;

/// Reads `text`, which must hold one value and nothing behind it.
pub(crate) fn parse(text: &str) -> Result<Json<'_>, DecodeError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser { text, offset: 0, values: 0 };
    let document = parser.value(0).and_then(|value| {
        parser.skip_space();
        if parser.offset == text.len() { Ok(value) } else { Err("text after the document") }
    });
    document.map_err(|reason| {
        let before = text.get(..parser.offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        DecodeError::Json { reason: format!("{reason} at line {line} column {column}") }
    })
}

struct Parser<'a> {
    text: &'a str,
    /// Always at the border of a character.
    offset: usize,
    values: usize,
}

impl<'a> Parser<'a> {
    fn value(&mut self, depth: usize) -> Result<Json<'a>, &'static str> {
        self.skip_space();
        self.values += 1;
        if MAX_VALUES < self.values {
            return Err("more than 10000000 values");
        }
        match self.peek() {
            Some(b'{' | b'[') if depth == MAX_DEPTH => Err("nested deeper than 500 levels"),
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => self.string().map(Json::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'n') => self.word("null", Json::Null),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            Some(b'N') => self.word("NaN", Json::Number("NaN")),
            Some(b'I') => self.word("Infinity", Json::Number("Infinity")),
            Some(_) => Err("expected a value"),
            None => Err("unexpected end"),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json<'a>, &'static str> {
        self.offset += 1;
        let mut members = Vec::new();
        if self.next_is(b'}') {
            return Ok(Json::Object(members));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err("expected a member name");
            }
            let name = self.string()?;
            if !self.next_is(b':') {
                return Err("expected `:`");
            }
            members.push((name, self.value(depth)?));
            if self.next_is(b'}') {
                return Ok(Json::Object(members));
            }
            if !self.next_is(b',') {
                return Err("expected `,` or `}`");
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json<'a>, &'static str> {
        self.offset += 1;
        let mut elements = Vec::new();
        if self.next_is(b']') {
            return Ok(Json::Array(elements));
        }
        loop {
            elements.push(self.value(depth)?);
            if self.next_is(b']') {
                return Ok(Json::Array(elements));
            }
            if !self.next_is(b',') {
                return Err("expected `,` or `]`");
            }
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, &'static str> {
        self.offset += 1;
        let mut text = Cow::Borrowed("");
        loop {
            let rest = self.rest();
            let end = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\'));
            let (plain, _) = rest.split_at(end.ok_or("string without end")?);
            self.offset += plain.len();
            if text.is_empty() {
                text = Cow::Borrowed(plain);
            } else {
                text.to_mut().push_str(plain);
            }
            if self.next_byte() == Some(b'"') {
                return Ok(text);
            }
            let character = self.escape()?;
            text.to_mut().push(character);
        }
    }

    /// The character of an escape; the backslash is behind us.
    fn escape(&mut self) -> Result<char, &'static str> {
        Ok(match self.next_byte() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let unit = self.code_unit()?;
                let after_unit = self.offset;
                if matches!(unit, 0xd800..=0xdbff) && self.rest().starts_with("\\u") {
                    self.offset += 2;
                    let low = self.code_unit()?;
                    let pair = char::decode_utf16([unit, low]).next();
                    if let Some(Ok(character)) = pair {
                        return Ok(character);
                    }
                    self.offset = after_unit;
                }
                char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => {
                // The offset must stay at the border of a character.
                self.offset -= 1;
                return Err("unknown escape");
            }
        })
    }

    fn code_unit(&mut self) -> Result<u16, &'static str> {
        let digits = self.rest().get(..4).ok_or("expected four hex digits")?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err("expected four hex digits");
        }
        self.offset += 4;
        u16::from_str_radix(digits, 16).map_err(|_| "expected four hex digits")
    }

    fn number(&mut self) -> Result<Json<'a>, &'static str> {
        let rest = self.rest();
        let unsigned = rest.strip_prefix('-').unwrap_or(rest);
        if unsigned.starts_with('I') {
            return self.word("-Infinity", Json::Number("-Infinity"));
        }
        let length = number_length(unsigned).ok_or("broken number")?;
        let (digits, _) = rest.split_at(length + rest.len() - unsigned.len());
        self.offset += digits.len();
        Ok(Json::Number(digits))
    }

    fn word(&mut self, word: &'static str, value: Json<'a>) -> Result<Json<'a>, &'static str> {
        if self.rest().starts_with(word) {
            self.offset += word.len();
            Ok(value)
        } else {
            Err("expected a value")
        }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.offset..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.offset).copied()
    }

    fn next_byte(&mut self) -> Option<u8> {
        let byte = self.peek();
        self.offset += 1;
        byte
    }

    /// Skips space, and `byte` if it comes next.
    fn next_is(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.peek() == Some(byte);
        self.offset += usize::from(found);
        found
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.offset += 1;
        }
    }
}

/// Bytes of the number without sign that `text` begins with.
fn number_length(text: &str) -> Option<usize> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(text);
    if whole == 0 || (1 < whole && text.starts_with('0')) {
        return None;
    }
    let mut length = whole;
    if let Some(fraction) = text.get(length..)?.strip_prefix('.') {
        length += 1 + Some(digits(fraction)).filter(|count| 0 < *count)?;
    }
    if let Some(exponent) = text.get(length..)?.strip_prefix(['e', 'E']) {
        let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        let sign = exponent.len() - unsigned.len();
        length += 1 + sign + Some(digits(unsigned)).filter(|count| 0 < *count)?;
    }
    Some(length)
}
