//! How a segment stands in the bucket: one zstd frame that says its size and checks its content. Where compression is off the
//! frame's blocks are raw: every reader stays the same, `zstd -d` among them, and nothing is worked out but the checksum.
//!
//! The format is RFC 8878's.

use std::io;
use std::iter::once;

use bytes::Bytes;
use xxhash_rust::xxh64::xxh64;

/// PostgreSQL's largest segment.
pub(super) const LARGEST: u64 = 1 << 30;

/// Bytes of a block at most.
const BLOCK: usize = 128 << 10;

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

/// The frame in pieces, which share the content's memory. There is content, of [`LARGEST`] bytes at most.
pub(super) fn raw(content: &Bytes) -> impl Iterator<Item = Bytes> {
    let size = u32::try_from(content.len()).expect("a segment has 1 GiB at most").to_le_bytes();
    let head = [&MAGIC[..], &DESCRIPTOR, &size].concat();
    let check = (xxh64(content, 0) as u32).to_le_bytes().to_vec();
    let blocks = (0..content.len()).step_by(BLOCK).flat_map(|start| {
        let block = content.slice(start..(start + BLOCK).min(content.len()));
        let is_last = start + block.len() == content.len();
        // Bit 0: the last one; bits 1 and 2: raw.
        let header = ((block.len() as u32) << 3 | u32::from(is_last)).to_le_bytes()[..3].to_vec();
        [header.into(), block]
    });
    once(head.into()).chain(blocks).chain(once(check.into()))
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
        for bytes in [1, 5, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            let content: Vec<u8> = (0..bytes).map(|at| ((at * at) >> 7) as u8).collect();
            let mut frame: Vec<u8> = raw(&Bytes::from(content.clone())).flatten().collect();
            assert_eq!(decompress(&frame), Ok(content));
            let middle = frame.len() / 2;
            frame[middle] ^= 1;
            assert!(decompress(&frame).is_err(), "{bytes}");
        }
    }
}
