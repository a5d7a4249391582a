use lifeboat::process::Spec;
use lifeboat::secret::Secret;
use lifeboat::system::postgres::{Fence, How, Reporter, Url, identify, prove_fenced, unfence};
use tokio_util::sync::CancellationToken;

use crate::support::postgres::Primary;

pub fn fence(url: &Secret) -> Fence {
    Fence {
        url: url.clone(),
        system_identifier: None,
        command: None,
        cancel: CancellationToken::new(),
        report: Reporter::silent(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row_04_a_fenced_primary_takes_no_writes_until_it_is_lifted() {
    let primary = Primary::start().await;
    primary.sql("create role app login; create table t (n int); grant all on t to app").await;
    let hba = std::fs::read_to_string(primary.data.join("pg_hba.conf")).unwrap();
    let app = Url::parse(&primary.url).unwrap().with_user("app");
    let session = app.connect().await.unwrap();
    session.batch_execute("insert into t values (1)").await.unwrap();
    // One that means to write whatever the default says.
    session.batch_execute("set default_transaction_read_only = off").await.unwrap();

    let failure = prove_fenced(&primary.url).await.unwrap_err();
    assert!(failure.what.contains("takes writes"), "{failure:?}");

    let answered = identify(&primary.url).await;
    for _ in 0..2 {
        let evidence = fence(&primary.url).run().await.expect("the fence holds");
        assert_eq!(evidence.how, How::WriteRefused);
        assert!(evidence.detail.contains("25006"), "{}", evidence.detail);
        assert!(!evidence.limits.is_empty());
    }
    assert!(session.batch_execute("insert into t values (2)").await.is_err(), "an old session writes on");
    assert!(app.connect().await.is_err(), "and none comes back");
    assert_eq!(primary.value("select count(*) from t").await, "1");

    unfence(&primary.url, Some(&answered), None, &CancellationToken::new(), &Reporter::silent())
        .await
        .expect("it is lifted");
    assert_eq!(std::fs::read_to_string(primary.data.join("pg_hba.conf")).unwrap(), hba);
    let written = async {
        // The reload reaches the postmaster a moment later.
        loop {
            if let Ok(session) = app.connect().await
                && session.batch_execute("insert into t values (3)").await.is_ok()
            {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), written).await.expect("it takes writes again");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_04_unknown_is_not_fenced() {
    // A socket that takes connections and says nothing, then closes: no PostgreSQL, and no proof.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let closing = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
        }
    });
    let url = Secret::new(format!("postgresql://dba@127.0.0.1:{port}/postgres"));
    let failure = prove_fenced(&url).await.expect_err("what says nothing was taken for fenced");
    assert!(failure.what.contains("not known"), "{failure:?}");
    let failure = fence(&url).run().await.unwrap_err();
    assert!(failure.what.contains("not known"), "{failure:?}");
    closing.abort();
    let _ = closing.await;
    let evidence = fence(&url).run().await.expect("nothing listens there now");
    assert_eq!(evidence.how, How::NoServer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_cannot_fence_says_so() {
    let primary = Primary::start().await;
    primary.sql("create role app login").await;
    let app = primary.url.expose().replace("dba@", "app@");
    let failure = fence(&Secret::new(app)).run().await.unwrap_err();
    assert!(failure.why.contains("not a superuser"), "{failure:?}");
    let mut failing = fence(&primary.url);
    failing.command = Some(Spec::new("/bin/false"));
    assert!(failing.run().await.is_err(), "a fence command that fails is no fence");
    assert!(prove_fenced(&primary.url).await.is_err());
}
