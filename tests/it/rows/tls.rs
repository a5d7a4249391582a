//! Beyond this machine there is no connection that was not verified.

use std::path::{Path, PathBuf};
use std::process::Command;

use lifeboat::secret::Secret;
use lifeboat::system::postgres::Url;

use crate::support::postgres::{Primary, account};

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

#[tokio::test]
async fn row_17_postgres_is_verified_or_not_spoken_to() {
    let home = crate::support::redis::open_directory();
    let right = certify(home.path(), "right", "IP:127.0.0.1", "2");
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
    present(&elsewhere).await;
    connect("verify-ca", &elsewhere[0]).await.expect("by its authority alone");
    for mode in ["require", "verify-full"] {
        assert!(connect(mode, &elsewhere[0]).await.is_err(), "a certificate of another host was believed with {mode}");
    }
}
