//! A sandbox of one test: its directory, its commands, and what still runs below it.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A directory name in /tmp, where every user may create and remove; a sandbox left there goes with it.
pub struct Place(pub PathBuf);

impl Place {
    pub fn new(name: &str) -> Self {
        Self(PathBuf::from(format!("/tmp/lb-{name}-{}", std::process::id())))
    }

    /// The program with any words, in this sandbox.
    pub fn lifeboat(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.args(args).env("LIFEBOAT_SANDBOX_DIR", &self.0).env_remove("LIFEBOAT_STATE_DIR").stdin(Stdio::null());
        command
    }

    pub fn command(&self, args: &[&str]) -> Command {
        self.lifeboat(&[&["sandbox"], args].concat())
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the program runs")
    }

    /// The last line of standard output, as JSON; the command must succeed.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        last_line(&output)
    }

    /// Processes below the directory in whose environment `text` stands.
    pub fn knowing(&self, text: &str) -> Vec<String> {
        let environ = |pid: u32| std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut found = Vec::new();
        for (pid, _) in self.processes() {
            if environ(pid).windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default());
            }
        }
        found
    }

    /// Processes that work below the directory or run a program of it: (pid, uid).
    pub fn processes(&self) -> Vec<(u32, u32)> {
        use std::os::unix::fs::MetadataExt as _;
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let inside =
                |link: &str| std::fs::read_link(entry.path().join(link)).is_ok_and(|to| to.starts_with(&self.0));
            if inside("cwd") || inside("exe") {
                found.push((pid, entry.metadata().map_or(0, |meta| meta.uid())));
            }
        }
        found
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.0.exists() {
            self.run(&["down"]);
        }
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The last line of standard output, as JSON.
pub fn last_line(output: &Output) -> Value {
    let stdout = text(&output.stdout);
    let line = stdout.lines().last().unwrap_or_else(|| panic!("no output; stderr: {}", text(&output.stderr)));
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}
