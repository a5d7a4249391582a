use super::*;

/// The example of the design.
const EXAMPLE: &str = r#"
format = 1
id = "restore-to-a-point"
title = "Restore PostgreSQL and Redis to one point in time"
owner = "data platform"
revision = 3
systems = { db = "postgres", cache = "redis" }         # roles, bound to the inventory at the start

[[phases]]
title = "Assess"

[[phases.steps]]
id = "fence"
title = "Stop writes to the old primary"
do = "postgres.fence"
system = "db"
destroys = "write access of every client of {db}"

[[phases.steps]]
id = "choose"
title = "Choose the recovery point"
do = "recovery.choose"
systems = ["db", "cache"]
text = "Pick the last moment before the damage. The candidates show what would be lost."

[[phases]]
title = "Restore"

[[phases.steps]]
id = "restore-db"
do = "postgres.restore"
needs = ["choose"]
timeout = "40m"

[[phases.steps]]
id = "restore-cache"
do = "redis.restore"
needs = ["choose"]                                     # beside the database, not after it

[[phases.steps]]
id = "inspect"
title = "Look before promoting"
do = "postgres.query"
needs = ["restore-db"]
sql = "select count(*) as orders, max(created_at) as newest from orders"
expect = [{ column = "orders", at_least = 1 }]
"#;

fn step<'a>(runbook: &'a Runbook, id: &str) -> &'a Step {
    runbook.step(id).unwrap()
}

#[test]
fn the_example_of_the_design_loads() {
    let runbook = parse(EXAMPLE, "example").unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(runbook.revision, 3);
    assert_eq!(runbook.systems.keys().collect::<Vec<_>>(), ["db", "cache"]);
    assert_eq!(runbook.phases.iter().map(|phase| phase.steps.clone()).collect::<Vec<_>>(), [0..2, 2..5]);
    assert_eq!(step(&runbook, "choose").after, [0], "without needs: after everything before");
    assert_eq!(step(&runbook, "restore-cache").after, [1], "beside the database");
    assert_eq!(step(&runbook, "restore-db").title, "Restore db");
    assert_eq!(step(&runbook, "restore-db").system.as_deref(), Some("db"), "the only PostgreSQL");
    assert_eq!(step(&runbook, "restore-db").timeout, Some(std::time::Duration::from_secs(2400)));
    assert_eq!(step(&runbook, "fence").line, 12);
    assert!(step(&runbook, "choose").idempotent && !step(&runbook, "restore-db").idempotent);
    let inspect = step(&runbook, "inspect");
    assert_eq!(inspect.expect, [Expectation { field: "orders".into(), rules: vec![Rule::AtLeast(1.0)] }]);
    assert_eq!(&*runbook.source, EXAMPLE);
}

#[test]
fn every_shipped_runbook_loads_without_a_warning() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("runbooks");
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let source = document::read(&path).unwrap();
        let (runbook, problems) = lint(&source, &path.display().to_string());
        assert!(problems.is_empty(), "{problems}");
        let id = runbook.unwrap().id;
        assert_eq!(Some(id.as_str()), path.file_stem().unwrap().to_str(), "a runbook is called as its file");
        ids.push(id);
    }
    ids.sort();
    assert_eq!(ids, ["backup-now", "game-day", "redis-restore", "restore-to-a-point", "verify-backups"]);
}
