//! Signatures in OpenSSH's own format (SSHSIG): stock `ssh-keygen -Y verify` checks them with no Lifeboat at hand.

pub mod agent;
mod allowed;
mod key;

use std::io;
use std::path::{Path, PathBuf};

use ssh_key::public::KeyData;
use ssh_key::{HashAlg, LineEnding, PublicKey, Signature, SshSig};

use super::statement::{STATEMENT, Statement, StatementError};
use crate::digest::Digest;
use crate::event::Failure;
use crate::mutant;

pub use crate::history::read_signature;
pub use allowed::AllowedSigners;
pub use key::{FileKey, MadeKey, allowed_signers_line, make_key};

/// For whom somebody signs. Each role has a namespace of its own, so that a signature for one cannot serve as the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    Operator,
    Approver,
}

impl Role {
    pub const ALL: [Self; 2] = [Self::Operator, Self::Approver];

    pub fn word(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Approver => "approver",
        }
    }

    pub fn namespace(self) -> &'static str {
        match self {
            Self::Operator => "lifeboat-operator",
            Self::Approver => "lifeboat-approver",
        }
    }

    /// The signature's file beside the statement.
    pub fn file_name(self) -> String {
        format!("{STATEMENT}.{}.sig", self.word())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("{operation} {} failed: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("the agent at {} {problem}", socket.display())]
    Agent { socket: PathBuf, problem: String },
    #[error("no SSH agent is running: SSH_AUTH_SOCK is not set")]
    NoAgent,
    #[error("{} is no private key that can be read: {why}", path.display())]
    Key { path: PathBuf, why: String },
    #[error("{} is encrypted, and no passphrase was given", path.display())]
    NoPassphrase { path: PathBuf },
    #[error("{what} signs with {algorithm}; Lifeboat signs with Ed25519 or ECDSA P-256")]
    Algorithm { what: String, algorithm: String },
    #[error("`{0}` cannot be a signer's name: letters, digits and @ . _ + - only, like ada@example.org")]
    Principal(String),
    #[error("this statement already has the signature of an {0}, and no signature is ever overwritten")]
    Exists(&'static str),
    #[error("this key has already signed as {0}; an approval takes another person's key")]
    SameKey(&'static str),
    #[error(transparent)]
    Statement(#[from] StatementError),
    #[error("{file} is not what the statement says it is: it has changed since")]
    Changed { file: String },
    #[error("the signature that came back does not fit the statement: {0}")]
    BadSignature(String),
}

impl SignError {
    /// The same for a person at 3 a.m.
    pub fn failure(&self) -> Failure {
        let now = match self {
            Self::NoAgent => "start one (`eval $(ssh-agent)`, `ssh-add`), or name a key file",
            Self::Agent { .. } => "look with `ssh-add -l`, or name a key file; nothing was signed",
            Self::NoPassphrase { .. } => "run it on a terminal, or load the key into an agent: `ssh-add`",
            Self::Key { .. } | Self::Algorithm { .. } => "make one with `ssh-keygen -t ed25519`; nothing was signed",
            Self::Principal(_) => "give the name that stands in the allowed_signers file",
            Self::Exists(_) => "`lifeboat verify` says whose it is",
            Self::SameKey(_) => "let another person sign",
            Self::Changed { .. } | Self::Statement(_) => "do not sign it; find out who changed it",
            Self::Io { .. } | Self::BadSignature(_) => "nothing was signed; try again",
        };
        Failure::new("the statement is not signed", self).now(now)
    }
}

/// Something that can sign: a key file, or a key in an agent.
pub trait Signer {
    fn public_key(&self) -> &PublicKey;
    /// Signs exactly `data`.
    fn sign(&self, data: &[u8]) -> Result<Signature, SignError>;
}

/// A signature on the disk.
#[derive(Debug, Clone)]
pub struct Signed {
    pub path: PathBuf,
    pub role: Role,
    pub principal: String,
    /// `SHA256:…`
    pub fingerprint: String,
}

/// Signs the statement in the report's folder `dir` for `role` as `principal`, and adds the command that checks it to
/// `VERIFY.txt`. The statement's own claims about the files beside it are checked first: nobody signs what has changed.
pub fn sign(dir: &Path, role: Role, principal: &str, signer: &dyn Signer) -> Result<Signed, SignError> {
    check_principal(principal)?;
    let path = dir.join(STATEMENT);
    let bytes = std::fs::read(&path).map_err(|source| SignError::Io { operation: "reading", path, source })?;
    let statement = Statement::parse(&bytes)?;
    for (name, digest) in &statement.report_sha256 {
        match Digest::of_file(&dir.join(name)) {
            Ok((found, _)) if found == *digest => {}
            _ => return Err(SignError::Changed { file: name.clone() }),
        }
    }
    let key = signer.public_key().key_data().clone();
    for (other, signature) in signatures(dir).unwrap_or_default() {
        if other == role {
            return Err(SignError::Exists(role.word()));
        }
        if signature.is_ok_and(|signature| *signature.public_key() == key) {
            return Err(SignError::SameKey(other.word()));
        }
    }
    let pem = make(&bytes, role, signer)?;
    let path = dir.join(role.file_name());
    super::put(&path, pem.as_bytes()).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => SignError::Exists(role.word()),
        _ => SignError::Io { operation: "writing", path: path.clone(), source },
    })?;
    let signed = Signed { path, role, principal: principal.to_owned(), fingerprint: fingerprint(&key) };
    let verify = dir.join("VERIFY.txt");
    add_command(&verify, &signed).map_err(|source| SignError::Io { operation: "writing", path: verify, source })?;
    Ok(signed)
}

/// The armoured signature over `message`, checked before it is given away.
fn make(message: &[u8], role: Role, signer: &dyn Signer) -> Result<String, SignError> {
    let bad = |why: ssh_key::Error| SignError::BadSignature(why.to_string());
    let data = SshSig::signed_data(role.namespace(), HashAlg::Sha512, message).map_err(bad)?;
    let signature = signer.sign(&data)?;
    let key = signer.public_key();
    let sealed = SshSig::new(key.key_data().clone(), role.namespace(), HashAlg::Sha512, signature).map_err(bad)?;
    if !mutant::removes("14") {
        key.verify(role.namespace(), message, &sealed).map_err(bad)?;
    }
    sealed.to_pem(LineEnding::LF).map_err(bad)
}

/// The signatures in a report's folder by role, readable or not. `None` when there is no such folder.
pub(super) fn signatures(dir: &Path) -> Option<Vec<(Role, Result<SshSig, String>)>> {
    let mut found = Vec::new();
    for role in Role::ALL {
        match std::fs::read(dir.join(role.file_name())) {
            Ok(pem) => found.push((role, read_signature(&pem))),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {}
            Err(unreadable) => found.push((role, Err(unreadable.to_string()))),
        }
    }
    dir.is_dir().then_some(found)
}

pub(super) fn fingerprint(key: &KeyData) -> String {
    format!("{} {}", key.algorithm().as_str(), key.fingerprint(HashAlg::Sha256))
}

/// A principal goes into shell commands and into allowed_signers files; it may mean nothing there but itself.
pub(super) fn check_principal(principal: &str) -> Result<(), SignError> {
    let good = |c: char| c.is_alphanumeric() || "@._+-".contains(c);
    match !principal.is_empty() && !principal.starts_with('-') && principal.chars().all(good) {
        true => Ok(()),
        false => Err(SignError::Principal(principal.to_owned())),
    }
}

/// `VERIFY.txt` as it is before anybody has signed.
pub(super) fn verify_text(statement: &Statement, text: &str) -> String {
    let mut digests = format!("{}  {STATEMENT}\n", Digest::of(text.as_bytes()));
    for (name, digest) in &statement.report_sha256 {
        digests += &format!("{digest}  {name}\n");
    }
    digests += &format!("{}  ../journal.jsonl\n", statement.journal.sha256);
    format!(
        "How to check this report, with stock tools and no Lifeboat at hand
==================================================================

The statement is {STATEMENT}. It holds the verdict, the figures, the digests of the report's files
and of the journal. What is signed is the statement, byte for byte.

1. The signatures. There is one file {STATEMENT}.<role>.sig for each person who signed.
   WITHOUT SUCH A FILE THE STATEMENT IS UNSIGNED, whatever else is said here.
   Take the file allowed_signers from a place that you trust, not from this folder.
   The command of each signer stands at the end of this file; run it in this folder.

2. The files. Each digest below must also stand in {STATEMENT}; this file itself is not signed.

       sha256sum --ignore-missing -c VERIFY.txt

{digests}
3. The journal, line by line: each line names the digest of the line before it.
   The digest of the last line must be the `head` in {STATEMENT}:

       tail -n 1 ../journal.jsonl | tr -d '\\n' | sha256sum

Signatures
----------
"
    )
}

fn add_command(path: &Path, signed: &Signed) -> io::Result<()> {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path)?;
    let (role, principal) = (signed.role, &signed.principal);
    write!(
        file,
        "
{} {principal}, key {}:

       ssh-keygen -Y verify -n {} -I {principal} -f allowed_signers -s {} < {STATEMENT}
",
        role.word(),
        signed.fingerprint,
        role.namespace(),
        role.file_name()
    )?;
    file.sync_all()
}
