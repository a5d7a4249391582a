//! Buckets behind a network: the whole way out of one with the real program, and everything that can be wrong with it.

mod prune;

use std::path::Path;
use std::process::{Command, Output};

use futures::StreamExt as _;
use lifeboat::event::Failure;
use lifeboat::secret::Secret;
use lifeboat::store::{AzureKey, Bucket, Given, GoogleKey, Keys, Pair, StoreError, Trouble};
use lifeboat::system::postgres::wal::Location;
use serde_json::Value;

use crate::support::azurite::{Azurite, CONTAINER};
use crate::support::ceph::{Ceph, KMS_KEY};
use crate::support::gcs::{self, Gcs};
use crate::support::postgres::{Primary, account, program, stop_hard, value};
use crate::support::redis::{TestRedis, free_port, open_directory};
use crate::support::s3::{BUCKET, Cutter, S3, recorded, recording};
use crate::support::sandbox::{last_line, text};

const RUNBOOK: &str = r#"
format = 1
id = "recover"
title = "Recover"
owner = "tests"
revision = 1
systems = { db = "postgres", cache = "redis" }
[variables.target]
[[phases]]
title = "Recover"
[[phases.steps]]
id = "choose"
do = "recovery.choose"
systems = ["db", "cache"]
suggest = "{target}"
[[phases.steps]]
id = "restore-db"
do = "postgres.restore"
system = "db"
[[phases.steps]]
id = "restore-cache"
do = "redis.restore"
system = "cache"
needs = ["choose"]
[[phases.steps]]
id = "promote"
do = "postgres.promote"
system = "db"
[[phases.steps]]
id = "write"
do = "smoke.sql"
system = "db"
sql = "insert into orders (item) values ('new life') returning id"
"#;

/// A server of buckets.
trait Cloud {
    fn url(&self, folder: &str) -> String;
    fn given(&self) -> Given;
    /// What an inventory says to open the store; the key lies in the file `secret`.
    fn keys_line(&self) -> &'static str;
    /// What may be found nowhere.
    fn secret(&self) -> String;
    /// What the program finds in its environment.
    fn variables(&self) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }
    /// Every object with its size and version, by the cloud's own client.
    fn listing(&self) -> String;
}

impl Cloud for S3 {
    fn url(&self, folder: &str) -> String {
        self.url(folder)
    }

    fn given(&self) -> Given {
        self.given()
    }

    fn keys_line(&self) -> &'static str {
        "access_key = { env = \"BACKUPS_KEY\" }\nsecret_key = { file = \"secret\" }"
    }

    fn secret(&self) -> String {
        self.keys.secret_key.expose().to_owned()
    }

    fn listing(&self) -> String {
        self.listing()
    }
}

impl Cloud for Azurite {
    fn url(&self, folder: &str) -> String {
        self.url(folder)
    }

    fn given(&self) -> Given {
        self.given()
    }

    fn keys_line(&self) -> &'static str {
        "account_key = { file = \"secret\" }"
    }

    fn secret(&self) -> String {
        let Given::Azure(AzureKey::Account(key)) = self.given() else { panic!("it has a key") };
        key.expose().to_owned()
    }

    fn listing(&self) -> String {
        self.listing()
    }
}

impl Cloud for Gcs {
    fn url(&self, folder: &str) -> String {
        self.url(folder)
    }

    fn given(&self) -> Given {
        self.given()
    }

    fn keys_line(&self) -> &'static str {
        "service_account = { file = \"secret\" }"
    }

    fn secret(&self) -> String {
        self.owner.expose().to_owned()
    }

    fn listing(&self) -> String {
        self.listing()
    }
}

impl Cloud for Ceph {
    fn url(&self, folder: &str) -> String {
        self.url(folder)
    }

    fn given(&self) -> Given {
        self.given()
    }

