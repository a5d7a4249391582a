//! Promotion: the restored server begins to take writes, once it was asserted that it still stands where it was looked at
//! and that the old primary cannot write.

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};
use tokio_postgres::Client;

use super::connect::Url;
use super::error::PgError;
use super::fence::{Evidence, prove_fenced};
use super::identity::Identity;
use super::report::Reporter;
use super::restore::{
    Marker, Standing, State, Target, assert_not_archiving, promoted_by_others, running_server, switch_to_promoted,
};
use crate::clock;
use crate::event::{Facts, Failure, Lsn};
use crate::mutant;
use crate::secret::Secret;

/// What PostgreSQL may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks at whether it has.
const LOOK: Duration = Duration::from_millis(10);

/// Until the promotion's signal has gone through the postmaster to the startup process. One that goes on without it is
/// promoted too, but only after a checkpoint.
const SIGNALLED: Duration = Duration::from_millis(30);

/// Why two servers will not take writes for one service.
#[derive(Debug, Clone)]
pub enum Proof {
    /// The old primary's URL: that a write fails there is proven again, right before the promotion.
    Source(Secret),
    /// Nobody will be led to the promoted server, in a rehearsal beside a living primary: why, in a sentence.
    NotNeeded { why: String },
}

/// Promotes the server that a restore left paused.
pub struct Promote {
    /// Its data directory.
    pub directory: PathBuf,
    /// As [`super::Restored::url`].
    pub url: Secret,
    pub drill: String,
    pub system: String,
    pub proof: Proof,
    pub report: Reporter,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Promoted {
    pub timeline: u32,
    /// Where the new timeline began, about.
    pub lsn: Lsn,
    pub fingerprint: String,
    /// What was proven of the old primary.
    pub proof: String,
    pub seconds: f64,
    /// True when an earlier attempt had already done it.
    pub found: bool,
}

impl Promoted {
    /// As the outcome's facts.
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::new();
        let mut put = |name: &str, value: serde_json::Value| facts.insert(name.to_owned(), value);
        put("timeline", self.timeline.into());
        put("lsn", self.lsn.to_string().into());
        put("fingerprint", self.fingerprint.clone().into());
        put("proof", self.proof.clone().into());
        put("seconds", self.seconds.into());
        facts
    }
}

impl Promote {
    pub async fn run(self) -> Result<Promoted, Failure> {
        let began = clock::boot_now();
        let (target, marker) = Target::reopen(&self.directory, &self.drill, &self.system).await?;
        if running_server(&self.directory).is_none() {
            return Err(Failure::new(
                "there is no server to promote",
                format!("none runs on {}", self.directory.display()),
            )
            .now("run the restore again"));
        }
        let url = Url::parse(&self.url)?;
        let client = url.connect().await?;
        let identity = Identity::read(&client, &url.address()).await?;
        let here = self.directory.canonicalize().ok();
        let directory = identity.data_directory.as_ref().and_then(|path| path.canonicalize().ok());
        if directory != here && !mutant::removes("2") {
            return Err(Failure::new(
                "the server was not promoted",
                format!(
                    "{} answers from {:?}, not from {}",
                    url.address(),
                    identity.data_directory,
                    self.directory.display()
                ),
            ));
        }
        assert_not_archiving(&client).await?;
        let proof = self.proof().await?;
        self.report.say(proof.clone()).await;
        if let Some(timeline) = promoted_by_others(&self.directory, &marker) {
            return Err(Failure::new(
                "the server was promoted already, and not by this step",
                format!("it is on timeline {timeline}, and may hold writes behind what was looked at"),
            )
            .now("find out who promoted it and look at it again; if it is to stay, skip this step"));
        }
        let found = !identity.in_recovery;
        if !found {
            self.assert_still_there(&client, &marker).await?;
            self.promote(&client, &target, &marker).await?;
        }
        switch_to_promoted(&self.directory)?;
        // There is no way back to another point from here, and it would grow with every block that is written.
        target.forget_kept().map_err(|error| Failure::new("letting go of the kept base backup failed", error))?;
        target.hand_over()?;
        self.settle(&client, &url, &marker, proof, began, found).await
    }

