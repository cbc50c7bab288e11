//! `Range`: a part of a download, so that an interrupted one can be resumed.
//!
//! One range of bytes is served; a request for several, or in another unit, gets the whole file, which RFC 9110 section
//! 14.2 allows. So does one whose `If-Range` names another version of the file (section 13.1.5).

use axum::http::{HeaderMap, HeaderValue, header};

use super::Error;

/// The bytes to send, `first..=last`, both inside the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    pub first: u64,
    pub last: u64,
}

impl ByteRange {
    /// Number of bytes in the range; at least 1.
    pub fn len(self) -> u64 {
        self.last - self.first + 1
    }

    /// The value of `Content-Range` in a file of `size_bytes`.
    pub fn content_range(self, size_bytes: u64) -> HeaderValue {
        let text = format!("bytes {}-{}/{size_bytes}", self.first, self.last);
        HeaderValue::try_from(text).expect("digits are ASCII")
    }
}

/// Which part of a file of `size_bytes`, tagged `tag`, the request asks for; `None` for all of it.
///
/// # Errors
/// [`Error::RangeNotSatisfiable`] when the range starts past the end of the file.
pub fn requested(headers: &HeaderMap, tag: &HeaderValue, size_bytes: u64) -> Result<Option<ByteRange>, Error> {
    if headers.get(header::IF_RANGE).is_some_and(|condition| condition != tag) {
        return Ok(None);
    }
    let spec = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let Some((first, last)) = spec.and_then(single_range) else { return Ok(None) };
    resolve(first, last, size_bytes).map(Some).ok_or(Error::RangeNotSatisfiable { size_bytes })
}

/// Splits `bytes=first-last`; either end may be missing, but not both.
fn single_range(spec: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (first, last) = spec.strip_prefix("bytes=")?.split_once('-')?;
    let end = |text: &str| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) };
    let range = (end(first.trim())?, end(last.trim())?);
    let backwards = matches!(range, (Some(first), Some(last)) if first > last);
    (range != (None, None) && !backwards).then_some(range)
}

fn resolve(first: Option<u64>, last: Option<u64>, size_bytes: u64) -> Option<ByteRange> {
    let end = size_bytes.checked_sub(1)?;
    match (first, last) {
        (Some(first), last) => {
            (first <= end).then(|| ByteRange { first, last: last.map_or(end, |last| last.min(end)) })
        }
        // The last so many bytes.
        (None, count) => count
            .filter(|&count| count > 0)
            .map(|count| ByteRange { first: size_bytes.saturating_sub(count), last: end }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_ten(spec: &'static str) -> Result<Option<(u64, u64)>, ()> {
        let headers = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static(spec))]);
        let range = requested(&headers, &HeaderValue::from_static("\"t\""), 10).map_err(drop)?;
        Ok(range.map(|range| (range.first, range.last)))
    }

    #[test]
    fn ranges_of_a_ten_byte_file() {
        let cases = [
            ("bytes=0-0", Ok(Some((0, 0)))),
            ("bytes=3-", Ok(Some((3, 9)))),
            ("bytes=3-99", Ok(Some((3, 9)))),
            ("bytes=-4", Ok(Some((6, 9)))),
            ("bytes=-40", Ok(Some((0, 9)))),
            ("bytes=10-", Err(())),
            ("bytes=-0", Err(())),
            // Not understood, so ignored.
            ("bytes=5-3", Ok(None)),
            ("bytes=0-1,3-4", Ok(None)),
            ("bytes=-", Ok(None)),
            ("bytes=a-b", Ok(None)),
            ("bytes=99999999999999999999-", Ok(None)),
            ("lines=0-1", Ok(None)),
        ];
        for (spec, expected) in cases {
            assert_eq!(of_ten(spec), expected, "{spec}");
        }
    }

    #[test]
    fn range_of_another_version_is_ignored() {
        let mut headers = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static("bytes=0-0"))]);
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"old\""));
        assert!(requested(&headers, &HeaderValue::from_static("\"new\""), 10).unwrap().is_none());
    }

    #[test]
    fn content_range_counts_inclusively() {
        let range = ByteRange { first: 2, last: 5 };
        assert_eq!(range.len(), 4);
        assert_eq!(range.content_range(10), "bytes 2-5/10");
    }
}
