//! Encryption before anything leaves this machine: the age format, to any number of public keys, read again with one of the
//! private ones. What was written before it was switched on is told by its first bytes and read as it is.
//!
//! ```text
//! age-encryption.org/v1
//! -> X25519 …                         one a recipient; whose it is cannot be told from it
//! -> lifeboat-for age1ql3z7hjy54p …   how each recipient's public key begins: for people, and not enough to encrypt to
//! -> lifeboat-of SALT DIGEST          of a WAL file: SHA-256 over the salt and the content
//! --- …                               a MAC over the lines above
//! ```
//! Other programs skip the stanzas that they do not know: `age -d -i key.txt` reads every object.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, BufReader, Cursor, Read, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, OnceLock};

use age::stream::StreamWriter;
use age::{DecryptError, Decryptor, EncryptError, Encryptor};
use age_core::format::{FileKey, Stanza};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use bytes::Bytes;
use futures::AsyncRead;
use secrecy::ExposeSecret as _;

use super::StoreError;
use crate::digest::{Digest, Hasher};
use crate::inventory::{self, Recipient, SecretRef};
use crate::secret::Secret;

/// How every encrypted object begins.
const MAGIC: &[u8] = b"age-encryption.org/v1\n";

const FOR: &str = "lifeboat-for";
const OF: &str = "lifeboat-of";

/// Bytes of a header at most: a hundred recipients.
const LONGEST_HEADER: usize = 32 << 10;

/// To whom the content of a bucket is encrypted, and how it is read again. Nothing is encrypted by default.
#[derive(Clone, Default)]
pub struct Encryption {
    said: Arc<inventory::Encryption>,
    identity: Arc<OnceLock<Result<Identity, String>>>,
}

struct Identity {
    text: Secret,
    keys: Vec<age::x25519::Identity>,
}

/// Why an object cannot be read, besides what the bucket said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("it is encrypted to {}, and no identity is given to read it with", named(.made_for))]
    NoIdentity { made_for: Vec<String> },
    #[error("it is encrypted to {}, and the identity cannot be had: {why}", named(.made_for))]
    Identity { made_for: Vec<String>, why: String },
    #[error("it is encrypted to {}, and the identity belongs to {}", named(.made_for), named(.have))]
    OtherIdentity { made_for: Vec<String>, have: Vec<String> },
    #[error("it is damaged, or was changed: {0}")]
    Damaged(String),
    #[error("it is not encrypted, and this store is to hold nothing in the clear")]
    Clear,
}

fn named(short: &[String]) -> String {
    match short {
        [] => "recipients that it does not name".to_owned(),
        short => short.iter().map(|name| format!("{name}…")).collect::<Vec<_>>().join(" and "),
    }
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encryption(to {} recipients)", self.said.encrypt_to.len())
    }
}

impl From<inventory::Encryption> for Encryption {
    fn from(said: inventory::Encryption) -> Self {
        Self { said: Arc::new(said), identity: Arc::default() }
    }
}

impl Encryption {
    pub fn recipients(&self) -> &[Recipient] {
        &self.said.encrypt_to
    }

    /// A new pair of keys: a text as age-keygen writes it, and the public key.
    pub fn generate() -> (Secret, Recipient) {
        let key = age::x25519::Identity::generate();
        let public = key.to_public().to_string();
        let text = Secret::new(format!("# public key: {public}\n{}\n", key.to_string().expose_secret()));
        (text, Recipient::parse(&public).expect("a public key of age"))
    }

    /// To read with the private keys in a file.
    pub fn by_file(path: PathBuf) -> Self {
        inventory::Encryption { identity: Some(SecretRef::File(path)), ..inventory::Encryption::default() }.into()
    }

    /// Where the private keys are, if that is a file.
    pub fn identity_file(&self) -> Option<&Path> {
        match &self.said.identity {
            Some(SecretRef::File(path)) => Some(path),
            _ => None,
        }
    }

    /// What is written is encrypted.
    pub fn is_on(&self) -> bool {
        !self.said.encrypt_to.is_empty()
    }

    /// An identity was named.
    pub fn may_read(&self) -> bool {
        self.said.identity.is_some()
    }

    /// The identity's text, for a program of another user or environment. Blocks for as long as looking it up takes; `None`
    /// when none was named.
    pub fn identity(&self) -> Option<Result<Secret, String>> {
        let reference = self.said.identity.as_ref()?;
        let found = self.identity.get_or_init(|| {
            let text = reference.resolve().map_err(|failure| failure.to_string())?;
            let keys = keys(text.expose())?;
            Ok(Identity { text, keys })
        });
        Some(found.as_ref().map(|identity| identity.text.clone()).map_err(Clone::clone))
    }

