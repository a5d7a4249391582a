//! Backups that only the holder of a private key can read. The oracle is the program `age`.

mod manifest;
mod postgres;
mod redis;
mod rekey;
mod sandbox;
mod wal;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lifeboat::inventory::{self, Recipient, SecretRef};
use lifeboat::store::Encryption;

/// A pair of keys as `age-keygen` makes it.
pub struct Pair {
    pub public: String,
    pub file: PathBuf,
}

impl Pair {
    pub fn new(directory: &Path, name: &str) -> Self {
        let file = directory.join(name);
        let made = Command::new("age-keygen").arg("-o").arg(&file).output().expect("these tests need age");
        assert!(made.status.success(), "{made:?}");
        let text = std::fs::read_to_string(&file).expect("the key");
        let public =
            text.lines().find_map(|line| line.strip_prefix("# public key: ")).expect("a public key").to_owned();
        Self { public, file }
    }

    /// How it is named where it must not be told whole.
    pub fn short(&self) -> &str {
        &self.public[..16]
    }
}

/// To these, read with those.
pub fn encryption(to: &[&Pair], with: Option<&Path>) -> Encryption {
    inventory::Encryption {
        encrypt_to: to.iter().map(|pair| Recipient::parse(&pair.public).expect("a recipient")).collect(),
        identity: with.map(|path| SecretRef::File(path.to_owned())),
        refuse_clear: false,
    }
    .into()
}

/// What a program makes of these bytes.
pub fn through(program: &str, args: &[&str], bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("these tests need {program}: {error}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let bytes = bytes.to_vec();
    // It may end before it has read everything.
    let writing = std::thread::spawn(move || drop(stdin.write_all(&bytes)));
    let output = child.wait_with_output().expect("it ends");
    writing.join().expect("the writer ends");
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

pub fn by_age(pair: &Pair, stored: &[u8]) -> Result<Vec<u8>, String> {
    through("age", &["-d", "-i", pair.file.to_str().expect("a path")], stored)
}

/// Every file below a directory, with its path from there.
pub fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(directory).expect("below it").display().to_string();
                found.push((name, std::fs::read(&path).expect("a file")));
            }
        }
    }
    found.sort();
    found
}

/// What a decompressor finds in the bytes, so that nothing hides behind compression alone.
pub fn plain(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::decode_all(bytes).unwrap_or_default()
}

pub fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// Names of files in which `needle` can be read, compressed or not.
pub fn readable(directory: &Path, needle: &str) -> Vec<String> {
    let needle = needle.as_bytes();
    let shows = |bytes: &[u8]| holds(bytes, needle) || holds(&plain(bytes), needle);
    files(directory).into_iter().filter(|(_, bytes)| shows(bytes)).map(|(name, _)| name).collect()
}
