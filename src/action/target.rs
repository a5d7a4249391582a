//! From a step's role to what it works on: the system, its URL, its bucket, its restored twin.

use chrono::{DateTime, Utc};

use crate::event::{Failure, Measure, RecoveryPoint, parse_time};
use crate::inventory::{System, SystemDetail};
use crate::recovery;
use crate::runbook::{Step, StepKind};
use crate::secret::Secret;
use crate::store::{Bucket, Keys};
use crate::system::postgres::Repository;
use crate::system::postgres::wal::Location;
use crate::system::redis::RedisError;
use crate::system::{postgres, redis};

use super::Context;

impl Context {
    /// The system of the step's own role.
    pub(super) fn target(&self) -> Result<&System, Failure> {
        let role = self.step().system.as_deref().unwrap_or_default();
        self.system(role).ok_or_else(|| {
            Failure::new(
                format!("`{}` has no system to work on", self.step().id),
                format!("role `{role}` is not bound"),
            )
        })
    }

    /// The source's URL with its password; the redactor knows it from here on.
    pub(super) fn source_url(&self, system: &System) -> Result<Secret, Failure> {
        let url = system.url.resolve()?;
        self.redactor.learn_url(url.expose());
        Ok(url)
    }

    /// Where the system's backups are; the redactor knows the keys to them from here on.
    pub(super) fn location(&self, system: &System) -> Result<Location, Failure> {
        let location = recovery::bucket_of(&self.inventory, system)?;
        if let Keys::Given(keys) = &location.keys {
            keys.secrets().iter().for_each(|secret| self.redactor.learn(secret.expose()));
        }
        Ok(location)
    }

    /// The system's folder in its store.
    pub(super) fn bucket(&self, system: &System) -> Result<Bucket, Failure> {
        let what = || format!("the backups of {} cannot be reached", system.name);
        self.location(system)?.open().map_err(|error| Failure::from(error).fails(what()))
    }

    /// Where the system's base backups and WAL are; the redactor knows the keys to them from here on.
    pub(super) fn repository(&self, system: &System) -> Result<Repository, Failure> {
        self.location(system)?;
        recovery::repository_of(&self.inventory, system)
    }

    /// What `recovery.choose` left behind.
    pub(super) fn recovery_point(&self) -> Result<RecoveryPoint, Failure> {
        let missing = || {
            Failure::new("no recovery point was chosen", format!("`{}` needs one", self.step().id))
                .now("Run the step that chooses the recovery point first.")
        };
        let value = self.variables.get("recovery_point").ok_or_else(missing)?;
        serde_json::from_value(value.clone()).map_err(|_| missing())
    }

    /// When the damage began, as far as it is known.
    pub(super) fn incident(&self) -> Option<DateTime<Utc>> {
        parse_time(&self.variable("incident_at")?).ok()
    }

    /// The history that was given up: from the recovered point to the incident.
    pub(super) fn selected_loss(&self, system: &System, recovered_to: DateTime<Utc>) -> Option<Measure> {
        let incident = self.incident()?;
        Some(Measure::SelectedLoss {
            system: system.name.clone(),
            seconds: (incident - recovered_to).as_seconds_f64().max(0.0),
            recovered_to,
            incident,
        })
    }

    /// The restored PostgreSQL of this drill, when it stands at its target or beyond. One that has ended is an error.
    pub(super) fn restored_postgres(&self, system: &System) -> Result<Option<Server>, Failure> {
        let source = self.source_url(system)?;
        if system.managed().is_some() {
            return self.restored_instance(system).map(|instance| instance.server(&source)).transpose();
        }
        let found = postgres::restore::find(&system.restore.directory, &self.drill, &system.name, &source)?;
        match found {
            Some(found) if !found.running => Err(self.postgres_ended(system, found.promoted)),
            found => {
                Ok(found.map(|found| Server { url: found.url, host: "127.0.0.1".to_owned(), port: found.place.port }))
            }
        }
    }