    fn encryptor(&self, content: Option<&[u8]>) -> Encryptor {
        let said = &self.said.encrypt_to;
        let keys = said.iter().map(|to| age::x25519::Recipient::from_str(to.as_str()).expect("it was parsed before"));
        let keys: Vec<age::x25519::Recipient> = keys.collect();
        let label = Label { made_for: said.iter().map(Recipient::short).collect(), of: content.map(salted) };
        let keys = keys.iter().map(|key| key as &dyn age::Recipient).chain([&label as &dyn age::Recipient]);
        Encryptor::with_recipients(keys).expect("X25519 recipients go together")
    }

    /// What is to be stored of these bytes. `content` is what they stand for: [`Encryption::is_of`] knows it again.
    pub fn seal(&self, bytes: Vec<u8>, content: Option<&[u8]>) -> Vec<u8> {
        if !self.is_on() {
            return bytes;
        }
        let room = Vec::with_capacity(bytes.len() + bytes.len() / 4096 + 1024);
        let seal = || {
            let mut writer = self.encryptor(content).wrap_output(room)?;
            writer.write_all(&bytes)?;
            writer.finish()
        };
        seal().expect("memory takes what is written")
    }

    /// For bytes that come one after another; `None` when nothing is encrypted.
    pub(super) fn sealer(&self) -> Option<Sealer> {
        let out = Shared::default();
        let writer = || self.encryptor(None).wrap_output(out.clone()).expect("memory takes what is written");
        self.is_on().then(|| Sealer { writer: writer(), out: out.clone() })
    }

    /// What was given to [`Encryption::seal`].
    pub fn open(&self, stored: Bytes) -> Result<Bytes, Unreadable> {
        if !is_sealed(&stored) {
            return self.allow_clear().map(|()| stored);
        }
        let mut bytes = Vec::with_capacity(stored.len());
        let mut reader =
            self.opened(&stored, |keys| Decryptor::new_buffered(&stored[..])?.decrypt(keys.iter().copied()))?;
        reader.read_to_end(&mut bytes).map_err(|error| Unreadable::Damaged(error.to_string()))?;
        Ok(bytes.into())
    }

    /// The same of what comes one after another. What is wrong shows here, or as an error of the reader.
    pub fn open_stream<'a, R: Read + 'a>(&self, mut stored: R) -> io::Result<Box<dyn Read + 'a>> {
        let mut head = vec![0; MAGIC.len()];
        let filled = fill(&mut stored, &mut head)?;
        head.truncate(filled);
        if !is_sealed(&head) {
            self.allow_clear().map_err(io::Error::other)?;
            return Ok(Box::new(Cursor::new(head).chain(stored)));
        }
        // The header's lines for the message; they go through the same reader.
        let mut header = head;
        while !ends(&header) && header.len() < LONGEST_HEADER {
            let mut byte = [0];
            match fill(&mut stored, &mut byte)? {
                0 => break,
                _ => header.push(byte[0]),
            }
        }
        let whole = BufReader::with_capacity(128 << 10, Cursor::new(header.clone()).chain(stored));
        let reader = self.opened(&header, |keys| Decryptor::new_buffered(whole)?.decrypt(keys.iter().copied()));
        Ok(Box::new(reader.map_err(io::Error::other)?))
    }

    /// The same, not blocking but for looking up the identity. `head` are its first bytes, [`Encryption::HEAD`] when there are
    /// as many, and come out of `stored` again.
    pub async fn open_async<R: AsyncRead + Unpin>(
        &self,
        head: &[u8],
        stored: R,
    ) -> Result<futures::future::Either<R, age::stream::StreamReader<R>>, Unreadable> {
        if !is_sealed(head) {
            return self.allow_clear().map(|()| futures::future::Either::Left(stored));
        }
        let decryptor = Decryptor::new_async(stored).await;
        let reader = self.opened(head, |keys| decryptor?.decrypt_async(keys.iter().copied()))?;
        Ok(futures::future::Either::Right(reader))
    }

    /// Bytes that [`Encryption::open_async`] wants to see.
    pub const HEAD: usize = 4096;

    fn allow_clear(&self) -> Result<(), Unreadable> {
        if self.said.refuse_clear { Err(Unreadable::Clear) } else { Ok(()) }
    }

    fn opened<S>(
        &self,
        head: &[u8],
        decrypt: impl FnOnce(&[&dyn age::Identity]) -> Result<S, DecryptError>,
    ) -> Result<S, Unreadable> {
        let made_for = || made_for(head);
        match self.identity() {
            None => return Err(Unreadable::NoIdentity { made_for: made_for() }),
            Some(Err(why)) => return Err(Unreadable::Identity { made_for: made_for(), why }),
            Some(Ok(_)) => {}
        }
        let keys = self.identity.get().and_then(|found| found.as_ref().ok()).map_or(&[][..], |found| &found.keys);
        let dynamic: Vec<&dyn age::Identity> = keys.iter().map(|key| key as &dyn age::Identity).collect();
        decrypt(&dynamic).map_err(|error| match error {
            DecryptError::NoMatchingKeys => {
                let short = |key: &age::x25519::Identity| key.to_public().to_string().chars().take(16).collect();
                Unreadable::OtherIdentity { made_for: made_for(), have: keys.iter().map(short).collect() }
            }
            error => Unreadable::Damaged(error.to_string()),
        })
    }
}

