//! The same by a real Ceph, whose gateway encrypts with keys of a key service, locks, and copies to another zone.

use std::process::Command;
use std::time::Duration;

use lifeboat::clock::boot_now;
use lifeboat::store::{Bucket, Given, Held, Keys, Lease, StoreError, Terms};
use serde_json::Value;

use super::{by, judged, look};
use crate::support::ceph::{Ceph, KMS_KEY};
use crate::support::postgres::program;
use crate::support::sandbox::text;

/// What comes of `asked`, by the owner's keys.
fn seen(ceph: &Ceph, asked: &str) -> Value {
    let home = tempfile::tempdir().unwrap();
    look(home.path(), &ceph.url("dr"), by(home.path(), &ceph.keys), asked, "")
}

fn versioned(ceph: &Ceph) {
    ceph.boto("client('s3').put_bucket_versioning(Bucket=B, VersioningConfiguration={'Status': 'Enabled'})");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "starts a Ceph: tests/run --long"]
async fn each_setting_of_a_bucket_of_ceph_shows() {
    let ceph = Ceph::start().await;
    let bare = seen(&ceph, &format!("kms_key = \"{KMS_KEY}\""));
    judged(&bare, "encryption", "missed", "is not encrypted");
    judged(&bare, "versions", "missed", "gone at once");
    judged(&bare, "lock", "ok", "the inventory asks for no lock");
    judged(&bare, "lifecycle", "ok", "no rule deletes backups");
    judged(&bare, "public", "missed", "nothing keeps it");
    judged(&seen(&ceph, "lock = \"30d\""), "lock", "missed", "asks for 30 days");

    // A key service that really holds the key: what is written is encrypted with it, or is not written.
    ceph.boto(&format!(
        "s3 = client('s3')\nput = lambda key: s3.put_object(Bucket=B, Key='dr/orders-db/wal/1', Body=b'one', \
         ServerSideEncryption='aws:kms', SSEKMSKeyId=key)\nput('{KMS_KEY}')\n\
         try:\n put('another')\nexcept s3.exceptions.ClientError: pass\nelse: raise SystemExit('it has no such key')"
    ));
    judged(&seen(&ceph, &format!("kms_key = \"{KMS_KEY}\"")), "encryption", "ok", "aws:kms and the key backups");
    judged(&seen(&ceph, "kms_key = \"another\""), "encryption", "missed", "asks for the key another");

    // Lifeboat asks for a key by the usual variables, and tells a key from the keys.
    let home = tempfile::tempdir().unwrap();
    let (keys, history) = (home.path().join("keys"), home.path().join("00000002.history"));
    std::fs::write(&keys, ceph.given().to_file().expose()).unwrap();
    std::fs::write(&history, "1\t0/3000000\tno recovery target specified\n").unwrap();
    let push = |key: &str| {
        let mut command = Command::new(program());
        command.args(["wal", "push", "--store", &ceph.url("dr"), "--prefix", "orders-db", "--keys"]).arg(&keys);
        command.arg(&history).env("AWS_SERVER_SIDE_ENCRYPTION", "aws:kms").env("AWS_SSE_KMS_KEY_ID", key);
        command.output().unwrap()
    };
    let refused = push("another");
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("the key that encrypts"), "{}", text(&refused.stderr));
    let done = push(KMS_KEY);
    assert!(done.status.success(), "{}", text(&done.stderr));

    versioned(&ceph);
    judged(&seen(&ceph, ""), "versions", "ok", "older version");

    let rule = |rule: &str| {
        ceph.boto(&format!(
            "client('s3').put_bucket_lifecycle_configuration(Bucket=B, LifecycleConfiguration={{'Rules': [{{'ID': 'r', \
             'Status': 'Enabled', {rule}}}]}})"
        ));
        seen(&ceph, "retain = \"30d\"")
    };
    judged(&rule("'Filter': {'Prefix': 'dr/'}, 'Expiration': {'Days': 7}"), "lifecycle", "failed", "after 7 days");
    judged(&rule("'Filter': {'Prefix': ''}, 'Expiration': {'Days': 90}"), "lifecycle", "missed", "last good one too");
    judged(&rule("'Filter': {'Prefix': 'logs/'}, 'Expiration': {'Days': 1}"), "lifecycle", "ok", "no rule deletes");
    let tagged =
        "'Filter': {'And': {'Prefix': 'dr/', 'Tags': [{'Key': 'a', 'Value': 'b'}]}}, 'Expiration': {'Days': 2}";
    judged(&rule(tagged), "lifecycle", "failed", "some of the backups after 2 days");
    let parts = "'Filter': {'Prefix': ''}, 'AbortIncompleteMultipartUpload': {'DaysAfterInitiation': 3}";
    judged(&rule(parts), "lifecycle", "ok", "parts of unfinished uploads are removed");

    let policy = |whom: &str| {
        ceph.boto(&format!(
            "client('s3').put_bucket_policy(Bucket=B, Policy=json.dumps({{'Version': '2012-10-17', 'Statement': [{{'Effect': \
             'Allow', 'Principal': {whom}, 'Action': 's3:GetObject', 'Resource': 'arn:aws:s3:::*'}}]}}))"
        ));
        seen(&ceph, "")
    };
    // The server calls this one public too.
    judged(&policy("{'AWS': ['arn:aws:iam:::user/owner']}"), "public", "missed", "nothing keeps it");
    judged(&policy("'*'"), "public", "failed", "everybody, by the bucket's policy");
    ceph.boto("client('s3').delete_bucket_policy(Bucket=B)\nclient('s3').put_bucket_acl(Bucket=B, ACL='public-read')");
    judged(&seen(&ceph, ""), "public", "failed", "everybody, by a grant of READ");
    ceph.boto(
        "s3 = client('s3')\ns3.put_bucket_acl(Bucket=B, ACL='private')\ns3.put_public_access_block(Bucket=B, \
         PublicAccessBlockConfiguration={'BlockPublicAcls': True, 'IgnorePublicAcls': True, 'BlockPublicPolicy': True, \
         'RestrictPublicBuckets': True})",
    );
    let closed = seen(&ceph, "may = \"write\"");
    judged(&closed, "public", "ok", "cannot be opened");
    // This server takes nothing at all any more then, which whoever looks learns before the night.
    judged(&closed, "rights", "failed", "no backup can be written");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "starts a Ceph: tests/run --long"]