    fn postgres_ended(&self, system: &System, promoted: bool) -> Failure {
        let directory = system.restore.directory.display();
        let failure =
            Failure::new(format!("the restored {} has ended", system.name), format!("no server runs in {directory}"));
        failure.now(match promoted {
            true => format!(
                "It may hold new writes, which another restore gives up. Start it again as the user that owns it: pg_ctl -D \
                 {directory} start. Then retry."
            ),
            false => {
                format!("{} Why it ended is in {directory}/.lifeboat/server.log.", self.restore_again(system))
            }
        })
    }

    /// An error of the restored Redis: that it has ended is something else than that a source is down.
    pub(super) fn of_restored(&self, system: &System, error: RedisError) -> Failure {
        let RedisError::Refused { address, why } = error else { return error.into() };
        let directory = system.restore.directory.display();
        Failure::new(format!("the restored {} does not answer at {address}", system.name), why).now(format!(
            "{} If it has taken writes already, start it on them instead, as the user that owns its data: redis-server \
             {directory}/redis.conf. Why it ended is in {directory}/redis.log.",
            self.restore_again(system)
        ))
    }

    /// With the key and the command that do it.
    fn restore_again(&self, system: &System) -> String {
        let restores = |step: &&Step| {
            matches!(step.kind, StepKind::PostgresRestore | StepKind::RedisRestore)
                && step.system.as_ref().and_then(|role| self.system(role)).is_some_and(|it| it.name == system.name)
        };
        match self.runbook.steps.iter().find(restores) {
            Some(step) => format!(
                "Restore it again: select “{}” (`↑` `↓`) and press `r`; by lines, `retry {}`.",
                self.expand(&step.title),
                step.id
            ),
            None => "Restore it again: retry the step that restored it.".to_owned(),
        }
    }

    /// As [`Context::restored_postgres`], for steps that may look at nothing else.
    pub(super) fn restored_postgres_only(&self, system: &System) -> Result<Server, Failure> {
        self.restored_postgres(system)?.ok_or_else(|| not_restored(system))
    }

    /// Where clients reach the restored system: host and port.
    pub(super) fn restored_address(&self, system: &System) -> Result<(String, u16), Failure> {
        let port = match &system.detail {
            SystemDetail::Postgres(_) => {
                let Server { host, port, .. } = self.restored_postgres_only(system)?;
                return Ok((host, port));
            }
            SystemDetail::Redis(_) => {
                let url = self.restored_redis_only(system)?;
                let address = redis::address(&url)?;
                let port = address.rsplit(':').next().and_then(|tail| tail.split('/').next()?.parse().ok());
                port.ok_or_else(|| Failure::new(format!("{} has no port", system.name), address))?
            }
        };
        Ok(("127.0.0.1".to_owned(), port))
    }

    /// The restored Redis of this drill, when there is one.
    pub(super) fn restored_redis(&self, system: &System) -> Result<Option<Secret>, Failure> {
        let source = self.source_url(system)?;
        redis::restored_url(&self.drill, &system.name, &system.restore.directory, &source).map_err(Failure::from)
    }

    /// As [`Context::restored_redis`], for steps that may look at nothing else.
    pub(super) fn restored_redis_only(&self, system: &System) -> Result<Secret, Failure> {
        self.restored_redis(system)?.ok_or_else(|| not_restored(system))
    }
}

/// A restored PostgreSQL.
pub(super) struct Server {
    /// For this program.
    pub url: Secret,
    /// For clients.
    pub host: String,
    pub port: u16,
}

pub(super) fn not_restored(system: &System) -> Failure {
    let kind = match system.detail {
        SystemDetail::Postgres(_) => "postgres.restore",
        SystemDetail::Redis(_) => "redis.restore",
    };
    Failure::new(format!("{} has not been restored in this drill", system.name), "there is no restored server")
        .now(format!("Run its `{kind}` step first."))
}