/// Whether these are the first bytes of something encrypted.
pub fn is_sealed(stored: &[u8]) -> bool {
    stored.starts_with(MAGIC)
}

/// How the public keys begin that an object was encrypted to, as it says itself.
pub fn made_for(stored: &[u8]) -> Vec<String> {
    stanza(stored, FOR).map(|args| args.map(str::to_owned).collect()).unwrap_or_default()
}

/// Whether an encrypted object says that it is of this content; `None` when it says nothing about it.
pub fn is_of(stored: &[u8], content: &[u8]) -> Option<bool> {
    let mut args = stanza(stored, OF)?;
    let (salt, digest) = (BASE64.decode(args.next()?).ok()?, args.next()?);
    Some(salted_with(&salt, content) == digest)
}

/// The arguments of a line of the header.
fn stanza<'a>(stored: &'a [u8], tag: &str) -> Option<impl Iterator<Item = &'a str> + use<'a>> {
    let header = stored.get(..stored.len().min(LONGEST_HEADER))?;
    header.split(|byte| *byte == b'\n').take_while(|line| !line.starts_with(b"---")).find_map(|line| {
        let mut words = std::str::from_utf8(line).ok()?.strip_prefix("-> ")?.split(' ');
        (words.next()? == tag).then_some(words)
    })
}

/// Whether a header's last line is there.
fn ends(header: &[u8]) -> bool {
    let line = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    match header.strip_suffix(b"\n") {
        Some(before) => before[line(before)..].starts_with(b"---"),
        None => false,
    }
}

fn fill(from: &mut impl Read, to: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < to.len() {
        match from.read(&mut to[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn salted(content: &[u8]) -> (String, String) {
    // Two files of the same content are not to look alike.
    let salt = uuid::Uuid::now_v7();
    (BASE64.encode(salt.as_bytes()), salted_with(salt.as_bytes(), content))
}

fn salted_with(salt: &[u8], content: &[u8]) -> String {
    let mut hasher = Hasher::default();
    hasher.update(salt);
    hasher.update(content);
    let digest: Digest = hasher.finish();
    digest.to_string()
}

/// The private keys of an identity's text.
fn keys(text: &str) -> Result<Vec<age::x25519::Identity>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let key = |line: &str| {
        age::x25519::Identity::from_str(line).map_err(|_| {
            "it is not as age-keygen writes it: lines of AGE-SECRET-KEY-1…, without a passphrase".to_owned()
        })
    };
    let keys = lines.map(key).collect::<Result<Vec<_>, String>>()?;
    if keys.is_empty() { Err("there is no key in it".to_owned()) } else { Ok(keys) }
}

/// Lines of the header that are for us and for people.
struct Label {
    made_for: Vec<String>,
    /// Salt and digest.
    of: Option<(String, String)>,
}

impl age::Recipient for Label {
    fn wrap_file_key(&self, _: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        let line = |tag: &str, args: Vec<String>| Stanza { tag: tag.to_owned(), args, body: Vec::new() };
        let of = self.of.clone().map(|(salt, digest)| line(OF, vec![salt, digest]));
        Ok(([line(FOR, self.made_for.clone())].into_iter().chain(of).collect(), HashSet::new()))
    }
}

/// Encrypts on the way.
pub(super) struct Sealer {
    writer: StreamWriter<Shared>,
    out: Shared,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().expect("nobody panics while writing to memory"))
    }
}

impl io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panics while writing to memory").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sealer {
    /// What is to be stored now; the rest comes later.
    pub fn write(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.writer.write_all(bytes).expect("memory takes what is written");
        self.out.take()
    }

    pub fn finish(self) -> Vec<u8> {
        self.writer.finish().expect("memory takes what is written");
        self.out.take()
    }
}

impl Unreadable {
    /// Of the object `key` in the bucket of that name.
    pub(super) fn of(self, bucket: &str, key: &str) -> StoreError {
        StoreError::Sealed { bucket: bucket.to_owned(), key: key.to_owned(), why: self }
    }

    pub fn now(&self) -> &'static str {
        match self {
            Self::NoIdentity { .. } => {
                "name the private key: identity = { file = \"path\" } of the store in the inventory, or --identity FILE; its \
                 public key, which age-keygen -y FILE prints, begins as one of those"
            }
            Self::Identity { .. } => "make the private key readable for this user, then retry",
            Self::OtherIdentity { .. } => {
                "name the private key whose public key begins as one of those; age-keygen -y FILE prints it"
            }
            Self::Damaged(_) => "take another copy of the object, or choose another backup",
            Self::Clear => {
                "either it was put there by somebody else, or it is older than the encryption: then leave out refuse_clear"
            }
        }
    }
}
