//! The incident: a backup, trade, and a migration that should not have been.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use chrono::{DateTime, SecondsFormat, SubsecRound as _, Utc};

use crate::clock;
use crate::event::{Failure, parse_time};
use crate::store::Bucket;
use crate::system::{postgres as pg, redis as rd};

use super::error::SandboxError;
use super::record::{FORMAT, Incident, Scale};
use super::servers::app::App;
use super::servers::postgres::{Primary, Stop};
use super::servers::redis::Cache;
use super::servers::{postgres, redis};
use super::{Tell, fill};

/// Set by the deployment before the migration; a candidate for whoever restores.
const RESTORE_POINT: &str = "release-41";
/// What the migration calls itself in its log.
const MIGRATION: &str = "migration 42 (payments move to the billing service)";
const BEGIN_MIGRATION: &str = "insert into schema_migrations (version) values (42);";
/// Acknowledged orders between two moments of the damage, and before the primary goes.
const MOMENT: u64 = 8;

/// SCAN and UNLINK in the server: what a hurried migration does to every cart.
const FLUSH_CARTS: &str = "local gone, cursor = 0, '0' \
    repeat \
      local page = redis.call('SCAN', cursor, 'MATCH', 'cart:*', 'COUNT', 1000) \
      cursor = page[1] \
      for _, key in ipairs(page[2]) do gone = gone + redis.call('UNLINK', key) end \
    until cursor == '0' \
    return gone";

/// The servers while things go wrong.
pub struct Story<'a> {
    pub primary: &'a Primary<'a>,
    pub cache: &'a Cache<'a>,
    pub app: &'a App<'a>,
    pub scale: Scale,
    pub tell: Tell<'a>,
}

/// What the backups are called in the bucket.
pub struct Backups {
    base: String,
    snapshot: String,
    finished: DateTime<Utc>,
}

/// The three wounds.
struct Damage {
    started: DateTime<Utc>,
    acknowledged_before: u64,
    dropped: (u64, DateTime<Utc>),
    deleted: (u64, DateTime<Utc>),
    flushed: DateTime<Utc>,
}

