//! After recovery: the server is where the plan says, and nowhere else.

use tokio_postgres::Client;

use crate::event::{Failure, Lsn, RecoveryTarget};
use crate::mutant;

use super::super::error::PgError;
use super::super::identity::Identity;
use super::super::wal::Segment;
use super::Restore;
use super::base::Base;
use super::target::OURS;
use super::watch::Standing;

impl Restore {
    /// The server is up; whether it is what was asked for is another question.
    pub(super) async fn assert(
        &self,
        client: &Client,
        base: &Base,
        identity: &Identity,
        standing: &Standing,
    ) -> Result<(), Failure> {
        let wrong = |why: String| {
            Err(Failure::new("the restored server is up, but not where it should be", why)
                .now("do not use it; undo this restore and choose again"))
        };
        if identity.system_identifier != base.system_identifier {
            return wrong(format!(
                "system identifier {}, expected {}",
                identity.system_identifier, base.system_identifier
            ));
        }
        let here = self.directory.canonicalize().ok();
        if identity.data_directory.as_ref().and_then(|path| path.canonicalize().ok()) != here {
            return wrong(format!("its data directory is {:?}", identity.data_directory));
        }
        if identity.timeline > self.plan.timeline {
            return wrong(format!("it is on timeline {}, expected {}", identity.timeline, self.plan.timeline));
        }
        if standing.lsn < base.stop_lsn {
            return wrong(format!("it stands at {}, before the backup's end at {}", standing.lsn, base.stop_lsn));
        }
        match (&self.plan.target, standing.commit) {
            (RecoveryTarget::Time { time }, Some(commit))
                if commit > *time || (!self.plan.inclusive && commit >= *time) =>
            {
                return wrong(format!("its last commit is of {commit}, after the target {time}"));
            }
            (RecoveryTarget::Lsn { lsn }, _) if self.plan.inclusive && standing.lsn < *lsn => {
                return wrong(format!("it stands at {}, before the target {lsn}", standing.lsn));
            }
            (RecoveryTarget::Lsn { lsn }, _)
                if !self.plan.inclusive && standing.lsn > *lsn && !self.straddles(*lsn, standing.lsn) =>
            {
                return wrong(format!("it stands at {}, after the target {lsn}", standing.lsn));
            }
            (RecoveryTarget::Latest, _) => {
                let last = Segment::before(self.plan.end, self.plan.timeline, base.wal_segment_bytes);
                if standing.lsn <= last.start() || standing.lsn > self.plan.end {
                    return wrong(format!("it stands at {}, and the WAL goes to {}", standing.lsn, self.plan.end));
                }
            }
            _ => {}
        }
        // To the microsecond: it was read in the same record. A server that stopped with a record does not know its time.
        let told = !(self.plan.inclusive && matches!(self.plan.target, RecoveryTarget::Lsn { .. }));
        let compared = self.plan.last_ended.filter(|_| told && !mutant::removes("3b"));
        if let Some(expected) = compared.filter(|expected| standing.commit != Some(*expected)) {
            let found = standing.commit.map_or_else(|| "none at all".to_owned(), |time| time.to_rfc3339());
            return wrong(format!("its last transaction is {found}, and the WAL says {}", expected.to_rfc3339()));
        }
        assert_not_archiving(client).await
    }

    /// Whether one record begins before `lsn` and ends at `standing`, which is where the server stopped: a target that a
    /// person writes may lie inside a record.
    fn straddles(&self, lsn: Lsn, standing: Lsn) -> bool {
        let log = std::fs::read_to_string(self.directory.join(OURS).join("server.log")).unwrap_or_default();
        let behind = |text: &str| -> Option<Lsn> {
            let rest = log.rsplit_once(text)?.1.trim_start_matches('"');
            rest.split(|c: char| c != '/' && !c.is_ascii_hexdigit()).next()?.parse().ok()
        };
        let (began, stopped) = (behind("redo starts at "), behind("recovery stopping before WAL location (LSN) "));
        // Between the end of one record and the beginning of the next there is a page's header at most.
        let next_is = |next: Lsn| next >= standing && next.0 - standing.0 <= LONG_PAGE_HEADER;
        began.is_some_and(|began| began < lsn) && stopped.is_some_and(next_is)
    }
}

/// Bytes.
const LONG_PAGE_HEADER: u64 = 40;

/// Tables under a lock that recovery itself holds: a transaction in flight at the target (a DROP, an ALTER) took it, and
/// only the promotion ends that transaction.
pub async fn locked_tables(client: &Client) -> Result<Vec<String>, PgError> {
    let rows = client
        .query(
            "select distinct c.oid::regclass::text
               from pg_locks l join pg_stat_activity a on a.pid = l.pid and a.backend_type = 'startup'
               join pg_class c on c.oid = l.relation
              where l.locktype = 'relation' and l.mode = 'AccessExclusiveLock' and c.relkind in ('r', 'p', 'm')
                and l.database = (select oid from pg_database where datname = current_database())
                and c.relnamespace <> 'pg_toast'::regnamespace
              order by 1",
            &[],
        )
        .await
        .map_err(|error| PgError::sql("looking at recovery's locks", &error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// A clone that archives pollutes the archive it came from.
pub(in crate::system::postgres) async fn assert_not_archiving(client: &Client) -> Result<(), Failure> {
    let row = client.query_one("select current_setting('archive_mode')", &[]).await;
    let mode: String = row.map_err(|error| PgError::sql("asking for archive_mode", &error))?.get(0);
    if mode == "off" || mutant::removes("5") || mutant::removes("5b") {
        return Ok(());
    }
    Err(Failure::new("the restored server would archive its WAL", format!("archive_mode is {mode}"))
        .now("stop it: it must not write into the source's archive"))
}
