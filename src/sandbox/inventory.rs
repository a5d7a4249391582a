//! The inventory of the sandbox: what a real one of this shop would say.

use super::Options;
use super::error::SandboxError;
use super::layout::Layout;
use super::program;
use super::record::{Ports, Scale};
use super::secrets::Passwords;
use super::servers::app::App;
use super::servers::{app, postgres, redis};

/// The environment of everything here.
pub const ENVIRONMENT: &str = "sandbox";

/// Writes the files with URLs and `lifeboat.toml`.
pub fn write(layout: &Layout, passwords: &Passwords, ports: &Ports, options: &Options) -> Result<(), SandboxError> {
    program::create_private(&layout.secrets())?;
    program::create_private(&layout.restore())?;
    program::write(&layout.secret(postgres::NAME), 0o600, passwords.admin_url(ports.postgres).expose())?;
    program::write(&layout.secret(redis::NAME), 0o600, passwords.redis_url(ports.redis).expose())?;
    let mut inventory = text(layout, ports, options);
    if options.healthy {
        let answers = layout.prune_answers();
        let typed = format!("prune-db = \"{0}\"\nprune-cache = \"{1}\"\n", postgres::NAME, redis::NAME);
        program::write(&answers, 0o600, typed)?;
        inventory.push_str(&SCHEDULES.replace("ANSWERS", &answers.display().to_string()));
    }
    program::write(&layout.inventory(), 0o600, inventory)
}

fn encryption(layout: &Layout) -> String {
    let to: Vec<String> =
        layout.encryption().encrypt_to.iter().map(|recipient| format!("\"{}\"", recipient.as_str())).collect();
    match to.as_slice() {
        [] => String::new(),
        to => format!(
            "encrypt_to = [{}]\nidentity = {{ file = \"{}\" }}\nrefuse_clear = true\n",
            to.join(", "),
            layout.backup_key().display()
        ),
    }
}

/// A day of a real shop in a quarter of an hour.
const SCHEDULES: &str = r#"
[[schedules]]
runbook = "backup-daily"
cadence = "every 10 minutes"

[[schedules]]
runbook = "ship-aof"
cadence = "every 2 minutes"

[[schedules]]
runbook = "verify-backups"
cadence = "every 3 minutes"

[[schedules]]
runbook = "prune"
cadence = "every 15 minutes"
answers = "ANSWERS"
"#;

fn text(layout: &Layout, ports: &Ports, options: &Options) -> String {
    // What a shop of this size would promise. The database's loss is seconds; the cache goes back to its last snapshot.
    let (rto, rpo) = match options.scale {
        Scale::Small => ("5m", "5m"),
        Scale::Medium => ("10m", "10m"),
        Scale::Large => ("30m", "30m"),
    };
    format!(
        r#"# The inventory of a sandbox, written by `lifeboat sandbox up`.
format = 1
service = "orders"

[objectives]
rto = "{rto}"
rpo = "{rpo}"

[stores.backups]
url = "{bucket}"
{encryption}{retain}
[systems.{db}]
kind = "postgres"
environment = "{ENVIRONMENT}"
url = {{ file = "{db_url}" }}
backups = {{ engine = "lifeboat", store = "backups" }}
restore = {{ directory = "{restore}/{db}", port = {restored_postgres} }}
rpo = "1m"

[systems.{cache}]
kind = "redis"
environment = "{ENVIRONMENT}"
url = {{ file = "{cache_url}" }}
backups = {{ engine = "lifeboat", store = "backups" }}
restore = {{ directory = "{restore}/{cache}", port = {restored_redis} }}
persistence = "durable"

# The application reads its connections from a file and reads it again when told.
[connections.{app}]
file = "{connections}"
keys = {{ database_url = "{db}", cache_url = "{cache}" }}
reload = {{ http = "{app_url}/reload" }}

[[contacts]]
role = "incident commander"
name = "Shop on-call"
page = "pager:shop"
escalate_after = "15m"

[[contacts]]
role = "database"
name = "Data platform on-call"
page = "pager:data-platform"
"#,
        bucket = layout.bucket_url(),
        encryption = encryption(layout),
        retain = if options.healthy { "retain = \"15m\"\n" } else { "" },
        db = postgres::NAME,
        cache = redis::NAME,
        app = app::NAME,
        db_url = layout.secret(postgres::NAME).display(),
        cache_url = layout.secret(redis::NAME).display(),
        restore = layout.restore().display(),
        restored_postgres = ports.restored_postgres,
        restored_redis = ports.restored_redis,
        connections = layout.connections().display(),
        app_url = App::url(ports.app),
    )
}
