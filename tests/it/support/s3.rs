//! A real S3 server, moto, that checks signatures; and what can stand between it and a client.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lifeboat::clock;
use lifeboat::secret::Secret;
use lifeboat::store::{Bucket, Given, Keys, Pair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::cache;
use super::redis::free_port;

/// The bucket that every server begins with.
pub const BUCKET: &str = "acme-dr";

/// Everything before the keys exist is not checked: exactly the four calls that make them and the bucket.
const UNCHECKED: &str = "4";

const PREPARE: &str = r#"
import json
iam = client("iam")
iam.create_user(UserName="backups")
allow = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["s3:*", "iam:*"], "Resource": "*"}]}
iam.put_user_policy(UserName="backups", PolicyName="all", PolicyDocument=json.dumps(allow))
client("s3").create_bucket(Bucket="acme-dr")
key = iam.create_access_key(UserName="backups")["AccessKey"]
print(key["AccessKeyId"], key["SecretAccessKey"])
"#;

/// A server on loopback, gone when dropped.
pub struct S3 {
    pub endpoint: String,
    pub port: u16,
    pub keys: Pair,
    /// Where its certificate is, when it speaks TLS.
    pub certificate: Option<PathBuf>,
    child: Child,
    home: tempfile::TempDir,
}

/// The directory of moto's programs: `tests/run` installs it.
pub fn programs() -> PathBuf {
    let bin = cache("LIFEBOAT_MOTO", "moto/bin");
    assert!(bin.join("moto_server").exists(), "these tests need moto in {}: run tests/run", bin.display());
    bin
}

impl S3 {
    pub async fn start() -> Self {
        Self::start_with(false).await
    }

    /// Over TLS with a certificate that nobody knows.
    pub async fn start_with_tls() -> Self {
        Self::start_with(true).await
    }

    async fn start_with(tls: bool) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let port = free_port();
        let mut command = Command::new(programs().join("moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).env("INITIAL_NO_AUTH_ACTION_COUNT", UNCHECKED);
        let mut certificate = None;
        if tls {
            let (cert, key) = (home.path().join("cert.pem"), home.path().join("key.pem"));
            certify(&cert, &key);
            command.arg("-c").arg(&cert).arg("-k").arg(&key);
            certificate = Some(cert);
        }
        let log = std::fs::File::create(home.path().join("moto.log")).expect("a log");
        let again = log.try_clone().expect("the same log");
        let child = command.stdin(Stdio::null()).stdout(log).stderr(again).spawn().expect("moto starts");
        let endpoint = format!("http{}://127.0.0.1:{port}", if tls { "s" } else { "" });
        let nobody = Pair { access_key: Secret::new("none"), secret_key: Secret::new("none"), session_token: None };
        let mut server = Self { endpoint, port, keys: nobody, certificate, child, home };
        let up = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                clock::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), up).await.is_err() {
            panic!("moto does not listen: {}", server.log());
        }
        let made = server.boto(PREPARE);
        let (access, secret) = made.trim().split_once(' ').expect("a pair of keys");
        server.keys = Pair { access_key: Secret::new(access), secret_key: Secret::new(secret), session_token: None };
        server
    }

    /// Runs a script with Amazon's own client, and returns what it prints. `client(service)` makes a client.
    pub fn boto(&self, script: &str) -> String {
        let ran = boto(&self.endpoint, &self.keys, self.certificate.as_deref(), script);
        ran.unwrap_or_else(|said| panic!("{said}\n{}", self.log()))
    }

    /// Every object's key, size and content hash, by Amazon's own client.
    pub fn listing(&self) -> String {
        self.boto(
            "for page in client('s3').get_paginator('list_objects_v2').paginate(Bucket='acme-dr'):\n \
             [print(o['Key'], o['Size'], o['ETag']) for o in page.get('Contents', [])]",
        )
    }

    /// The URL of a folder, as an inventory or `--store` says it. What fails is told after a moment.
    pub fn url(&self, folder: &str) -> String {
        self.url_by(folder, &self.endpoint)
    }

    /// By way of another address.
    pub fn url_by(&self, folder: &str, endpoint: &str) -> String {
        format!("s3://{BUCKET}/{folder}?endpoint={endpoint}&patience=1s")
    }

    pub fn bucket(&self, folder: &str) -> Bucket {
        Bucket::open_with(&self.url(folder), "", &Keys::Given(self.given())).expect("the bucket opens")
    }

    pub fn given(&self) -> Given {
        Given::S3(self.keys.clone())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("moto.log")).unwrap_or_default()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // It holds nothing but memory.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a script with boto3, and returns what it prints, or what is wrong with it.
