//! The primitives of a record: single bytes, varints, counted bytes.

use super::error::RecordError;

/// Longest varint: 64 bits, 7 in a byte.
const MAX_VARINT_BYTES: usize = 10;

/// Appends `value` as unsigned LEB128: 7 bits a byte, the lowest first, the top bit set on all bytes but the last.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that [`put_varint`] writes for `value`.
pub(super) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Reads a record from its front.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Bytes that are left.
    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: u64) -> Result<&'a [u8], RecordError> {
        let found = self.remaining();
        if count > found as u64 {
            return Err(RecordError::Truncated { needed: count, found });
        }
        let start = self.at;
        self.at += count as usize;
        Ok(&self.bytes[start..self.at])
    }

    pub(super) fn byte(&mut self) -> Result<u8, RecordError> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn varint(&mut self) -> Result<u64, RecordError> {
        let mut value = 0u64;
        for i in 0..MAX_VARINT_BYTES {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if i == MAX_VARINT_BYTES - 1 && bits > 1 {
                return Err(RecordError::Varint);
            }
            value |= bits << (7 * i);
            if byte & 0x80 == 0 {
                return if byte == 0 && i > 0 { Err(RecordError::Varint) } else { Ok(value) };
            }
        }
        Err(RecordError::Varint)
    }

    /// A varint that counts something in memory.
    pub(super) fn size(&mut self) -> Result<usize, RecordError> {
        usize::try_from(self.varint()?).map_err(|_| RecordError::Varint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_have_one_form_each() {
        let cases: [(u64, &[u8]); 6] = [
            (0, &[0]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]),
            (1 << 14, &[0x80, 0x80, 1]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ];
        for (value, bytes) in cases {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out, bytes);
            assert_eq!(varint_len(value), bytes.len());
            assert_eq!(Cursor::new(bytes).varint(), Ok(value));
        }
        assert_eq!(Cursor::new(&[0x80, 0]).varint(), Err(RecordError::Varint), "padded with a zero");
        assert_eq!(Cursor::new(&[0xff; 10]).varint(), Err(RecordError::Varint), "more than 64 bits");
        assert_eq!(Cursor::new(&[0x80]).varint(), Err(RecordError::Truncated { needed: 1, found: 0 }));
    }
}