    async fn proof(&self) -> Result<String, Failure> {
        match &self.proof {
            Proof::Source(_) if mutant::removes("4") => Ok("nobody looked".to_owned()),
            Proof::Source(source) => {
                let evidence: Evidence = prove_fenced(source).await.map_err(|failure| {
                    Failure::new("the server was not promoted: the old primary may still take writes", failure)
                        .now("fence the old primary, or stop it for good, then retry")
                })?;
                Ok(evidence.detail)
            }
            Proof::NotNeeded { why } => Ok(format!("the old primary was not fenced: {why}")),
        }
    }

    /// Paused, at the very place that was looked at.
    async fn assert_still_there(&self, client: &Client, marker: &Marker) -> Result<(), Failure> {
        let standing = Standing::read(client).await?;
        let moved = |why: String| {
            Err(Failure::new("the server was not promoted: it is not as it was looked at", why)
                .now("look again, then retry; or undo the restore"))
        };
        match &marker.state {
            State::Paused { lsn, .. } if *lsn != standing.lsn => {
                moved(format!("it stood at {lsn} and stands at {}", standing.lsn))
            }
            State::Paused { .. } if !standing.paused => moved("recovery goes on".to_owned()),
            // An earlier attempt had said that it would, and did not come to it.
            State::Paused { .. } | State::Promoted { .. } => Ok(()),
            State::Unpacking | State::Started(_) => moved("the restore has not ended".to_owned()),
        }
    }

    async fn promote(&self, client: &Client, target: &Target, marker: &Marker) -> Result<(), Failure> {
        // Before the effect: from here on the directory may hold what exists nowhere else, and nothing wipes it.
        if let State::Paused { place, .. } = &marker.state {
            let at: DateTime<Utc> = clock::wall_now().trunc_subsecs(3);
            target.mark(&Marker { state: State::Promoted { place: place.clone(), at }, ..marker.clone() })?;
        }
        let failed = |error| PgError::sql("promoting the server", &error);
        client.query_one("select pg_promote(false)", &[]).await.map_err(failed)?;
        clock::sleep(SIGNALLED).await;
        // Paused, the startup process looks for a promotion only once a second. The first of the two wakes it, the second
        // has it look before it goes on. Where it has looked already, the server refuses both, and that is all right.
        let _ = client.query_one("select pg_wal_replay_resume(), pg_wal_replay_pause()", &[]).await;
        let began = clock::boot_now();
        while clock::boot_now() - began < PATIENCE {
            let row = client.query_one("select pg_is_in_recovery()", &[]).await.map_err(failed)?;
            if !row.get::<_, bool>(0) {
                return Ok(());
            }
            clock::sleep(LOOK).await;
        }
        Err(Failure::new("the server did not come out of recovery", format!("within {} s", PATIENCE.as_secs()))
            .now(format!("read {}", target.ours("server.log").display())))
    }

    /// What it is now, and that it takes writes.
    async fn settle(
        &self,
        client: &Client,
        url: &Url,
        marker: &Marker,
        proof: String,
        began: Duration,
        found: bool,
    ) -> Result<Promoted, Failure> {
        let asking = |error| PgError::sql("asking the promoted server", &error);
        client.query_one("select pg_reload_conf()", &[]).await.map_err(asking)?;
        let identity = Identity::read(client, &url.address()).await?;
        if identity.in_recovery || identity.timeline <= marker.plan.timeline {
            return Err(Failure::new(
                "the server is not promoted",
                format!("it is on timeline {}, and came from {}", identity.timeline, marker.plan.timeline),
            ));
        }
        assert_not_archiving(client).await?;
        // A commit with WAL of its own, and nothing left behind.
        let wrote = client.query_one("select pg_logical_emit_message(true, 'lifeboat', 'promoted')::text", &[]).await;
        let lsn: String = wrote
            .map_err(|error| {
                Failure::new("the promoted server takes no writes", PgError::sql("a first write", &error))
                    .now("look for default_transaction_read_only at its roles and databases")
            })?
            .get(0);
        Ok(Promoted {
            timeline: identity.timeline,
            lsn: lsn.parse().unwrap_or_default(),
            fingerprint: identity.fingerprint(),
            proof,
            seconds: (clock::boot_now() - began).as_secs_f64(),
            found,
        })
    }
}
