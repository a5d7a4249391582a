//! A real Ceph of one node, all of it in memory, with a gateway that speaks S3, or two that copy to each other.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lifeboat::clock;
use lifeboat::secret::Secret;
use lifeboat::store::{Bucket, Given, Keys, Pair};
use tokio::net::TcpStream;

use super::Home;
use super::redis::free_port;
use super::s3::{BUCKET, boto};

/// The key of its key service, by name.
pub const KMS_KEY: &str = "backups";

/// Of the gateways that copy.
const SYSTEM: [&str; 2] = ["SYSTEMACCESS", "system-secret"];

/// Gone when dropped.
pub struct Ceph {
    /// Of each gateway, the one that is written to first.
    pub endpoints: Vec<String>,
    /// Of the owner of the bucket.
    pub keys: Pair,
    daemons: Vec<Child>,
    home: Home,
}

impl Ceph {
    pub async fn start() -> Self {
        let mut ceph = Self::cluster();
        let port = free_port();
        ceph.daemon("radosgw", &["-n", "client.one", &frontend(port)]);
        ceph.endpoints = vec![format!("http://127.0.0.1:{port}")];
        ceph.ready().await;
        ceph
    }

    /// Two zones of one realm, each with a gateway of its own.
    pub async fn start_with_two_zones() -> Self {
        let mut ceph = Self::cluster();
        let ports = [free_port(), free_port()];
        ceph.endpoints = ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
        let [access, secret] = SYSTEM;
        let (one, two) = (ceph.endpoints[0].clone(), ceph.endpoints[1].clone());
        let keys = ["--access-key", access, "--secret", secret];
        let at = |first: &[&'static str], endpoint: &str| {
            let mut args: Vec<String> = first.iter().map(|arg| (*arg).to_owned()).collect();
            args.extend(["--endpoints".to_owned(), endpoint.to_owned()]);
            args
        };
        ceph.admin(["realm", "create", "--rgw-realm=acme", "--default"]);
        let group = ["zonegroup", "create", "--rgw-zonegroup=eu", "--rgw-realm=acme", "--master", "--default"];
        ceph.admin(at(&group, &one));
        let zone = ["zone", "create", "--rgw-zonegroup=eu", "--rgw-zone=one", "--master", "--default"];
        ceph.admin(at(&zone, &one).into_iter().chain(keys.map(str::to_owned)));
        let zone = ["zone", "create", "--rgw-zonegroup=eu", "--rgw-zone=two"];
        ceph.admin(at(&zone, &two).into_iter().chain(keys.map(str::to_owned)));
        ceph.admin(["period", "update", "--commit"]);
        ceph.user("sync", SYSTEM, &["--system"]);
        for (zone, port) in ["one", "two"].into_iter().zip(ports) {
            let name = format!("client.{zone}");
            let zone = format!("--rgw-zone={zone}");
            ceph.daemon("radosgw", &["-n", &name, "--rgw-realm=acme", "--rgw-zonegroup=eu", &zone, &frontend(port)]);
        }
        ceph.ready().await;
        ceph
    }

    /// A monitor and one store in memory, without a gateway.
    fn cluster() -> Self {
        let home = Home::new();
        let nobody = Pair { access_key: Secret::new("none"), secret_key: Secret::new("none"), session_token: None };
        let mut ceph = Self { endpoints: Vec::new(), keys: nobody, daemons: Vec::new(), home };
        let (port, id, osd) = (free_port(), uuid::Uuid::now_v7().to_string(), uuid::Uuid::now_v7().to_string());
        for directory in ["mon", "osd", "rgw"] {
            std::fs::create_dir(ceph.path().join(directory)).expect("a directory");
        }
        std::fs::write(ceph.path().join("keyring"), "").expect("an empty file");
        std::fs::write(ceph.path().join("ceph.conf"), configuration(ceph.path(), &id, port)).expect("a configuration");
        ceph.run("monmaptool", ["--create", "--fsid", &id, "--addv", "a", &format!("[v2:127.0.0.1:{port}]"), "monmap"]);
        ceph.run("ceph-mon", ["--mkfs", "-i", "a", "-c", "ceph.conf", "--monmap", "monmap"]);
        ceph.daemon("ceph-mon", &["-i", "a"]);
        ceph.run("ceph", ["-c", "ceph.conf", "--connect-timeout", "60", "osd", "new", &osd]);
        ceph.run("ceph-osd", ["--mkfs", "-i", "0", "-c", "ceph.conf", "--osd-uuid", &osd]);
        ceph.daemon("ceph-osd", &["-i", "0"]);
        ceph
    }

    fn path(&self) -> &Path {
        self.home.path()
    }

    fn run<A: AsRef<std::ffi::OsStr>>(&self, program: &str, args: impl IntoIterator<Item = A>) -> String {
        let mut command = Command::new(program);
        let output = command.args(args).current_dir(self.path()).stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}: run tests/run --long"));
        assert!(output.status.success(), "{program}: {}\n{}", String::from_utf8_lossy(&output.stderr), self.log());
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs `radosgw-admin`.
    pub fn admin<A: AsRef<str>>(&self, args: impl IntoIterator<Item = A>) -> String {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        let head = ["-c", "ceph.conf", "-n", "client.admin"].map(str::to_owned);
        self.run("radosgw-admin", head.into_iter().chain(args))
    }