impl Story<'_> {
    pub async fn run(self) -> Result<Incident, SandboxError> {
        let backups = self.first_backups().await?;
        self.primary
            .sql("setting a restore point", format!("select pg_create_restore_point('{RESTORE_POINT}');"))
            .await?;
        let traffic = self.scale.sizes().traffic;
        tokio::try_join!(fill::traffic(self.primary), self.app.acknowledges(traffic))?;
        let damage = self.migrate().await?;
        (self.tell)("migration 42 has dropped payments, deleted a third of the orders and flushed the carts");
        let last_archived_segment = self.archive().await?;
        // Some orders after the last archived segment: no primary dies with everything archived.
        self.app.acknowledges(MOMENT).await?;
        let taken_down_at = now();
        self.primary.stop(Stop::Immediate).await?;
        (self.tell)("the primary was taken down");
        Ok(Incident {
            format: FORMAT,
            base_backup: backups.base,
            redis_snapshot: backups.snapshot,
            backup_finished_at: backups.finished,
            restore_point: RESTORE_POINT.to_owned(),
            damage_at: damage.started,
            payments_dropped_at: damage.dropped.1,
            orders_deleted_at: damage.deleted.1,
            carts_flushed_at: damage.flushed,
            payments_dropped_xid: damage.dropped.0,
            orders_deleted_xid: damage.deleted.0,
            last_archived_segment,
            taken_down_at,
            acknowledged_before_damage: damage.acknowledged_before,
            acknowledged: self.app.acknowledged()?,
        })
    }

    pub async fn first_backups(&self) -> Result<Backups, SandboxError> {
        let backups = self.back_up().await?;
        (self.tell)("a base backup, a Redis snapshot and its append-only file are in the bucket; the shop trades on");
        Ok(backups)
    }

    /// As the runbook `backup-now` does it, side by side.
    async fn back_up(&self) -> Result<Backups, SandboxError> {
        let layout = self.primary.layout;
        let part = |operation| move |failure: Failure| SandboxError::Part { operation, failure: Box::new(failure) };
        let open = |system| {
            Bucket::open(&layout.bucket_url(), system)
                .map(|bucket| bucket.encrypted(layout.encryption().into()))
                .map_err(|error| part("opening the bucket")(Failure::new("the bucket cannot be opened", error)))
        };
        let base = pg::Backup {
            url: self.primary.passwords.admin_url(self.primary.port),
            bucket: open(postgres::NAME)?,
            bin: Some(self.primary.tools.postgres_bin.clone()),
            full_every: None,
            cancel: self.primary.cancel.clone(),
            report: pg::Reporter::silent(),
        };
        let (url, bucket) = (self.cache.passwords.redis_url(self.cache.port), open(redis::NAME)?);
        let scratch = layout.scratch();
        let snapshot =
            rd::Snapshot { url: &url, bucket: &bucket, label: None, scratch: &scratch, cancel: self.cache.cancel };
        let aof = rd::ShipAof { url: &url, data: None, bucket: &bucket, cancel: self.cache.cancel };
        let (base, taken) = tokio::try_join!(async { base.run().await.map_err(part("the base backup")) }, async {
            let taken = snapshot.run(&|_| {}).await.map_err(|error| part("the snapshot")(error.into()))?;
            aof.run(&|_| {}).await.map_err(|error| part("the append-only file")(error.into()))?;
            Ok(taken)
        },)?;
        Ok(Backups { base: base.backup.label, snapshot: taken.snapshot.label, finished: now() })
    }

    /// Each wound in its own transaction, a moment apart, while orders come in.
    async fn migrate(&self) -> Result<Damage, SandboxError> {
        let acknowledged_before = self.app.acknowledged()?;
        let started = self.log("started")?;
        // Committed by itself, as migration tools do. A recovery that stops before it holds no lock of the drop.
        self.primary.sql("the migration", BEGIN_MIGRATION).await?;
        // Locked in the order in which the shop's inserts lock them: the drop alone takes `orders` second, and one of the two
        // would end in a deadlock.
        let dropped = self.transaction("lock table orders, payments;\ndrop table payments;").await?;
        self.log("dropped table payments")?;
        self.app.acknowledges(MOMENT).await?;
        let deleted = self.transaction("delete from orders where id % 3 = 0;").await?;
        self.log("deleted orders that the billing service has already")?;
        self.app.acknowledges(MOMENT).await?;
        let flushed = now();
        let carts = self.cache.command(&["EVAL", FLUSH_CARTS, "0"]).await?;
        self.log(&format!("flushed {carts} carts to force a reload"))?;
        self.log("finished")?;
        self.app.acknowledges(MOMENT).await?;
        Ok(Damage { started, acknowledged_before, dropped, deleted, flushed })
    }

    /// Runs one statement in a transaction of its own; its id and its commit's time.
    async fn transaction(&self, statement: &str) -> Result<(u64, DateTime<Utc>), SandboxError> {
        let sql = format!("begin;\nselect pg_current_xact_id();\n{statement}\ncommit;\n");
        let xid = self.primary.sql("the migration", sql).await?;
        let bad = |text: &str| SandboxError::Program {
            operation: "reading the migration's transaction".to_owned(),
            end: crate::process::End::Exited(0),
            output: text.to_owned(),
        };
        let number = xid.trim().parse().map_err(|_| bad(&xid))?;
        let sql = format!("select pg_xact_commit_timestamp(('{xid}'::xid8)::xid);", xid = xid.trim());
        let committed = self.primary.sql("asking for a commit's time", sql).await?;
        Ok((number, parse_time(&committed).map_err(|error| bad(&error.to_string()))?))
    }

    /// Writes a line of the migration's log, with its moment and offset, and returns the moment.
    fn log(&self, what: &str) -> Result<DateTime<Utc>, SandboxError> {
        let path = self.primary.layout.migration_log();
        let mut open = std::fs::OpenOptions::new();
        let mut file =
            open.create(true).append(true).mode(0o600).open(&path).map_err(SandboxError::io("opening", &path))?;
        let now = now();
        let stamp = now.to_rfc3339_opts(SecondsFormat::Micros, false);
        writeln!(file, "{stamp} {MIGRATION}: {what}").map_err(SandboxError::io("writing", &path))?;
        Ok(now)
    }

    /// Makes sure that the archive reaches beyond the damage; returns the last segment that it must have.
    async fn archive(&self) -> Result<String, SandboxError> {
        let segment = self.primary.sql("switching WAL", "select pg_walfile_name(pg_switch_wal());").await?;
        self.primary.archived(&segment).await?;
        Ok(segment)
    }
}

/// Wall time in whole microseconds, as PostgreSQL has it.
fn now() -> DateTime<Utc> {
    clock::wall_now().trunc_subsecs(6)
}
