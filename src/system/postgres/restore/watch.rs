//! Watches a server in recovery until it stands at its target, or dies.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::Plan;
use super::target::{Place, alive};
use crate::clock;
use crate::event::{Failure, Lsn, RecoveryTarget, Unit};
use crate::system::postgres::connect::Url;
use crate::system::postgres::error::PgError;
use crate::system::postgres::report::{Meter, Reporter};
use crate::system::postgres::wal::{Counters, Segment, missing_in};

/// Between two looks at the server.
const LOOK: Duration = Duration::from_millis(50);

/// Looks that find a server waiting at one place, and not for the segment behind the plan: by then it has asked the archive
/// again several times, and got what it cannot replay.
const STUCK: u32 = 20;

/// How long a server that runs may give no sign of life: no line in its log, no segment taken, no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// While it starts: before PostgreSQL 15 no line tells that it flushes what was unpacked, which takes long on a slow disk.
    pub starting: Duration,
    /// Once it has said that it is ready.
    pub answering: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { starting: Duration::from_secs(30 * 60), answering: Duration::from_secs(120) }
    }
}

/// Where recovery stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    pub lsn: Lsn,
    /// Of the last replayed commit; `None` when none was replayed.
    pub commit: Option<DateTime<Utc>>,
    pub paused: bool,
    pub in_recovery: bool,
    /// The startup process sleeps because nothing more is there.
    pub idle: bool,
}

impl Standing {
    pub async fn read(client: &Client) -> Result<Self, PgError> {
        let row = client
            .query_one(
                "select pg_is_in_recovery(),
                        case when pg_is_in_recovery() then coalesce(pg_last_wal_replay_lsn(), '0/0')
                             else pg_current_wal_lsn() end::text,
                        pg_last_xact_replay_timestamp(),
                        case when pg_is_in_recovery() then pg_get_wal_replay_pause_state() = 'paused' else false end,
                        exists (select from pg_stat_activity where backend_type = 'startup'
                                and wait_event = 'RecoveryRetrieveRetryInterval')",
                &[],
            )
            .await
            .map_err(|error| PgError::sql("asking the server how far it is", &error))?;
        Ok(Self {
            in_recovery: row.get(0),
            lsn: row.get::<_, String>(1).parse().unwrap_or_default(),
            commit: row.get(2),
            paused: row.get(3),
            idle: row.get(4),
        })
    }

    /// `10:01:12.340  0/4A2F11C8`, with the date when a day matters.
    fn position(&self) -> String {
        match self.commit {
            Some(time) => format!("{}  {}", time.to_rfc3339_opts(SecondsFormat::Millis, true), self.lsn),
            None => self.lsn.to_string(),
        }
    }
}

pub struct Watch<'a> {
    pub place: &'a Place,
    pub plan: &'a Plan,
    pub start: Lsn,
    pub pid: u32,
    /// The data directory.
    pub data: PathBuf,
    pub log: PathBuf,
    pub stage: PathBuf,
    pub user: &'a str,
    pub database: &'a str,
    pub counters: &'a Counters,
    pub segment_size: u64,
    pub patience: Patience,
    pub report: &'a Reporter,
}

