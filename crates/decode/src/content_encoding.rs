//! Content encodings of request bodies, and decompression that cannot be made to fill the memory.

use std::io::Read;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::DecodeError;

/// How a body is compressed (RFC 9110 section 8.4.1, RFC 8878 for zstd).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContentEncoding {
    /// Not at all.
    #[default]
    Identity,
    /// gzip.
    Gzip,
    /// zlib; raw deflate is accepted as well, as some senders mean that.
    Deflate,
    /// Zstandard.
    Zstd,
}

impl ContentEncoding {
    /// Reads a `Content-Encoding` or `grpc-encoding` value. An unknown one is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        [
            ("", Self::Identity),
            ("identity", Self::Identity),
            ("gzip", Self::Gzip),
            ("x-gzip", Self::Gzip),
            ("deflate", Self::Deflate),
            ("zstd", Self::Zstd),
        ]
        .into_iter()
        .find_map(|(name, encoding)| text.eq_ignore_ascii_case(name).then_some(encoding))
    }

    /// True for a body that is not compressed.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        *self == Self::Identity
    }
}

/// Decompresses `body`, refusing to make more than `max_bytes` of it.
///
/// # Errors
/// [`DecodeError::TooLarge`] past the limit, [`DecodeError::Compression`] for broken data.
pub fn decompress(
    encoding: ContentEncoding,
    body: &Bytes,
    max_bytes: usize,
) -> Result<Bytes, DecodeError> {
    match encoding {
        ContentEncoding::Identity => {
            if max_bytes < body.len() {
                return Err(DecodeError::TooLarge { limit_bytes: max_bytes });
            }
            Ok(body.clone())
        }
        ContentEncoding::Gzip => {
            read_capped(flate2::read::MultiGzDecoder::new(&body[..]), "gzip", max_bytes)
        }
        // RFC 9110 defines `deflate` as zlib; a zlib header is a multiple of 31 with method 8.
        ContentEncoding::Deflate if is_zlib(body) => {
            read_capped(flate2::read::ZlibDecoder::new(&body[..]), "deflate", max_bytes)
        }
        ContentEncoding::Deflate => {
            read_capped(flate2::read::DeflateDecoder::new(&body[..]), "deflate", max_bytes)
        }
        ContentEncoding::Zstd => {
            let fault = |error: std::io::Error| DecodeError::Compression {
                encoding: "zstd",
                reason: error.to_string(),
            };
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&body[..]).map_err(fault)?;
            // 2^27 = 128 MiB of window, the most that `zstd --long` asks for by default.
            decoder.window_log_max(27).map_err(fault)?;
            read_capped(decoder, "zstd", max_bytes)
        }
    }
}

fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [first, second, ..]
        if first & 15 == 8 && (u32::from(*first) << 8 | u32::from(*second)) % 31 == 0)
}

/// What a body that grows takes at a time, beyond the first of it.
const PIECE_BYTES: usize = 4 << 20;

/// Reads piece by piece and joins the pieces at the end, so that a body that is refused took no more than the
/// limit: a buffer that doubles would have taken twice as much.
fn read_capped(
    mut decoder: impl Read,
    encoding: &'static str,
    max_bytes: usize,
) -> Result<Bytes, DecodeError> {
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    let mut read_bytes = 0_usize;
    loop {
        let room = max_bytes.saturating_add(1).saturating_sub(read_bytes).min(PIECE_BYTES);
        let mut piece = Vec::new();
        let read = decoder
            .by_ref()
            .take(u64::try_from(room).unwrap_or(u64::MAX))
            .read_to_end(&mut piece)
            .map_err(|error| DecodeError::Compression { encoding, reason: error.to_string() })?;
        read_bytes += read;
        if max_bytes < read_bytes {
            return Err(DecodeError::TooLarge { limit_bytes: max_bytes });
        }
        pieces.push(piece);
        if read < room {
            return Ok(join(pieces));
        }
    }
}

fn join(mut pieces: Vec<Vec<u8>>) -> Bytes {
    match pieces.len() {
        0 | 1 => pieces.pop().unwrap_or_default().into(),
        _ => pieces.concat().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;

    use super::*;

    /// Scenario: the same body in every encoding, and the same with a limit below its size.
    /// Guarantees: it comes back whole, or is refused without being made.
    #[test]
    fn decompresses_up_to_the_limit() {
        let body = vec![7_u8; 100_000];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&body).unwrap();
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(&body).unwrap();
        let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), Compression::fast());
        raw.write_all(&body).unwrap();
        let zstd = zstd::encode_all(&body[..], 1).unwrap();
        for (encoding, compressed) in [
            (ContentEncoding::Gzip, gzip.finish().unwrap()),
            (ContentEncoding::Deflate, zlib.finish().unwrap()),
            (ContentEncoding::Deflate, raw.finish().unwrap()),
            (ContentEncoding::Zstd, zstd),
            (ContentEncoding::Identity, body.clone()),
        ] {
            let compressed = Bytes::from(compressed);
            assert_eq!(decompress(encoding, &compressed, 100_000).unwrap(), body);
            assert_eq!(
                decompress(encoding, &compressed, 99_999),
                Err(DecodeError::TooLarge { limit_bytes: 99_999 })
            );
        }
        let broken = Bytes::from_static(b"\x1f\x8bnot gzip");
        assert!(matches!(
            decompress(ContentEncoding::Gzip, &broken, 10),
            Err(DecodeError::Compression { .. })
        ));
    }
}
