//! A stand-in for Google Cloud Storage, `tests/it/clouds/gcs.py`: there is no server of it to be had. It checks signatures,
//! permissions and preconditions as Google's reference tells them; that the real one does is not proven by it.

use std::cell::RefCell;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lifeboat::clock;
use lifeboat::secret::Secret;
use lifeboat::store::{Bucket, Given, GoogleKey, Keys};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::checkout;
use super::redis::free_port;
use super::s3::programs as python;

pub const BUCKET: &str = "acme-dr";

/// Permissions of who restores, and of who takes backups.
pub const READ: [&str; 2] = ["storage.objects.get", "storage.objects.list"];
pub const WRITE: [&str; 3] = ["storage.objects.get", "storage.objects.list", "storage.objects.create"];

/// A server on loopback, gone when dropped.
pub struct Gcs {
    pub endpoint: String,
    /// Of an account that may do everything.
    pub owner: Secret,
    accounts: RefCell<Value>,
    child: Child,
    home: tempfile::TempDir,
}

impl Gcs {
    pub async fn start() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let port = free_port();
        let log = std::fs::File::create(home.path().join("gcs.log")).expect("a log");
        let mut command = Command::new(python().join("python"));
        command.arg(checkout().join("tests/it/clouds/gcs.py")).arg(port.to_string()).arg(home.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("python starts");
        let endpoint = format!("http://127.0.0.1:{port}");
        let accounts = RefCell::new(json!({}));
        let mut server = Self { endpoint, owner: Secret::new(""), accounts, child, home };
        let all = ["delete", "get", "list", "create"].map(|verb| format!("storage.objects.{verb}"));
        let all = all.into_iter().chain(["get", "getIamPolicy"].map(|verb| format!("storage.buckets.{verb}")));
        let all: Vec<String> = all.collect();
        server.owner = server.account("owner", &all.iter().map(String::as_str).collect::<Vec<_>>());
        server.settings(json!({}));
        server.policy(json!([]));
        let up = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                clock::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), up).await.is_err() {
            let log = std::fs::read_to_string(server.home.path().join("gcs.log")).unwrap_or_default();
            panic!("the stand-in does not listen: {log}");
        }
        server
    }

    /// The key of a service account with these permissions, as Google gives keys out.
    pub fn account(&self, name: &str, permissions: &[&str]) -> Secret {
        let email = format!("{name}@acme.iam.gserviceaccount.com");
        let openssl = |args: &[&str]| {
            let output =
                Command::new("openssl").args(args).current_dir(self.home.path()).output().expect("openssl runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).expect("PEM")
        };
        let file = format!("{name}.pem");
        openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", &file]);
        let public = openssl(&["pkey", "-in", &file, "-pubout"]);
        let private = std::fs::read_to_string(self.home.path().join(&file)).expect("the key");
        self.accounts.borrow_mut()[&email] = json!({ "public": public, "permissions": permissions });
        self.write("accounts.json", &self.accounts.borrow());
        let key = json!({
            "type": "service_account", "project_id": "acme", "private_key_id": "1", "private_key": private,
            "client_email": email, "client_id": "1", "token_uri": "https://oauth2.googleapis.com/token",
        });
        Secret::new(key.to_string())
    }

    /// What the bucket's resource says besides its name, in place of what it said before.
    pub fn settings(&self, more: Value) {
        let mut bucket = json!({
            "name": BUCKET, "location": "EUROPE-WEST1", "locationType": "region",
            "iamConfiguration": {
                "publicAccessPrevention": "inherited", "uniformBucketLevelAccess": { "enabled": true },
            },
        });
        for (name, value) in more.as_object().expect("a resource") {
            bucket[name] = value.clone();
        }
        self.write("bucket.json", &bucket);
    }

    /// Who has which role.
    pub fn policy(&self, bindings: Value) {
        self.write("iam.json", &json!({ "bindings": bindings }));
    }

    fn write(&self, name: &str, value: &Value) {
        let path = self.home.path().join(name);
        std::fs::write(path.with_extension("new"), value.to_string()).expect("a file");
        std::fs::rename(path.with_extension("new"), path).expect("a file");
    }

    /// Every object's key, size and generation.
    pub fn listing(&self) -> String {
        let script = "import sys, urllib.request\nprint(urllib.request.urlopen(sys.argv[1]).read().decode())";
        let mut command = Command::new(python().join("python"));
        let output = command.args(["-c", script, &format!("{}/listing", self.endpoint)]).output().expect("python runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// The URL of a folder, as an inventory or `--store` says it. What fails is told after a moment.
    pub fn url(&self, folder: &str) -> String {
        format!("gs://{BUCKET}/{folder}?endpoint={}&patience=1s", self.endpoint)
    }

    pub fn given(&self) -> Given {
        Given::Google(GoogleKey::Service(self.owner.clone()))
    }

    pub fn bucket(&self, folder: &str) -> Bucket {
        Bucket::open_with(&self.url(folder), "", &Keys::Given(self.given())).expect("the bucket opens")
    }
}

impl Drop for Gcs {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