async fn a_lock_of_ceph_holds_what_lifeboat_writes() {
    let ceph = Ceph::start().await;
    ceph.boto(
        "s3 = client('s3')\ns3.delete_bucket(Bucket=B)\ns3.create_bucket(Bucket=B, ObjectLockEnabledForBucket=True)\n\
         s3.put_object_lock_configuration(Bucket=B, ObjectLockConfiguration={'ObjectLockEnabled': 'Enabled', 'Rule': \
         {'DefaultRetention': {'Mode': 'COMPLIANCE', 'Days': 35}}})",
    );
    let bucket = ceph.bucket("dr/orders-db");
    let mut upload = bucket.upload("base/a/part-1").await.unwrap();
    upload.write(&vec![7; 20 << 20]).await.unwrap();
    upload.finish().await.unwrap();
    bucket.create("base/a/manifest.json", "{}").await.unwrap();
    judged(&seen(&ceph, "lock = \"30d\""), "lock", "ok", "for 35 days");
    judged(&seen(&ceph, "lock = \"60d\""), "lock", "missed", "asks for 60 days");
    // Deleted it is only hidden, and not even its owner can take the version away.
    bucket.delete("base/a/manifest.json").await.unwrap();
    let kept = ceph.boto(
        "s3 = client('s3')\nfor version in s3.list_object_versions(Bucket=B)['Versions']:\n try:\n  \
         s3.delete_object(Bucket=B, Key=version['Key'], VersionId=version['VersionId'])\n except \
         s3.exceptions.ClientError as error: print(version['Key'], error.response['Error']['Code'])",
    );
    let kept: Vec<&str> = kept.lines().collect();
    assert_eq!(kept, ["dr/orders-db/base/a/manifest.json AccessDenied", "dr/orders-db/base/a/part-1 AccessDenied"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "starts a Ceph: tests/run --long"]
async fn keys_of_ceph_may_do_what_a_policy_says_and_no_more() {
    let ceph = Ceph::start().await;
    let names = ["reader", "writer", "pruner"];
    let [reads, writes, prunes] = names.map(|name| ceph.stranger(name));
    ceph.boto(
        "allow = lambda name, actions: {'Effect': 'Allow', 'Principal': {'AWS': ['arn:aws:iam:::user/' + name]}, 'Action': \
         ['s3:' + action for action in actions], 'Resource': ['arn:aws:s3:::' + B, 'arn:aws:s3:::' + B + '/*']}\n\
         read = ['GetObject', 'ListBucket']\n\
         statements = [allow('reader', read), allow('writer', read + ['PutObject']), allow('pruner', read + ['PutObject', \
         'DeleteObject'])]\n\
         client('s3').put_bucket_policy(Bucket=B, Policy=json.dumps({'Version': '2012-10-17', 'Statement': statements}))",
    );
    let home = tempfile::tempdir().unwrap();
    let may = |keys: &_, may: &str| {
        look(home.path(), &ceph.url("dr"), by(home.path(), keys), &format!("may = \"{may}\""), "")
    };
    judged(&may(&reads, "read"), "rights", "ok", "only read");
    judged(&may(&writes, "write"), "rights", "ok", "write, and not delete");
    judged(&may(&writes, "write"), "create-only", "ok", "does not write over");
    judged(&may(&prunes, "prune"), "rights", "ok", "write and delete");
    judged(&may(&writes, "read"), "rights", "missed", "should not write");
    judged(&may(&prunes, "write"), "rights", "missed", "should not delete");
    judged(&may(&reads, "write"), "rights", "failed", "no backup can be written");
    judged(&may(&writes, "prune"), "rights", "failed", "nothing can be pruned");
    let found = may(&reads, "read");
    for subject in ["versions", "lock", "lifecycle", "public"] {
        judged(&found, subject, "unknown", "may not ask");
    }
}

/// This server overlooks `If-None-Match` where it keeps versions.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "starts a Ceph: tests/run --long"]
async fn where_a_server_writes_over_what_is_there_nothing_relies_on_it() {
    let ceph = Ceph::start().await;
    let lease = |drill: &str| Lease {
        bucket: ceph.bucket("dr/orders-db"),
        drill: drill.into(),
        by: format!("{drill}@here"),
        terms: Terms::default(),
    };
    let ann = lease("ann");
    assert_eq!(ann.hold(None).await.unwrap(), Held::Token(1));
    ann.give_back().await.unwrap();
    judged(&seen(&ceph, "may = \"prune\""), "create-only", "ok", "does not write over");

    versioned(&ceph);
    judged(&seen(&ceph, "may = \"prune\""), "create-only", "missed", "though told not to");
    // Neither when it is taken nor when it is renewed.
    for _ in 0..3 {
        match ann.hold(None).await.unwrap() {
            Held::HereOnly { why } => assert!(why.contains("though told not to"), "{why}"),
            held => panic!("{held:?}"),
        }
    }
    assert!(lease("bob").hold(None).await.is_err(), "what somebody wrote down is heeded all the same");
    // Whoever comes later replaces nothing.
    let bucket = ceph.bucket("dr/orders-db");
    bucket.create("wal/1", "one").await.unwrap();
    assert!(matches!(bucket.create("wal/1", "two").await, Err(StoreError::Exists { .. })));
    assert_eq!(bucket.read("wal/1").await.unwrap(), "one");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "starts a Ceph of two zones: tests/run --long"]
async fn what_the_second_zone_does_not_have_yet_is_seen() {
    let ceph = Ceph::start_with_two_zones().await;
    let home = tempfile::tempdir().unwrap();
    let more = format!("[stores.copy]\nurl = \"{}\"\nKEYS", ceph.url_at(1, "dr"));
    let look = |within: &str| {
        let asked = format!("replica = \"copy\"\nreplica_within = \"{within}\"");
        look(home.path(), &ceph.url("dr"), by(home.path(), &ceph.keys), &asked, &more)
    };
    let there = Bucket::open_with(&ceph.url_at(1, "dr/orders-db"), "", &Keys::Given(Given::S3(ceph.keys.clone())));
    let (here, there) = (ceph.bucket("dr/orders-db"), there.unwrap());
    let patience = boot_now() + Duration::from_secs(120);
    let until = async |wanted: usize| {
        while there.list("").await.map_or(0, |objects| objects.len()) < wanted {
            assert!(boot_now() < patience, "it is never copied");
            lifeboat::clock::sleep(Duration::from_millis(200)).await;
        }
    };
    for n in 0..3 {
        here.create(&format!("wal/{n}"), "segment").await.unwrap();
    }
    until(3).await;
    judged(&look("1h"), "replica", "ok", "all 3 objects are in copy too");

    ceph.admin(["bucket", "sync", "disable", "--rgw-zone=one", "--bucket=acme-dr"]);
    here.create("wal/3", "segment").await.unwrap();
    let found = look("1h");
    judged(&found, "replica", "ok", "1 of 4 objects, 7 bytes, are not in copy yet");
    assert_eq!(found["replica"]["missing"], 1, "{found:#}");
    while look("1ms")["replica"]["lag_seconds"] == 0.0 {
        assert!(boot_now() < patience, "a lag is never seen");
    }
    judged(&look("1ms"), "replica", "missed", "1 of 4 objects");
    ceph.admin(["bucket", "sync", "enable", "--rgw-zone=one", "--bucket=acme-dr"]);
    until(4).await;
    judged(&look("1h"), "replica", "ok", "all 4 objects");
}
