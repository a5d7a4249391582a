//! The bytes of an RDB: buffered, counted, and summed on their way.

use std::io::{self, Read};

use super::RdbError;
use super::crc::crc64;

/// Bytes read at once.
const BUFFER: usize = 256 * 1024;

/// A length, or the special encoding of a string that stands in its place.
pub enum Length {
    Plain(u64),
    Encoded(u8),
}

pub struct Source<R> {
    inner: R,
    buffer: Vec<u8>,
    /// The unread part of `buffer`.
    at: usize,
    end: usize,
    /// Where the part of `buffer` begins that `crc` has not yet seen.
    summed: usize,
    crc: u64,
    /// Offset in the file of `buffer[0]`.
    base: u64,
}

impl<R: Read> Source<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, buffer: vec![0; BUFFER], at: 0, end: 0, summed: 0, crc: 0, base: 0 }
    }

    /// Bytes consumed so far.
    pub fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    /// The checksum over everything consumed so far.
    pub fn crc(&mut self) -> u64 {
        self.crc = crc64(self.crc, &self.buffer[self.summed..self.at]);
        self.summed = self.at;
        self.crc
    }

    /// Whether nothing is left.
    pub fn at_end(&mut self) -> Result<bool, RdbError> {
        Ok(self.at == self.end && self.refill()? == 0)
    }

    fn refill(&mut self) -> Result<usize, RdbError> {
        self.crc();
        self.base += self.end as u64;
        (self.at, self.end, self.summed) = (0, 0, 0);
        loop {
            match self.inner.read(&mut self.buffer) {
                Ok(n) => {
                    self.end = n;
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(RdbError::Read { offset: self.base, source }),
            }
        }
    }

    fn some(&mut self) -> Result<&[u8], RdbError> {
        if self.at == self.end && self.refill()? == 0 {
            return Err(RdbError::Cut { offset: self.offset() });
        }
        Ok(&self.buffer[self.at..self.end])
    }

    pub fn skip(&mut self, mut bytes: u64) -> Result<(), RdbError> {
        while bytes > 0 {
            let here = self.some()?.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
            self.at += here;
            bytes -= here as u64;
        }
        Ok(())
    }

    pub fn fill(&mut self, mut out: &mut [u8]) -> Result<(), RdbError> {
        while !out.is_empty() {
            let some = self.some()?;
            let here = some.len().min(out.len());
            out[..here].copy_from_slice(&some[..here]);
            out = &mut out[here..];
            self.at += here;
        }
        Ok(())
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], RdbError> {
        let mut out = [0; N];
        self.fill(&mut out)?;
        Ok(out)
    }

    pub fn byte(&mut self) -> Result<u8, RdbError> {
        Ok(self.array::<1>()?[0])
    }

    pub fn length_or_encoding(&mut self) -> Result<Length, RdbError> {
        let offset = self.offset();
        let first = self.byte()?;
        Ok(match (first >> 6, first) {
            (0, _) => Length::Plain(u64::from(first)),
            (1, _) => Length::Plain(u64::from(first & 0x3f) << 8 | u64::from(self.byte()?)),
            (2, 0x80) => Length::Plain(u64::from(u32::from_be_bytes(self.array()?))),
            (2, 0x81) => Length::Plain(u64::from_be_bytes(self.array()?)),
            (3, _) => Length::Encoded(first & 0x3f),
            _ => return Err(RdbError::Damaged { offset, what: format!("{first:#04x} begins no length") }),
        })
    }

    pub fn length(&mut self) -> Result<u64, RdbError> {
        let offset = self.offset();
        match self.length_or_encoding()? {
            Length::Plain(length) => Ok(length),
            Length::Encoded(_) => {
                Err(RdbError::Damaged { offset, what: "a string's encoding stands where a length must".to_owned() })
            }
        }
    }

    pub fn skip_string(&mut self) -> Result<(), RdbError> {
        self.string_head(0).map(|_| ())
    }

    /// Reads a string and keeps its first `limit` bytes.
    pub fn string_head(&mut self, limit: usize) -> Result<Vec<u8>, RdbError> {
        let offset = self.offset();
        match self.length_or_encoding()? {
            Length::Plain(length) => self.head(length, limit),
            Length::Encoded(0) => Ok(i8::from_le_bytes(self.array()?).to_string().into_bytes()),
            Length::Encoded(1) => Ok(i16::from_le_bytes(self.array()?).to_string().into_bytes()),
            Length::Encoded(2) => Ok(i32::from_le_bytes(self.array()?).to_string().into_bytes()),
            Length::Encoded(3) => {
                let packed = self.length()?;
                let plain = self.length()?;
                // A literal run is at most 32 bytes behind one byte of control: this much packed input gives the head.
                let head = self.head(packed, limit * 2 + 64)?;
                unpack_head(&head, limit.min(usize::try_from(plain).unwrap_or(usize::MAX)))
                    .ok_or(RdbError::Damaged { offset, what: "a compressed string does not unpack".to_owned() })
            }
            Length::Encoded(other) => {
                Err(RdbError::Damaged { offset, what: format!("{other} is no encoding of a string") })
            }
        }
    }

    fn head(&mut self, length: u64, limit: usize) -> Result<Vec<u8>, RdbError> {
        let kept = length.min(limit as u64);
        let mut out = vec![0; usize::try_from(kept).unwrap_or(limit)];
        self.fill(&mut out)?;
        self.skip(length - kept)?;
        Ok(out)
    }
}