impl Watch<'_> {
    /// Returns once recovery has paused where the plan says.
    pub async fn run(&self, cancel: &CancellationToken) -> Result<(Client, Url, Standing), Failure> {
        tokio::select! {
            arrived = self.watch() => arrived,
            () = cancel.cancelled() => Err(Failure::new("the restore was cancelled", "before the target was reached")),
        }
    }

    async fn watch(&self) -> Result<(Client, Url, Standing), Failure> {
        let total = self.plan.end.0.saturating_sub(self.start.0);
        let mut meter = Meter::new("replay", Unit::Bytes, Some(total));
        let mut log = LogTail { path: self.log.clone(), at: 0, rest: String::new() };
        let mut session: Option<(Client, Url)> = None;
        let mut asked_to_pause = false;
        let mut waits = Waits::default();
        let mut silence = Silence { signs: Signs::default(), since: clock::boot_now() };
        let mut wal = Meter::new("WAL", Unit::Segments, Some(self.plan.segments.len() as u64));
        loop {
            let delivered = self.counters.delivered.load(Ordering::Relaxed);
            if let Some(progress) = wal.tick(delivered, None).filter(|_| delivered > 0) {
                self.report.progress(progress);
            }
            for line in log.read() {
                self.report.say(line).await;
            }
            if !alive(self.pid) {
                for line in log.read() {
                    self.report.say(line).await;
                }
                return Err(self.death());
            }
            let ready = self.lets_in();
            let taken = self.counters.taken.load(Ordering::Relaxed);
            silence.look(Signs { ready, delivered, taken, logged: log.at });
            let limit = if ready { self.patience.answering } else { self.patience.starting };
            if clock::boot_now() > silence.since + limit {
                return Err(self.silent(limit));
            }
            if let Some((client, _)) = &session {
                match tokio::time::timeout(self.patience.answering, Standing::read(client)).await {
                    Ok(Ok(standing)) => {
                        silence.since = clock::boot_now();
                        let done = standing.lsn.0.saturating_sub(self.start.0);
                        if let Some(progress) = meter.tick(done, Some(standing.position())) {
                            self.report.progress(progress);
                        }
                        if !standing.in_recovery {
                            return Err(Failure::new(
                                "the restored server left recovery by itself",
                                format!("at {}, and it was told to pause", standing.lsn),
                            )
                            .now("undo this restore and look at its log"));
                        }
                        if standing.paused {
                            self.assert_at_target()?;
                            let done =
                                Meter::new("replay", Unit::Bytes, Some(done)).tick(done, Some(standing.position()));
                            done.into_iter().for_each(|progress| self.report.progress(progress));
                            for line in log.read() {
                                self.report.say(line).await;
                            }
                            return self.arrived(session, standing);
                        }
                        if self.plan.target == RecoveryTarget::Latest && !asked_to_pause {
                            let looks = waits.look(&standing);
                            if looks > 0 {
                                asked_to_pause = self.pause_at_the_end(client).await?;
                            }
                            if looks > STUCK && !asked_to_pause {
                                return Err(self.cannot_go_on(standing.lsn));
                            }
                        }
                    }
                    // Seen by the next look at the process, or a broken connection.
                    Ok(Err(_)) | Err(_) => session = None,
                }
            } else {
                if let Some(progress) = meter.tick((taken * self.segment_size).min(total), None) {
                    self.report.progress(progress);
                }
                if ready {
                    let session_or_none = tokio::time::timeout(self.patience.answering, self.log_in()).await;
                    session = session_or_none.unwrap_or(Ok(None))?;
                }
            }
            clock::sleep(LOOK).await;
        }
    }

    fn silent(&self, limit: Duration) -> Failure {
        let why = format!("process {} runs, and gave no sign of life for {} s", self.pid, limit.as_secs());
        Failure::new("the restored server does not answer", why).now(format!(
            "Read {}; look at that process and its disk. A retry stops it and begins anew.",
            self.log.display()
        ))
    }

    /// What stands behind `lsn` is there, and is no WAL that follows.
    fn cannot_go_on(&self, lsn: Lsn) -> Failure {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let said = log.lines().rfind(|line| line.contains(" LOG:  ") && !line.contains("restored log file"));
        let said = said.and_then(|line| line.split_once(" LOG:  ")).map_or("", |(_, said)| said);
        let segment = Segment::containing(lsn, self.plan.timeline, self.segment_size);
        Failure::new(format!("the WAL cannot be replayed behind {lsn}"), format!("{said}; that is in {segment}"))
            .now("find another copy of that segment, or choose a target before it: what lies behind it is lost")
    }

    fn arrived(&self, session: Option<(Client, Url)>, standing: Standing) -> Result<(Client, Url, Standing), Failure> {
        let (client, url) =
            session.ok_or_else(|| Failure::new("the restored server was lost", "its connection broke"))?;
        Ok((client, url, standing))
    }

    /// PostgreSQL pauses for other reasons too, such as settings that are too small to go on.
    fn assert_at_target(&self) -> Result<(), Failure> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let there = match self.plan.target {
            RecoveryTarget::Latest => self.asked_beyond() == Some(true),
            _ => log.contains("pausing at the end of recovery"),
        };
        if there {
            return Ok(());
        }
        let read = format!("read {}", self.log.display());
        if let Some(line) = log.lines().rfind(|line| line.contains("is a lower setting than on the primary server")) {
            let why = line.split_once("DETAIL:").map_or(line, |(_, why)| why).trim();
            let why = format!("{why} The source was given more after the base backup");
            return Err(Failure::new("recovery paused before it came to the target", why).now(
                "choose the point again with the WAL in reach: it says what the server needs; or use a later backup",
            ));
        }
        let why = log.lines().rfind(|line| line.contains("WARNING") || line.contains("paused")).unwrap_or_default();
        Err(Failure::new("recovery paused before it came to the target", why).now(read))
    }

    /// Whether the last segment that the server asked for in vain lies beyond the plan; `None` when it asked for none.
    fn asked_beyond(&self) -> Option<bool> {
        let number = |name: &str| name.get(8..24).map(str::to_owned);
        Some(number(&missing_in(&self.stage)?) >= number(&self.plan.beyond(self.segment_size)))
    }

    /// At the end of WAL; true once the pause was asked for.
    async fn pause_at_the_end(&self, client: &Client) -> Result<bool, Failure> {
        match self.asked_beyond() {
            None => return Ok(false),
            Some(true) => {}
            Some(false) => {
                let missing = missing_in(&self.stage).unwrap_or_default();
                return Err(Failure::new(
                    format!("{missing} is missing in the archive"),
                    "it was there when the restore was planned, and WAL after it cannot be replayed",
                )
                .now("look at the archive, then choose a target again"));
            }
        }
        let paused = client.execute("select pg_wal_replay_pause()", &[]).await;
        match paused.map_err(|error| PgError::sql("pausing the restored server", &error)) {
            Ok(_) => Ok(true),
            Err(PgError::Sql { state: None, .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the postmaster says in its pid file that it is ready: a log-in before that fails, and its FATAL line in the
    /// log would frighten whoever reads along.
    fn lets_in(&self) -> bool {
        let text = std::fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        text.lines().nth(7).is_some_and(|status| status.trim() == "ready")
    }

    /// A superuser's session, or `None` while the server does not let anyone in.
    async fn log_in(&self) -> Result<Option<(Client, Url)>, Failure> {
        for database in [self.database, "postgres", "template1"] {
            let url = self.place.url(self.user, database)?;
            match url.connect().await {
                Ok(client) => {
                    return match superuser(client, url).await {
                        Ok(session) => Ok(Some(session)),
                        // The server went away meanwhile; its process says the rest.
                        Err(PgError::Sql { state: None, .. }) => Ok(None),
                        Err(error) => Err(error.into()),
                    };
                }
                Err(
                    PgError::NotReady { .. }
                    | PgError::Refused { .. }
                    | PgError::Unreachable { .. }
                    | PgError::Silent { .. },
                ) => return Ok(None),
                // The database came after the target.
                Err(PgError::LogIn { why, .. }) if why.contains("3D000") => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Why the server ended, from its own log.
    fn death(&self) -> Failure {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let after = |line: &str| line.split_once(": ").map_or(line, |(_, rest)| rest).trim().to_owned();
        // What it told those who tried to log in is not why it ended.
        let grave = |line: &str| {
            (line.contains("FATAL:") || line.contains("PANIC:")) && !line.contains("the database system is")
        };
        let fatal = lines.iter().rposition(|line| grave(line));
        // The startup process's own line comes before the postmaster's summary.
        let fatal = fatal.map(|last| {
            let first = lines[..=last].iter().rposition(|line| grave(line) && !line.contains("terminating"));
            first.unwrap_or(last)
        });
        let ours = lines.iter().rfind(|line| line.starts_with("lifeboat wal")).map(|line| (*line).to_owned());
        let Some(at) = fatal else {
            let last = lines.last().map(|line| (*line).to_owned());
            let why = ours.or(last).filter(|line| !line.is_empty());
            let why = why.unwrap_or_else(|| "it was killed, or short of memory: its log says nothing".to_owned());
            return Failure::new("the restored server ended", why).now(format!("read {}", self.log.display()));
        };
        let message =
            after(lines[at].split_once("FATAL").or(lines[at].split_once("PANIC")).map_or("", |(_, rest)| rest));
        let failure = |why: String| Failure::new("the restored server gave up", why);
        if message.contains("recovery ended before configured recovery target was reached") {
            let last = lines.iter().rfind(|line| line.contains("last completed transaction was at log time"));
            let last = last
                .and_then(|line| line.split("log time ").nth(1))
                .map(|t| format!("; the last commit in it was at {t}"));
            let missing =
                missing_in(&self.stage).map(|name| format!("; {name} is not in the archive")).unwrap_or_default();
            return failure(format!("the WAL ends before the target{}{missing}", last.unwrap_or_default()))
                .now("choose an earlier target, or `latest` for all there is");
        }
        if message.contains("before consistent recovery point") {
            return failure(message).now("choose a later target, or an older base backup");
        }
        let message = ours.map_or(message.clone(), |ours| format!("{message}; {ours}"));
        let all = format!("read {}", self.log.display());
        failure(message).now(all)
    }
}

/// The source's role when it is a superuser, else one that is.
async fn superuser(client: Client, url: Url) -> Result<(Client, Url), PgError> {
    let row = client
        .query_opt(
            "select rolname::text from pg_roles where rolsuper and rolcanlogin
              order by rolname = current_user desc, oid limit 1",
            &[],
        )
        .await
        .map_err(|error| PgError::sql("looking for a superuser", &error))?;
    match row.map(|row| row.get::<_, String>(0)) {
        Some(name) if Some(name.as_str()) != url.user() => {
            let url = url.with_user(&name);
            Ok((url.connect().await?, url))
        }
        _ => Ok((client, url)),
    }
}

/// What moves while a server lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Signs {
    ready: bool,
    delivered: u64,
    taken: u64,
    /// Bytes of its log.
    logged: u64,
}

struct Silence {
    signs: Signs,
    since: Duration,
}

impl Silence {
    fn look(&mut self, signs: Signs) {
        if signs != self.signs {
            *self = Self { signs, since: clock::boot_now() };
        }
    }
}

/// How long a server has waited at one place.
#[derive(Default)]
struct Waits {
    lsn: Lsn,
    looks: u32,
}

impl Waits {
    /// Looks that found it waiting there; 0 when this one did not.
    fn look(&mut self, standing: &Standing) -> u32 {
        if standing.lsn != self.lsn {
            *self = Self { lsn: standing.lsn, looks: 0 };
        }
        // Between two waits it asks the archive.
        self.looks += u32::from(standing.idle);
        if standing.idle { self.looks } else { 0 }
    }
}

/// New lines of a growing file.
struct LogTail {
    path: PathBuf,
    at: u64,
    rest: String,
}

impl LogTail {
    fn read(&mut self) -> Vec<String> {
        let mut text = Vec::new();
        let Ok(mut file) = std::fs::File::open(&self.path) else { return Vec::new() };
        if file.seek(SeekFrom::Start(self.at)).is_err() || file.read_to_end(&mut text).is_err() {
            return Vec::new();
        }
        self.at += text.len() as u64;
        self.rest.push_str(&String::from_utf8_lossy(&text));
        let Some(end) = self.rest.rfind('\n') else { return Vec::new() };
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        whole.lines().map(str::to_owned).collect()
    }
}
