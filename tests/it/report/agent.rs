use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lifeboat::report;
use lifeboat::report::sign::agent::Agent;
use lifeboat::report::sign::{Role, SignError, Signer, allowed_signers_line, make_key, sign};
use lifeboat::report::verify::{Conclusion, Request, verify};

use super::signatures::{open, stock_accepts};
use super::story;

/// A real ssh-agent, ended when dropped.
struct RealAgent {
    child: Child,
    socket: PathBuf,
}

impl RealAgent {
    fn start(dir: &Path) -> Self {
        let socket = dir.join("agent.sock");
        let mut child =
            Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::piped()).spawn().unwrap();
        // It names its socket once it listens.
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("SSH_AUTH_SOCK"), "{line}");
        Self { child, socket }
    }

    fn add(&self, key: &Path) {
        let mut command = Command::new("ssh-add");
        let status = command.arg("-q").arg(key).env("SSH_AUTH_SOCK", &self.socket).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for RealAgent {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn ssh_keygen(kind: &str, path: &Path) {
    let mut command = Command::new("ssh-keygen");
    let status = command.args(["-q", "-t", kind, "-N", "", "-C", kind, "-f"]).arg(path).status().unwrap();
    assert!(status.success());
}

#[test]
fn keys_in_a_real_agent_sign() {
    let state = tempfile::tempdir().unwrap();
    let agent = RealAgent::start(state.path());
    for kind in ["rsa", "ed25519", "ecdsa"] {
        let path = state.path().join(kind);
        ssh_keygen(kind, &path);
        agent.add(&path);
    }
    let client = Agent::at(&agent.socket);
    let keys = client.keys().unwrap();
    let comments: Vec<_> = keys.iter().map(|key| key.public_key().comment().to_owned()).collect();
    assert_eq!(comments, ["ed25519", "ecdsa"], "RSA is left out");
    let allowed = state.path().join("allowed");
    for (index, key) in keys.iter().enumerate() {
        let dir = report::write(story::passed(state.path(), &format!("019a-{index}")).path()).unwrap().dir;
        sign(&dir, Role::Operator, "ada", key).unwrap();
        std::fs::write(&allowed, allowed_signers_line("ada", &[Role::Operator], key.public_key()).unwrap()).unwrap();
        assert!(stock_accepts(&dir, Role::Operator, "lifeboat-operator", "ada", &allowed));
        let found = verify(&Request { allowed_signers: Some(allowed.clone()), ..Request::new(&dir) });
        assert_eq!(found.conclusion(), Conclusion::Signed, "{found}");
    }
    let stranger = make_key(&state.path().join("stranger"), "").unwrap();
    let error = client.key(&stranger.public).err().unwrap();
    assert!(error.to_string().ends_with("does not hold that key"), "{error}");
    client.key(keys[0].public_key()).unwrap();
}

#[test]
fn an_agent_that_is_not_there_is_named() {
    let state = tempfile::tempdir().unwrap();
    let error = Agent::at(&state.path().join("nothing")).keys().err().unwrap();
    assert!(error.to_string().contains("nothing does not answer: No such file"), "{error}");
}

/// An agent between the real one and us that hangs up after `room` bytes of the answer to the message of kind `dies_at`.
fn dying(dir: &Path, real: &Path, dies_at: u8, room: usize) -> PathBuf {
    let socket = dir.join(format!("dying-{dies_at}-{room}.sock"));
    let listener = UnixListener::bind(&socket).unwrap();
    let real = real.to_owned();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut upstream = std::os::unix::net::UnixStream::connect(&real).unwrap();
            let request = message(&mut client);
            upstream.write_all(&request).unwrap();
            let answer = message(&mut upstream);
            let end = if request[4] == dies_at { room.min(answer.len()) } else { answer.len() };
            client.write_all(&answer[..end]).unwrap();
        }
    });
    socket
}

fn message(stream: &mut impl Read) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut all = length.to_vec();
    all.resize(4 + u32::from_be_bytes(length) as usize, 0);
    stream.read_exact(&mut all[4..]).unwrap();
    all
}

#[test]
fn row_14_an_agent_that_dies_at_any_stage_leaves_the_statement_unsigned() {
    let state = tempfile::tempdir().unwrap();
    let agent = RealAgent::start(state.path());
    ssh_keygen("ed25519", &state.path().join("key"));
    agent.add(&state.path().join("key"));
    let dir = report::write(story::passed(state.path(), "019a-1").path()).unwrap().dir;
    for dies_at in [11, 13] {
        for room in [0, 1, 4, 5, 8, 9, 30, 60] {
            let client = Agent::at(&dying(state.path(), &agent.socket, dies_at, room));
            let signed = client.keys().and_then(|keys| sign(&dir, Role::Operator, "ada", &keys[0]));
            assert!(matches!(signed, Err(SignError::Agent { .. })), "message {dies_at}, {room} bytes: {signed:?}");
            assert!(!dir.join(Role::Operator.file_name()).exists());
            let found = verify(&Request::new(&dir)).conclusion();
            assert_eq!(found, Conclusion::Unsigned, "an unsigned statement was reported as another");
        }
    }
}

/// Signs something else than it was asked to.
struct Liar<S>(S);

impl<S: Signer> Signer for Liar<S> {
    fn public_key(&self) -> &ssh_key::PublicKey {
        self.0.public_key()
    }

    fn sign(&self, _: &[u8]) -> Result<ssh_key::Signature, SignError> {
        self.0.sign(b"something else")
    }
}

#[test]
fn row_14_a_signature_is_checked_before_it_is_kept() {
    let state = tempfile::tempdir().unwrap();
    let dir = report::write(story::passed(state.path(), "019a-1").path()).unwrap().dir;
    let key = make_key(&state.path().join("key"), "").unwrap();
    let signed = sign(&dir, Role::Operator, "ada", &Liar(open(&key)));
    assert!(matches!(signed, Err(SignError::BadSignature(_))), "a signature that does not fit was kept");
    assert!(!dir.join(Role::Operator.file_name()).exists());
}
