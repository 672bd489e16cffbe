//! As much of HTTP/1.1 as a sender of spans needs: one request at a time on a connection that is kept.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::error::LoadError;

/// Longest head or body of an answer that is read.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where the requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Host and port.
    pub(crate) authority: String,
    path: String,
}

impl Target {
    /// Takes a URL apart; without a path it is OTLP's.
    ///
    /// # Errors
    /// When it is not of the form `http://HOST:PORT[/PATH]`.
    pub(crate) fn parse(url: &str) -> Result<Self, LoadError> {
        let wrong = || LoadError::Url { url: url.to_owned() };
        let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !authority.contains(':') || url.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(wrong());
        }
        let path = if path.is_empty() { "/v1/traces".to_owned() } else { format!("/{path}") };
        Ok(Self { authority: authority.to_owned(), path })
    }

    /// Head of a request with a body of this length.
    pub(crate) fn head(&self, body_bytes: usize, headers: &[String]) -> String {
        let Self { authority, path } = self;
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/x-protobuf\r\n\
             content-length: {body_bytes}\r\n"
        );
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        head
    }
}

/// A connection that is kept between requests.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Status of HTTP.
    pub(crate) status: u16,
    /// How long to wait before the same is sent again.
    pub(crate) retry_after: Option<Duration>,
    /// Whether the connection takes no further request.
    pub(crate) closes: bool,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyLength {
    Known(usize),
    Chunked,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub(crate) fn open(target: &Target) -> io::Result<Self> {
        let mut addresses = target.authority.to_socket_addrs()?;
        let address =
            addresses.next().ok_or_else(|| io::Error::other("the name has no address"))?;
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buffer: Vec::with_capacity(4096) })
    }

    /// Sends head and body, gives the answer.
    ///
    /// # Errors
    /// When the connection breaks: the request may have been taken or not.
    pub(crate) fn send(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.write_all(request)?;
        self.buffer.clear();
        let (mut answer, length, begin) = loop {
            self.read_more()?;
            if let Some(read) = read_head(&self.buffer)? {
                break read;
            }
        };
        let end = loop {
            let body = self.buffer.get(begin..).unwrap_or_default();
            match length {
                BodyLength::Known(length) if body.len() >= length => break begin + length,
                BodyLength::Chunked if body.ends_with(b"0\r\n\r\n") => break self.buffer.len(),
                BodyLength::Known(_) | BodyLength::Chunked => self.read_more()?,
            }
        };
        answer.body = self.buffer.get(begin..end).unwrap_or_default().to_vec();
        Ok(answer)
    }

    fn read_more(&mut self) -> io::Result<()> {
        if self.buffer.len() > MAX_ANSWER_BYTES {
            return Err(io::Error::other("the answer is too long"));
        }
        let mut piece = [0; 4096];
        let count = self.stream.read(&mut piece)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.buffer.extend_from_slice(piece.get(..count).unwrap_or_default());
        Ok(())
    }
}

/// Reads a head if it is whole, with the offset of the body.
fn read_head(bytes: &[u8]) -> io::Result<Option<(Answer, BodyLength, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default());
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("the answer is not HTTP"))?;
    let mut answer = Answer { status, retry_after: None, closes: false, body: Vec::new() };
    let mut length = BodyLength::Known(0);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                let bytes = value.parse().map_err(|_| io::Error::other("wrong content-length"))?;
                length = BodyLength::Known(bytes);
            }
            "transfer-encoding" => length = BodyLength::Chunked,
            "retry-after" => answer.retry_after = value.parse().ok().map(Duration::from_secs),
            "connection" => answer.closes = value.eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    Ok(Some((answer, length, end + 4)))
}

/// Spans that OTLP's answer calls rejected: `partial_success.rejected_spans`.
pub(crate) fn rejected_spans(body: &[u8]) -> u64 {
    // partial_success is field 1, a message; rejected_spans is field 1 of it, a varint, written first.
    let mut bytes = body.iter().copied();
    if bytes.next() != Some(0x0a) || varint(&mut bytes).is_none() || bytes.next() != Some(0x08) {
        return 0;
    }
    varint(&mut bytes).unwrap_or(0)
}

fn varint(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes.next()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_path_is_that_of_otlp() {
        let target = Target::parse("http://127.0.0.1:5000").unwrap();
        assert_eq!(
            (target.authority.as_str(), target.path.as_str()),
            ("127.0.0.1:5000", "/v1/traces")
        );
        assert_eq!(Target::parse("http://[::1]:80/a/b").unwrap().path, "/a/b");
        for wrong in ["https://a:1", "a:1", "http://a", "http://a:1/\r\nb: c"] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn reads_what_a_client_must_obey() {
        let whole = b"HTTP/1.1 429 Too Many\r\nRetry-After: 3\r\ncontent-length: 2\r\nConnection: close\r\n\r\nno";
        let (answer, length, begin) = read_head(whole).unwrap().unwrap();
        assert_eq!((answer.status, answer.closes), (429, true));
        assert_eq!(answer.retry_after, Some(Duration::from_secs(3)));
        assert_eq!((length, begin), (BodyLength::Known(2), whole.len() - 2));
        let torn = whole.get(..40).unwrap();
        assert_eq!(read_head(torn).unwrap(), None);
        assert!(read_head(b"SSH-2.0-x\r\n\r\n").is_err());
    }

    #[test]
    fn counts_what_a_partial_success_rejects() {
        assert_eq!(rejected_spans(b""), 0);
        assert_eq!(rejected_spans(b"\x0a\x00"), 0);
        assert_eq!(rejected_spans(b"\x0a\x08\x08\xac\x02\x12\x03bad"), 300);
        assert_eq!(rejected_spans(b"\x0a\x05\x12\x03bad"), 0);
    }
}