    fn keys_line(&self) -> &'static str {
        "access_key = { env = \"BACKUPS_KEY\" }\nsecret_key = { file = \"secret\" }"
    }

    fn secret(&self) -> String {
        self.keys.secret_key.expose().to_owned()
    }

    fn variables(&self) -> Vec<(&'static str, &'static str)> {
        vec![("AWS_SERVER_SIDE_ENCRYPTION", "aws:kms"), ("AWS_SSE_KMS_KEY_ID", KMS_KEY)]
    }

    fn listing(&self) -> String {
        self.boto(
            "s3 = client('s3')\nfor page in s3.get_paginator('list_objects_v2').paginate(Bucket=B):\n for o in \
             page.get('Contents', []):\n  print(o['Key'], o['Size'], o['ETag'], s3.head_object(Bucket=B, \
             Key=o['Key']).get('SSEKMSKeyId'))",
        )
    }
}

struct Scene<C> {
    server: C,
    primary: Primary,
    cache: TestRedis,
    home: crate::support::Home,
    ports: (u16, u16),
}

impl<C: Cloud> Scene<C> {
    async fn new(server: C) -> Self {
        let home = open_directory();
        let keys = home.path().join("keys");
        std::fs::write(&keys, server.given().to_file().expose()).unwrap();
        account().iter().for_each(|account| account.give(&keys).unwrap());
        let location = Location { keys: Keys::File(keys), ..Location::new(server.url("prod"), "orders-db") };
        let cache = TestRedis::start(home.path(), &[], None).await;
        let primary = Primary::start_archiving(Some(location), &[], &[]).await;
        std::fs::write(home.path().join("secret"), server.secret()).unwrap();
        let scene = Self { server, primary, cache, home, ports: (free_port(), free_port()) };
        std::fs::write(scene.path("lifeboat.toml"), scene.inventory()).unwrap();
        std::fs::write(scene.path("recover.toml"), RUNBOOK).unwrap();
        scene
    }

