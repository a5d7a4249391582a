//! How a segment stands in the bucket: one zstd frame that says its size and checks its content. Where compression is off the
//! frame's blocks are raw: every reader stays the same, `zstd -d` among them, and nothing is worked out but the checksum.
//!
//! The format is RFC 8878's.

use std::io::{self, Read};

use bytes::Bytes;
use xxhash_rust::xxh64::Xxh64;

/// PostgreSQL's largest segment.
pub(super) const LARGEST: u64 = 1 << 30;

/// Bytes of a block at most.
const BLOCK: u64 = 128 << 10;

/// In a piece.
const BLOCKS: usize = 8;

/// Bytes of a piece at most: its blocks and their headers, what stands before the first and behind the last.
const PIECE: usize = BLOCKS * (BLOCK as usize + 3) + 16;

const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// Frame_Content_Size of four bytes, Content_Checksum; then a window of 128 KiB.
const DESCRIPTOR: [u8; 2] = [0b1000_0100, 7 << 3];

/// Whether a segment is made smaller on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    #[default]
    Zstd,
    /// For a store that compresses by itself, or a server that has no time to spare.
    Off,
}

impl Compression {
    /// As a command line says it.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "zstd" => Some(Self::Zstd),
            "off" => Some(Self::Off),
            _ => None,
        }
    }
}

pub(super) fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(1)?;
    compressor.include_checksum(true)?;
    compressor.compress(bytes)
}

/// A frame of raw blocks, in pieces of a size that memory is used again for.
pub(super) struct Raw<R> {
    from: R,
    /// Bytes of the content.
    size: u64,
    left: u64,
    check: Xxh64,
    is_whole: bool,
}

impl<R: Read> Raw<R> {
    /// Of `size` bytes, at least one and [`LARGEST`] at most.
    pub fn new(from: R, size: u64) -> Self {
        Self { from, size, left: size, check: Xxh64::new(0), is_whole: false }
    }

    fn piece(&mut self) -> io::Result<Bytes> {
        let mut piece = Vec::with_capacity(PIECE);
        if self.left == self.size {
            piece.extend(MAGIC);
            piece.extend(DESCRIPTOR);
            piece.extend(u32::try_from(self.size).expect("a segment has 1 GiB at most").to_le_bytes());
        }
        for _ in 0..BLOCKS {
            let bytes = self.left.min(BLOCK);
            self.left -= bytes;
            // Bit 0: the last one; bits 1 and 2: raw.
            let header = (bytes << 3) as u32 | u32::from(self.left == 0);
            piece.extend(&header.to_le_bytes()[..3]);
            let start = piece.len();
            piece.resize(start + bytes as usize, 0);
            self.from.read_exact(&mut piece[start..])?;
            self.check.update(&piece[start..]);
            if self.left == 0 {
                piece.extend((self.check.digest() as u32).to_le_bytes());
                self.is_whole = true;
                break;
            }
        }
        Ok(piece.into())
    }
}

impl<R: Read> Iterator for Raw<R> {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.is_whole).then(|| self.piece())
    }
}

pub(super) fn decompress(stored: &[u8]) -> Result<Vec<u8>, String> {
    let size = zstd::zstd_safe::get_frame_content_size(stored)
        .ok()
        .flatten()
        .filter(|size| *size <= LARGEST)
        .ok_or("it is not a compressed WAL segment")?;
    zstd::bulk::decompress(stored, size as usize).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zstd_reads_a_raw_frame_and_sees_what_changed_in_it() {
        let some = BLOCKS as u64;
        for bytes in [1, 5, BLOCK - 1, BLOCK, BLOCK + 1, some * BLOCK, some * BLOCK + 1, 2 * some * BLOCK] {
            let content: Vec<u8> = (0..bytes).map(|at| ((at * at) >> 7) as u8).collect();
            let pieces = Raw::new(&content[..], bytes).collect::<io::Result<Vec<Bytes>>>().unwrap();
            assert!(pieces.iter().all(|piece| piece.len() <= PIECE));
            let mut frame = pieces.concat();
            assert_eq!(decompress(&frame).as_ref(), Ok(&content));
            let middle = frame.len() / 2;
            frame[middle] ^= 1;
            assert!(decompress(&frame).is_err(), "{bytes}");
            let cut = Raw::new(&content[..content.len() - 1], bytes).find_map(Result::err).unwrap();
            assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
