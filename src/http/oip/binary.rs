//! Binary tensors: elements behind the JSON of a body, in the order of the tensors that have some there.
//!
//! They are little-endian, row-major and without padding; a BOOL is one byte, and an element of BYTES its length in 4 bytes
//! and then itself.
//!
//! Source: <https://github.com/triton-inference-server/server>, `docs/protocol/extension_binary_data.md`.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Says how many bytes of a body, as it is without a content coding, are JSON. Without it all of them are.
pub const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Bytes of the length in front of an element of BYTES.
const LENGTH_BYTES: usize = 4;

/// The binary data of a request that no tensor has taken yet.
#[derive(Debug)]
pub struct Tail<'a> {
    rest: &'a [u8],
    /// The header was there.
    is_announced: bool,
}

/// Why a body cannot be taken apart into JSON and binary data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BinaryError {
    /// The header is no number, or is there more than once.
    #[error("the header Inference-Header-Content-Length is {given}, which is no number of bytes")]
    JsonLength { given: String },
    /// The header counts more than there is.
    #[error("the header Inference-Header-Content-Length is {given}, the body has {found} bytes")]
    JsonBeyondBody { given: usize, found: usize },
    /// Bytes that belong to no input.
    #[error("{left} bytes are left behind the binary data of the last input")]
    Leftover { left: usize },
}

/// Bytes of JSON that a request announces; `None` when all of its body is JSON.
///
/// # Errors
/// [`BinaryError::JsonLength`].
pub fn json_length(headers: &HeaderMap) -> Result<Option<usize>, BinaryError> {
    let values: Vec<&HeaderValue> = headers.get_all(JSON_LENGTH).iter().collect();
    // A sign is no digit, though Rust reads it.
    let digits = |value: &&HeaderValue| value.as_bytes().iter().all(u8::is_ascii_digit);
    let read = |value: &HeaderValue| value.to_str().ok()?.parse().ok();
    match values[..] {
        [] => Ok(None),
        [value] => Some(value).filter(digits).and_then(read).map(Some).ok_or_else(|| no_number(&values)),
        _ => Err(no_number(&values)),
    }
}

fn no_number(values: &[&HeaderValue]) -> BinaryError {
    let given = values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(", ");
    BinaryError::JsonLength { given }
}

impl<'a> Tail<'a> {
    /// The JSON of `body`, and what is behind it.
    ///
    /// # Errors
    /// [`BinaryError::JsonBeyondBody`].
    pub fn split(body: &'a [u8], json_length: Option<usize>) -> Result<(&'a [u8], Self), BinaryError> {
        let (given, found) = (json_length.unwrap_or(body.len()), body.len());
        let (json, rest) = body.split_at_checked(given).ok_or(BinaryError::JsonBeyondBody { given, found })?;
        Ok((json, Self { rest, is_announced: json_length.is_some() }))
    }

    /// The next `size_bytes`; when there are not as many, how many there are, `None` where the header is missing.
    pub fn take(&mut self, size_bytes: usize) -> Result<&'a [u8], Option<usize>> {
        let (taken, rest) =
            self.rest.split_at_checked(size_bytes).ok_or(self.is_announced.then_some(self.rest.len()))?;
        self.rest = rest;
        Ok(taken)
    }

    /// Checks that all was taken.
    ///
    /// # Errors
    /// [`BinaryError::Leftover`].
    pub fn finish(self) -> Result<(), BinaryError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(BinaryError::Leftover { left }),
        }
    }
}

/// Elements of BYTES in `bytes`; `None` where the last one ends elsewhere than they do.
pub fn count_texts(mut bytes: &[u8]) -> Option<usize> {
    let mut count = 0;
    while let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() {
        bytes = rest.get(usize::try_from(u32::from_le_bytes(*length)).ok()?..)?;
        count += 1;
    }
    bytes.is_empty().then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(values: &[&str]) -> Result<Option<usize>, String> {
        let headers = values.iter().map(|value| (JSON_LENGTH, HeaderValue::from_str(value).unwrap()));
        // `collect` would keep the last value alone.
        let mut map = HeaderMap::new();
        headers.for_each(|(name, value)| _ = map.append(name, value));
        json_length(&map).map_err(|error| error.to_string())
    }

    #[test]
    fn the_length_of_the_json_is_a_plain_number() {
        assert_eq!(length(&[]), Ok(None));
        assert_eq!(length(&["0"]), Ok(Some(0)));
        assert_eq!(length(&["0123"]), Ok(Some(123)));
        let max = usize::MAX.to_string();
        assert_eq!(length(&[&max]), Ok(Some(usize::MAX)));
        for value in ["", "-1", "+1", "1.5", "1e3", "0x10", "12 ", "18446744073709551616", "ten"] {
            assert!(length(&[value]).unwrap_err().contains(&format!("is {value:?}, which is no number")), "{value}");
        }
        assert!(length(&["1", "2"]).unwrap_err().contains(r#"is "1", "2", which"#));
    }

    #[test]
    fn a_body_is_taken_apart_in_order() {
        let (json, mut tail) = Tail::split(b"{}abc", Some(2)).unwrap();
        assert_eq!(json, b"{}");
        assert_eq!(tail.take(2), Ok(&b"ab"[..]));
        assert_eq!(tail.take(2), Err(Some(1)));
        assert_eq!(tail.take(usize::MAX), Err(Some(1)));
        assert_eq!(tail.take(1), Ok(&b"c"[..]));
        assert_eq!(tail.finish(), Ok(()));
    }

    #[test]
    fn bodies_that_are_too_short_or_too_long_are_refused() {
        let beyond = Tail::split(b"{}", Some(3)).unwrap_err();
        assert_eq!(beyond, BinaryError::JsonBeyondBody { given: 3, found: 2 });
        let (_, tail) = Tail::split(b"{}abc", Some(2)).unwrap();
        assert_eq!(tail.finish(), Err(BinaryError::Leftover { left: 3 }));
        let (json, mut tail) = Tail::split(b"{}abc", None).unwrap();
        assert_eq!((json, tail.take(1)), (&b"{}abc"[..], Err(None)));
        assert_eq!(tail.finish(), Ok(()));
    }

    #[test]
    fn texts_are_counted_and_end_where_the_data_ends() {
        assert_eq!(count_texts(b""), Some(0));
        assert_eq!(count_texts(b"\x02\0\0\0ab\0\0\0\0"), Some(2));
        for damaged in [&b"\x01"[..], b"\x01\0\0\0", b"\xff\xff\xff\xff", b"\x01\0\0\0ab"] {
            assert_eq!(count_texts(damaged), None, "{damaged:?}");
        }
    }
}
