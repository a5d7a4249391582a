//! A secret stays where it was given.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;

use crate::support::postgres::{Primary, bin};
use crate::support::redis::{TestRedis, open_directory};
use crate::support::sandbox::text;
use crate::support::small::Small;

/// Not to be found anywhere else, with everything in it that encodings change.
const SECRET: &str = "Canary/7 p@ss+\"w0rd\"";

/// How it may be written, by whoever got hold of it.
fn spellings() -> Vec<String> {
    let bytes = SECRET.as_bytes();
    let percent: String = bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
    let usual = "Canary%2F7%20p%40ss%2B%22w0rd%22";
    vec![
        SECRET.to_owned(),
        base64::engine::general_purpose::STANDARD.encode(bytes),
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes),
        hex::encode(bytes),
        hex::encode_upper(bytes),
        usual.to_owned(),
        usual.to_lowercase().replace("canary", "Canary"),
        usual.replace("%20", "+"),
        serde_json::to_string(SECRET).unwrap(),
        format!("{{\"password\": {}}}", serde_json::to_string(SECRET).unwrap().replace('/', "\\/")),
        // As the header of a request has it.
        format!("Authorization: Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("app:{SECRET}"))),
        format!("postgresql://app:{usual}@db/orders"),
        percent,
    ]
}

/// What of the spellings cannot be mistaken: enough of each to give the secret away.
fn traces() -> Vec<String> {
    let mut traces = vec!["Canary/7".to_owned(), "p@ss+".to_owned(), "Canary%2".to_owned(), "%43%61%6E".to_owned()];
    traces.extend([hex::encode("Canary"), hex::encode_upper("Canary"), "Canary\\/7".to_owned()]);
    for before in ["", "app:", "a", "ab"] {
        let whole = base64::engine::general_purpose::STANDARD.encode(format!("{before}{SECRET}"));
        let middle = whole.len() / 2;
        traces.push(whole[middle - 6..middle + 6].to_owned());
    }
    traces
}

fn look(place: &str, bytes: &[u8], found: &mut Vec<String>) {
    for trace in traces() {
        if bytes.windows(trace.len()).any(|window| window == trace.as_bytes()) {
            found.push(format!("{trace} in {place}"));
        }
    }
}

fn look_below(directory: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => look_below(&entry.path(), found),
            kind if kind.is_file() => {
                look(&entry.path().display().to_string(), &std::fs::read(entry.path()).unwrap(), found);
            }
            _ => {}
        }
    }
}

/// PostgreSQL's programs, of which `pg_basebackup` writes its command line to `arguments` first: it is gone too soon for one
/// who looks at the machine's processes now and then.
fn programs_that_tell(directory: &Path, arguments: &Path) {
    std::fs::create_dir(directory).unwrap();
    for program in std::fs::read_dir(bin()).unwrap().map(|entry| entry.unwrap().path()) {
        std::os::unix::fs::symlink(&program, directory.join(program.file_name().unwrap())).unwrap();
    }
    let own = directory.join("pg_basebackup");
    std::fs::remove_file(&own).unwrap();
    let (arguments, real) = (arguments.display(), bin().join("pg_basebackup"));
    let script = format!("#!/bin/sh\nprintf '%s\\n' \"$@\" >> '{arguments}'\nexec '{}' \"$@\"\n", real.display());
    std::fs::write(&own, script).unwrap();
    std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Looks at every command line of the machine until told to stop.
fn watch_command_lines(stop: Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<String>> {
    std::thread::spawn(move || {
        let mut found = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                if !line.is_empty() && line.len() < 100_000 {
                    look(&format!("the process list: {}", text(&line).replace('\0', " ")), &line, &mut found);
                }
            }
        }
        found
    })
}

