//! `lifeboat completions SHELL` and `lifeboat man`.

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;

use super::Cli;
use super::error::{CliError, Result};
use crate::event::Failure;

#[derive(Debug, clap::Args)]
pub struct Args {
    shell: clap_complete::Shell,
}

pub fn completions(args: Args) -> Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "lifeboat", &mut text);
    print(&text)
}

pub fn man() -> Result<ExitCode> {
    let mut text = Vec::new();
    clap_mangen::Man::new(Cli::command())
        .render(&mut text)
        .map_err(|error| CliError::failed(Failure::new("cannot write the manual page", error)))?;
    print(&text)
}

/// A reader that has seen enough (`| head`) is no error.
fn print(text: &[u8]) -> Result<ExitCode> {
    match std::io::stdout().write_all(text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CliError::failed(Failure::new("cannot write to standard output", error)))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