pub fn boto(endpoint: &str, keys: &Pair, certificate: Option<&Path>, script: &str) -> Result<String, String> {
    let head = "import boto3, os\nclient = lambda service: boto3.client(service, endpoint_url=os.environ['ENDPOINT'], \
                region_name='us-east-1', verify=os.environ.get('CERTIFICATE', True))\n";
    let mut command = Command::new(programs().join("python"));
    command.args(["-c", &format!("{head}{script}")]).env("ENDPOINT", endpoint);
    if let Some(certificate) = certificate {
        command.env("CERTIFICATE", certificate);
    }
    command.env("AWS_ACCESS_KEY_ID", keys.access_key.expose());
    command.env("AWS_SECRET_ACCESS_KEY", keys.secret_key.expose());
    let output = command.output().expect("python runs");
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).expect("text")),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn certify(certificate: &Path, key: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=s3.test", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(key)
        .arg("-out")
        .arg(certificate)
        .stderr(Stdio::null())
        .status();
    assert!(made.is_ok_and(|status| status.success()), "these tests need openssl");
}

/// Passes connections on, and breaks them off once the server has sent so many bytes through them all.
pub struct Cutter {
    pub endpoint: String,
    has_cut: Arc<AtomicBool>,
    /// Bytes until it breaks off.
    left: Arc<AtomicI64>,
}

impl Cutter {
    /// `again`: every later connection breaks off too, after as many bytes; otherwise the rest is passed on.
    pub async fn start(server: u16, bytes: i64, again: bool) -> Self {
        Self::between(server, bytes, if again { bytes } else { i64::MAX }, false).await
    }

    /// Breaks every connection off whose client has sent so many bytes.
    pub async fn of_uploads(server: u16, bytes: i64) -> Self {
        Self::between(server, bytes, bytes, true).await
    }

    /// Lets nothing pass any more once all clients together have sent so many bytes.
    pub async fn for_good(server: u16, bytes: i64) -> Self {
        Self::between(server, bytes, 0, true).await
    }

    /// After it has broken off, `then` is how many bytes pass until it does so again.
    async fn between(server: u16, bytes: i64, then: i64, uploads: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let left = Arc::new(AtomicI64::new(bytes));
        let cutter = Self { endpoint, has_cut: Arc::default(), left: Arc::clone(&left) };
        let has_cut = Arc::clone(&cutter.has_cut);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
                let (left, has_cut) = (Arc::clone(&left), Arc::clone(&has_cut));
                tokio::spawn(async move {
                    let (to, from) = if uploads { (server, client) } else { (client, server) };
                    if pass(to, from, &left).await {
                        left.store(then, Ordering::Relaxed);
                        has_cut.store(true, Ordering::Relaxed);
                    }
                });
            }
        });
        cutter
    }

    /// Bytes that may still pass.
    pub fn left(&self) -> i64 {
        self.left.load(Ordering::Relaxed)
    }

    /// It has broken a connection off.
    pub fn has_cut(&self) -> bool {
        self.has_cut.load(Ordering::Relaxed)
    }
}

/// Counts what `from` sends. Returns true when it broke the connection off.
async fn pass(to: TcpStream, from: TcpStream, left: &AtomicI64) -> bool {
    let (mut back, mut to) = to.into_split();
    let (mut from, mut answers) = from.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut back, &mut answers).await });
    let mut buffer = vec![0; 16 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let before = left.load(Ordering::Relaxed);
        if before < n as i64 {
            let _ = to.write_all(&buffer[..usize::try_from(before).unwrap_or(0)]).await;
            // Both halves go, and with unread data the kernel resets the connection.
            return true;
        }
        left.fetch_sub(n as i64, Ordering::Relaxed);
        if to.write_all(&buffer[..n]).await.is_err() {
            return false;
        }
    }
    false
}

/// Answers every request with one and the same recorded answer.
pub async fn recorded(answer: &'static str) -> String {
    recording(answer).await.0
}

/// The same, with the heads of all requests.
pub async fn recording(answer: &'static str) -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let all = Arc::clone(&all);
            tokio::spawn(async move {
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    match client.read(&mut buffer).await {
                        Ok(n @ 1..) => request.extend_from_slice(&buffer[..n]),
                        _ => return,
                    }
                }
                all.lock().expect("what was heard").extend_from_slice(&request);
                let _ = client.write_all(answer.as_bytes()).await;
            });
        }
    });
    (endpoint, heard)
}
