use std::time::Duration;

use futures::future::BoxFuture;

use crate::event::{Failure, Outcome};
use crate::runbook::TableCheck;
use crate::system::postgres::{Checks, Reporter};

use super::postgres_backup::{bin, pass_on};
use super::postgres_query::either;
use super::recovery_choose::SUSPECT_TABLES;
use super::{Action, Context};

/// How long one table may take when the step sets no limit.
const PATIENCE: Duration = Duration::from_secs(3600);

/// `postgres.check`: row counts, page checksums, structure of heaps and B-trees. Facts: `tables`, `rows`, `corrupt`, and with
/// `suspects` that in a sentence.
pub struct PostgresCheck {
    pub tables: Vec<TableCheck>,
    /// The tables that the suspects behind the recovery point took away or changed.
    pub suspects: bool,
    pub checksums: bool,
    pub amcheck: bool,
}

impl Action for PostgresCheck {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { self.check(&context).await.unwrap_or_else(Outcome::failed) })
    }
}

impl PostgresCheck {
    async fn check(&self, context: &Context) -> Result<Outcome, Failure> {
        let system = context.target()?;
        let tables = self.tables.iter().map(|table| Ok((context.expand_strictly(&table.name)?, table.min_rows)));
        let (report, reports) = Reporter::channel(64);
        let checks = Checks {
            url: either(context, system)?,
            tables: tables.collect::<Result<_, Failure>>()?,
            suspects: self.suspects.then(|| suspects(context, &system.name)),
            checksums: self.checksums,
            amcheck: self.amcheck,
            may_install: context.restored_postgres(system)?.is_some(),
            bin: bin(system),
            timeout: context.step().timeout.unwrap_or(PATIENCE),
            cancel: context.cancel.clone(),
            report,
        };
        let (checked, ()) = tokio::join!(checks.run(), pass_on(context, reports));
        let checked = checked?;
        let mut outcome = match checked.passed() {
            true => Outcome::passed(format!("{} checks of {} passed", checked.checks.len(), system.name)),
            false => {
                let broken: Vec<String> =
                    checked.checks.iter().filter(|c| !c.passed).map(|c| format!("{}: {}", c.name, c.detail)).collect();
                Outcome::failed(
                    Failure::new(format!("{} is not as it should be", system.name), broken.join("; "))
                        .now("Do not promote it. Choose another point: select the step that chooses it (`↑` `↓`) and press `r`; by lines, `retry` and its id."),
                )
            }
        };
        outcome.facts = checked.facts;
        outcome.checks = checked.checks;
        Ok(outcome)
    }
}

/// What `recovery.choose` found behind the point; nothing where the WAL was not read.
fn suspects(context: &Context, system: &str) -> Vec<String> {
    let names = context.variables.get(SUSPECT_TABLES).and_then(|all| all.get(system)?.as_array());
    names.into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned())).collect()
}
