use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::runbook::{self, Runbook};

/// The example of the design with what it leaves open: a directory store, and where restored servers go.
const EXAMPLE: &str = r#"
format = 1
service = "orders"

[objectives]                     # whole service; a system may be stricter
rto = "1h"
rpo = "15m"

[stores.backups]
url = "file:dr/orders"
retain = "30d"

[systems.orders-db]
kind = "postgres"
environment = "production"
url = { env = "ORDERS_DB_URL" }
backups = { engine = "lifeboat", store = "backups" }
restore = { directory = "restored/db", port = 5433, run_as = "postgres" }
fence = { command = ["./fence.sh", "on"] }
rpo = "15m"

[systems.orders-cache]
kind = "redis"
environment = "production"
url = { file = "/run/secrets/orders-cache" }
backups = { store = "backups", prefix = "redis/cache" }
restore = { directory = "/srv/restored/cache" }
persistence = "durable"

[systems.sessions]
kind = "redis"
environment = "production"
url = "redis://127.0.0.1:6380"
backups = { store = "backups" }
restore = { directory = "/srv/restored/sessions" }
persistence = { cache_only = "people sign in again" }

[connections.orders]
file = "/etc/orders/connections.json"
keys = { database_url = "orders-db", cache_url = "orders-cache" }
reload = { http = "http://127.0.0.1:8080/reload" }

[[contacts]]
role = "incident commander"
name = "Data platform on-call"
page = "pagerduty:data-platform"
escalate_after = "15m"
"#;

fn example() -> Inventory {
    parse(EXAMPLE, "lifeboat.toml", Path::new("/etc/lifeboat")).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn the_example_of_the_design_loads() {
    let inventory = example();
    assert_eq!(inventory.objectives.rto, Some(Duration::from_secs(3600)));
    assert_eq!(inventory.stores["backups"].url, "file:///etc/lifeboat/dr/orders");
    let db = &inventory.systems["orders-db"];
    assert_eq!(db.restore.directory, PathBuf::from("/etc/lifeboat/restored/db"));
    assert_eq!((db.backups.engine.word(), db.backups.prefix.as_str()), ("lifeboat", "orders-db"));
    let SystemDetail::Postgres(postgres) = &db.detail else { panic!("{db:?}") };
    assert_eq!(postgres.fence.command.as_ref().unwrap()[0], "/etc/lifeboat/./fence.sh");
    let SystemDetail::Redis(sessions) = &inventory.systems["sessions"].detail else { panic!() };
    assert_eq!(sessions.cache_only.as_deref(), Some("people sign in again"));
    assert!(matches!(inventory.connections["orders"].reload, Reload::Http(_)));
    assert_eq!(inventory.contacts[0].escalate_after, Some(Duration::from_secs(900)));
}

fn runbook(systems: &str, steps: &str) -> Runbook {
    let source = format!(
        "format = 1\nid = \"r\"\ntitle = \"R\"\nsystems = {{ {systems} }}\n[[phases]]\ntitle = \"P\"\n\
         [[phases.steps]]\nid = \"look\"\ndo = \"confirm\"\n{steps}"
    );
    runbook::parse(&source, "r.toml").unwrap_or_else(|problems| panic!("{problems}"))
}

fn explicit(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(role, system)| ((*role).to_owned(), (*system).to_owned())).collect()
}

#[test]
fn a_role_binds_by_word_by_name_or_as_the_only_one() {
    let inventory = example();
    let bound = bind(&runbook("db = \"postgres\", sessions = \"redis\"", ""), &inventory, &explicit(&[])).unwrap();
    assert_eq!(bound, explicit(&[("db", "orders-db"), ("sessions", "sessions")]));
    let cache = runbook("cache = \"redis\"", "");
    let bound = bind(&cache, &inventory, &explicit(&[("cache", "orders-cache")])).unwrap();
    assert_eq!(bound["cache"], "orders-cache");
}

#[test]
fn what_does_not_bind_says_the_choices() {
    let inventory = example();
    let runbook = runbook(
        "db = \"postgres\", cache = \"redis\"",
        "[[phases.steps]]\nid = \"cut\"\ndo = \"cutover.connections\"\nconnections = \"shop\"\n",
    );
    let complaints = bind(&runbook, &inventory, &explicit(&[("db", "orders-bd"), ("bd", "x")])).unwrap_err();
    insta::assert_snapshot!(complaints, @"
    cannot bind `bd`: `r` has no such role
      its roles are `db` and `cache`
    cannot bind the role `db`: the inventory has no system `orders-bd`
      did you mean `orders-db`?
    cannot bind the role `cache`: 2 systems of the inventory are redis
      choose `orders-cache` or `sessions`: --system cache=orders-cache
    step `cut` cannot cut over: the inventory has no [connections.shop]
      it has `orders`
    ");
}

#[test]
fn a_cutover_needs_a_key_for_each_system() {
    let inventory = example();
    let cut = runbook(
        "db = \"postgres\", sessions = \"redis\"",
        "[[phases.steps]]\nid = \"cut\"\ndo = \"cutover.connections\"\n",
    );
    let complaints = bind(&cut, &inventory, &explicit(&[])).unwrap_err();
    insta::assert_snapshot!(complaints, @"
    step `cut` cannot cut over: no key of [connections.orders] holds the URL of `sessions`
      add it to its keys: key = \"sessions\"
    ");
}
