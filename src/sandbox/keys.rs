//! The operator of a sandbox signs with a key of its own.

use ssh_key::rand_core::OsRng;
use ssh_key::{Algorithm, LineEnding, PrivateKey};

use super::error::SandboxError;
use super::layout::Layout;
use super::program;

/// Whom `allowed_signers` names: the principal of `ssh-keygen -Y verify -I`.
pub const PRINCIPAL: &str = "operator@sandbox";

/// What the key may sign: the operator's statement, not an approval of it. The room `report` has the same word.
const NAMESPACE: &str = "lifeboat-operator";

/// Makes an Ed25519 key pair and the `allowed_signers` that accepts it.
pub fn create(layout: &Layout) -> Result<(), SandboxError> {
    let path = layout.signing_key();
    let bad =
        |error: ssh_key::Error| SandboxError::io("making the key", &layout.signing_key())(std::io::Error::other(error));
    let mut key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).map_err(bad)?;
    key.set_comment(PRINCIPAL);
    let private = key.to_openssh(LineEnding::LF).map_err(bad)?;
    let public = key.public_key().to_openssh().map_err(bad)?;
    program::create_private(path.parent().unwrap_or(layout.dir()))?;
    program::write(&path, 0o600, private.as_bytes())?;
    program::write(&path.with_extension("pub"), 0o600, format!("{public}\n"))?;
    program::write(&layout.allowed_signers(), 0o600, format!("{PRINCIPAL} namespaces=\"{NAMESPACE}\" {public}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stock_ssh_keygen_signs_and_verifies_with_it() {
        let parent = tempfile::tempdir().unwrap();
        let layout = Layout::new(parent.path()).unwrap();
        create(&layout).unwrap();
        let message = parent.path().join("statement.json");
        std::fs::write(&message, "{}").unwrap();
        let signed = std::process::Command::new("ssh-keygen")
            .args(["-q", "-Y", "sign", "-n", NAMESPACE, "-f"])
            .arg(layout.signing_key())
            .arg(&message)
            .status()
            .unwrap();
        assert!(signed.success());
        let verified = std::process::Command::new("ssh-keygen")
            .args(["-q", "-Y", "verify", "-n", NAMESPACE, "-I", PRINCIPAL, "-f"])
            .arg(layout.allowed_signers())
            .arg("-s")
            .arg(parent.path().join("statement.json.sig"))
            .stdin(std::fs::File::open(&message).unwrap())
            .status()
            .unwrap();
        assert!(verified.success());
    }
}