/// The first `limit` bytes of what LZF packed; `None` when it is not LZF or too short for that.
fn unpack_head(packed: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(limit + 264);
    let mut at = 0;
    while out.len() < limit {
        let control = usize::from(*packed.get(at)?);
        at += 1;
        if control < 32 {
            out.extend_from_slice(packed.get(at..at + control + 1)?);
            at += control + 1;
            continue;
        }
        let mut length = control >> 5;
        if length == 7 {
            length += usize::from(*packed.get(at)?);
            at += 1;
        }
        let back = ((control & 0x1f) << 8 | usize::from(*packed.get(at)?)) + 1;
        at += 1;
        // It may overlap with what it makes: a byte at a time.
        let from = out.len().checked_sub(back)?;
        for at in from..from + length + 2 {
            out.push(out[at]);
        }
    }
    out.truncate(limit);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_read_in_every_spelling() {
        let bytes = [&[0x3f][..], &[0x41, 0x02], &[0x80, 0, 1, 0, 0], &[0x81, 0, 0, 0, 1, 0, 0, 0, 0]].concat();
        let mut source = Source::new(&bytes[..]);
        let lengths: Vec<u64> = (0..4).map(|_| source.length().unwrap()).collect();
        assert_eq!(lengths, [63, 0x102, 65536, 1 << 32]);
        assert!(source.at_end().unwrap());
        assert!(matches!(source.length(), Err(RdbError::Cut { offset: 17 })));
    }

    #[test]
    fn a_packed_string_gives_its_head() {
        // "ab", then 20 bytes copied from two back: as LZF packs "abababab…".
        let packed = [1, b'a', b'b', 7 << 5, 11, 1];
        let bytes = [&[0xc3, packed.len() as u8, 22][..], &packed].concat();
        assert_eq!(Source::new(&bytes[..]).string_head(9).unwrap(), b"ababababa");
        assert_eq!(Source::new(&bytes[..]).string_head(100).unwrap(), b"ab".repeat(11));
        let broken = [0xc3, 2, 22, 0x20, 9];
        assert!(matches!(Source::new(&broken[..]).string_head(9), Err(RdbError::Damaged { .. })));
    }

    #[test]
    fn the_sum_covers_what_was_consumed_across_buffers() {
        let bytes: Vec<u8> = (0..BUFFER * 2 + 77).map(|n| (n * 7) as u8).collect();
        let mut source = Source::new(&bytes[..]);
        source.skip(BUFFER as u64 + 5).unwrap();
        assert_eq!(source.crc(), crc64(0, &bytes[..BUFFER + 5]));
        source.skip((BUFFER + 72) as u64).unwrap();
        assert_eq!(source.crc(), crc64(0, &bytes));
        assert_eq!(source.offset(), bytes.len() as u64);
    }
}
