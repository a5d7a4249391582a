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
    let all = "backup-daily backup-now drill-monthly game-day partial-restore partial-restore-keys prune redis-restore restore-all restore-managed restore-to-a-point ship-aof verify-backups verify-stores";
    assert_eq!(ids.join(" "), all);
}

/// A runbook of these steps, with a PostgreSQL `db` and a Redis `cache`.
fn of_steps(steps: &str) -> Runbook {
    let head = "format = 1\nid = \"r\"\ntitle = \"R\"\nsystems = { db = \"postgres\", cache = \"redis\" }\n";
    let source = format!("{head}[[phases]]\ntitle = \"P\"\n{steps}");
    parse(&source, "r.toml").unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn what_a_step_does_not_say_has_a_usual_value() {
    let runbook = of_steps(
        r#"
        steps = [
            { id = "choose", do = "recovery.choose" },
            { id = "check", do = "postgres.check", tables = ["a", { name = "b", min_rows = 2 }] },
            { id = "cut", do = "cutover.connections", undo = true, retry = { times = 2, delay = "2m" } },
            { id = "order", do = "smoke.http", url = "http://h/orders", body = "{{}}", undo = ["rm", "x"] },
            { id = "health", do = "smoke.http", url = "http://h/health", proves_service = false },
        ]
        "#,
    );
    let both = ["db".to_owned(), "cache".to_owned()];
    assert_eq!(step(&runbook, "choose").kind.systems(), Some(both.as_slice()));
    let StepKind::PostgresCheck { tables, checksums, amcheck, .. } = &step(&runbook, "check").kind else { panic!() };
    assert_eq!(tables.iter().map(|t| (t.name.as_str(), t.min_rows)).collect::<Vec<_>>(), [("a", 0), ("b", 2)]);
    assert!(checksums & amcheck);
    let cut = step(&runbook, "cut");
    let StepKind::CutoverConnections { connections, systems } = &cut.kind else { panic!() };
    assert_eq!((connections.as_str(), systems.as_slice()), ("{service}", both.as_slice()));
    assert!(matches!(cut.undo, Some(Undo::BuiltIn)) && !cut.idempotent);
    assert_eq!(cut.retry.max_delay, cut.retry.delay, "the delay never exceeds its limit");
    let order = step(&runbook, "order");
    assert!(matches!(&order.kind, StepKind::SmokeHttp { method, status: 200, .. } if method == "POST"));
    assert!(matches!(&order.undo, Some(Undo::Command { argv }) if argv.len() == 2));
    assert!(order.proves_service && !step(&runbook, "health").proves_service);
}

#[test]
fn a_barrier_waits_for_every_earlier_phase() {
    let runbook = of_steps(
        r#"
        steps = [{ id = "a", do = "confirm" }, { id = "b", do = "confirm", needs = [] }]

        [[phases]]
        title = "Q"
        steps = [{ id = "c", do = "confirm", needs = [] }, { id = "d", do = "confirm", needs = ["a"] }]

        [[phases]]
        title = "Behind the barrier"
        barrier = true
        steps = [{ id = "e", do = "confirm", needs = [] }, { id = "f", do = "confirm", needs = ["e"] }]
        "#,
    );
    let after = |id| step(&runbook, id).after.clone();
    assert_eq!([after("b"), after("c"), after("d")], [vec![], vec![], vec![0]]);
    assert_eq!([after("e"), after("f")], [vec![0, 1, 2, 3], vec![0, 1, 2, 3, 4]]);
}

/// A journal of someone else holds a runbook of any size: every one is answered, and none takes hours or all memory.
#[test]
fn a_runbook_made_to_be_endless_is_refused() {
    let head = "format = 1\nid = \"a\"\ntitle = \"a\"\n";
    let many = |piece: &str| piece.repeat(300_000 / piece.len());
    let numbered = |before: &str, after: &str| -> String {
        (0..20_000).map(|number| format!("{before}{number}{after}")).collect()
    };
    let step = "[[phases.steps]]\nid = \"a\"\ntitle = \"a\"\ndo = \"note\"\n";
    let phase = format!("[[phases]]\ntitle = \"a\"\n{}", step.repeat(5));
    for (why, text) in [
        ("at most 1000 are read", format!("{head}[[phases]]\ntitle = \"a\"\n{}", many(step))),
        ("this runbook has 2000 steps; at most 1000", format!("{head}{}", phase.repeat(400))),
        ("at most 1000 are read", format!("{head}{}", numbered("[variables.a", "]\n"))),
        ("errors; 200 of them are listed", many("]\n")),
        (
            "this runbook has 20003 entries",
            format!(
                "{head}{}",
                numbered(
                    "[[a", "]]
"
                )
            ),
        ),
        ("unknown key", format!("{head}{} = 1\n", many("titel"))),
        ("", format!("{head}a = {}", many("["))),
        ("", many("a.")),
        ("", format!("{head}a = \"{}\"\n", many("postgres://a:b@"))),
        ("", format!("{head}a = {}", many("password="))),
    ] {
        let problems = parse(&text, "endless.toml").unwrap_err().to_string();
        assert!(problems.contains(why), "{why}: {problems}");
    }
}

/// A network that is cut for a moment is no reason to lose a restore where nobody is asked.
#[test]
fn every_restore_of_a_shipped_runbook_is_tried_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("runbooks");
    let mut restores = 0;
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let text = std::fs::read_to_string(&path).unwrap();
        let runbook = parse(&text, path.to_str().unwrap()).unwrap_or_else(|problems| panic!("{problems}"));
        let is_restore = |step: &&Step| matches!(step.kind, StepKind::PostgresRestore | StepKind::RedisRestore);
        for step in runbook.steps.iter().filter(is_restore) {
            restores += 1;
            assert!(step.retry.times > 0, "{}: {}", runbook.id, step.id);
        }
    }
    assert!(restores >= 6, "{restores}");
}

/// At three in the morning nobody notices a step that waits for ever. People may take their time.
#[test]
fn every_step_of_a_shipped_runbook_that_waits_for_a_machine_has_a_time_limit() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("runbooks");
    let mut without = Vec::new();
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let text = std::fs::read_to_string(&path).unwrap();
        let runbook = parse(&text, path.to_str().unwrap()).unwrap_or_else(|problems| panic!("{problems}"));
        let people = |kind: &StepKind| {
            matches!(
                kind,
                StepKind::Confirm
                    | StepKind::Input { .. }
                    | StepKind::Choose { .. }
                    | StepKind::Note
                    | StepKind::RecoveryChoose { .. }
            )
        };
        let unbounded = runbook.steps.iter().filter(|step| step.timeout.is_none() && !people(&step.kind));
        without.extend(unbounded.map(|step| format!("{}: {}", runbook.id, step.id)));
    }
    assert_eq!(without, Vec::<String>::new());
}
