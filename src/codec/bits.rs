//! Bit strings, each byte filled from its most significant bit.
//!
//! Reading is total: past the end the reader sees zeros, and consuming them is an error.

use super::DecodeError;

/// No Rice code here starts with more zeros: no alphabet has more symbols.
const LONGEST_UNARY: u32 = 1 << 16;

/// Collects bits into bytes.
#[derive(Default)]
pub(super) struct BitWriter {
    out: Vec<u8>,
    /// The last `filled` bits written, in the low end; fewer than 32.
    buffer: u64,
    filled: u32,
}

impl BitWriter {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { out: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Appends the low `length` bits of `bits`, at most 32; the bits above them are zero.
    #[inline]
    pub(super) fn push(&mut self, bits: u32, length: u32) {
        self.buffer = self.buffer << length | u64::from(bits);
        self.filled += length;
        if self.filled >= 32 {
            self.filled -= 32;
            self.out.extend_from_slice(&((self.buffer >> self.filled) as u32).to_be_bytes());
        }
    }

    /// Appends `Rice(parameter)` of `value`.
    pub(super) fn push_rice(&mut self, value: u32, parameter: u32) {
        for _ in 0..value >> parameter {
            self.push(0, 1);
        }
        self.push(1, 1);
        self.push(value & ((1 << parameter) - 1), parameter);
    }

    /// Fills up the last byte with zeros.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        let tail = ((self.buffer << (32 - self.filled)) as u32).to_be_bytes();
        self.out.extend_from_slice(&tail[..self.filled.div_ceil(8) as usize]);
        self.out
    }
}

/// Reads bits from the front of a slice.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// First byte that is not counted in `available`.
    next: usize,
    /// The bits to come, from the top. Below the first `available` there may be more bits of the bytes to come; past
    /// the end of `bytes` there are zeros.
    buffer: u64,
    available: u32,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, next: 0, buffer: 0, available: 0 }
    }

    /// Makes at least 56 bits available, or all that are left.
    #[inline]
    pub(super) fn refill(&mut self) {
        if let Some(chunk) = self.bytes[self.next..].first_chunk() {
            self.buffer |= u64::from_be_bytes(*chunk) >> self.available;
            self.next += ((63 - self.available) / 8) as usize;
            self.available |= 56;
        } else {
            self.refill_from_the_end();
        }
    }

    #[cold]
    fn refill_from_the_end(&mut self) {
        while self.available <= 56
            && let Some(&byte) = self.bytes.get(self.next)
        {
            self.buffer |= u64::from(byte) << (56 - self.available);
            self.available += 8;
            self.next += 1;
        }
    }

    /// The next `length` bits, 1 to 32, without consuming them. [`BitReader::refill`] first.
    #[inline]
    pub(super) fn peek(&self, length: u32) -> u32 {
        (self.buffer >> (64 - length)) as u32
    }

    /// Consumes `length` bits, at most 32.
    #[inline]
    pub(super) fn consume(&mut self, length: u32) -> Result<(), DecodeError> {
        if length > self.available {
            return Err(DecodeError::UnexpectedEndOfBits);
        }
        self.buffer <<= length;
        self.available -= length;
        Ok(())
    }

    /// Takes `length` bits, at most 32.
    #[inline]
    pub(super) fn take(&mut self, length: u32) -> Result<u32, DecodeError> {
        if length == 0 {
            return Ok(0);
        }
        if length > self.available {
            self.refill();
        }
        let bits = self.peek(length);
        self.consume(length)?;
        Ok(bits)
    }

    /// Takes a number written as `Rice(parameter)`.
    pub(super) fn take_rice(&mut self, parameter: u32) -> Result<u32, DecodeError> {
        for quotient in 0..LONGEST_UNARY {
            if self.take(1)? == 1 {
                return Ok(quotient << parameter | self.take(parameter)?);
            }
        }
        Err(DecodeError::UnexpectedEndOfBits)
    }

    /// Ends the bit string here: checks that the rest of the byte is zero and returns the bytes after it.
    pub(super) fn into_rest(self) -> Result<&'a [u8], DecodeError> {
        let padding = self.available % 8;
        if padding > 0 && self.peek(padding) != 0 {
            return Err(DecodeError::NonZeroPadding);
        }
        Ok(&self.bytes[self.next - (self.available / 8) as usize..])
    }

    /// Ends the bit string here, with nothing but padding behind.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        super::ints::expect_end(self.into_rest()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bit_is_the_most_significant() {
        let mut writer = BitWriter::default();
        for (bits, length) in [(1, 1), (0b01, 2), (0, 0), (0x1_2345, 17), (0xffff_ffff, 32)] {
            writer.push(bits, length);
        }
        // 1 01 10010001101000101 1{32} and four zeros.
        assert_eq!(writer.into_bytes(), [0xb2, 0x34, 0x5f, 0xff, 0xff, 0xff, 0xf0]);
    }

    #[test]
    fn words_of_every_length_are_read_from_every_bit_offset() {
        for offset in 0..64 {
            for length in 1..=32 {
                let word = 0xdead_beef_u32 >> (32 - length);
                let mut writer = BitWriter::default();
                (0..offset).for_each(|_| writer.push(1, 1));
                writer.push(word, length);
                let bytes = writer.into_bytes();
                let mut reader = BitReader::new(&bytes);
                (0..offset).for_each(|_| assert_eq!(reader.take(1), Ok(1)));
                assert_eq!(reader.take(length), Ok(word), "{length} bits at {offset}");
                reader.finish().unwrap();
            }
        }
    }

    #[test]
    fn zeros_past_the_end_cannot_be_consumed() {
        let mut reader = BitReader::new(&[0b1010_0000]);
        assert_eq!(reader.take(3), Ok(0b101));
        assert_eq!(reader.take(6), Err(DecodeError::UnexpectedEndOfBits));
    }

    #[test]
    fn padding_and_what_follows_are_checked() {
        let ended_after = |bits, bytes: &'static [u8]| {
            let mut reader = BitReader::new(bytes);
            reader.take(bits).unwrap();
            reader.finish()
        };
        assert_eq!(ended_after(3, &[0b1010_0000]), Ok(()));
        assert_eq!(ended_after(3, &[0b1010_0001]), Err(DecodeError::NonZeroPadding));
        assert_eq!(ended_after(3, &[0b1010_0000, 0]), Err(DecodeError::TrailingBytes { found: 1 }));
        assert_eq!(ended_after(8, &[0xff; 12]), Err(DecodeError::TrailingBytes { found: 11 }));
    }

    #[test]
    fn rice_codes_are_unary_then_binary() {
        let mut writer = BitWriter::default();
        writer.push_rice(9, 2); // 00 1 01
        writer.push_rice(2, 0); // 00 1
        let bytes = writer.into_bytes();
        assert_eq!(bytes, [0b0010_1001]);
        let mut reader = BitReader::new(&bytes);
        assert_eq!((reader.take_rice(2), reader.take_rice(0)), (Ok(9), Ok(2)));
    }
}
