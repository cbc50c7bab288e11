//! Whole-byte integers on the wire: arrays of one width, and varints.

use super::DecodeError;

/// The smallest of 1, 2 and 4 bytes that holds the number `n`, which is at most [`super::MAX_CELLS`].
pub(super) fn index_width(n: usize) -> usize {
    match n {
        0..0x100 => 1,
        0x100..0x1_0000 => 2,
        _ => 4,
    }
}

/// An array of unsigned little-endian integers, all 1, 2, 4 or 8 bytes wide.
#[derive(Clone, Copy)]
pub(super) struct Ints<'a> {
    bytes: &'a [u8],
    width: usize,
}

impl<'a> Ints<'a> {
    /// Takes `count` integers from the front of `input`.
    pub(super) fn take(input: &mut &'a [u8], count: usize, width: usize) -> Result<Self, DecodeError> {
        let needed = count.saturating_mul(width);
        let (bytes, rest) =
            input.split_at_checked(needed).ok_or(DecodeError::UnexpectedEof { needed, found: input.len() })?;
        *input = rest;
        Ok(Self { bytes, width })
    }

    #[inline]
    pub(super) fn get(&self, i: usize) -> u64 {
        match self.width {
            1 => u64::from(self.bytes[i]),
            2 => u64::from(u16::from_le_bytes(self.bytes.as_chunks().0[i])),
            4 => u64::from(u32::from_le_bytes(self.bytes.as_chunks().0[i])),
            _ => u64::from_le_bytes(self.bytes.as_chunks().0[i]),
        }
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = u64> + use<'a> {
        let ints = *self;
        (0..self.bytes.len() / self.width).map(move |i| ints.get(i))
    }

    /// The sum. No payload is long enough for it to overflow.
    pub(super) fn sum(&self) -> usize {
        self.iter().map(|n| n as usize).sum()
    }
}

/// Appends the low `width` bytes of `value`.
#[inline]
pub(super) fn push_int(out: &mut Vec<u8>, value: u64, width: usize) {
    out.extend_from_slice(&value.to_le_bytes()[..width]);
}

/// Appends `value` as unsigned LEB128: seven bits a byte, the lowest first, the top bit set in all bytes but the last.
pub(super) fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a varint below 2^63 from the front of `input`.
pub(super) fn take_varint(input: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = input.split_first().ok_or(DecodeError::UnexpectedEof { needed: 1, found: 0 })?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return if byte == 0 && shift > 0 { Err(DecodeError::InvalidVarint) } else { Ok(value) };
        }
    }
    Err(DecodeError::InvalidVarint)
}

/// Refuses bytes after the last section.
pub(super) fn expect_end(input: &[u8]) -> Result<(), DecodeError> {
    if input.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes { found: input.len() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_width_holds_the_number_itself() {
        for (n, width) in [(0, 1), (255, 1), (256, 2), (65_535, 2), (65_536, 4), (super::super::MAX_CELLS, 4)] {
            assert_eq!(index_width(n), width, "{n}");
        }
    }

    #[test]
    fn varints_have_one_form() {
        for (value, bytes) in [(0, &[0][..]), (127, &[127]), (128, &[0x80, 1]), (300, &[0xac, 2])] {
            let mut out = Vec::new();
            push_varint(&mut out, value);
            assert_eq!(out, bytes);
            assert_eq!(take_varint(&mut &out[..]), Ok(value));
        }
        assert_eq!(take_varint(&mut &[0x80, 0][..]), Err(DecodeError::InvalidVarint));
        assert_eq!(take_varint(&mut &[0xff; 10][..]), Err(DecodeError::InvalidVarint));
        assert_eq!(take_varint(&mut &[0x80][..]), Err(DecodeError::UnexpectedEof { needed: 1, found: 0 }));
    }

    #[test]
    fn an_array_longer_than_its_bytes_is_refused() {
        let mut input = &[1, 0, 2, 0, 9][..];
        let ints = Ints::take(&mut input, 2, 2).unwrap();
        assert_eq!((ints.iter().collect::<Vec<_>>(), ints.sum(), input), (vec![1, 2], 3, &[9][..]));
        assert_eq!(Ints::take(&mut input, 1, 2).err(), Some(DecodeError::UnexpectedEof { needed: 2, found: 1 }));
        assert!(Ints::take(&mut input, usize::MAX, 8).is_err());
    }
}
