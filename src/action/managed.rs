//! What `postgres.restore` and `postgres.promote` do for a PostgreSQL that a cloud runs.

use chrono::{SecondsFormat, SubsecRound as _};
use serde::{Deserialize, Serialize};

use crate::event::{Failure, Outcome, RecoveryTarget, Status};
use crate::inventory::System;
use crate::secret::Secret;
use crate::system::postgres::managed::{Managed, Moment, Owner, Patience, Restore};
use crate::system::postgres::{Identity, Reporter, Url, prove_fenced};

use super::Context;
use super::cutover::with_address;
use super::postgres_backup::pass_on;
use super::postgres_promote::{NOBODY, cuts_over};
use super::target::Server;

/// The instance that a drill restored, as a variable keeps it for later steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RestoredInstance {
    pub instance: String,
    pub host: String,
    pub port: u16,
}

impl RestoredInstance {
    /// Reached as the source is: its roles and their passwords came along.
    pub fn server(self, source: &Secret) -> Result<Server, Failure> {
        let Self { instance, host, port } = self;
        let url = with_address(source.expose(), &host, port).map_err(|why| {
            Failure::new(
                format!("the address of {instance} cannot be put into the system's URL"),
                format!("the URL {why}"),
            )
            .now("Write the URL as postgresql://user@host:port/database?sslmode=…, then retry.")
        })?;
        Ok(Server { url: Secret::new(url.0), host, port })
    }
}

impl Context {
    /// The instance that this drill restored the system into.
    pub(super) fn restored_instance(&self, system: &System) -> Option<RestoredInstance> {
        system.managed()?;
        serde_json::from_value(self.variables.get(&variable(system))?.clone()).ok()
    }
}

/// No variable of a runbook has a dot.
fn variable(system: &System) -> String {
    format!("restored.{}", system.name)
}

fn owner(context: &Context, system: &System) -> Owner {
    let (drill, effect_key) = (context.drill.clone(), context.effect_key.clone());
    Owner { drill, system: system.name.clone(), effect_key }
}

fn moment(context: &Context, system: &System) -> Result<Moment, Failure> {
    match context.recovery_point()?.target {
        RecoveryTarget::Latest => Ok(Moment::Latest),
        RecoveryTarget::Time { time } => Ok(Moment::At(time)),
        other => Err(Failure::new(
            format!("{} cannot be restored to {other}", system.name),
            "a cloud restores to a time, or to the latest point",
        )
        .now("Choose the recovery point again, as a time.")),
    }
}

pub(super) async fn restore(context: &Context, system: &System, managed: Managed) -> Result<Outcome, Failure> {
    let moment = moment(context, system)?;
    let title = managed.title();
    let source = Url::parse(&context.source_url(system)?)?;
    let (report, reports) = Reporter::channel(64);
    let restore = Restore {
        managed,
        moment,
        owner: owner(context, system),
        source: (source.host(), source.port()),
        patience: Patience {
            whole: context.step().timeout.unwrap_or(Patience::default().whole),
            ..Patience::default()
        },
        cancel: context.cancel.clone(),
        report,
    };
    let work = async { tokio::join!(restore.run(), pass_on(context, reports)).0 };
    let restored = match context.leased(system, work).await? {
        Ok(restored) => restored,
        Err(failure) if context.cancel.is_cancelled() => {
            context.sink.say(format!("{failure}. {}", failure.now.as_deref().unwrap_or_default())).await;
            return Ok(Outcome { status: Status::Cancelled, ..Outcome::failed(failure) });
        }
        Err(failure) => return Err(failure),
    };
    let instance =
        RestoredInstance { instance: restored.instance.clone(), host: restored.host.clone(), port: restored.port };
    let value = serde_json::to_value(&instance)
        .map_err(|error| Failure::new(format!("{} cannot be recorded", instance.instance), error))?;
    // Before it is judged: whoever skips this step with a reason goes on with it.
    context.sink.set(&variable(system), value).await;
    if let Some(failure) = restored.differs {
        return Err(failure);
    }
    let version = answers(context, system, &instance).await?;
    let address = format!("{}:{}", instance.host, instance.port);
    let (to, recovered_to) = match moment {
        Moment::Latest => ("the latest point".to_owned(), None),
        // As it was ordered: without the part of a second, which is given up too.
        Moment::At(time) => (time.to_rfc3339_opts(SecondsFormat::Secs, true), Some(time.trunc_subsecs(0))),
    };
    let mut outcome = Outcome::passed(format!(
        "{} answers at {address}, restored from {title} to {to} as its cloud reports; it takes writes, and nobody is led to it \
         yet",
        restored.instance
    ))
    .fact("instance", restored.instance.clone())
    .fact("address", address)
    .fact("host", restored.host)
    .fact("port", restored.port)
    .fact("restored_to", to)
    .fact("version", version.clone())
    .fact("seconds", restored.seconds)
    .fact("found", restored.found)
    .check("settings are those of the source", true, format!("{} were compared", restored.compared))
    .check("the new instance answers", true, format!("PostgreSQL {version}, and it takes writes"));
    outcome.measures.extend(recovered_to.and_then(|time| context.selected_loss(system, time)));
    Ok(outcome)
}

/// Its version, from itself: by the way that later steps and clients take.
async fn answers(context: &Context, system: &System, instance: &RestoredInstance) -> Result<String, Failure> {
    let server = instance.clone().server(&context.source_url(system)?)?;
    context.redactor.learn_url(server.url.expose());
    let what = || format!("{} is ready, and cannot be used from here", instance.instance);
    let read = async {
        let url = Url::parse(&server.url)?;
        Identity::read(&url.connect().await?, &url.address()).await
    };
    let identity = read.await.map_err(|error| {
        Failure::from(error).fails(what()).now(
            "Look at its network: security groups, firewall, private address, and whether the certificates that the URL \
             trusts are those of the new instance. Then retry: it is found again, and no second one is made.",
        )
    })?;
    if identity.in_recovery {
        return Err(Failure::new(what(), "it takes no writes: it is still in recovery").now("Wait, then retry."));
    }
    Ok(identity.version)
}

/// A restored instance takes writes from its first moment. What is left is to prove that the old primary does not.
pub(super) async fn promote(
    context: &Context,
    system: &System,
    instance: &RestoredInstance,
) -> Result<Outcome, Failure> {
    context.lease_or_ask(system).await?;
    let version = answers(context, system, instance).await?;
    let proof = match cuts_over(context) {
        true => {
            let evidence = prove_fenced(&context.source_url(system)?).await;
            let failed = |failure| {
                Failure::new("the restored instance is not to be used yet: the old one may still take writes", failure)
                    .now("Fence the old one, or stop it for good, then retry.")
            };
            evidence.map_err(failed)?.detail
        }
        false => format!("the old primary was not fenced: {NOBODY}"),
    };
    Ok(Outcome::passed(format!("{} takes writes, as it did since it was restored", instance.instance))
        .fact("instance", instance.instance.clone())
        .fact("version", version)
        .check("no second primary", true, proof))
}

/// Lifeboat deletes no instance of a cloud, not even one that it made.
pub(super) fn no_removal(context: &Context, system: &System, managed: &Managed) -> Failure {
    let name = match (context.restored_instance(system), moment(context, system)) {
        (Some(restored), _) => restored.instance,
        (None, Ok(moment)) => managed.new_name(&owner(context, system), moment),
        (None, Err(_)) => "the new instance".to_owned(),
    };
    Failure::new(format!("{name} is not removed"), "Lifeboat deletes no instance of a cloud")
        .now(format!("Remove it by hand when nobody needs it: {}", managed.removal(&name)))
}
