//! Logs go to a rolling file below the state directory, never to the terminal.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::secret::Redactor;

/// Days of logs that are kept.
const KEPT: usize = 14;

/// Starts logging. Returns the directory and a guard that flushes at the end; `None` when there is no place to log to,
/// which must not keep anybody from restoring.
pub fn start(state: &Path, redactor: &Redactor) -> Option<(PathBuf, tracing_appender::non_blocking::WorkerGuard)> {
    let directory = state.join("log");
    std::fs::create_dir_all(&directory).ok()?;
    let file = tracing_appender::rolling::Builder::new()
        .rotation(tracing_appender::rolling::Rotation::DAILY)
        .filename_prefix("lifeboat")
        .filename_suffix("log")
        .max_log_files(KEPT)
        .build(&directory)
        .ok()?;
    let (writer, guard) = tracing_appender::non_blocking(file);
    let filter = EnvFilter::try_from_env("LIFEBOAT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(Redacting { writer, redactor: redactor.clone() })
        .try_init()
        .ok()?;
    Some((directory, guard))
}

/// Every line passes the redactor.
struct Redacting {
    writer: tracing_appender::non_blocking::NonBlocking,
    redactor: Redactor,
}

struct RedactingLine<'a>(&'a Redacting);

impl<'a> MakeWriter<'a> for Redacting {
    type Writer = RedactingLine<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        RedactingLine(self)
    }
}

impl Write for RedactingLine<'_> {
    /// tracing hands over whole lines.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.writer.clone().write_all(&self.0.redactor.bytes(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
