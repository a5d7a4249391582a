//! A drill of a few steps, by the real program without a person.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A directory with an inventory, a runbook and the state of its drills.
pub struct Small(pub super::Home);

impl Small {
    /// `systems` are tables of the inventory; `head` are lines of the runbook before its one phase, `steps` its steps.
    pub fn new(systems: &str, head: &str, steps: &str) -> Self {
        let directory = super::redis::open_directory();
        let inventory = format!("format = 1\nservice = \"orders\"\n{systems}");
        let runbook = format!(
            "format = 1\nid = \"small\"\ntitle = \"Small\"\nowner = \"us\"\nrevision = 1\n{head}\n[[phases]]\ntitle = \"One\"\n{steps}"
        );
        std::fs::write(directory.path().join("lifeboat.toml"), inventory).expect("the inventory");
        std::fs::write(directory.path().join("small.toml"), runbook).expect("the runbook");
        Self(directory)
    }

    /// A system of the inventory, and the store of its backups, which is nowhere.
    pub fn system(name: &str, kind: &str, url: &str) -> String {
        format!(
            "[systems.{name}]\nkind = \"{kind}\"\nenvironment = \"staging\"\nurl = {url}\n\
             backups = {{ engine = \"lifeboat\", store = \"backups\" }}\n\
             restore = {{ directory = \"/nowhere/{name}\" }}\n[stores.backups]\nurl = \"file:///nowhere\"\n"
        )
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.args(["run", "small.toml", "--headless", "--yes"]).args(args).current_dir(self.0.path());
        command.env("LIFEBOAT_STATE_DIR", self.path("state")).stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the program runs")
    }

    /// The directory of its one drill.
    pub fn drill(&self) -> PathBuf {
        let drills = std::fs::read_dir(self.path("state/drills")).expect("a drill was begun");
        drills.flatten().map(|entry| entry.path()).find(|path| path.is_dir()).expect("a drill was begun")
    }

    /// The lines of its journal.
    pub fn journal(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.drill().join("journal.jsonl")).expect("its journal");
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    pub fn exists(&self, name: &str) -> bool {
        Path::new(&self.path(name)).exists()
    }
}
