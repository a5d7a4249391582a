//! Standard output and standard error that may be full, closed, or a pipe to somebody who left.
//!
//! The macros of the standard library panic then. A drill must not end in the middle of a step because nobody can read what
//! it says, and a command of PostgreSQL's must keep the exit code that it was given.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::sync::OnceLock;

/// Why standard output did not take everything.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// In every module of this room these stand in the place of the standard ones.
macro_rules! println {
    () => { $crate::cli::say::out(format_args!("\n")) };
    ($($text:tt)+) => { $crate::cli::say::out(format_args!("{}\n", format_args!($($text)+))) };
}
/// A line that may hold words of others: of a runbook, a store, a server.
macro_rules! show {
    ($($text:tt)+) => { println!("{}", $crate::tui::clean(&format!($($text)+))) };
}
macro_rules! print {
    ($($text:tt)*) => { $crate::cli::say::out(format_args!($($text)*)) };
}
macro_rules! eprintln {
    () => { $crate::cli::say::err(format_args!("\n")) };
    ($($text:tt)+) => { $crate::cli::say::err(format_args!("{}\n", format_args!($($text)+))) };
}
macro_rules! eprint {
    ($($text:tt)*) => { $crate::cli::say::err(format_args!($($text)*)) };
}

/// To standard output.
pub fn out(text: fmt::Arguments<'_>) {
    let mut stdout = io::stdout();
    if let Err(error) = stdout.write_fmt(text).and_then(|()| stdout.flush()) {
        // The first one says why.
        let _ = LOST.set(error);
    }
}

/// To standard error. What cannot be said there can be said nowhere; journal, report and log have it.
pub fn err(text: fmt::Arguments<'_>) {
    // One write a line: another process may write to the same place.
    let _ = io::stderr().write_all(text.to_string().as_bytes());
}

/// Why a reader of standard output did not get everything; whoever closes a pipe has read enough.
pub fn lost() -> Option<&'static io::Error> {
    LOST.get().filter(|error| error.kind() != ErrorKind::BrokenPipe)
}
