//! A cloud's command-line tool: one call, its JSON, or why there is none.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::answer::shown;
use crate::event::{Failure, causes};
use crate::process::{Captured, End, Spec};

/// Bytes of an answer that are read; one that says more is none.
const MOST_SAID: usize = 8 << 20;
/// How long a call may take. All of them only ask, or order what the cloud then does by itself.
const PATIENCE: Duration = Duration::from_secs(180);

/// How a tool is called.
#[derive(Debug, Clone)]
pub struct Tool {
    pub program: PathBuf,
    /// As people call its cloud.
    pub cloud: &'static str,
    /// Behind every command: where to look, and how to answer.
    pub options: Vec<String>,
    /// Beside the environment that it inherits.
    pub env: &'static [(&'static str, &'static str)],
    /// Variables that it does not inherit: secrets that are none of its business.
    pub hidden: Vec<String>,
    /// By what its complaints are known; the first that fits.
    pub signs: &'static [(&'static str, Trouble)],
}

/// What is wrong, as far as it decides what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// There is no such instance, there.
    Absent,
    /// There is one of that name already.
    Taken,
    Credentials,
    Denied,
    Quota,
    /// The cloud could not be reached, or was too busy to answer.
    Away,
    /// It was not told where to look.
    Nowhere,
    /// The time cannot be restored to.
    Time,
    /// This release of the tool takes other arguments.
    Dialect,
    Other,
}

/// A call that did not do what it was to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{tool} {command}: {why}")]
pub struct Complaint {
    pub trouble: Trouble,
    pub cloud: &'static str,
    pub tool: String,
    /// Its command, without options.
    pub command: String,
    pub why: String,
}

impl Complaint {
    /// Whether the same call may well be answered in a moment.
    pub fn may_pass(&self) -> bool {
        self.trouble == Trouble::Away
    }

    /// `what` failed, and on what.
    pub fn fails(self, what: impl Into<String>) -> Failure {
        let now = match self.trouble {
            Trouble::Absent => format!(
                "Check name, account and place ({}) in the inventory and in the settings of {}: it may be another region, \
                 project or subscription.",
                self.cloud, self.tool
            ),
            Trouble::Taken => "Look at it by hand: it is not of this restore.".to_owned(),
            Trouble::Credentials => format!("Log in again with {}, then retry.", self.tool),
            Trouble::Denied => format!("Give the identity of {} that right, then retry.", self.tool),
            Trouble::Quota => "Raise the quota or make room for one more instance, then retry.".to_owned(),
            Trouble::Away => "Wait a little, then retry: nothing is done twice.".to_owned(),
            Trouble::Nowhere => "Say the place in the inventory, beside `engine`, then retry.".to_owned(),
            Trouble::Time => "Choose another recovery point within the window.".to_owned(),
            Trouble::Other | Trouble::Dialect => {
                format!("Run {} {} by hand and read what it says.", self.tool, self.command)
            }
        };
        Failure::new(what, self).now(now)
    }
}

impl Tool {
    /// One call. The error is what the tool complained of, or that what it said is no JSON.
    pub async fn call(&self, args: &[String], cancel: &CancellationToken) -> Result<Value, Complaint> {
        let words: Vec<&str> = args.iter().map(String::as_str).take_while(|word| !word.starts_with('-')).collect();
        let failed = |trouble, why: String| Complaint {
            trouble,
            cloud: self.cloud,
            tool: self.name(),
            command: words.join(" "),
            why,
        };
        let mut spec = Spec::new(&self.program).args(args).args(&self.options).inherit_env(&self.hidden);
        for (name, value) in self.env {
            spec = spec.env(name, value);
        }
        let spec = spec.env("TZ", "UTC").env("LC_ALL", "C.UTF-8");
        let captured = match tokio::time::timeout(PATIENCE, spec.capture(MOST_SAID, cancel)).await {
            Ok(captured) => captured.map_err(|error| failed(Trouble::Other, causes(&error)))?,
            Err(_) => return Err(failed(Trouble::Away, format!("it did not end within {} s", PATIENCE.as_secs()))),
        };
        match captured.end {
            End::Exited(0) => {}
            End::Cancelled => return Err(failed(Trouble::Other, "it was cancelled".to_owned())),
            end => {
                let why = complaint(&captured).unwrap_or_else(|| format!("it ended with {end} and said nothing"));
                let said = captured.stderr_text();
                let trouble = self.signs.iter().find(|(sign, _)| said.contains(sign)).map(|(_, trouble)| *trouble);
                return Err(failed(trouble.unwrap_or(Trouble::Other), why));
            }
        }
        if captured.stdout.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&captured.stdout)
            .map_err(|error| failed(Trouble::Other, format!("its answer cannot be read as JSON: {error}")))
    }

    /// As [`Tool::call`], of something that may not be there: then `None`.
    pub async fn look_for(&self, args: &[String], cancel: &CancellationToken) -> Result<Option<Value>, Complaint> {
        match self.call(args, cancel).await {
            Ok(answer) => Ok(Some(answer)),
            Err(complaint) if complaint.trouble == Trouble::Absent => Ok(None),
            Err(complaint) => Err(complaint),
        }
    }

    /// As [`Tool::call`], in the words of an older release where the tool does not know the new ones.
    pub async fn call_either(
        &self,
        args: &[String],
        older: Option<&[String]>,
        cancel: &CancellationToken,
    ) -> Result<Value, Complaint> {
        match (self.call(args, cancel).await, older) {
            (Err(complaint), Some(older)) if complaint.trouble == Trouble::Dialect => self.call(older, cancel).await,
            (done, _) => done,
        }
    }

    /// As a person types it.
    pub fn name(&self) -> String {
        self.program.file_name().map_or_else(String::new, |name| shown(&name.to_string_lossy()))
    }
}

/// The line of a tool's own words that says most: the last of an error that may have several.
fn complaint(captured: &Captured) -> Option<String> {
    let (errors, output) = (captured.stderr_text(), captured.stdout_text());
    let lines = || errors.lines().chain(output.lines()).map(str::trim).filter(|line| !line.is_empty());
    let marked = lines().find(|line| line.to_lowercase().contains("error"));
    marked.or_else(|| lines().next_back()).map(shown)
}
