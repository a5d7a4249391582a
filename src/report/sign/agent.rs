//! A client of ssh-agent: list keys and sign, the two messages that are needed.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ssh_key::{PublicKey, Signature};

use super::key::is_supported;
use super::{SignError, Signer};

const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// Bytes of an answer, at most; OpenSSH's own limit.
const MOST: usize = 256 << 10;

/// An agent may ask its owner before it signs (`ssh-add -c`).
const PATIENCE: Duration = Duration::from_secs(120);

/// An agent at a socket.
#[derive(Debug, Clone)]
pub struct Agent {
    socket: PathBuf,
}

/// A key that lives in an agent.
pub struct AgentKey {
    agent: Agent,
    key: PublicKey,
}

impl Agent {
    /// The agent of this session.
    pub fn from_env() -> Result<Self, SignError> {
        let socket = std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty());
        Ok(Self::at(Path::new(&socket.ok_or(SignError::NoAgent)?)))
    }

    pub fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Its keys that Lifeboat can sign with, in the agent's order; comments included.
    pub fn keys(&self) -> Result<Vec<AgentKey>, SignError> {
        let answer = self.ask(&[REQUEST_IDENTITIES], IDENTITIES_ANSWER)?;
        let mut rest = answer.as_slice();
        let count = self.number(&mut rest)?;
        let mut keys = Vec::new();
        for _ in 0..count {
            let blob = self.string(&mut rest)?;
            let comment = String::from_utf8_lossy(self.string(&mut rest)?).into_owned();
            // Certificates and kinds that this program does not know are other people's business.
            let Ok(mut key) = PublicKey::from_bytes(blob) else { continue };
            key.set_comment(comment);
            if is_supported(&key.algorithm()) {
                keys.push(AgentKey { agent: self.clone(), key });
            }
        }
        Ok(keys)
    }

    /// The key whose public half is `wanted`.
    pub fn key(&self, wanted: &PublicKey) -> Result<AgentKey, SignError> {
        let found = self.keys()?.into_iter().find(|held| held.key.key_data() == wanted.key_data());
        found.ok_or_else(|| self.problem("does not hold that key"))
    }

    fn ask(&self, request: &[u8], expected: u8) -> Result<Vec<u8>, SignError> {
        let answer = self.exchange(request).map_err(|why| self.problem(format!("does not answer: {why}")))?;
        match answer.split_first() {
            Some((&kind, rest)) if kind == expected => Ok(rest.to_vec()),
            _ => Err(self.problem("refused")),
        }
    }

    fn exchange(&self, request: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut message = Vec::with_capacity(request.len() + 4);
        put_string(&mut message, request);
        stream.write_all(&message)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MOST {
            return Err(std::io::Error::other(format!("an answer of {length} bytes")));
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    fn number(&self, rest: &mut &[u8]) -> Result<u32, SignError> {
        let (head, tail) = rest.split_first_chunk::<4>().ok_or_else(|| self.problem("gave a cut answer"))?;
        *rest = tail;
        Ok(u32::from_be_bytes(*head))
    }

    fn string<'a>(&self, rest: &mut &'a [u8]) -> Result<&'a [u8], SignError> {
        let length = self.number(rest)? as usize;
        let (head, tail) = rest.split_at_checked(length).ok_or_else(|| self.problem("gave a cut answer"))?;
        *rest = tail;
        Ok(head)
    }

    fn problem(&self, problem: impl Into<String>) -> SignError {
        SignError::Agent { socket: self.socket.clone(), problem: problem.into() }
    }
}

impl Signer for AgentKey {
    fn public_key(&self) -> &PublicKey {
        &self.key
    }

    fn sign(&self, data: &[u8]) -> Result<Signature, SignError> {
        let blob = self.key.to_bytes().map_err(|why| SignError::BadSignature(why.to_string()))?;
        let mut request = vec![SIGN_REQUEST];
        put_string(&mut request, &blob);
        put_string(&mut request, data);
        request.extend(0_u32.to_be_bytes());
        let answer = self.agent.ask(&request, SIGN_RESPONSE)?;
        let signature = self.agent.string(&mut answer.as_slice())?;
        Signature::try_from(signature).map_err(|why| SignError::BadSignature(why.to_string()))
    }
}

fn put_string(message: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("requests are far below 4 GiB");
    message.extend(length.to_be_bytes());
    message.extend(bytes);
}