/// A drill that backs both systems up, and whose own programs tell the secret in every way.
#[tokio::test(flavor = "multi_thread")]
async fn row_10_a_secret_is_in_no_artefact_and_no_process_list() {
    let primary = Primary::start().await;
    primary.sql(&format!("create role app superuser login password '{SECRET}'")).await;
    let hba = "local all all trust\nhost all,replication all all scram-sha-256\n";
    std::fs::write(primary.data.join("pg_hba.conf"), hba).unwrap();
    primary.sql("select pg_reload_conf()").await;
    let home = open_directory();
    // A password in a configuration has no blanks or quotes that a URL could not carry.
    let cache =
        TestRedis::start(home.path(), &["--requirepass", SECRET], Some("Canary%2F7%20p%40ss%2B%22w0rd%22")).await;
    let bucket = primary.path("bucket").display().to_string();
    let system = |name: &str, kind: &str, variable: &str| {
        let text = Small::system(name, kind, &format!("{{ env = \"{variable}\" }}"));
        text.split("[stores").next().unwrap().to_owned()
    };
    let (bin, arguments) = (home.path().join("bin"), home.path().join("arguments"));
    programs_that_tell(&bin, &arguments);
    let systems = format!(
        "{}bin = \"{}\"\n{}[stores.backups]\nurl = \"file://{bucket}\"\n",
        system("orders-db", "postgres", "LB_PG"),
        bin.display(),
        system("orders-cache", "redis", "LB_REDIS"),
    );
    let step = |id: &str, rest: &str| format!("[[phases.steps]]\nid = \"{id}\"\ntitle = \"{id}\"\n{rest}\n");
    let steps = [
        step("whole", "do = \"command\"\nscript = 'cat leak; cat leak >&2'"),
        step(
            "pieces",
            "do = \"command\"\nscript = 'for n in $(seq 0 7 700); do dd if=leak bs=1 skip=$n count=7 2>/dev/null; sleep 0.001; done'",
        ),
        step("json", "do = \"command\"\nscript = 'cat leak.json'"),
        step("colours", "do = \"command\"\nscript = 'cat leak.colours'"),
        step("told", "do = \"command\"\nargv = [\"printf\", \"%s\", \"{told}\"]"),
        step("back-up-db", "do = \"postgres.backup\"\nsystem = \"db\""),
        step("back-up-cache", "do = \"redis.snapshot\"\nsystem = \"cache\""),
        step(
            "sql",
            "do = \"postgres.query\"\nsystem = \"db\"\nsql = \"select rolname || $1 as told from pg_roles where rolname = 'app'\"\nparams = [\"{told}\"]",
        ),
        step("fails", "do = \"command\"\nscript = 'cat leak >&2; exit 3'"),
    ];
    let head = "systems = { db = \"postgres\", cache = \"redis\" }\nvariables = { told = {} }";
    let drill = Small::new(&systems, head, &steps.concat());
    std::fs::write(drill.path("leak"), spellings().join("\n")).unwrap();
    // As what colours its findings writes it: whole again only when the escapes are taken out.
    let letters: Vec<String> = SECRET.chars().map(|letter| format!("\u{1b}[31m{letter}\u{1b}[0m")).collect();
    std::fs::write(drill.path("leak.colours"), letters.concat()).unwrap();
    std::fs::write(drill.path("leak.json"), serde_json::json!({ "told": spellings() }).to_string()).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let watching = watch_command_lines(stop.clone());
    let url = |scheme: &str, port: u16, path: &str| {
        format!("{scheme}://app:Canary%2F7%20p%40ss%2B%22w0rd%22@127.0.0.1:{port}/{path}")
    };
    // What a person puts on a command line is theirs; the program is told in its environment.
    let output = drill
        .command(&["--var", "told=nothing"])
        .env("LB_PG", url("postgresql", primary.port, "postgres"))
        .env("LB_REDIS", url("redis", cache.port, "0").replace("app:", ":"))
        .env("LIFEBOAT_LOG", "trace")
        .output()
        .unwrap();
    stop.store(true, Ordering::Relaxed);
    eprintln!("{}", text(&output.stderr));
    let mut found = watching.join().unwrap();
    look("the process list", &std::fs::read(&arguments).expect("pg_basebackup was called"), &mut found);
    look("standard output", &output.stdout, &mut found);
    look("standard error", &output.stderr, &mut found);
    look_below(&drill.path("state"), &mut found);
    look_below(&primary.path("bucket"), &mut found);
    found.dedup();
    assert!(found.is_empty(), "a secret was told:\n{}\n{}", found.join("\n"), text(&output.stderr));
    let journal = drill.journal();
    let passed = journal.iter().filter(|line| line["event"]["outcome"]["status"] == "passed").count();
    assert_eq!(passed, steps.len() - 1, "{}", text(&output.stderr));
    assert!(journal.iter().any(|line| line.to_string().contains("‹redacted›")));
}
