//! The buckets of both, served as S3 over TLS by a small server of this bench's own, which does nothing but read and write
//! files, and waits before each answer. It checks no signature. moto, the server of the tests, gives 20 MB/s to who asks for ranges: both
//! would be measured waiting for it.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, Response, StatusCode, header};
use lifeboat::clock;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::io::ReaderStream;

/// Added to each request.
pub const DELAY: Duration = Duration::from_millis(20);

pub struct Cloud {
    pub port: u16,
    pub certificate: PathBuf,
    requests: Arc<AtomicU64>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Clone)]
struct Served {
    /// Its folders are the buckets.
    root: PathBuf,
    requests: Arc<AtomicU64>,
}

impl Cloud {
    pub fn start(root: &Path, place: &Path) -> Self {
        // lifeboat's own main does it there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (certificate, key) = (place.join("cert.pem"), place.join("key.pem"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .stderr(Stdio::null())
            .status();
        assert!(made.is_ok_and(|made| made.success()), "the bench needs openssl");
        let chain = vec![CertificateDer::from_pem_file(&certificate).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_file(&key).expect("a key");
        let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("TLS");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let requests = Arc::<AtomicU64>::default();
        let served = Served { root: root.to_owned(), requests: Arc::clone(&requests) };
        let router = Router::new().fallback(answer).with_state(served);
        let (sender, accepted) = mpsc::channel(64);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        runtime.spawn(async move {
            while let Ok((stream, address)) = listener.accept().await {
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                // Side by side: nobody waits for another's handshake.
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let _ = sender.send((stream, address)).await;
                    }
                });
            }
        });
        let secure = Secure { accepted, address: SocketAddr::from(([127, 0, 0, 1], port)) };
        runtime.spawn(async move { axum::serve(secure, router).await });
        Self { port, certificate, requests, _runtime: runtime }
    }

    /// Since the last look.
    pub fn requests(&self) -> u64 {
        self.requests.swap(0, Ordering::Relaxed)
    }
}

struct Secure {
    accepted: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl axum::serve::Listener for Secure {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.accepted.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

async fn answer(State(served): State<Served>, request: Request) -> Response<Body> {
    served.requests.fetch_add(1, Ordering::Relaxed);
    clock::sleep(DELAY).await;
    let status = |status| {
        // A client of S3 expects a tag of what it wrote.
        Response::builder().status(status).header(header::ETAG, "\"1\"").body(Body::empty()).expect("an answer")
    };
    let path = decoded(request.uri().path().trim_start_matches('/'));
    match *request.method() {
        Method::GET | Method::HEAD => {}
        Method::PUT => return status(put(&served.root.join(path), request).await),
        _ => return status(StatusCode::METHOD_NOT_ALLOWED),
    }
    let query = request.uri().query().unwrap_or_default();
    let answer = match query.contains("list-type=2") {
        true => list(&served.root.join(path.trim_end_matches('/')), query),
        false => {
            let range = request.headers().get(header::RANGE).and_then(|range| range.to_str().ok()).map(str::to_owned);
            get(&served.root.join(path), request.method().clone(), range).await
        }
    };
    answer.unwrap_or_else(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => Response::builder()
            .status(StatusCode::NOT_FOUND)
            .body(Body::from("<Error><Code>NoSuchKey</Code><Message>no</Message></Error>"))
            .expect("an answer"),
        _ => status(StatusCode::INTERNAL_SERVER_ERROR),
    })
}

/// Only what is new: indexes of WAL.
async fn put(path: &Path, request: Request) -> StatusCode {
    let Ok(bytes) = axum::body::to_bytes(request.into_body(), 64 << 20).await else { return StatusCode::BAD_REQUEST };
    let folder = path.parent().unwrap_or(path);
    if tokio::fs::create_dir_all(folder).await.is_err() || tokio::fs::write(path, bytes).await.is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    StatusCode::OK
}

async fn get(path: &Path, method: Method, range: Option<String>) -> io::Result<Response<Body>> {
    let mut file = tokio::fs::File::open(path).await?;
    let meta = file.metadata().await?;
    if meta.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let size = meta.len();
    let range = range.and_then(|range| {
        let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((from.parse::<u64>().ok()?, to.parse().unwrap_or(size - 1).min(size - 1)))
    });
    let (from, length) = range.map_or((0, size), |(from, to)| (from, to + 1 - from));
    let mut answer = Response::builder()
        .header(header::CONTENT_LENGTH, length)
        .header(header::ETAG, format!("\"{size:x}\""))
        .header(header::LAST_MODIFIED, modified(&meta).format("%a, %d %b %Y %H:%M:%S GMT").to_string());
    if let Some((from, to)) = range {
        answer = answer
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, format!("bytes {from}-{to}/{size}"));
    }
    file.seek(io::SeekFrom::Start(from)).await?;
    let body = match method {
        Method::HEAD => Body::empty(),
        _ => Body::from_stream(ReaderStream::with_capacity(file.take(length), 256 << 10)),
    };
    answer.body(body).map_err(io::Error::other)
}

fn modified(meta: &std::fs::Metadata) -> chrono::DateTime<chrono::Utc> {
    meta.modified().map(Into::into).unwrap_or_default()
}

/// `ListObjectsV2`, all in one answer.
fn list(bucket: &Path, query: &str) -> io::Result<Response<Body>> {
    let parameter = |name: &str| {
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(decoded).unwrap_or_default()
    };
    let (prefix, delimiter) = (parameter("prefix"), parameter("delimiter"));
    let mut keys = Vec::new();
    files(bucket, bucket, &mut keys)?;
    keys.retain(|(key, _)| key.starts_with(&prefix));
    keys.sort_by(|a, b| a.0.cmp(&b.0));
    let mut text = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
         <IsTruncated>false</IsTruncated>",
    );
    let mut folders: Vec<&str> = Vec::new();
    for (key, meta) in &keys {
        let rest = &key[prefix.len()..];
        match rest.find('/').filter(|_| !delimiter.is_empty()) {
            Some(end) => folders.push(&key[..prefix.len() + end + 1]),
            None => {
                let (size, at) = (meta.len(), modified(meta).format("%Y-%m-%dT%H:%M:%S.000Z"));
                let _ = write!(
                    text,
                    "<Contents><Key>{key}</Key><LastModified>{at}</LastModified><ETag>\"{size:x}\"</ETag>\
                     <Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
                );
            }
        }
    }
    folders.dedup();
    for folder in folders {
        let _ = write!(text, "<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>");
    }
    text.push_str("</ListBucketResult>");
    Response::builder().header(header::CONTENT_TYPE, "application/xml").body(Body::from(text)).map_err(io::Error::other)
}

fn files(root: &Path, directory: &Path, found: &mut Vec<(String, std::fs::Metadata)>) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            files(root, &path, found)?;
        } else if kind.is_file() {
            let key = path.strip_prefix(root).map_err(io::Error::other)?.to_string_lossy().into_owned();
            found.push((key, entry.metadata()?));
        }
    }
    Ok(())
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = match (first, after) {
            (b'%', [high, low, ..]) => hex::decode([*high, *low]).ok(),
            _ => None,
        };
        rest = if escaped.is_some() { &after[2..] } else { after };
        bytes.extend(escaped.unwrap_or_else(|| vec![*first]));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
