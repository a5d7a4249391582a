//! Errors at the edge: what failed, why, what to do now, and the exit code of the contract.

use std::fmt;
use std::process::ExitCode;

use crate::document::{Look, Problems};
use crate::event::Failure;
use crate::tui::clean;

/// The contract of exit codes that is not a verdict's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 1: something that was to be done failed.
    Failed,
    /// 2: wrong use, or a file that cannot be used.
    Usage,
    /// 4: only a person can go on.
    NeedsPerson,
    /// 130
    Interrupted,
}

impl Kind {
    pub fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NeedsPerson => 4,
            Self::Interrupted => 130,
        }
    }
}

/// What ends a command.
#[derive(Debug)]
pub struct CliError {
    pub kind: Kind,
    pub failures: Vec<Failure>,
    /// Problems of a file, drawn with line and caret.
    pub problems: Option<Box<Problems>>,
}

pub type Result<T> = std::result::Result<T, CliError>;

impl CliError {
    pub fn usage(failure: Failure) -> Self {
        Self { kind: Kind::Usage, failures: vec![failure], problems: None }
    }

    pub fn failed(failure: Failure) -> Self {
        Self { kind: Kind::Failed, failures: vec![failure], problems: None }
    }

    /// Prints it to standard error, and with `json` one object to standard output.
    pub fn report(&self, json: bool) -> ExitCode {
        if let Some(problems) = &self.problems {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
            eprint!("{}", problems.render(&Look { colour, ..Look::default() }));
        }
        for failure in &self.failures {
            // Words of servers and stores stand in it. Lines stay lines.
            let lines = |text: &str| text.lines().map(clean).collect::<Vec<_>>().join("\n       ");
            eprintln!("lifeboat: {}", lines(&failure.what));
            if !failure.why.is_empty() {
                eprintln!("  why: {}", lines(&failure.why));
            }
            if let Some(now) = &failure.now {
                eprintln!("  now: {}", lines(now));
            }
        }
        if json {
            let mut errors: Vec<serde_json::Value> =
                self.failures.iter().filter_map(|failure| serde_json::to_value(failure).ok()).collect();
            errors.extend(self.problems.iter().filter_map(|problems| serde_json::to_value(problems).ok()));
            println!("{}", serde_json::json!({ "errors": errors, "exit_code": self.kind.code() }));
        }
        ExitCode::from(self.kind.code())
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.failures.iter().map(ToString::to_string).collect();
        f.write_str(&all.join("; "))
    }
}

impl From<Problems> for CliError {
    fn from(problems: Problems) -> Self {
        Self { kind: Kind::Usage, failures: Vec::new(), problems: Some(Box::new(problems)) }
    }
}

impl From<crate::inventory::Unbound> for CliError {
    fn from(unbound: crate::inventory::Unbound) -> Self {
        Self { kind: Kind::Usage, failures: unbound.failures, problems: None }
    }
}