    /// Where the restored PostgreSQL answers.
    fn restored(&self) -> Secret {
        let socket = self.path("restored/db/.lifeboat/socket");
        Secret::new(format!("postgresql://dba@/postgres?host={}&port={}", socket.display(), self.ports.0))
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    fn inventory(&self) -> String {
        format!(
            r#"
format = 1
service = "orders"
[objectives]
rpo = "5m"
[stores.backups]
url = "{url}"
{keys}
[systems.orders-db]
kind = "postgres"
environment = "test"
url = "{db}"
backups = {{ store = "backups" }}
restore = {{ directory = "{home}/restored/db", port = {db_port} }}
[systems.orders-cache]
kind = "redis"
environment = "test"
url = "{cache}"
backups = {{ store = "backups" }}
restore = {{ directory = "{home}/restored/cache", port = {cache_port} }}
"#,
            url = self.server.url("prod"),
            keys = self.server.keys_line(),
            db = self.primary.url.expose(),
            cache = self.cache.url.expose(),
            home = self.home.path().display(),
            db_port = self.ports.0,
            cache_port = self.ports.1,
        )
    }

    fn lifeboat(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the program runs")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(args);
        if let Given::S3(pair) = self.server.given() {
            command.env("BACKUPS_KEY", pair.access_key.expose());
        }
        command.envs(self.server.variables());
        command.env("LIFEBOAT_INVENTORY", self.path("lifeboat.toml")).env("LIFEBOAT_STATE_DIR", self.path("state"));
        command.env("HOME", self.home.path()).current_dir(self.home.path());
        command
    }

    fn done(&self, args: &[&str]) -> Output {
        let output = self.lifeboat(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        output
    }
}

impl<C> Drop for Scene<C> {
    fn drop(&mut self) {
        stop_hard(&self.home.path().join("restored/db"));
        let shut = Command::new("redis-cli").args(["-p", &self.ports.1.to_string(), "shutdown", "nosave"]).output();
        drop(shut);
    }
}

/// Every file below `directory` in which `word` stands.
fn holding(directory: &Path, word: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let has = |bytes: Vec<u8>| bytes.windows(word.len()).any(|window| window == word.as_bytes());
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => found.extend(holding(&path, word)),
            kind if kind.is_file() && std::fs::read(&path).is_ok_and(has) => found.push(path.display().to_string()),
            _ => {}
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_comes_back_out_of_s3() {
    comes_back_out_of(S3::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_comes_back_out_of_azure() {
    comes_back_out_of(Azurite::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_comes_back_out_of_what_stands_in_for_google() {
    comes_back_out_of(Gcs::start().await).await;
}

/// Versions, a lock, and a key of a key service; the server overlooks create-only writes there, so that no lease holds.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "starts a Ceph: tests/run --long"]
async fn a_service_comes_back_out_of_a_locked_bucket_of_ceph() {
    let ceph = Ceph::start().await;
    ceph.boto(
        "s3 = client('s3')\ns3.delete_bucket(Bucket=B)\ns3.create_bucket(Bucket=B, ObjectLockEnabledForBucket=True)\n\
         s3.put_object_lock_configuration(Bucket=B, ObjectLockConfiguration={'ObjectLockEnabled': 'Enabled', 'Rule': \
         {'DefaultRetention': {'Mode': 'GOVERNANCE', 'Days': 1}}})",
    );
    let (recovered, listing) = comes_back_out_of(ceph).await;
    let said = text(&recovered.stderr);
    assert!(said.contains("no lease on orders-db") && said.contains("though told not to"), "{said}");
    let parts: Vec<&str> = listing.lines().filter(|line| line.contains("/base/")).collect();
    assert!(parts.len() > 1 && parts.iter().all(|line| line.ends_with(KMS_KEY)), "{listing}");
}

/// Backed up, archived, damaged, and restored to the moment before, with the same runbook whatever the cloud.
async fn comes_back_out_of(server: impl Cloud) -> (Output, String) {
    let scene = Scene::new(server).await;
    scene.primary.sql("create table orders (id bigserial primary key, item text)").await;
    scene.primary.sql("insert into orders (item) select 'before ' || g from generate_series(1, 5000) g").await;
    scene.cache.run("SET basket:1 apples").await;
    let runbook = crate::support::checkout().join("runbooks/backup-now.toml");
    scene.done(&["run", runbook.to_str().unwrap(), "--headless", "--yes"]);
    scene.primary.sql("insert into orders (item) select 'after ' || g from generate_series(1, 100) g").await;
    let target = scene
        .primary
        .value("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    let target = target.await;
    scene.primary.sql("drop table orders").await;
    scene.primary.archive().await;

    let window: Value = last_line(&scene.done(&["points", "--json"]));
    assert_eq!(window["systems"][0]["backups"].as_array().unwrap().len(), 1, "{window}");
    assert_eq!(window["systems"][0]["gaps"].as_array().unwrap().len(), 0, "{window}");
    scene.done(&["points", "--target", &target]);
    // The look leaves indexes; from here on a recovery writes nothing but its lease.
    let listing = || {
        let listing = scene.server.listing();
        listing.lines().filter(|line| !line.contains("/lease/")).collect::<Vec<_>>().join("\n")
    };
    let before = listing();

    let recovered =
        scene.done(&["run", "recover.toml", "--headless", "--yes", "--json", "--var", &format!("target={target}")]);
    let restored = scene.restored();
    let rows =
        value(&restored, "select count(*) filter (where item ~ '^(before|after)') || ' ' || count(*) from orders");
    assert_eq!(rows.await, "5100 5101");
    let url = format!("redis://127.0.0.1:{}/0", scene.ports.1);
    let got = Command::new("redis-cli").args(["-u", &url, "get", "basket:1"]).output().unwrap();
    assert_eq!(text(&got.stdout).trim(), "apples");
    assert_eq!(listing(), before, "a recovery wrote into the bucket");

    // The secret key is where it was given and nowhere else: not in the journal, the report, the log, the server's files.
    let secret = scene.server.secret();
    let secret = secret.as_str();
    let mut found = holding(scene.home.path(), secret);
    found.retain(|path| !path.ends_with("/secret") && *path != scene.path("keys").display().to_string());
    assert_eq!(found, Vec::<String>::new());
    assert!(!text(&recovered.stdout).contains(secret) && !text(&recovered.stderr).contains(secret));
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        assert!(!text(&line).contains(secret), "in the process list: {}", text(&line));
    }
    (recovered, before)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_postgresql_work_on_a_bucket() {
    let scene = Scene::new(S3::start().await).await;
    let name = scene.primary.archive().await;
    let store = scene.server.url("prod");
    let keys = scene.path("keys").display().to_string();
    let fetch = |store: &str, keys: &str, name: &str| {
        let to = scene.path("fetched").display().to_string();
        scene.lifeboat(&["wal", "fetch", "--store", store, "--prefix", "orders-db", "--keys", keys, name, &to])
    };
    assert_eq!(fetch(&store, &keys, &name).status.code(), Some(0));
    let archived = std::fs::read(scene.primary.data.join("pg_wal").join(&name));
    if let Ok(archived) = archived {
        assert!(std::fs::read(scene.path("fetched")).unwrap() == archived);
    }
    // Without the option, what Amazon's own tools would find; and nothing is there to find.
    let usual = |variables: &[(&str, &str)]| {
        let mut command = Command::new(program());
        command.args(["wal", "fetch", "--store", &store, "--prefix", "orders-db", &name]).arg(scene.path("usual"));
        command.env("HOME", "/nonexistent").envs(variables.iter().copied()).output().unwrap()
    };
    let given = &scene.server.keys;
    let pair = [("AWS_ACCESS_KEY_ID", given.access_key.expose()), ("AWS_SECRET_ACCESS_KEY", given.secret_key.expose())];
    assert_eq!(usual(&pair).status.code(), Some(0));
    assert_eq!(usual(&[("AWS_SHARED_CREDENTIALS_FILE", &keys)]).status.code(), Some(0));
    let nothing = usual(&[]);
    assert_eq!(nothing.status.code(), Some(255));
    assert!(text(&nothing.stderr).contains("there are no keys for s3://acme-dr"), "{}", text(&nothing.stderr));
    // Only this may end a recovery.
    assert_eq!(fetch(&store, &keys, "000000010000000000000099").status.code(), Some(1));
    let wrong = scene.path("wrong").display().to_string();
    std::fs::write(&wrong, "[default]\naws_access_key_id = AKIAWRONG\naws_secret_access_key = wrong\n").unwrap();
    for (store, keys, says) in [
        (store.replace(BUCKET, "another-bucket"), &keys, "does not exist"),
        (store.replace("/prod", "/elsewhere"), &keys, "holds no WAL archive"),
        (store.clone(), &wrong, "was refused: the server says InvalidAccessKeyId"),
        (store.clone(), &"/nowhere".to_owned(), "cannot be read from /nowhere"),
        (store.replace(&scene.server.port.to_string(), "1"), &keys, "cannot be reached"),
    ] {
        let output = fetch(&store, keys, "000000010000000000000099");
        assert_eq!(output.status.code(), Some(255), "{store}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(says), "{store}: {}", text(&output.stderr));
    }
    let segment = scene.primary.data.join("pg_wal").join(&name).display().to_string();
    let push = scene.lifeboat(&["wal", "push", "--store", &store, "--prefix", "orders-db", "--keys", &wrong, &segment]);
    assert_eq!(push.status.code(), Some(1));
    assert!(text(&push.stderr).contains("was refused"), "{}", text(&push.stderr));

    // The same for a person.
    scene.server.boto("client('s3').delete_objects(Bucket='acme-dr', Delete={'Objects': [{'Key': o['Key']} for o in client('s3').list_objects_v2(Bucket='acme-dr')['Contents']]}); client('s3').delete_bucket(Bucket='acme-dr')");
    let points = scene.lifeboat(&["points"]);
    assert_eq!(points.status.code(), Some(1));
    insta::assert_snapshot!(text(&points.stderr), @"
    lifeboat: the backups of orders-db cannot be looked at
      why: the bucket of s3://acme-dr/prod/orders-db does not exist: the server says NoSuchBucket: The specified bucket does not exist
      now: check bucket, region and endpoint in the store's URL; create the bucket if it is a new one
    ");
}

/// What went wrong, and the sentence for a person.
async fn trouble(bucket: Result<Bucket, StoreError>) -> (Option<Trouble>, Failure) {
    let error = match bucket {
        Ok(bucket) => bucket.read("big").await.expect_err("it cannot be read"),
        Err(error) => error,
    };
    let trouble = match &error {
        StoreError::Cloud { trouble, .. } => Some(*trouble),
        _ => None,
    };
    let failure = Failure::from(error);
    assert!(failure.now.is_some() && !failure.why.is_empty(), "{failure:?}");
    (trouble, failure)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_whole_and_never_replaced() {
    let server = S3::start().await;
    let bucket = server.bucket("a/b");
    bucket.create("lock", "one").await.unwrap();
    let error = bucket.create("lock", "two").await.unwrap_err();
    assert!(matches!(error, StoreError::Exists { .. }), "{error}");
    bucket.settle("lock", "one").await.unwrap();

    let bytes: Vec<u8> = (0..40_u32 << 20).map(|n| (n / 4096) as u8).collect();
    let mut upload = bucket.upload("big").await.unwrap();
    for chunk in bytes.chunks(1 << 20) {
        upload.write(chunk).await.unwrap();
    }
    assert!(!bucket.exists("big").await.unwrap());
    let written = upload.finish().await.unwrap();
    assert!(bucket.read_verified("big", written.digest).await.unwrap() == bytes);
    let streamed: Vec<u8> =
        bucket.stream("big").await.unwrap().map(|chunk| chunk.unwrap().to_vec()).collect::<Vec<_>>().await.concat();
    assert!(streamed == bytes);
    assert_eq!(bucket.range("big", 5..9).await.unwrap(), bytes[5..9]);
    assert_eq!(bucket.list("").await.unwrap().len(), 2);
    // More than one part, as Amazon's own client sees it.
    let parts = server.boto("print(client('s3').head_object(Bucket='acme-dr', Key='a/b/big')['ETag'])");
    assert!(parts.trim().ends_with("-5\""), "{parts}");

    let mut upload = bucket.upload("half").await.unwrap();
    upload.write(&bytes).await.unwrap();
    upload.abandon().await.unwrap();
    let open = "print(len(client('s3').list_multipart_uploads(Bucket='acme-dr').get('Uploads', [])))";
    assert_eq!(server.boto(open).trim(), "0");
    bucket.delete("big").await.unwrap();
    assert!(!bucket.exists("big").await.unwrap());

    // A connection that breaks off in the middle of an object: it goes on where it was.
    bucket.create("middle", bytes[..8 << 20].to_vec()).await.unwrap();
    let cutter = Cutter::start(server.port, 3 << 20, false).await;
    let by = |endpoint: &str| Bucket::open_with(&server.url_by("a/b", endpoint), "", &Keys::Given(server.given()));
    assert!(by(&cutter.endpoint).unwrap().read("middle").await.unwrap() == bytes[..8 << 20]);
    assert!(cutter.has_cut());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_trouble_is_told_for_what_it_is() {
    let server = S3::start().await;
    server.bucket("").create("big", vec![7; 1 << 20]).await.unwrap();
    let keys = |secret: &str| Keys::Given(Given::S3(Pair { secret_key: Secret::new(secret), ..server.keys.clone() }));
    let right = Keys::Given(server.given());
    let open = |url: &str, keys: &Keys| Bucket::open_with(url, "", keys);

    let (found, failure) = trouble(open(&server.url("").replace(BUCKET, "no-such-bucket"), &right)).await;
    assert_eq!(found, Some(Trouble::NoBucket), "{failure:?}");
    let (found, failure) = trouble(open(&server.url(""), &keys("wrong"))).await;
    assert_eq!(found, Some(Trouble::Refused), "{failure:?}");
    assert!(failure.why.contains("SignatureDoesNotMatch"), "{failure:?}");
    let (found, failure) = trouble(open(&server.url_by("", "http://127.0.0.1:1"), &right)).await;
    assert_eq!(found, Some(Trouble::Unreachable), "{failure:?}");
    let cutter = Cutter::start(server.port, 1000, true).await;
    let (found, failure) = trouble(open(&server.url_by("", &cutter.endpoint), &right)).await;
    assert_eq!(found, Some(Trouble::Cut), "{failure:?}");
    assert!(cutter.has_cut());
    // Recorded from Amazon: moto's tokens do not expire.
    let expired = recorded(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length: 150\r\n\r\n\
         <?xml version=\"1.0\"?><Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message>\
         <RequestId>0A49CE4060975EAC</RequestId></Error>      ",
    );
    let (found, failure) = trouble(open(&server.url_by("", &expired.await), &right)).await;
    assert_eq!(found, Some(Trouble::Expired), "{failure:?}");
    let failing = recorded("HTTP/1.1 503 Slow Down\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
    let (found, failure) = trouble(open(&server.url_by("", &failing), &right)).await;
    assert_eq!(found, Some(Trouble::Answer), "{failure:?}");

    let secure = S3::start_with_tls().await;
    let (found, failure) = trouble(open(&secure.url(""), &right)).await;
    assert_eq!(found, Some(Trouble::Tls), "{failure:?}");
    // The same certificate, known: verified, and let in.
    let home = tempfile::tempdir().unwrap();
    let keys = home.path().join("keys");
    std::fs::write(&keys, secure.given().to_file().expose()).unwrap();
    let output = Command::new(program())
        .args(["wal", "fetch", "--store", &secure.url("prod"), "--keys"])
        .arg(keys)
        .args(["000000010000000000000099", "to"])
        .env("SSL_CERT_FILE", secure.certificate.as_ref().unwrap())
        .output()
        .unwrap();
    assert!(text(&output.stderr).contains("holds no WAL archive"), "{}", text(&output.stderr));
}

/// Amazon takes nothing without one into a bucket that locks what is written; neither moto nor Ceph minds.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_says_its_checksum() {
    let (endpoint, heard) =
        recording("HTTP/1.1 200 OK\r\nETag: \"e\"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
    let keys = Pair { access_key: Secret::new("a"), secret_key: Secret::new("s"), session_token: None };
    let url = format!("s3://{BUCKET}/a?endpoint={endpoint}&patience=1s");
    Bucket::open_with(&url, "", &Keys::Given(Given::S3(keys))).unwrap().swap("key", "one").await.unwrap();
    let heard = text(&heard.lock().unwrap());
    // As openssl has it of `one`.
    assert!(heard.contains("x-amz-checksum-sha256: dpLDrTVAu4A8Ags67mbNiIcSMjTqDG5xQ8Ct1z/0Me0=\r\n"), "{heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_keeps_what_is_written_whole_and_says_what_is_wrong() {
    let server = Azurite::start().await;
    let bucket = server.bucket("a/b");
    bucket.create("lock", "one").await.unwrap();
    assert!(matches!(bucket.create("lock", "two").await, Err(StoreError::Exists { .. })));
    let bytes: Vec<u8> = (0..20_u32 << 20).map(|n| (n / 4096) as u8).collect();
    let mut upload = bucket.upload("big").await.unwrap();
    for chunk in bytes.chunks(1 << 20) {
        upload.write(chunk).await.unwrap();
    }
    assert!(!bucket.exists("big").await.unwrap());
    let written = upload.finish().await.unwrap();
    assert!(bucket.read_verified("big", written.digest).await.unwrap() == bytes);
    assert_eq!(
        server.azure("print(container.get_blob_client('a/b/big').get_blob_properties().size)").trim(),
        "20971520"
    );
    let mut half = bucket.upload("half").await.unwrap();
    half.write(&bytes).await.unwrap();
    half.abandon().await.unwrap();
    assert_eq!(bucket.list("").await.unwrap().len(), 2);

    let open = |keys: Given, url: &str| Bucket::open_with(url, "a/b", &Keys::Given(keys));
    let sas = |permissions: &str, hours: i32| Given::Azure(AzureKey::Sas(server.sas(permissions, hours)));
    // A signature that may only read and list: enough for a restore, and nothing is written with it.
    let reader = open(sas("rl", 1), &server.url("")).unwrap();
    assert!(reader.read_verified("big", written.digest).await.unwrap() == bytes);
    let refused = Failure::from(reader.create("mine", "x").await.unwrap_err());
    assert!(refused.what.contains("was refused") && refused.now.unwrap().contains("sas_token"), "{}", refused.why);
    assert!(!bucket.exists("mine").await.unwrap());

    let wrong = Given::Azure(AzureKey::Account(Secret::new("d3Jvbmc=")));
    for (keys, url, expected) in [
        (server.given(), server.url("").replace(CONTAINER, "no-such"), Trouble::NoBucket),
        (wrong, server.url(""), Trouble::Refused),
        (sas("rl", -1), server.url(""), Trouble::Refused),
        (server.given(), server.url_by("", "http://127.0.0.1:1/acmebackups"), Trouble::Unreachable),
    ] {
        let (found, failure) = trouble(open(keys, &url)).await;
        assert_eq!(found, Some(expected), "{failure:?}");
        let told = format!("{failure:?}");
        assert!(!told.contains("sig=") && !told.contains("d3Jvbmc="), "{told}");
    }
    let nowhere = Bucket::open_with("az://acme-dr/x", "", &Keys::Given(server.given())).unwrap_err();
    assert!(nowhere.to_string().contains("?account=NAME"), "{nowhere}");
}

/// As far as a stand-in can show it.
#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_for_google_keeps_what_is_written_whole_and_says_what_is_wrong() {
    let server = Gcs::start().await;
    let bucket = server.bucket("a/b");
    bucket.create("lock", "one").await.unwrap();
    assert!(matches!(bucket.create("lock", "two").await, Err(StoreError::Exists { .. })));
    bucket.swap("lock", "three").await.unwrap();
    assert_eq!(bucket.read("lock").await.unwrap(), "three");
    let bytes: Vec<u8> = (0..20_u32 << 20).map(|n| (n / 4096) as u8).collect();
    let mut upload = bucket.upload("big").await.unwrap();
    for chunk in bytes.chunks(1 << 20) {
        upload.write(chunk).await.unwrap();
    }
    assert!(!bucket.exists("big").await.unwrap());
    let written = upload.finish().await.unwrap();
    assert!(bucket.read_verified("big", written.digest).await.unwrap() == bytes);
    assert_eq!(bucket.range("big", 5..9).await.unwrap(), bytes[5..9]);
    let mut half = bucket.upload("half").await.unwrap();
    half.write(&bytes).await.unwrap();
    half.abandon().await.unwrap();
    // More than one page of a listing.
    for n in 0..20 {
        bucket.create(&format!("wal/{n:02}"), "segment").await.unwrap();
    }
    assert_eq!(bucket.list("").await.unwrap().len(), 22);
    assert_eq!(bucket.list("wal").await.unwrap().len(), 20);
    bucket.delete("wal/07").await.unwrap();
    assert!(!bucket.exists("wal/07").await.unwrap());

    let open =
        |key: Secret, url: &str| Bucket::open_with(url, "a/b", &Keys::Given(Given::Google(GoogleKey::Service(key))));
    let writer = open(server.account("writer", &gcs::WRITE), &server.url("")).unwrap();
    writer.create("wal/07", "again").await.unwrap();
    for refused in [writer.swap("wal/07", "over").await, writer.delete("wal/07").await] {
        let refused = Failure::from(refused.unwrap_err());
        assert!(refused.what.contains("was refused") && refused.now.is_some(), "{refused:?}");
    }
    let nobody = Gcs::start().await.owner.clone();
    for (key, url, expected) in [
        (server.owner.clone(), server.url("").replace(gcs::BUCKET, "no-such"), Trouble::NoBucket),
        (nobody, server.url(""), Trouble::Refused),
        (server.account("blind", &["storage.objects.list"]), server.url(""), Trouble::Refused),
        (server.owner.clone(), "gs://acme-dr?endpoint=http://127.0.0.1:1&patience=1s".to_owned(), Trouble::Unreachable),
    ] {
        let secret = key.expose().to_owned();
        let (found, failure) = trouble(open(key, &url)).await;
        assert_eq!(found, Some(expected), "{failure:?}");
        assert!(!format!("{failure:?}").contains(&secret[100..200]), "{failure:?}");
    }
}
