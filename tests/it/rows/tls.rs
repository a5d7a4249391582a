//! Beyond this machine there is no connection that was not verified.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lifeboat::clock::{block, boot_now};
use lifeboat::secret::Secret;
use lifeboat::store::Bucket;
use lifeboat::system::postgres::Url;
use lifeboat::system::redis::Redis;

use crate::support::postgres::{Primary, account, program};
use crate::support::redis::free_port;
use crate::support::sandbox::text;
use crate::support::small::Small;

fn openssl(directory: &Path, words: &str) {
    let output = Command::new("openssl").args(words.split(' ')).current_dir(directory).output().expect("openssl");
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An authority, and a certificate of it for this name; both in the directory.
pub fn certify(directory: &Path, name: &str, subject: &str, days: &str) -> [PathBuf; 3] {
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(
        directory,
        &format!("req -x509 {new} -days 2 -subj /CN=ca-{name} -keyout {name}-ca.key -out {name}-ca.pem"),
    );
    openssl(directory, &format!("req {new} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
    std::fs::write(directory.join("ext"), format!("subjectAltName={subject}\nbasicConstraints=CA:FALSE\n")).unwrap();
    openssl(
        directory,
        &format!(
            "x509 -req -in {name}.csr -CA {name}-ca.pem -CAkey {name}-ca.key -CAcreateserial -extfile ext -days {days} -out {name}.pem"
        ),
    );
    [format!("{name}-ca.pem"), format!("{name}.pem"), format!("{name}.key")].map(|file| directory.join(file))
}

/// The same authority's, for the same name, of the year 2020.
fn expired(directory: &Path, name: &str) -> [PathBuf; 3] {
    let settings = "[ca]\ndefault_ca = own\n[own]\ndatabase = index\nserial = serial\nnew_certs_dir = .\n\
                    default_md = sha256\npolicy = any\n[any]\ncommonName = supplied\n";
    std::fs::write(directory.join("ca.cnf"), settings).unwrap();
    std::fs::write(directory.join("index"), "").unwrap();
    std::fs::write(directory.join("serial"), "77\n").unwrap();
    std::fs::write(directory.join("ext"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    openssl(
        directory,
        &format!(
            "ca -batch -notext -config ca.cnf -cert {name}-ca.pem -keyfile {name}-ca.key -in {name}.csr -extfile ext \
             -startdate 20200101000000Z -enddate 20200102000000Z -out {name}-old.pem"
        ),
    );
    [format!("{name}-ca.pem"), format!("{name}-old.pem"), format!("{name}.key")].map(|file| directory.join(file))
}

/// OpenSSL's own server of web pages, gone when dropped.
struct Pages(std::process::Child, u16);

impl Pages {
    fn start([_, certificate, key]: &[PathBuf; 3]) -> Self {
        let port = free_port();
        let mut command = Command::new("openssl");
        command.args(["s_server", "-www", "-quiet", "-accept", &format!("127.0.0.1:{port}")]);
        command.arg("-cert").arg(certificate).arg("-key").arg(key);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("openssl");
        let patience = boot_now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(boot_now() < patience, "openssl does not listen");
            block(Duration::from_millis(10));
        }
        Self(child, port)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// By HTTP and by S3, as the program does it: only the right certificate is let in.
#[test]
fn row_17_pages_and_buckets_are_verified_or_not_spoken_to() {
    let home = tempfile::tempdir().unwrap();
    let right = certify(home.path(), "right", "IP:127.0.0.1", "2");
    let old = expired(home.path(), "right");
    let elsewhere = certify(home.path(), "elsewhere", "DNS:db.example", "2");
    let other = certify(home.path(), "other", "IP:127.0.0.1", "2");
    let keys = home.path().join("keys");
    std::fs::write(&keys, "[default]\naws_access_key_id = a\naws_secret_access_key = b\n").unwrap();
    for (what, presented, known) in [
        ("the right one", &right, &right[0]),
        ("another authority's", &other, &right[0]),
        ("another host's", &elsewhere, &elsewhere[0]),
        ("one that has expired", &old, &right[0]),
    ] {
        let pages = Pages::start(presented);
        let step = format!(
            "[[phases.steps]]\nid = \"page\"\ntitle = \"Page\"\ndo = \"smoke.http\"\nurl = \"https://127.0.0.1:{}/\"\n",
            pages.1
        );
        let output = Small::new("", "", &step).command(&[]).env("SSL_CERT_FILE", known).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.success(), what == "the right one", "a page with {what} was believed, or not: {said}");
        assert!(output.status.success() || said.contains("certificate"), "{what}: {said}");

        let store = format!("s3://acme-dr/prod?endpoint=https://127.0.0.1:{}&patience=1s", pages.1);
        let mut fetch = Command::new(program());
        fetch.args(["wal", "fetch", "--store", &store, "--keys"]).arg(&keys).args(["000000010000000000000099", "to"]);
        let output = fetch.env("SSL_CERT_FILE", known).output().unwrap();
        let said = text(&output.stderr);
        let trusted = !said.contains("is not trusted");
        assert_eq!(trusted, what == "the right one", "a bucket with {what} was believed, or not: {said}");
    }
}

/// An address of nobody (RFC 5737): what is refused is refused before anything is sent.
#[tokio::test]
async fn row_17_nothing_goes_to_another_machine_in_the_clear() {
    let bucket = Bucket::open("s3://acme-dr/prod?endpoint=http://192.0.2.1:9000", "").err();
    let said = bucket.map(|error| error.to_string()).unwrap_or_default();
    assert!(said.contains("in the clear"), "backups would go in the clear: {said:?}");
    let postgres = Url::parse(&Secret::new("postgresql://dba@192.0.2.1/orders?sslmode=disable")).unwrap();
    let said = postgres.connect().await.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(said.contains("without encryption"), "{said:?}");
    let redis = Redis::connect(&Secret::new("redis://192.0.2.1:6379/0")).await.err();
    let said = redis.map(|error| error.to_string()).unwrap_or_default();
    assert!(said.contains("asks for no TLS"), "{said:?}");
}

#[tokio::test]
async fn row_17_postgres_is_verified_or_not_spoken_to() {
    let home = crate::support::redis::open_directory();
    let right = certify(home.path(), "right", "IP:127.0.0.1", "2");
    let old = expired(home.path(), "right");
    let elsewhere = certify(home.path(), "elsewhere", "DNS:db.example", "2");
    let primary = Primary::start_with(&["ssl = off"]).await;
    let present = async |certificate: &[PathBuf; 3]| {
        for (file, name) in [(&certificate[1], "server.crt"), (&certificate[2], "server.key")] {
            let to = primary.data.join(name);
            std::fs::copy(file, &to).unwrap();
            std::fs::set_permissions(&to, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            account().iter().for_each(|account| account.give(&to).unwrap());
        }
        primary.sql("alter system set ssl = on").await;
        primary.down("fast").await;
        primary.up().await;
    };
    let connect = async |mode: &str, root: &Path| {
        let (port, root) = (primary.port, root.display());
        let url = format!("postgresql://dba@127.0.0.1:{port}/postgres?sslmode={mode}&sslrootcert={root}");
        Url::parse(&Secret::new(url)).unwrap().connect().await.map(|_| ())
    };
    // A server that speaks no TLS is not spoken to in plain words.
    assert!(connect("verify-full", &right[0]).await.is_err(), "plaintext was believed");
    present(&right).await;
    connect("verify-full", &right[0]).await.expect("the right one");
    for mode in ["require", "verify-ca", "verify-full"] {
        assert!(connect(mode, &elsewhere[0]).await.is_err(), "another authority was believed with {mode}");
    }
    present(&old).await;
    for mode in ["require", "verify-ca", "verify-full"] {
        assert!(connect(mode, &old[0]).await.is_err(), "a certificate of the year 2020 was believed with {mode}");
    }
    present(&elsewhere).await;
    connect("verify-ca", &elsewhere[0]).await.expect("by its authority alone");
    for mode in ["require", "verify-full"] {
        assert!(connect(mode, &elsewhere[0]).await.is_err(), "a certificate of another host was believed with {mode}");
    }
}