    fn daemon(&mut self, program: &str, args: &[&str]) {
        let log = std::fs::File::options().create(true).append(true).open(self.path().join("daemons.out"));
        let log = log.expect("a log");
        let again = log.try_clone().expect("the same log");
        let mut command = Command::new(program);
        command.args(["-c", "ceph.conf", "-f"]).args(args).current_dir(self.path());
        let child = command.stdin(Stdio::null()).stdout(log).stderr(again).spawn().expect("it was run before");
        self.daemons.push(child);
    }

    /// Once the gateways answer: the owner and the bucket.
    async fn ready(&mut self) {
        let up = async {
            for endpoint in &self.endpoints {
                let address = endpoint.trim_start_matches("http://");
                while TcpStream::connect(address).await.is_err() {
                    clock::sleep(Duration::from_millis(50)).await;
                }
            }
        };
        if tokio::time::timeout(Duration::from_secs(180), up).await.is_err() {
            panic!("a gateway does not listen: {}", self.log());
        }
        self.keys = self.user("owner", ["OWNERACCESS", "owner-canary-secret"], &[]);
        self.boto("client('s3').create_bucket(Bucket=B)");
    }

    fn user(&self, name: &str, [access, secret]: [&str; 2], more: &[&str]) -> Pair {
        let (uid, shown) = (format!("--uid={name}"), format!("--display-name={name}"));
        let keys = ["--access-key", access, "--secret-key", secret];
        let args = ["user", "create", &uid, &shown].into_iter().chain(keys).chain(more.iter().copied());
        self.admin(args);
        Pair { access_key: Secret::new(access), secret_key: Secret::new(secret), session_token: None }
    }

    /// Keys of a user who has no rights but what a bucket's policy gives.
    pub fn stranger(&self, name: &str) -> Pair {
        self.user(name, [&format!("{}ACCESS", name.to_uppercase()), &format!("{name}-secret")], &[])
    }

    /// Runs a script with Amazon's own client, and returns what it prints; `B` is the bucket.
    pub fn boto(&self, script: &str) -> String {
        let script = format!("import json\nB = '{BUCKET}'\n{script}");
        boto(&self.endpoints[0], &self.keys, None, &script).unwrap_or_else(|said| panic!("{said}\n{}", self.log()))
    }

    pub fn url(&self, folder: &str) -> String {
        self.url_at(0, folder)
    }

    /// By way of this gateway.
    pub fn url_at(&self, gateway: usize, folder: &str) -> String {
        format!("s3://{BUCKET}/{folder}?endpoint={}&patience=1s", self.endpoints[gateway])
    }

    pub fn given(&self) -> Given {
        Given::S3(self.keys.clone())
    }

    pub fn bucket(&self, folder: &str) -> Bucket {
        Bucket::open_with(&self.url(folder), "", &Keys::Given(self.given())).expect("the bucket opens")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("daemons.out")).unwrap_or_default()
    }
}

impl Drop for Ceph {
    fn drop(&mut self) {
        // They hold nothing but memory. The gateways first: without the others they wait.
        for daemon in self.daemons.iter_mut().rev() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn frontend(port: u16) -> String {
    format!("--rgw-frontends=beast endpoint=127.0.0.1:{port}")
}

fn configuration(home: &Path, id: &str, port: u16) -> String {
    let home = home.display();
    format!(
        "[global]\nfsid = {id}\nmon_host = [v2:127.0.0.1:{port}]\npublic_addr = 127.0.0.1\ncluster_addr = 127.0.0.1\n\
         auth_cluster_required = none\nauth_service_required = none\nauth_client_required = none\n\
         ms_mon_client_mode = crc\nkeyring = {home}/keyring\nrun_dir = {home}\nadmin_socket = {home}/$name.$pid.asok\n\
         log_file = {home}/$name.log\npid_file =\nmon_data = {home}/mon\nosd_data = {home}/osd\nrgw_data = {home}/rgw\n\
         crash_dir = {home}\nmon_data_avail_crit = 1\nosd_objectstore = memstore\nmemstore_device_bytes = 4294967296\n\
         osd_pool_default_size = 1\nosd_pool_default_min_size = 1\nmon_allow_pool_size_one = true\n\
         osd_pool_default_pg_num = 1\nosd_pool_default_pgp_num = 1\nosd_pool_default_pg_autoscale_mode = off\n\
         mon_max_pg_per_osd = 1000\nosd_crush_chooseleaf_type = 0\nrgw_crypt_require_ssl = false\n\
         rgw_crypt_s3_kms_backend = testing\n\
         rgw_crypt_s3_kms_encryption_keys = {KMS_KEY}=YSBjYW5hcnkgb2YgMzIgYnl0ZXMgaW4gdGhlIHRlc3Q=\n"
    )
}
