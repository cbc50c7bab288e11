//! Content codings of bodies: gzip, and deflate, which is the zlib format.
//!
//! Compressed bytes earn no memory: what they inflate to is counted first, in a buffer of fixed size, and made room for when
//! that is known. All of this is CPU work.
//!
//! Source: RFC 9110, sections 8.4.1 and 12.5.3; RFC 1950 and 1952.

use std::io::{self, Read, Write};

use axum::http::{HeaderMap, header};
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use flate2::{Compression, Decompress, FlushDecompress, Status};

use super::Error;

/// Bodies shorter than this are not compressed: there is nothing to gain.
const MIN_BYTES: usize = 1 << 10;

/// What is inflated at a time where it is only counted, in bytes.
const SCRATCH_BYTES: usize = 16 << 10;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    Deflate,
}

impl Coding {
    /// All of them, the preferred one first.
    const ALL: [Self; 2] = [Self::Gzip, Self::Deflate];

    /// Its name in headers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// The coding called `name`; names know no case.
    fn parse(name: &str) -> Option<Self> {
        let name = if name.eq_ignore_ascii_case("x-gzip") { "gzip" } else { name };
        Self::ALL.into_iter().find(|coding| coding.name().eq_ignore_ascii_case(name))
    }

    /// How the body of a request is compressed; `None` when it is not.
    ///
    /// # Errors
    /// [`Error::UnknownCoding`], also for several codings one inside the other.
    pub fn of_body(headers: &HeaderMap) -> Result<Option<Self>, Error> {
        let mut found = None;
        for value in headers.get_all(header::CONTENT_ENCODING) {
            let names = String::from_utf8_lossy(value.as_bytes());
            for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                if name.eq_ignore_ascii_case("identity") {
                    continue;
                }
                match Self::parse(name) {
                    Some(coding) if found.is_none() => found = Some(coding),
                    _ => return Err(Error::UnknownCoding { given: names.into_owned() }),
                }
            }
        }
        Ok(found)
    }

    /// How a client would like to have its answer compressed; `None` for one that does not ask.
    pub fn accepted(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let items: Vec<(&str, f32)> = values.flat_map(|value| value.split(',')).filter_map(weighted).collect();
        let identity = items.iter().find(|(name, _)| name.eq_ignore_ascii_case("identity")).map_or(0.0, |item| item.1);
        let weight = |coding: Self| items.iter().find(|(name, _)| Self::parse(name) == Some(coding)).map(|item| item.1);
        let wanted = Self::ALL.into_iter().filter_map(|coding| Some((coding, weight(coding)?)));
        // Of equals the first stays.
        let best = wanted.reduce(|best, other| if other.1 > best.1 { other } else { best });
        best.filter(|&(_, weight)| weight > 0.0 && weight >= identity).map(|(coding, _)| coding)
    }

    /// How many bytes `body` inflates to, at most `limit_bytes`. Checks that it ends where and as it should.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond the limit; [`Error::InvalidCoding`].
    pub fn decoded_size(self, body: &[u8], limit_bytes: usize) -> Result<usize, Error> {
        let counted = match self {
            // One byte more tells a body of that size from a larger one.
            Self::Gzip => io::copy(&mut MultiGzDecoder::new(body).take(limit_bytes as u64 + 1), &mut io::sink()),
            Self::Deflate => count_inflated(body, limit_bytes as u64),
        };
        let size_bytes = counted.map_err(|error| self.invalid(&error))?;
        let size_bytes = usize::try_from(size_bytes).ok().filter(|&size_bytes| size_bytes <= limit_bytes);
        size_bytes.ok_or(Error::TooLarge { limit_bytes: limit_bytes as u64 })
    }

    /// `body` inflated, which are `size_bytes` bytes as [`Coding::decoded_size`] has found.
    ///
    /// # Errors
    /// [`Error::InvalidCoding`].
    pub fn decode(self, body: &[u8], size_bytes: usize) -> Result<Vec<u8>, Error> {
        let mut decoded = Vec::with_capacity(size_bytes);
        let read = match self {
            Self::Gzip => MultiGzDecoder::new(body).take(size_bytes as u64).read_to_end(&mut decoded),
            Self::Deflate => ZlibDecoder::new(body).take(size_bytes as u64).read_to_end(&mut decoded),
        };
        read.map_err(|error| self.invalid(&error))?;
        Ok(decoded)
    }

    /// `body` deflated, fast rather than small; `None` when it is too short to gain from it.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub fn encode(self, body: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        if body.len() < MIN_BYTES {
            return Ok(None);
        }
        let write = || match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
        };
        write().map(Some).map_err(Error::internal)
    }

    fn invalid(self, error: &io::Error) -> Error {
        Error::InvalidCoding { coding: self.name(), reason: error.to_string() }
    }
}

/// A name of `Accept-Encoding` and its weight, from 0 to 1.
fn weighted(item: &str) -> Option<(&str, f32)> {
    let mut parts = item.split(';').map(str::trim);
    let name = parts.next()?;
    let weight = match parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="))) {
        Some(weight) => weight.parse().ok().filter(|weight| (0.0..=1.0).contains(weight))?,
        None => 1.0,
    };
    Some((name, weight))
}

