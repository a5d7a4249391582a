//! The fence: the old primary takes no writes any more, and that is proven.
//!
//! `default_transaction_read_only` alone stops only those who do not switch it off, so `pg_hba.conf` also rejects every
//! role but the one that fences. Both are files of the server, not rows: nothing of it reaches the WAL, and a restore to
//! the end of WAL does not bring the fence along. What it cannot stop is said: the fencing role itself, and whoever may
//! start another server on the same files.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;

use super::connect::Url;
use super::error::PgError;
use super::identity::{Identity, facts_of};
use super::report::Reporter;
use crate::clock;
use crate::event::{self, Facts, Failure};
use crate::mutant;
use crate::process::Spec;
use crate::secret::Secret;

const BEGIN: &str = "# lifeboat fence: begin (lifted by Lifeboat, or by removing these lines and reloading)";
const END: &str = "# lifeboat fence: end";

/// How long a reload, and the end of other sessions, may take.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// A write was tried and refused as read-only.
    WriteRefused,
    /// Nothing listens there.
    NoServer,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    pub address: String,
    pub how: How,
    pub at: DateTime<Utc>,
    /// A sentence.
    pub detail: String,
    /// What the fence does not hold against, a sentence each.
    pub limits: Vec<String>,
}

impl Evidence {
    /// As the outcome's facts.
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::new();
        let how = match self.how {
            How::WriteRefused => "write refused",
            How::NoServer => "no server",
        };
        facts.insert("address".to_owned(), self.address.clone().into());
        facts.insert("how".to_owned(), how.into());
        facts.insert("at".to_owned(), self.at.to_rfc3339_opts(SecondsFormat::Millis, true).into());
        facts.insert("evidence".to_owned(), self.detail.clone().into());
        facts.insert("limits".to_owned(), self.limits.clone().into());
        facts
    }
}

/// Fences a primary.
pub struct Fence {
    /// A superuser's.
    pub url: Secret,
    /// The cluster whose backups are about to be restored, where they say: no other one is fenced.
    pub system_identifier: Option<u64>,
    /// Run first, for a primary that SQL cannot stop.
    pub command: Option<Spec>,
    pub cancel: CancellationToken,
    pub report: Reporter,
}

impl Fence {
    /// Returns with the proof, or fails: "unknown" is a failure. Running it again is harmless.
    pub async fn run(self) -> Result<Evidence, Failure> {
        if let Some(command) = &self.command {
            run_command(command, &self.cancel, &self.report).await?;
        }
        let url = Url::parse(&self.url)?;
        let mut limits = Vec::new();
        match url.connect().await {
            Ok(client) => {
                let identity = Identity::read(&client, &url.address()).await?;
                if let Some(expected) = self.system_identifier
                    && expected != identity.system_identifier
                    && !mutant::removes("2b")
                {
                    return Err(Failure::new(
                        "the server was not fenced: it is another cluster than the one that was backed up",
                        format!("{}; the backups are of system {expected}", identity.fingerprint()),
                    )
                    .now("look what answers at that address; the inventory's `url` must lead to the source"));
                }
                self.report.say(format!("fencing {}", identity.fingerprint())).await;
                self.close(&client, &url, &mut limits).await?;
            }
            // Recorded by the proof.
            Err(PgError::Refused { .. }) => {}
            Err(error) => return Err(unknown(&url, error)),
        }
        let mut evidence = prove_fenced(&self.url).await?;
        evidence.limits.extend(limits);
        Ok(evidence)
    }

    async fn close(&self, client: &Client, url: &Url, limits: &mut Vec<String>) -> Result<(), Failure> {
        let row = client
            .query_one("select current_user::text, (select rolsuper from pg_roles where rolname = current_user)", &[])
            .await
            .map_err(|error| PgError::sql("asking who may fence", &error))?;
        let (role, superuser): (String, bool) = (row.get(0), row.get(1));
        if !superuser {
            return Err(Failure::new("the primary was not fenced", format!("{role} is not a superuser there"))
                .now("give a superuser's URL, or a `fence.command` in the inventory that stops the server"));
        }
        let rejected = if mutant::removes("4c") { Ok(()) } else { reject_others(client).await };
        if let Err(error) = rejected {
            limits.push(format!(
                "pg_hba.conf could not be changed ({error}): whoever logs in can still say SET default_transaction_read_only = off"
            ));
        }
        limits.push(format!("sessions of {role} itself can still switch the read-only default off"));
        limits.push("whoever starts another server on the same files is not held back".to_owned());
        for statement in ["alter system set default_transaction_read_only = on", "select pg_reload_conf()"] {
            client.batch_execute(statement).await.map_err(|error| PgError::sql("closing the primary", &error))?;
        }
        let patience = Patience::new();
        while !is_read_only(url).await? {
            patience.wait("the primary's new sessions to be read-only").await?;
        }
        // Only sessions that began before the reload can still write.
        let patience = Patience::new();
        while !mutant::removes("4c") && !end_sessions(client).await? {
            patience.wait("the primary's other sessions to end").await?;
        }
        Ok(())
    }
}

