//! From a reference to the secret itself.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::SecretRef;
use crate::event::Failure;
use crate::secret::Secret;

/// How long a command may take to print a secret: it may ask a vault over the network.
const PATIENCE: Duration = Duration::from_secs(30);

/// No secret is longer, in bytes.
const LONGEST: u64 = 64 << 10;

impl SecretRef {
    /// Looks the secret up. Blocks: up to 30 s for a command.
    pub fn resolve(&self) -> Result<Secret, Failure> {
        self.resolve_within(PATIENCE)
    }

    fn resolve_within(&self, patience: Duration) -> Result<Secret, Failure> {
        let value = match self {
            Self::Plain(secret) => return Ok(secret.clone()),
            Self::Env(name) => from_env(name)?,
            Self::File(path) => from_file(path)?,
            Self::Command(argv) => from_command(argv, patience)?,
        };
        let value = value.strip_suffix('\n').map(|value| value.strip_suffix('\r').unwrap_or(value)).unwrap_or(&value);
        if value.is_empty() {
            return Err(Failure::new(format!("cannot use the secret from {self}"), "it is empty"));
        }
        Ok(Secret::new(value))
    }
}

/// Where the secret comes from; never the secret.
impl std::fmt::Display for SecretRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(_) => f.write_str("the inventory"),
            Self::Env(name) => write!(f, "the environment variable {name}"),
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Command(argv) => write!(f, "the command {}", argv.first().map_or("", String::as_str)),
        }
    }
}

fn from_env(name: &str) -> Result<String, Failure> {
    std::env::var(name).map_err(|error| match error {
        std::env::VarError::NotPresent => {
            Failure::new(format!("cannot read the environment variable {name}"), "it is not set")
                .now(format!("set it in the shell that starts Lifeboat: export {name}=…"))
        }
        std::env::VarError::NotUnicode(_) => {
            Failure::new(format!("cannot read the environment variable {name}"), "it is not UTF-8 text")
        }
    })
}

fn from_file(path: &Path) -> Result<String, Failure> {
    let what = format!("cannot read the secret from {}", path.display());
    let failed = |error: std::io::Error| Failure::new(what.clone(), error).now("check the path and its permissions");
    let file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        // Not refused: secrets mounted by container platforms are often readable by all inside the container.
        tracing::warn!(path = %path.display(), mode = format!("{:o}", mode & 0o777), "other users can read this secret");
    }
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > LONGEST {
        return Err(Failure::new(what, format!("it is longer than {LONGEST} bytes")).now("is it the right file?"));
    }
    Ok(text)
}

/// Runs without a shell, in a process group of its own that ends with it.
fn from_command(argv: &[String], patience: Duration) -> Result<String, Failure> {
    let [program, arguments @ ..] = argv else {
        return Err(Failure::new("cannot get a secret by a command", "no command is given"));
    };
    let what = format!("cannot get the secret from `{program}`");
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| Failure::new(what.clone(), error).now("check that the program is on the PATH"))?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Failure::new(what, "its output cannot be read"));
    };
    let group = nix::unistd::Pid::from_raw(child.id() as i32);
    let complaint = std::thread::spawn(move || read_limited(stderr).unwrap_or_default());
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let printed = read_limited(stdout);
        // The receiver is gone only when it has lost its patience.
        let _ = done.send((printed, child.wait()));
    });
    let result = ended.recv_timeout(patience);
    // Whatever it left running in its group ends too. An empty group is no error worth a word.
    let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
    let (printed, status) = result.map_err(|_| {
        Failure::new(what.clone(), format!("it did not finish within {} s", patience.as_secs()))
            .now(format!("run it by hand to see more: {program} …"))
    })?;
    let printed = printed.map_err(|error| Failure::new(what.clone(), error))?;
    if printed.len() as u64 > LONGEST {
        return Err(Failure::new(what, format!("it printed more than {LONGEST} bytes")));
    }
    let status = status.map_err(|error| Failure::new(what.clone(), error))?;
    if !status.success() {
        let said = complaint.join().ok().and_then(|bytes| last_line(&bytes)).unwrap_or_default();
        let code = match (status.code(), status.signal()) {
            (Some(code), _) => format!("it exited with {code}"),
            (None, signal) => format!("signal {} ended it", signal.unwrap_or(0)),
        };
        let why = if said.is_empty() { code } else { format!("{code}: {said}") };
        return Err(Failure::new(what, why).now(format!("run it by hand to see more: {program} …")));
    }
    String::from_utf8(printed).map_err(|_| Failure::new(what, "what it printed is not UTF-8 text"))
}

fn read_limited(stream: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(LONGEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What a program said last, short enough for a sentence.
fn last_line(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.chars().filter(|c| !c.is_control()).take(200).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> SecretRef {
        SecretRef::Command(["/bin/sh", "-c", script].map(str::to_owned).to_vec())
    }

    #[test]
    fn each_source_gives_the_value_without_its_last_newline() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "from a file\r\n").unwrap();
        assert_eq!(SecretRef::File(path).resolve().unwrap().expose(), "from a file");
        assert_eq!(shell("printf 'a\\nb\\n'").resolve().unwrap().expose(), "a\nb");
        assert_eq!(SecretRef::Plain(Secret::new("x")).resolve().unwrap().expose(), "x");
        let path = std::env::var("PATH").unwrap();
        assert_eq!(SecretRef::Env("PATH".into()).resolve().unwrap().expose(), path);
    }

    #[test]
    fn what_fails_says_where_and_why() {
        let failure = |secret: SecretRef| secret.resolve().unwrap_err().to_string();
        assert_eq!(
            failure(shell("echo no such key >&2; exit 3")),
            "cannot get the secret from `/bin/sh`: it exited with 3: no such key"
        );
        assert_eq!(failure(shell("true")), "cannot use the secret from the command /bin/sh: it is empty");
        assert!(failure(SecretRef::Env("LIFEBOAT_NOT_SET".into())).contains("it is not set"));
        assert!(failure(SecretRef::File("/does/not/exist".into())).contains("/does/not/exist"));
        assert!(failure(shell("head -c 100000 /dev/zero")).contains("more than"));
    }

    #[test]
    fn a_command_that_hangs_ends_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let hangs = shell(&format!("exec 3>{}; sleep 600 & wait", pipe.display()));
        let (closed, all_gone) = mpsc::channel();
        std::thread::spawn(move || {
            // Ends when nobody holds the pipe for writing any more: neither the shell nor its child.
            std::fs::read(pipe).unwrap();
            closed.send(()).unwrap();
        });
        let error = hangs.resolve_within(Duration::from_secs(2)).unwrap_err();
        assert!(error.why.contains("did not finish"), "{error}");
        all_gone.recv_timeout(Duration::from_secs(10)).expect("the command and its child end");
    }
}
