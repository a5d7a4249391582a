//! Where alerts arrive: a web server, and a mail server that is not ours.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub body: serde_json::Value,
}

/// A web server on loopback that takes what is posted.
pub struct Web {
    pub url: String,
    all: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    received: Mutex<Vec<Received>>,
    /// Answers that come before the good ones.
    refusals: Mutex<Vec<(u16, &'static str)>>,
}

impl Web {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        Self::serve(url, listener)
    }

    /// With this certificate and key.
    pub async fn start_with_tls(certificate: &Path, key: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        let chain: Vec<_> = CertificateDer::pem_file_iter(certificate).unwrap().map(Result::unwrap).collect();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())
            .unwrap();
        Self::serve(url, Tls { listener, acceptor: Arc::new(config).into() })
    }

    fn serve<L: Listener<Addr = std::net::SocketAddr>>(url: String, listener: L) -> Self {
        let all = Arc::<Shared>::default();
        let router = Router::new().fallback(take).with_state(Arc::clone(&all));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, all }
    }

    /// The next requests are answered so, the ones after them well.
    pub fn refuse(&self, answers: &[(u16, &'static str)]) {
        self.all.refusals.lock().unwrap().extend(answers);
    }

    /// What came since the last call.
    pub fn received(&self) -> Vec<Received> {
        std::mem::take(&mut *self.all.received.lock().unwrap())
    }
}

async fn take(State(all): State<Arc<Shared>>, request: Request) -> (StatusCode, &'static str) {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    let body = serde_json::from_slice(&body).expect("JSON");
    all.received.lock().unwrap().push(Received { path: head.uri.path().to_owned(), headers: head.headers, body });
    let mut refusals = all.refusals.lock().unwrap();
    if refusals.is_empty() {
        return (StatusCode::ACCEPTED, "ok");
    }
    let (status, words) = refusals.remove(0);
    (StatusCode::from_u16(status).unwrap(), words)
}

struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = tokio_rustls::server::TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, from) = self.listener.accept().await.expect("a connection");
            // Who does not like the certificate goes away.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// What the mail server does beside taking letters.
const SERVER: &str = r#"
import json, os, socket, ssl, sys
from email import message_from_bytes, policy
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, SMTP

class Taker:
    async def handle_DATA(self, server, session, envelope):
        mail = message_from_bytes(envelope.content, policy=policy.default)
        print(json.dumps({
            "tls": session.ssl is not None, "login": session.auth_data and session.auth_data.login.decode(),
            "from": envelope.mail_from, "to": envelope.rcpt_tos, "headers": {k: str(v) for k, v in mail.items()},
            "body": mail.get_content(),
        }), flush=True)
        return "250 OK"

def login(server, session, envelope, mechanism, data):
    good = (data.login, data.password) == (b"lifeboat", os.environ["PASSWORD"].encode())
    return AuthResult(success=good, handled=False, auth_data=data)

tls, mode = None, sys.argv[1]
if mode != "plain":
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(sys.argv[2], sys.argv[3])
words = {"authenticator": login}
if mode != "plain":
    words |= {"auth_required": True, "auth_require_tls": mode == "starttls"}
if mode == "starttls":
    words |= {"tls_context": tls, "require_starttls": True}
controller = Controller(Taker(), hostname="127.0.0.1", port=0, ssl_context=tls if mode == "implicit" else None, **words)
port = lambda: controller.server.sockets[0].getsockname()[1]
# The controller looks whether the server answers, with a verified handshake, at the port that it was told.
controller._trigger_server = lambda: socket.create_connection(("127.0.0.1", port())).close()
controller.start()
print(port(), flush=True)
sys.stdin.read()
"#;

/// aiosmtpd on loopback, gone when dropped.
pub struct Mail {
    pub port: u16,
    child: Child,
    said: BufReader<ChildStdout>,
}

/// What its one user says, when the server asks: user `lifeboat`.
pub const PASSWORD: &str = "correct-horse-smtp";

impl Mail {
    /// `mode` is `starttls`, `implicit` or `plain`; the first two ask for a login. `identity` is a certificate and its key.
    pub fn start(mode: &str, identity: Option<&[PathBuf; 3]>) -> Self {
        let mut command = Command::new(super::s3::programs().join("python"));
        command.args(["-c", SERVER, mode]).env("PASSWORD", PASSWORD);
        command.args(identity.iter().flat_map(|files| &files[1..]));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python starts");
        let mut said = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        said.read_line(&mut line).expect("a line");
        let port = line.trim().parse().expect("these tests need aiosmtpd: run tests/run");
        Self { port, child, said }
    }

    /// The next letter; one that was accepted is there.
    pub fn letter(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).expect("a letter")
    }
}

impl Drop for Mail {
    fn drop(&mut self) {
        // It holds nothing but memory.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
