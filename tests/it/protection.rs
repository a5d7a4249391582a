//! What a provider does for a store, by looking at a real S3 server: each fault shows, and what cannot be seen is unknown.

mod azure;
mod ceph;
mod google;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lifeboat::clock::boot_now;
use lifeboat::secret::Secret;
use lifeboat::store::Pair;
use serde_json::Value;

use crate::support::postgres::program;
use crate::support::s3::S3;
use crate::support::sandbox::{last_line, text};
use crate::support::sinks::Web;

const KEY: &str = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555";

struct Place {
    server: S3,
    home: tempfile::TempDir,
}

impl Place {
    async fn new() -> Self {
        Self { server: S3::start().await, home: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The facts of the store `main`, opened with these keys; `asked` are more keys of it.
    fn look(&self, keys: &Pair, asked: &str, more: &str) -> Value {
        look(self.home.path(), &self.server.url("dr"), by(self.home.path(), keys), asked, more)
    }

    fn see(&self, asked: &str) -> Value {
        self.look(&self.server.keys.clone(), asked, "")
    }

    fn boto(&self, script: &str) -> String {
        self.server.boto(&format!("import json\ns3 = client('s3')\nB = 'acme-dr'\n{script}"))
    }

    /// Keys of a user who may do just this.
    fn keys(&self, name: &str, actions: &str) -> Pair {
        let made = self.server.boto(&format!(
            "import json\niam = client('iam')\niam.create_user(UserName='{name}')\nallow = {{'Version': '2012-10-17', \
             'Statement': [{{'Effect': 'Allow', 'Action': {actions}, 'Resource': '*'}}]}}\n\
             iam.put_user_policy(UserName='{name}', PolicyName='some', PolicyDocument=json.dumps(allow))\n\
             key = iam.create_access_key(UserName='{name}')['AccessKey']\nprint(key['AccessKeyId'], key['SecretAccessKey'])"
        ));
        let (access, secret) = made.trim().split_once(' ').expect("a pair of keys");
        Pair { access_key: Secret::new(access), secret_key: Secret::new(secret), session_token: None }
    }
}

/// What an inventory says to open an S3 store, with these keys in files beside it.
fn by(home: &Path, keys: &Pair) -> &'static str {
    std::fs::write(home.join("access"), keys.access_key.expose()).unwrap();
    std::fs::write(home.join("secret"), keys.secret_key.expose()).unwrap();
    "access_key = { file = \"access\" }\nsecret_key = { file = \"secret\" }\n"
}

/// The facts of the store `main` at this URL, opened by what `keys` says; `asked` are more keys of it, `more` other stores
/// with KEYS for the same.
fn look(home: &Path, url: &str, keys: &str, asked: &str, more: &str) -> Value {
    let inventory = format!(
        "format = 1\nservice = \"orders\"\n[stores.main]\nurl = \"{url}\"\n{keys}\n{asked}\n{}\n[systems.orders-db]\n\
         kind = \"postgres\"\nenvironment = \"test\"\nurl = {{ env = \"NO_SUCH\" }}\nbackups = {{ store = \"main\" }}\n\
         restore = {{ directory = \"{}\" }}\n",
        more.replace("KEYS", keys),
        home.join("restored").display(),
    );
    std::fs::write(home.join("lifeboat.toml"), inventory).unwrap();
    let mut command = Command::new(program());
    command.args(["check", "--stores-only", "--protection", "--json", "--inventory"]);
    let output = command.arg(home.join("lifeboat.toml")).current_dir("/").output().unwrap();
    let found = last_line(&output);
    assert_eq!(found["stores"][0]["store"], "main", "{found:#} {}", text(&output.stderr));
    found["stores"][0].clone()
}

#[track_caller]
fn judged(found: &Value, subject: &str, judgement: &str, words: &str) {
    let fact = found["facts"].as_array().unwrap().iter().find(|fact| fact["subject"] == subject);
    let fact = fact.unwrap_or_else(|| panic!("nothing of {subject}: {found:#}"));
    assert_eq!(fact["judgement"], judgement, "{fact:#}");
    assert!(fact["says"].as_str().unwrap().contains(words), "no `{words}`: {fact:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_setting_of_a_bucket_shows() {
    let place = Place::new().await;
    let bare = place.see("");
    judged(&bare, "versions", "missed", "gone at once");
    judged(&bare, "lock", "ok", "the inventory asks for no lock");
    judged(&bare, "lifecycle", "ok", "no rule deletes backups");
    judged(&bare, "public", "missed", "nothing keeps it");
    judged(&bare, "rights", "unknown", "nothing was tried");
    judged(&bare, "replica", "unknown", "no copy");
    judged(&place.see("lock = \"30d\""), "lock", "missed", "asks for 30 days");

    place.boto(&format!(
        "s3.put_bucket_versioning(Bucket=B, VersioningConfiguration={{'Status': 'Enabled'}})\n\
         s3.put_public_access_block(Bucket=B, PublicAccessBlockConfiguration={{'BlockPublicAcls': True, 'IgnorePublicAcls': \
         True, 'BlockPublicPolicy': True, 'RestrictPublicBuckets': True}})\n\
         s3.put_bucket_encryption(Bucket=B, ServerSideEncryptionConfiguration={{'Rules': \
         [{{'ApplyServerSideEncryptionByDefault': {{'SSEAlgorithm': 'aws:kms', 'KMSMasterKeyID': '{KEY}'}}}}]}})\n\
         s3.put_bucket_lifecycle_configuration(Bucket=B, LifecycleConfiguration={{'Rules': [{{'ID': 'parts', 'Status': \
         'Enabled', 'Filter': {{'Prefix': ''}}, 'AbortIncompleteMultipartUpload': {{'DaysAfterInitiation': 3}}}}]}})"
    ));
    let good = place.see(&format!("kms_key = \"{KEY}\""));
    judged(&good, "encryption", "ok", KEY);
    judged(&good, "versions", "ok", "older version");
    judged(&good, "lifecycle", "ok", "parts of unfinished uploads are removed");
    judged(&good, "public", "ok", "cannot be opened");
    // What the newest object really got counts more than what would be got.
    place.server.bucket("dr/orders-db").create("wal/1", "one").await.unwrap();
    let found = place.see("kms_key = \"another\"");
    judged(&found, "encryption", "missed", "asks for the key another");

    let rule = |rule: &str| {
        place.boto(&format!(
            "s3.put_bucket_lifecycle_configuration(Bucket=B, LifecycleConfiguration={{'Rules': [{{'ID': 'r', 'Status': \
             'Enabled', {rule}}}]}})"
        ));
        place.see("retain = \"30d\"")
    };
    judged(&rule("'Filter': {'Prefix': 'dr/'}, 'Expiration': {'Days': 7}"), "lifecycle", "failed", "after 7 days");
    judged(
        &rule("'Filter': {'Prefix': ''}, 'Expiration': {'Days': 90}"),
        "lifecycle",
        "missed",
        "the last good one too",
    );
    judged(&rule("'Filter': {'Prefix': 'logs/'}, 'Expiration': {'Days': 1}"), "lifecycle", "ok", "no rule deletes");
    let frozen = "'Filter': {'Prefix': 'dr'}, 'Transitions': [{'Days': 1, 'StorageClass': 'DEEP_ARCHIVE'}]";
    judged(&rule(frozen), "lifecycle", "failed", "wait hours");
    let tagged =
        "'Filter': {'And': {'Prefix': 'dr/', 'Tags': [{'Key': 'a', 'Value': 'b'}]}}, 'Expiration': {'Days': 2}";
    judged(&rule(tagged), "lifecycle", "failed", "some of the backups after 2 days");

    place
        .boto("s3.delete_public_access_block(Bucket=B)\ns3.put_bucket_acl(Bucket=B, ACL='public-read')\nprint('open')");
    judged(&place.see(""), "public", "failed", "open to everybody");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_seen_on_what_was_written() {
    let place = Place::new().await;
    place.boto(
        "s3.create_bucket(Bucket='locked-dr', ObjectLockEnabledForBucket=True)\n\
         s3.put_object_lock_configuration(Bucket='locked-dr', ObjectLockConfiguration={'ObjectLockEnabled': 'Enabled', \
         'Rule': {'DefaultRetention': {'Mode': 'COMPLIANCE', 'Days': 35}}})",
    );
    let url = place.server.url("dr").replace("acme-dr", "locked-dr");
    let keys = place.server.keys.clone();
    // `main` is another bucket here: the inventory is written by hand.
    place.look(&keys, "", "");
    let path = place.path("lifeboat.toml");
    let look = |days: &str| {
        let text = std::fs::read_to_string(&path).unwrap();
        let text: Vec<String> = text
            .lines()
            .filter(|line| !line.starts_with("lock"))
            .map(|line| match line.starts_with("url = \"s3") {
                true => format!("url = \"{url}\"\nlock = \"{days}\""),
                false => line.to_owned(),
            })
            .collect();
        std::fs::write(&path, text.join("\n")).unwrap();
        let mut command = Command::new(program());
        command.args(["check", "--stores-only", "--protection", "--json", "--inventory"]).arg(&path).current_dir("/");
        last_line(&command.output().unwrap())["stores"][0].clone()
    };
    judged(&look("30d"), "lock", "ok", "for 35 days");
    judged(&look("60d"), "lock", "missed", "asks for 60 days");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_may_do_what_they_must_and_no_more() {
    let place = Place::new().await;
    let read = "'s3:GetObject', 's3:ListBucket'";
    let reads = place.keys("restore", &format!("[{read}]"));
    let writes = place.keys("backup", &format!("[{read}, 's3:PutObject']"));
    let prunes = place.keys("prune", &format!("[{read}, 's3:PutObject', 's3:DeleteObject']"));
    let may = |keys: &Pair, may: &str| place.look(keys, &format!("may = \"{may}\""), "");
    judged(&may(&reads, "read"), "rights", "ok", "only read");
    judged(&may(&writes, "write"), "create-only", "ok", "does not write over");
    judged(&may(&writes, "write"), "rights", "ok", "write, and not delete");
    judged(&may(&prunes, "prune"), "rights", "ok", "write and delete");
    judged(&may(&writes, "read"), "rights", "missed", "should not write");
    judged(&may(&prunes, "write"), "rights", "missed", "should not delete");
    judged(&may(&reads, "write"), "rights", "failed", "no backup can be written");
    judged(&may(&writes, "prune"), "rights", "failed", "nothing can be pruned");
    // What keys may not ask is unknown, never well.
    let found = may(&reads, "read");
    judged(&found, "public", "unknown", "may not ask");
    judged(&found, "lifecycle", "unknown", "may not ask");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_lags_is_seen() {
    let place = Place::new().await;
    let (main, copy) = (place.server.bucket("dr/orders-db"), place.server.bucket("copy/orders-db"));
    let copy_url = place.server.url("copy");
    let more = format!("[stores.copy]\nurl = \"{copy_url}\"\nKEYS");
    let keys = place.server.keys.clone();
    let look = |within: &str| place.look(&keys, &format!("replica = \"copy\"\nreplica_within = \"{within}\""), &more);
    for n in 0..3 {
        main.create(&format!("wal/{n}"), "segment").await.unwrap();
        copy.create(&format!("wal/{n}"), if n == 1 { "half" } else { "segment" }).await.unwrap();
    }
    let found = look("1h");
    judged(&found, "replica", "ok", "1 of 3 objects, 7 bytes, are not in copy yet");
    assert_eq!(found["replica"]["missing"], 1, "{found:#}");
    // The server tells whole seconds: a lag shows once one has gone by.
    let patience = boot_now() + Duration::from_secs(60);
    while look("1ms")["replica"]["lag_seconds"] == 0.0 {
        assert!(boot_now() < patience, "a lag is never seen");
    }
    judged(&look("1ms"), "replica", "missed", "1 of 3 objects");
    copy.delete("wal/1").await.unwrap();
    copy.create("wal/1", "segment").await.unwrap();
    judged(&look("1h"), "replica", "ok", "all 3 objects");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_has_no_provider_to_ask() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("bucket")).unwrap();
    let inventory = format!(
        "format = 1\nservice = \"orders\"\n[stores.main]\nurl = \"file://{0}/bucket\"\nmay = \"write\"\n[systems.orders-db]\n\
         kind = \"postgres\"\nenvironment = \"test\"\nurl = {{ env = \"NO_SUCH\" }}\nbackups = {{ store = \"main\" }}\n\
         restore = {{ directory = \"{0}/restored\" }}\n",
        home.path().display()
    );
    std::fs::write(home.path().join("lifeboat.toml"), inventory).unwrap();
    let mut command = Command::new(program());
    command.args(["check", "--stores-only", "--protection", "--json", "--inventory"]);
    let output = command.arg(home.path().join("lifeboat.toml")).output().unwrap();
    let found = last_line(&output)["stores"][0].clone();
    judged(&found, "protection", "unknown", "a directory of this machine");
    judged(&found, "rights", "unknown", "a directory has no keys");
    assert_eq!(std::fs::read_dir(home.path().join("bucket")).unwrap().count(), 0, "it was only looked at");
}

/// The hook's, the bucket's and two systems' inventory.
fn of_two_systems(place: &Place, hook: &str) -> PathBuf {
    std::fs::write(place.path("access"), place.server.keys.access_key.expose()).unwrap();
    std::fs::write(place.path("secret"), place.server.keys.secret_key.expose()).unwrap();
    let system = |name: &str, kind: &str, url: &str| {
        format!(
            "[systems.{name}]\nkind = \"{kind}\"\nenvironment = \"test\"\nurl = \"{url}\"\n\
             backups = {{ store = \"main\" }}\nrestore = {{ directory = \"{}\" }}\n",
            place.path(name).display()
        )
    };
    let inventory = format!(
        "format = 1\nservice = \"orders\"\n[notify.hook]\nkind = \"webhook\"\nurl = \"{hook}/hook\"\n[stores.main]\n\
         url = \"{}\"\naccess_key = {{ file = \"access\" }}\nsecret_key = {{ file = \"secret\" }}\n{}{}",
        place.server.url("dr"),
        system("orders-db", "postgres", "postgresql://app@127.0.0.1:1/orders"),
        system("orders-cache", "redis", "redis://127.0.0.1:1"),
    );
    let path = place.path("lifeboat.toml");
    std::fs::write(&path, inventory).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_protected_fails_the_run_shows_in_the_metrics_and_alarms_until_it_is() {
    let (place, web) = (Place::new().await, Web::start().await);
    let inventory = of_two_systems(&place, &web.url);
    let lifeboat = |args: &[&str]| {
        let mut command = Command::new(program());
        command.args(args).arg("--inventory").arg(&inventory).arg("--state-dir").arg(place.path("state"));
        command.current_dir(&place.home).output().unwrap()
    };
    let check = ["check", "--stores-only", "--notify"];
    let looked = ["check", "--stores-only", "--notify", "--protection"];
    let heard = || {
        let received = web.received();
        let of_store =
            received.iter().map(|request| &request.body).filter(|body| body["name"] == "LifeboatStoreUnprotected");
        let mut lines: Vec<String> = of_store
            .map(|body| format!("{} {}", body["status"].as_str().unwrap(), body["subject"].as_str().unwrap()))
            .collect();
        lines.sort();
        lines
    };
    let verify = ["run", "verify-stores", "--headless", "--yes"];
    let metrics = ["metrics", "--stores-only", "--protection"];
    let public = |value: &str| {
        format!("lifeboat_store_judgement{{service=\"orders\",store=\"main\",subject=\"public\"}} {value}\n")
    };

    let output = lifeboat(&verify);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the store of orders-db is not protected as it should be"), "{said}");
    let page = text(&lifeboat(&metrics).stdout);
    assert!(page.contains(&public("2.0")), "{page}");
    assert_eq!(lifeboat(&looked).status.code(), Some(1));
    assert_eq!(heard(), ["firing main encryption", "firing main public", "firing main versions"]);
    lifeboat(&check);
    assert_eq!(heard(), [""; 0], "who did not look does not know that it is over");

    place.boto(
        "s3.put_bucket_versioning(Bucket=B, VersioningConfiguration={'Status': 'Enabled'})\n\
         s3.put_public_access_block(Bucket=B, PublicAccessBlockConfiguration={'BlockPublicAcls': True, 'IgnorePublicAcls': \
         True, 'BlockPublicPolicy': True, 'RestrictPublicBuckets': True})\n\
         s3.put_bucket_encryption(Bucket=B, ServerSideEncryptionConfiguration={'Rules': \
         [{'ApplyServerSideEncryptionByDefault': {'SSEAlgorithm': 'AES256'}}]})",
    );
    let output = lifeboat(&verify);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("that can be seen"), "{said}");
    let page = text(&lifeboat(&metrics).stdout);
    assert!(page.contains(&public("0.0")), "{page}");
    assert!(!text(&lifeboat(&["metrics", "--stores-only"]).stdout).contains("store_judgement"));
    lifeboat(&looked);
    assert_eq!(heard(), ["resolved main encryption", "resolved main public", "resolved main versions"]);
}
