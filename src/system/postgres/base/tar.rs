//! Tar as PostgreSQL writes it, read one entry at a time: plain ustar, files and directories, nothing else.

use std::io::{self, Read};
use std::path::PathBuf;

use crate::mutant;

pub const BLOCK: usize = 512;

#[derive(Debug, thiserror::Error)]
pub enum TarError {
    #[error("the tar stream cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("the tar stream is damaged: {0}")]
    Damaged(String),
    #[error("the tar stream holds `{path}`, which would not stay beneath the target directory")]
    Escapes { path: String },
    #[error("the tar stream holds `{path}`, a {kind}; only files and directories are unpacked")]
    Special { path: String, kind: &'static str },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
}

/// The head of an entry; a file's bytes follow it, padded to whole blocks.
#[derive(Debug, Clone)]
pub struct Entry {
    /// As written, without a trailing `/`.
    pub name: String,
    /// Relative, beneath.
    pub path: PathBuf,
    pub kind: Kind,
    /// Bytes; 0 for directories.
    pub size: u64,
    /// The block itself.
    pub header: [u8; BLOCK],
}

impl Entry {
    /// The next entry; `None` at the end mark.
    pub fn next(reader: &mut impl Read) -> Result<Option<Self>, TarError> {
        let mut header = [0; BLOCK];
        reader.read_exact(&mut header)?;
        if header.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let damaged = |what: &str| TarError::Damaged(format!("a header's {what} is wrong"));
        let sum: u64 = header
            .iter()
            .enumerate()
            .map(|(at, byte)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte }))
            .sum();
        if number(&header[148..156]) != Some(sum) {
            return Err(damaged("checksum"));
        }
        let text = |range: std::ops::Range<usize>| {
            let field = &header[range];
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            std::str::from_utf8(&field[..end]).map_err(|_| damaged("name"))
        };
        let (prefix, short) = (if &header[257..262] == b"ustar" { text(345..500)? } else { "" }, text(0..100)?);
        let full = if prefix.is_empty() { short.to_owned() } else { format!("{prefix}/{short}") };
        let kind = match header[156] {
            b'0' | 0 => Kind::File,
            b'5' => Kind::Directory,
            other => {
                let kind = match other {
                    b'1' => "hard link",
                    b'2' => "symbolic link",
                    b'3' | b'4' => "device",
                    b'6' => "pipe",
                    _ => "special entry",
                };
                return Err(TarError::Special { path: full, kind });
            }
        };
        // PostgreSQL writes `./pg_wal/` for directories.
        let name = full.strip_prefix("./").unwrap_or(&full).trim_end_matches('/').to_owned();
        let path = beneath(&name).ok_or_else(|| TarError::Escapes { path: full.clone() })?;
        let size = if kind == Kind::File { number(&header[124..136]).ok_or_else(|| damaged("size"))? } else { 0 };
        Ok(Some(Self { name, path, kind, size, header }))
    }

    /// Bytes after the file's own, up to the next block.
    pub fn padding(&self) -> usize {
        (BLOCK - (self.size % BLOCK as u64) as usize) % BLOCK
    }
}

/// Octal digits, or big-endian bytes where the first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        // Fields have 8 or 12 bytes; what does not fit into 64 bits is no number of ours.
        let value = &field[1..];
        let (high, low) = value.split_at(value.len().saturating_sub(8));
        let fits = field[0] == 0x80 && high.iter().all(|byte| *byte == 0);
        return fits.then(|| low.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)));
    }
    let digits: Vec<u8> = field.iter().copied().filter(|b| !matches!(b, 0 | b' ')).collect();
    digits.iter().try_fold(0_u64, |n, b| match b {
        b'0'..=b'7' => n.checked_mul(8)?.checked_add(u64::from(b - b'0')),
        _ => None,
    })
}

/// A relative path that cannot leave the directory it is joined to.
fn beneath(name: &str) -> Option<PathBuf> {
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    let stays = name.split('/').all(plain) || mutant::removes("9");
    (!name.is_empty() && stays).then(|| PathBuf::from(name))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An entry with its content, as a tar program would write it.
    pub fn entry(name: &str, flag: u8, content: &[u8]) -> Vec<u8> {
        let mut header = [0_u8; BLOCK];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000600\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[156] = flag;
        header[257..263].copy_from_slice(b"ustar\0");
        header[148..156].fill(b' ');
        let sum: u64 = header.iter().map(|b| u64::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut bytes = header.to_vec();
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    #[test]
    fn files_and_directories_are_read() {
        let mut stream = [entry("base/1/", b'5', b""), entry("base/1/1255", b'0', b"hello"), vec![0; 1024]].concat();
        let mut reader = stream.as_mut_slice() as &[u8];
        let directory = Entry::next(&mut reader).unwrap().unwrap();
        assert_eq!((directory.name.as_str(), directory.kind), ("base/1", Kind::Directory));
        let file = Entry::next(&mut reader).unwrap().unwrap();
        assert_eq!((file.name.as_str(), file.size, file.padding()), ("base/1/1255", 5, 507));
        reader = &reader[512..];
        assert!(Entry::next(&mut reader).unwrap().is_none());
    }

    #[test]
    fn row_09_nothing_escapes() {
        for (name, flag) in [
            ("../postgresql.conf", b'0'),
            ("/etc/passwd", b'0'),
            ("base/../../x", b'0'),
            ("base//x", b'0'),
            ("././x", b'0'),
            ("./../x", b'0'),
            ("./", b'5'),
            ("..", b'5'),
            ("", b'0'),
            ("pg_tblspc/1", b'2'),
            ("x", b'1'),
            ("x", b'3'),
            ("x", b'6'),
            ("x", b'L'),
            ("x", b'x'),
        ] {
            let error = Entry::next(&mut entry(name, flag, b"").as_slice()).unwrap_err();
            assert!(matches!(error, TarError::Escapes { .. } | TarError::Special { .. }), "{name}: {error}");
        }
    }

    #[test]
    fn a_damaged_header_is_refused() {
        let good = entry("base/1/1255", b'0', b"hello");
        for at in [0, 50, 124, 130, 156, 257] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Entry::next(&mut bad.as_slice()).is_err(), "byte {at}");
        }
        assert!(Entry::next(&mut &good[..100]).is_err());
    }
}