/// Tries to write where nobody may. A refusal as read-only, or nothing that listens, is proof; a success, silence, and
/// everything else is not.
pub async fn prove_fenced(url: &Secret) -> Result<Evidence, Failure> {
    let url = Url::parse(url)?;
    let address = url.address();
    let at = clock::wall_now().trunc_subsecs(3);
    let client = match url.connect().await {
        Ok(client) => client,
        Err(PgError::Refused { why, .. } | PgError::Unreachable { why, .. }) if mutant::removes("4b") => {
            return Ok(Evidence { address, how: How::NoServer, at, detail: why, limits: Vec::new() });
        }
        Err(PgError::Refused { why, .. }) => {
            let detail = format!("no server listens at {address}: {why}");
            let mut limits = vec!["if it is started again, it takes writes".to_owned()];
            if !url.is_local() {
                limits.push("a firewall or a proxy on the way would say the same: look at its machine too".to_owned());
            }
            return Ok(Evidence { address, how: How::NoServer, at, detail, limits });
        }
        Err(error) => return Err(unknown(&url, error)),
    };
    // Rolled back even if it could be done: the probe itself never writes.
    let probe = "begin; create table lifeboat_fence_probe (n integer); rollback";
    match client.batch_execute(probe).await.map_err(|error| PgError::sql("the probing write", &error)) {
        Err(error) if error.is_state(&SqlState::READ_ONLY_SQL_TRANSACTION) => {
            let detail = format!("a write at {address} was refused: {error}");
            Ok(Evidence { address, how: How::WriteRefused, at, detail, limits: Vec::new() })
        }
        Err(error) => Err(unknown(&url, error)),
        Ok(()) => {
            Err(Failure::new(format!("{address} takes writes"), "a probing write succeeded (it was rolled back)")
                .now("fence it: run the step again, or stop the server on its machine"))
        }
    }
}

fn unknown(url: &Url, error: PgError) -> Failure {
    Failure::new(format!("whether {} takes writes is not known", url.address()), error)
        .now("look at its machine; stop the server there, or cut it off, then retry")
}

/// Lifts the fence of the server that was `fenced`, and of no other one: what answers at its address by now may be a clone,
/// or another fence's. That it was started again does not count: the fence outlives that. `undo` is the inventory's command,
/// run last.
pub async fn unfence(
    url: &Secret,
    fenced: Option<&event::Identity>,
    undo: Option<&Spec>,
    cancel: &CancellationToken,
    report: &Reporter,
) -> Result<String, Failure> {
    let url = Url::parse(url)?;
    let said = match url.connect().await {
        Ok(client) => {
            let facts = facts_of(&client, &url.address()).await?;
            if let Some(why) = stranger(fenced, &facts).filter(|_| !mutant::removes("2d")) {
                return Err(Failure::new(
                    format!("the fence was not lifted: {} may be another server than the one that was fenced", url.address()),
                    why,
                )
                .now(
                    "Nothing was done to it. Look what answers at that address. To open it all the same: take the lines \
                     between \"lifeboat fence\" out of its pg_hba.conf, ALTER SYSTEM RESET default_transaction_read_only, \
                     and reload it.",
                ));
            }
            let file = hba_path(&client).await?;
            let text = read_file(&client, &file).await?;
            if text.contains(BEGIN) {
                write_file(&client, &file, &without_fence(&text)).await?;
            }
            for statement in ["alter system reset default_transaction_read_only", "select pg_reload_conf()"] {
                client.batch_execute(statement).await.map_err(|error| PgError::sql("lifting the fence", &error))?;
            }
            format!("{} takes writes again", url.address())
        }
        Err(PgError::Refused { .. }) => format!("{} is down: there is no fence to lift by SQL", url.address()),
        Err(error) => return Err(Failure::new("the fence was not lifted", error)),
    };
    if let Some(command) = undo {
        run_command(command, cancel, report).await?;
    }
    Ok(said)
}

/// Puts `reject` lines for every other role that may log in before everything else in pg_hba.conf.
async fn reject_others(client: &Client) -> Result<(), PgError> {
    let rows = client
        .query("select rolname::text from pg_roles where rolcanlogin and rolname <> current_user order by 1", &[])
        .await
        .map_err(|error| PgError::sql("listing the roles", &error))?;
    let roles: Vec<String> =
        rows.iter().map(|row| format!("\"{}\"", row.get::<_, String>(0).replace('"', "\"\""))).collect();
    let file = hba_path(client).await?;
    let before = read_file(client, &file).await?;
    let mut text = format!("{BEGIN}\n");
    for roles in roles.chunks(20).map(|roles| roles.join(",")) {
        text.push_str(&format!("local all {roles} reject\nhost all {roles} all reject\n"));
    }
    text.push_str(&format!("{END}\n{}", without_fence(&before)));
    write_file(client, &file, &text).await?;
    let row = client.query_one("select count(*) from pg_hba_file_rules where error is not null", &[]).await;
    let broken: i64 = row.map_err(|error| PgError::sql("checking pg_hba.conf", &error))?.get(0);
    if broken > 0 {
        write_file(client, &file, &before).await?;
        return Err(Failure::new("pg_hba.conf was put back", "the server could not read the changed one").into());
    }
    Ok(())
}