/// Bytes that a zlib stream inflates to; some number above `limit_bytes` where there are more. The reader of the library
/// takes a stream that breaks off for one that ends.
fn count_inflated(body: &[u8], limit_bytes: u64) -> io::Result<u64> {
    let mut state = Decompress::new(true);
    let mut scratch = [0; SCRATCH_BYTES];
    loop {
        let before = (state.total_in(), state.total_out());
        let rest = usize::try_from(before.0).ok().and_then(|read| body.get(read..)).unwrap_or_default();
        let status = state.decompress(rest, &mut scratch, FlushDecompress::None)?;
        if state.total_out() > limit_bytes {
            return Ok(state.total_out());
        }
        match status {
            Status::StreamEnd if state.total_in() == body.len() as u64 => return Ok(state.total_out()),
            Status::StreamEnd => return Err(io::Error::other("bytes are left behind its end")),
            _ if before == (state.total_in(), state.total_out()) => {
                return Err(io::Error::other("it ends early"));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn with(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    fn round_trip(coding: Coding, body: &[u8], limit_bytes: usize) -> Result<Vec<u8>, String> {
        let size_bytes = coding.decoded_size(body, limit_bytes).map_err(|error| error.to_string())?;
        let decoded = coding.decode(body, size_bytes).map_err(|error| error.to_string())?;
        assert_eq!(decoded.len(), size_bytes);
        Ok(decoded)
    }

    #[test]
    fn what_is_deflated_is_inflated() {
        let body: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        for coding in Coding::ALL {
            let encoded = coding.encode(&body).unwrap().unwrap();
            assert!(encoded.len() < body.len());
            assert_eq!(round_trip(coding, &encoded, body.len()).as_ref(), Ok(&body));
            assert!(round_trip(coding, &encoded, body.len() - 1).unwrap_err().contains("larger than the limit"));
            assert!(coding.encode(&body[..MIN_BYTES - 1]).unwrap().is_none());
        }
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit() {
        for coding in Coding::ALL {
            let bomb = coding.encode(&vec![0; 64 << 20]).unwrap().unwrap();
            assert!(bomb.len() < 512 << 10);
            assert!(matches!(coding.decoded_size(&bomb, 1 << 20), Err(Error::TooLarge { limit_bytes: 1_048_576 })));
        }
    }

    #[test]
    fn damaged_bodies_are_refused() {
        let body: Vec<u8> = (0..2000).map(|i| (i % 251) as u8).collect();
        for coding in Coding::ALL {
            let encoded = coding.encode(&body).unwrap().unwrap();
            for length in 0..encoded.len() {
                assert!(coding.decoded_size(&encoded[..length], 1 << 20).is_err(), "{coding:?} {length}");
            }
            assert!(coding.decoded_size(&[&encoded[..], b"x"].concat(), 1 << 20).is_err(), "{coding:?}");
            assert!(coding.decoded_size(&body, 1 << 20).is_err(), "{coding:?}");
            let mut wrong = encoded;
            let checked = wrong.len() - if coding == Coding::Gzip { 8 } else { 4 };
            wrong[checked] ^= 1;
            assert!(coding.decoded_size(&wrong, 1 << 20).is_err(), "{coding:?}: the checksum");
        }
    }

    #[test]
    fn gzip_may_have_members() {
        let member = Coding::Gzip.encode(&[7; MIN_BYTES]).unwrap().unwrap();
        assert_eq!(round_trip(Coding::Gzip, &member.repeat(2), 1 << 20), Ok(vec![7; 2 * MIN_BYTES]));
    }

    #[test]
    fn codings_of_bodies_are_told_apart() {
        let of = |value| Coding::of_body(&with(header::CONTENT_ENCODING, value)).map_err(|error| error.to_string());
        assert_eq!(Coding::of_body(&HeaderMap::new()).unwrap(), None);
        for (value, coding) in [
            ("gzip", Some(Coding::Gzip)),
            ("GZip", Some(Coding::Gzip)),
            ("x-gzip", Some(Coding::Gzip)),
            ("identity, deflate", Some(Coding::Deflate)),
            ("", None),
        ] {
            assert_eq!(of(value), Ok(coding), "{value}");
        }
        for value in ["br", "zstd", "gzip, deflate", "gzip,gzip"] {
            assert!(of(value).is_err(), "{value}");
        }
    }

    #[test]
    fn the_heaviest_coding_is_accepted() {
        let accepted = |value| Coding::accepted(&with(header::ACCEPT_ENCODING, value));
        assert_eq!(Coding::accepted(&HeaderMap::new()), None);
        for (value, coding) in [
            ("gzip", Some(Coding::Gzip)),
            ("deflate", Some(Coding::Deflate)),
            ("gzip, deflate, br", Some(Coding::Gzip)),
            ("gzip;q=0.5, deflate;q=0.8", Some(Coding::Deflate)),
            ("gzip;q=0, deflate", Some(Coding::Deflate)),
            ("identity, gzip;q=0.5", None),
            ("gzip;q=0", None),
            ("gzip;q=x", None),
            ("gzip;q=2", None),
            ("br, *", None),
        ] {
            assert_eq!(accepted(value), coding, "{value}");
        }
    }
}
