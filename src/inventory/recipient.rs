//! To whom backups are encrypted, and who may read them.

use std::fmt;
use std::str::FromStr;

use super::SecretRef;

/// An age public key: `age1…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient(String);

/// What is wrong with a recipient, and how it would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {hint}")]
pub struct BadRecipient {
    pub message: String,
    pub hint: &'static str,
}

/// What of a store's content only some may read.
#[derive(Debug, Clone, Default)]
pub struct Encryption {
    /// To whom what is written is encrypted; nothing is when empty.
    pub encrypt_to: Vec<Recipient>,
    /// The private keys to read it with: a text of `AGE-SECRET-KEY-1…` lines. Only who restores needs them.
    pub identity: Option<SecretRef>,
    /// What is not encrypted is not read.
    pub refuse_clear: bool,
}

impl Recipient {
    /// Says what is wrong, with the right spelling.
    pub fn parse(text: &str) -> Result<Self, BadRecipient> {
        let bad = |message: String, hint| BadRecipient { message, hint };
        if age::x25519::Recipient::from_str(text).is_ok() {
            return Ok(Self(text.to_owned()));
        }
        Err(match text {
            text if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") => bad(
                "this is a private key, and files are copied and committed".to_owned(),
                "write its public key, `age-keygen -y FILE` prints it; then have a new pair made",
            ),
            text if text.starts_with("ssh-") => bad(
                "backups are not encrypted to SSH keys".to_owned(),
                "make an age key: `age-keygen -o FILE` prints its public key, age1…",
            ),
            text => bad(
                format!("`{text}` is no public key of age"),
                "it begins with age1 and has 62 characters; `age-keygen -y FILE` prints the one of a private key",
            ),
        })
    }

    /// All of it: who has it can write objects that pass for ours.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Enough of it for a person to know it by, and too little to encrypt to.
    pub fn short(&self) -> String {
        self.0.chars().take(16).collect()
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_public_key_is_told_with_what_to_write() {
        let key = age::x25519::Identity::generate();
        let public = key.to_public().to_string();
        assert_eq!(Recipient::parse(&public).unwrap().as_str(), public);
        assert_eq!(Recipient::parse(&public).unwrap().short(), public[..16]);
        let refused = |text: &str| Recipient::parse(text).unwrap_err().to_string();
        let mut mistyped = public.into_bytes();
        mistyped[20] = if mistyped[20] == b'q' { b'p' } else { b'q' };
        assert!(refused(std::str::from_utf8(&mistyped).unwrap()).contains("is no public key of age"));
        let secret = secrecy::ExposeSecret::expose_secret(&key.to_string()).to_owned();
        let told = refused(&secret);
        assert!(told.contains("private key") && !told.contains(&secret), "{told}");
        assert!(refused("ssh-ed25519 AAAAC3 me").contains("age-keygen"));
    }
}
