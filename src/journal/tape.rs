use std::fs::File;
use std::io::{self, Write};

use crate::mutant;

/// What a journal is written to; tests put a failing one in its place.
pub(super) trait Tape: Send {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Everything written is durable on return.
    fn sync(&mut self) -> io::Result<()>;
    /// Throws away what follows the first `length` bytes.
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

impl Tape for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        if mutant::removes("23b") { Ok(()) } else { self.sync_data() }
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}
