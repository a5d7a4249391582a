//! A real server of Azure Blob Storage, Azurite, that checks signatures.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lifeboat::clock;
use lifeboat::secret::Secret;
use lifeboat::store::{AzureKey, Bucket, Given, Keys};
use tokio::net::TcpStream;

use super::cache;
use super::redis::free_port;
use super::s3::programs as python;

/// The container that every server begins with.
pub const CONTAINER: &str = "acme-dr";

const ACCOUNT: &str = "acmebackups";

/// In base64, as Azure gives keys out.
const KEY: &str = "Q2FuYXJ5IG9mIHRoZSBzdG9yYWdlIGFjY291bnQsIDMyIGJ5dGVzIQ==";

/// A server on loopback, gone when dropped.
pub struct Azurite {
    pub endpoint: String,
    child: Child,
    home: tempfile::TempDir,
}

fn program() -> PathBuf {
    let program = cache("LIFEBOAT_AZURITE", "azurite/node_modules/.bin").join("azurite-blob");
    assert!(program.exists(), "these tests need {}: run tests/run", program.display());
    program
}

impl Azurite {
    pub async fn start() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let port = free_port();
        let log = std::fs::File::create(home.path().join("azurite.log")).expect("a log");
        let again = log.try_clone().expect("the same log");
        let mut command = Command::new(program());
        command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--skipApiVersionCheck"]);
        command.arg("-l").arg(home.path().join("data")).env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{KEY}"));
        let child = command.stdin(Stdio::null()).stdout(log).stderr(again).spawn().expect("azurite starts");
        let endpoint = format!("http://127.0.0.1:{port}/{ACCOUNT}");
        let server = Self { endpoint, child, home };
        let up = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                clock::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), up).await.is_err() {
            panic!("azurite does not listen: {}", server.log());
        }
        server.azure("container.create_container()");
        server
    }

    /// Runs a script with Azure's own client, and returns what it prints. `container` is the container's client.
    pub fn azure(&self, script: &str) -> String {
        let head = "import os, datetime\nfrom azure.storage.blob import *\nkey, account = os.environ['KEY'], os.environ['ACCOUNT']\n\
                    service = BlobServiceClient(os.environ['ENDPOINT'], credential=key)\n\
                    container = service.get_container_client('acme-dr')\n";
        let mut command = Command::new(python().join("python"));
        command.args(["-c", &format!("{head}{script}")]).env("ENDPOINT", &self.endpoint);
        let output = command.env("KEY", KEY).env("ACCOUNT", ACCOUNT).output().expect("python runs");
        assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), self.log());
        String::from_utf8(output.stdout).expect("text")
    }

    /// A shared access signature with these permissions, valid for `hours`: negative ones are over.
    pub fn sas(&self, permissions: &str, hours: i32) -> Secret {
        let script = format!(
            "now = datetime.datetime.now(datetime.timezone.utc)\n\
             print(generate_container_sas(account, 'acme-dr', account_key=key, permission='{permissions}', \
             start=now - datetime.timedelta(hours=9), expiry=now + datetime.timedelta(hours={hours})))"
        );
        Secret::new(self.azure(&script).trim())
    }

    /// Every object's key, size and version, by Azure's own client.
    pub fn listing(&self) -> String {
        self.azure("[print(blob.name, blob.size, blob.etag) for blob in container.list_blobs()]")
    }

    /// The URL of a folder, as an inventory or `--store` says it. What fails is told after a moment.
    pub fn url(&self, folder: &str) -> String {
        self.url_by(folder, &self.endpoint)
    }

    /// By way of another address.
    pub fn url_by(&self, folder: &str, endpoint: &str) -> String {
        format!("az://{CONTAINER}/{folder}?account={ACCOUNT}&endpoint={endpoint}&patience=1s")
    }

    pub fn given(&self) -> Given {
        Given::Azure(AzureKey::Account(Secret::new(KEY)))
    }

    pub fn bucket(&self, folder: &str) -> Bucket {
        Bucket::open_with(&self.url(folder), "", &Keys::Given(self.given())).expect("the container opens")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("azurite.log")).unwrap_or_default()
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
