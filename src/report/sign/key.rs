use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ssh_key::rand_core::OsRng;
use ssh_key::{Algorithm, EcdsaCurve, LineEnding, PrivateKey, PublicKey, Signature, SigningKey};

use super::{Role, SignError, Signer, check_principal};
use crate::secret::Secret;

/// A private key from a file.
pub struct FileKey {
    path: PathBuf,
    key: PrivateKey,
}

impl FileKey {
    /// Reads an OpenSSH private key. When it is encrypted, `passphrase` is asked once; `None` gives up.
    pub fn open(path: &Path, passphrase: impl FnOnce(&Path) -> Option<Secret>) -> Result<Self, SignError> {
        let failed = |why: ssh_key::Error| SignError::Key { path: path.to_owned(), why: why.to_string() };
        let text = std::fs::read_to_string(path).map_err(|source| SignError::Io {
            operation: "reading",
            path: path.to_owned(),
            source,
        })?;
        let mut key = PrivateKey::from_openssh(&text).map_err(failed)?;
        if key.is_encrypted() {
            let passphrase = passphrase(path).ok_or_else(|| SignError::NoPassphrase { path: path.to_owned() })?;
            key = key.decrypt(passphrase.expose()).map_err(|why| SignError::Key {
                path: path.to_owned(),
                why: match why {
                    ssh_key::Error::Crypto => "the passphrase does not fit".to_owned(),
                    other => other.to_string(),
                },
            })?;
        }
        if !is_supported(&key.algorithm()) {
            let algorithm = key.algorithm().as_str().to_owned();
            return Err(SignError::Algorithm { what: path.display().to_string(), algorithm });
        }
        Ok(Self { path: path.to_owned(), key })
    }
}

impl Signer for FileKey {
    fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }

    fn sign(&self, data: &[u8]) -> Result<Signature, SignError> {
        let key: &dyn SigningKey = &self.key;
        key.try_sign(data).map_err(|why| SignError::Key { path: self.path.clone(), why: why.to_string() })
    }
}

pub(super) fn is_supported(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::Ed25519 | Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 })
}

/// A fresh key: the private half is in the file, the public half beside it as `.pub`.
#[derive(Debug, Clone)]
pub struct MadeKey {
    pub path: PathBuf,
    pub public: PublicKey,
}

/// Makes an Ed25519 key without a passphrase (0600), for sandboxes. Never overwrites.
pub fn make_key(path: &Path, comment: &str) -> Result<MadeKey, SignError> {
    let bad = |why: ssh_key::Error| SignError::Key { path: path.to_owned(), why: why.to_string() };
    let mut key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).map_err(bad)?;
    key.set_comment(comment);
    let private = key.to_openssh(LineEnding::LF).map_err(bad)?;
    let public = key.public_key().to_openssh().map_err(bad)?;
    let beside = PathBuf::from(format!("{}.pub", path.display()));
    let create = |path: &Path, mode: u32, bytes: &[u8]| {
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
        let written = file.and_then(|mut file| io::Write::write_all(&mut file, bytes));
        written.map_err(|source| SignError::Io { operation: "writing", path: path.to_owned(), source })
    };
    create(path, 0o600, private.as_bytes())?;
    create(&beside, 0o644, format!("{public}\n").as_bytes())?;
    Ok(MadeKey { path: path.to_owned(), public: key.public_key().clone() })
}

/// A line for an `allowed_signers` file: `principal namespaces="…" ssh-ed25519 AAAA…`.
pub fn allowed_signers_line(principal: &str, roles: &[Role], key: &PublicKey) -> Result<String, SignError> {
    check_principal(principal)?;
    let namespaces: Vec<_> = roles.iter().map(|role| role.namespace()).collect();
    let bare = PublicKey::new(key.key_data().clone(), "");
    let key = bare.to_openssh().map_err(|why| SignError::BadSignature(why.to_string()))?;
    Ok(format!("{principal} namespaces=\"{}\" {}", namespaces.join(","), key.trim_end()))
}