fn without_fence(text: &str) -> String {
    match (text.find(BEGIN), text.find(END)) {
        (Some(from), Some(to)) if from < to => {
            let rest = &text[to + END.len()..];
            format!("{}{}", &text[..from], rest.strip_prefix('\n').unwrap_or(rest))
        }
        _ => text.to_owned(),
    }
}

async fn hba_path(client: &Client) -> Result<String, PgError> {
    let row = client.query_one("show hba_file", &[]).await;
    Ok(row.map_err(|error| PgError::sql("asking for pg_hba.conf", &error))?.get(0))
}

async fn read_file(client: &Client, path: &str) -> Result<String, PgError> {
    let row = client.query_one("select pg_read_file($1)", &[&path]).await;
    Ok(row.map_err(|error| PgError::sql("reading pg_hba.conf", &error))?.get(0))
}

/// COPY is the only way to write a file by SQL. The content travels as hex, so that nothing in it is SQL; the odd
/// delimiters keep COPY from quoting lines.
async fn write_file(client: &Client, path: &str, text: &str) -> Result<(), PgError> {
    if path.contains('\\') {
        return Err(Failure::new("pg_hba.conf was not changed", format!("its path is {path}")).into());
    }
    let (path, content) = (path.replace('\'', "''"), hex::encode(text.strip_suffix('\n').unwrap_or(text)));
    let statement = format!(
        "copy (select line from unnest(string_to_array(convert_from(decode('{content}', 'hex'), 'UTF8'), E'\\n'))
                    with ordinality as t(line, n) order by n)
         to '{path}' (format csv, quote E'\\x01', delimiter E'\\x02', null E'\\x03')"
    );
    client.batch_execute(&statement).await.map_err(|error| PgError::sql("writing pg_hba.conf", &error))
}

/// Whether a new session begins read-only.
async fn is_read_only(url: &Url) -> Result<bool, PgError> {
    let fresh = url.connect().await?;
    let row = fresh.query_one("show default_transaction_read_only", &[]).await;
    Ok(row.map_err(|error| PgError::sql("asking the primary", &error))?.get::<_, String>(0) == "on")
}

/// Ends the sessions that may still write; true when there was none.
async fn end_sessions(client: &Client) -> Result<bool, PgError> {
    let rows = client
        .query(
            "select pg_terminate_backend(pid) from pg_stat_activity
              where pid <> pg_backend_pid() and backend_type = 'client backend'
                and (usename is distinct from current_user or backend_start < pg_conf_load_time())",
            &[],
        )
        .await
        .map_err(|error| PgError::sql("ending the primary's other sessions", &error))?;
    Ok(rows.is_empty())
}

/// Looks again and again, but not for ever.
struct Patience(Duration);

impl Patience {
    fn new() -> Self {
        Self(clock::boot_now() + PATIENCE)
    }

    async fn wait(&self, what: &str) -> Result<(), Failure> {
        if clock::boot_now() > self.0 {
            return Err(Failure::new(format!("waiting for {what} took too long"), format!("{} s", PATIENCE.as_secs()))
                .now("look at the server, then retry"));
        }
        clock::sleep(Duration::from_millis(50)).await;
        Ok(())
    }
}

async fn run_command(command: &Spec, cancel: &CancellationToken, report: &Reporter) -> Result<(), Failure> {
    let captured = command.capture(1 << 16, cancel).await;
    let captured = captured.map_err(|error| Failure::new("the fence's command could not be run", error))?;
    for line in captured.stdout_text().lines().chain(captured.stderr_text().lines()) {
        report.say(line.to_owned()).await;
    }
    if captured.end.success() {
        return Ok(());
    }
    Err(Failure::new(format!("`{}` failed", command.name()), format!("{} ({})", captured.stderr_text(), captured.end)))
}

/// Why a server with these facts is not known to be the one that was fenced.
fn stranger(fenced: Option<&event::Identity>, facts: &BTreeMap<String, String>) -> Option<String> {
    let before = match fenced {
        Some(event::Identity::Server { facts }) => facts,
        Some(other) => return Some(format!("this drill saw {}", other.words())),
        None => return Some("this drill has not recorded who was fenced".to_owned()),
    };
    let told =
        |facts: &BTreeMap<String, String>, name: &str| facts.get(name).map_or("not told".to_owned(), Clone::clone);
    let names: BTreeSet<&String> = before.keys().chain(facts.keys()).collect();
    let changed =
        names.into_iter().filter(|name| *name != event::Identity::STARTED && before.get(*name) != facts.get(*name));
    let changed: Vec<String> =
        changed.map(|name| format!("{name}: {}, and was {}", told(facts, name), told(before, name))).collect();
    (!changed.is_empty()).then(|| changed.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifting_gives_back_what_was_there() {
        let before = "# mine\nlocal all all trust\n";
        let fenced = format!("{BEGIN}\nlocal all \"app\" reject\n{END}\n{before}");
        assert_eq!(without_fence(&fenced), before);
        assert_eq!(without_fence(before), before);
    }
}
