//! Steps that destroy something of a system, or put something in its place, hold its lease.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use crate::event::{Answer, Ask, Failure};
use crate::inventory::System;
use crate::runbook::StepKind;
use crate::store::{Held, Lease, LeaseError, Terms};

use super::Context;

/// How often it is renewed while a step works.
const RENEW: Duration = Duration::from_secs(5 * 60);

/// How long a bucket may take where something urgent waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

impl Context {
    /// Holds the lease on a system from here on, or refuses: another drill has it, or has taken it over.
    pub(super) async fn lease(&self, system: &System) -> Result<(), Failure> {
        let lease = self.lease_of(system)?;
        let mut agreed = None;
        loop {
            match lease.hold(agreed).await {
                Ok(Held::Token(token)) => {
                    let bucket = lease.bucket.name();
                    self.sink.say(format!("lease {token} on {}, in {bucket}", system.name)).await;
                    return Ok(());
                }
                Ok(Held::HereOnly { why }) => {
                    self.sink
                        .say(format!(
                            "mind: no lease on {}: {why}. Only the lock on this machine keeps a second drill away",
                            system.name
                        ))
                        .await;
                    return Ok(());
                }
                // Once: whoever answered something else, or too late, is refused.
                Err(LeaseError::Others { token, ran_out: true, holder, .. })
                    if agreed.is_none() && !self.unattended =>
                {
                    let name = holder.drill.chars().take(13).collect();
                    let ask = Ask::TypeName {
                        name,
                        sentence: format!(
                            "take the lease on {} over from {}, whose drill this is",
                            system.name, holder.by
                        ),
                        loss: format!(
                            "what that drill still does to {}: nothing was heard of it for long",
                            system.name
                        ),
                    };
                    match self.ask(ask).await {
                        Some(Answer::Typed { .. }) => agreed = Some(token),
                        _ => return Err(Failure::new("the lease was not taken over", "nobody agreed to it")),
                    }
                }
                Err(error) => return Err(error.of(&system.name)),
            }
        }
    }

    /// As [`Context::lease`]; why nobody can know, where the bucket does not answer.
    async fn lease_in_time(&self, system: &System) -> Result<Option<String>, Failure> {
        let reached = async { self.lease_of(system)?.bucket.list("lease").await.map_err(Failure::from) };
        match tokio::time::timeout(PATIENCE, reached).await {
            Ok(Ok(_)) => self.lease(system).await.map(|()| None),
            Ok(Err(failure)) => Ok(Some(failure.to_string())),
            Err(_) => Ok(Some(format!("its bucket does not answer within {} s", PATIENCE.as_secs()))),
        }
    }

    /// As [`Context::lease`], for what is urgent and harms nobody's restore: a bucket that does not answer does not hold it
    /// up.
    pub(super) async fn lease_if_the_bucket_answers(&self, system: &System) -> Result<(), Failure> {
        if let Some(why) = self.lease_in_time(system).await? {
            self.sink.say(format!("mind: whether another drill holds {} cannot be told: {why}", system.name)).await;
        }
        Ok(())
    }

    /// As [`Context::lease`]; a person may go on while the bucket does not answer.
    pub(super) async fn lease_or_ask(&self, system: &System) -> Result<(), Failure> {
        let Some(why) = self.lease_in_time(system).await? else { return Ok(()) };
        let sentence = format!(
            "go on without the lease on {}: {why}. Only if you are sure that nobody elsewhere restores it",
            system.name
        );
        let agreed = match self.unattended {
            true => None,
            false => self.ask(Ask::Confirm { sentence }).await,
        };
        match agreed {
            Some(Answer::Yes) => Ok(()),
            _ => Err(Failure::new(format!("whether another drill holds {} cannot be told", system.name), why)
                .now("Bring the bucket back, then retry.")),
        }
    }

    /// Does the work under the lease, which is renewed meanwhile.
    pub(super) async fn leased<T>(&self, system: &System, work: impl Future<Output = T>) -> Result<T, Failure> {
        self.lease(system).await?;
        let lease = self.lease_of(system)?;
        let renewing = async {
            loop {
                self.clock.sleep(RENEW).await;
                if let Err(error) = lease.hold(None).await {
                    // The next step that destroys something stops.
                    self.sink.say(format!("mind: {}", error.of(&system.name))).await;
                }
            }
        };
        tokio::select! {
            done = work => Ok(done),
            never = renewing => never,
        }
    }

    fn lease_of(&self, system: &System) -> Result<Lease, Failure> {
        let machine = nix::unistd::gethostname().unwrap_or_default();
        Ok(Lease {
            bucket: self.bucket(system)?,
            drill: self.drill.clone(),
            by: format!("{}@{}", self.operator, machine.to_string_lossy()),
            terms: Terms::default(),
        })
    }
}

/// The roles whose systems a step of this kind holds the lease on.
pub fn leased_roles<'a>(kind: &'a StepKind, role: Option<&'a str>) -> BTreeSet<&'a str> {
    match kind {
        StepKind::PostgresRestore | StepKind::PostgresFence | StepKind::PostgresPromote | StepKind::RedisRestore => {
            role.into_iter().collect()
        }
        StepKind::CutoverConnections { systems, .. } => systems.iter().map(String::as_str).collect(),
        _ => BTreeSet::new(),
    }
}

/// Gives the leases of a drill that has ended back. What cannot be given back runs out.
pub async fn give_back(inventory: &crate::inventory::Inventory, systems: &BTreeSet<String>, drill: &str) {
    for system in systems.iter().filter_map(|name| inventory.systems.get(name)) {
        let Ok(Ok(bucket)) = crate::recovery::bucket_of(inventory, system).map(|location| location.open()) else {
            continue;
        };
        let lease = Lease { bucket, drill: drill.to_owned(), by: String::new(), terms: Terms::default() };
        if let Err(error) = lease.give_back().await {
            tracing::warn!(%error, system = system.name, "the lease was not given back: it runs out");
        }
    }
}
