//! Who signed a run, by its report's folder. Each signature is checked against the statement, and the statement against the
//! journal; whether its key is to be trusted is what `lifeboat verify` says.

use serde::{Deserialize, Serialize};
use ssh_key::{HashAlg, LineEnding, PublicKey, SshSig};

use crate::digest::Digest;
use crate::journal::DrillDir;

const STATEMENT: &str = "statement.json";

/// The signed paper of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Of `statement.json`.
    pub statement_sha256: Digest,
    /// Whether the statement is about the journal as it is now.
    pub fits: bool,
    /// Good signatures over that statement.
    pub signed: Vec<SignedBy>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedBy {
    /// `operator` or `approver`.
    pub role: String,
    /// `SHA256:…`
    pub key: String,
    /// As the `allowed_signers` beside the report calls them.
    pub name: Option<String>,
}

impl Evidence {
    pub(super) fn of(dir: &DrillDir, head: Digest) -> Option<Self> {
        let folder = dir.report();
        let statement = std::fs::read(folder.join(STATEMENT)).ok()?;
        let told = serde_json::from_slice::<serde_json::Value>(&statement).ok();
        let told = told.as_ref().and_then(|value| value.pointer("/journal/head")).and_then(|head| head.as_str());
        let fits = told == Some(head.to_string().as_str());
        let allowed = std::fs::read_to_string(folder.join("allowed_signers")).unwrap_or_default();
        let signed = ["operator", "approver"].into_iter().filter_map(|role| {
            let pem = std::fs::read(folder.join(format!("{STATEMENT}.{role}.sig"))).ok()?;
            let signature = read_signature(&pem).ok()?;
            let key = PublicKey::from(signature.public_key().clone());
            key.verify(&format!("lifeboat-{role}"), &statement, &signature).ok()?;
            Some(SignedBy {
                role: role.to_owned(),
                key: key.fingerprint(HashAlg::Sha256).to_string(),
                name: name(&allowed, &key),
            })
        });
        let signed = if fits { signed.collect() } else { Vec::new() };
        Some(Self { statement_sha256: Digest::of(&statement), fits, signed })
    }
}

/// Reads an armoured signature, and only as OpenSSH writes it: the parser forgives lengths that stock tools do not.
pub fn read_signature(pem: &[u8]) -> Result<SshSig, String> {
    let signature = SshSig::from_pem(pem).map_err(|why| why.to_string())?;
    let canonical = signature.to_pem(LineEnding::LF).map_err(|why| why.to_string())?;
    let bare = |text: &[u8]| text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect::<Vec<_>>();
    match bare(pem) == bare(canonical.as_bytes()) {
        true => Ok(signature),
        false => Err("it is not written as OpenSSH writes one".to_owned()),
    }
}

/// Whose line in an `allowed_signers` file holds the key.
fn name(allowed: &str, key: &PublicKey) -> Option<String> {
    let key = key.to_openssh().ok()?;
    let blob = key.split(' ').nth(1)?;
    let mut lines = allowed.lines().map(|line| line.split_ascii_whitespace());
    lines.find_map(|mut words| {
        let principal = words.next()?;
        words.any(|word| word == blob).then(|| principal.to_owned())
    })
}
