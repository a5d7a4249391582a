//! What Prometheus gets, by Prometheus' own programs: promtool, a server that scrapes and evaluates, an
//! Alertmanager, a Pushgateway.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use lifeboat::clock;
use lifeboat::metrics::rules::{self, RULES};
use serde_json::{Value, json};

use crate::support::postgres::Primary;
use crate::support::redis::free_port;
use crate::support::sandbox::{Place, text};

mod table;

pub fn promtool(directory: &Path, args: &[&str]) -> Output {
    let output = Command::new("promtool").args(args).current_dir(directory).output();
    output.expect("these tests need promtool: run tests/run")
}

pub fn passes(output: &Output) {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn every_rule_fires_when_it_is_wrong_and_only_then() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("rules.yml"), rules::yaml(rules::PAGES)).unwrap();
    passes(&promtool(directory.path(), &["check", "rules", "rules.yml"]));
    let mut tests = Vec::new();
    for rule in RULES {
        let case = table::CASES.iter().find(|case| case.alert == rule.alert);
        let case = case.unwrap_or_else(|| panic!("{} has no test", rule.alert));
        for (series, fires) in [(case.wrong, true), (case.right, false)] {
            let series: Vec<Value> =
                series.iter().map(|(series, values)| json!({ "series": series, "values": values })).collect();
            let expr = format!("count by (severity) (ALERTS{{alertname=\"{}\",alertstate=\"firing\"}})", rule.alert);
            let fired = json!([{ "labels": format!("{{severity=\"{}\"}}", rule.severity), "value": 1 }]);
            tests.push(json!({
                "name": format!("{} {}", rule.alert, if fires { "fires" } else { "is silent" }),
                "interval": "5m",
                "input_series": series,
                "promql_expr_test": [{ "expr": expr, "eval_time": "200m", "exp_samples": if fires { fired } else { json!([]) } }],
            }));
        }
    }
    assert_eq!(tests.len(), 2 * RULES.len());
    // JSON is YAML.
    let file = json!({ "rule_files": ["rules.yml"], "evaluation_interval": "5m", "tests": tests });
    std::fs::write(directory.path().join("tests.yml"), file.to_string()).unwrap();
    passes(&promtool(directory.path(), &["test", "rules", "tests.yml"]));
}

/// A program that is gone when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It holds nothing that anybody misses.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// The body, once the server answers well.
async fn get(url: &str) -> String {
    let client = client();
    let answer = async {
        loop {
            match client.get(url).send().await {
                Ok(answer) if answer.status().is_success() => break answer.text().await.unwrap(),
                _ => clock::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), answer).await.unwrap_or_else(|_| panic!("{url} does not answer"))
}

/// What a server of Prometheus answers to a query.
async fn query(base: &str, expr: &str) -> Vec<Value> {
    let mut url = reqwest::Url::parse(&format!("{base}/api/v1/query")).unwrap();
    url.query_pairs_mut().append_pair("query", expr);
    let said = client().get(url).send().await.unwrap().text().await.unwrap();
    let answer: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(answer["status"], "success", "{expr}: {answer}");
    answer["data"]["result"].as_array().unwrap().clone()
}

/// Waits until the query gives data.
async fn until(base: &str, expr: &str) {
    let data = async {
        while query(base, expr).await.is_empty() {
            clock::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), data).await.unwrap_or_else(|_| panic!("{expr} gives nothing"));
}

fn serve(place: &Place, inventory: &str, state: &str) -> (Running, String) {
    let mut command = place.lifeboat(&["serve-metrics", "--listen", "127.0.0.1:0", "--interval", "1s"]);
    let mut child =
        command.args(["--inventory", inventory, "--state-dir", state]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("listening on ").and_then(|url| url.strip_suffix("/metrics")).unwrap();
    (Running(child), url.to_owned())
}

/// Takes alerts, and tells nobody of them.
fn alertmanager(directory: &Path) -> (Running, String) {
    let config = json!({ "route": { "receiver": "people" }, "receivers": [{ "name": "people" }] });
    std::fs::write(directory.join("alertmanager.yml"), config.to_string()).unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let start = |program: &str| {
        let mut command = Command::new(program);
        command.args(["--config.file=alertmanager.yml", "--storage.path=alerts", "--cluster.listen-address="]);
        command.arg(format!("--web.listen-address={address}")).current_dir(directory);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    };
    // Debian's name, and everybody else's.
    let child = start("prometheus-alertmanager").or_else(|_| start("alertmanager"));
    (Running(child.expect("these tests need alertmanager: run tests/run")), format!("http://{address}"))
}

/// Scrapes that address every second, with our rules, and tells that Alertmanager.
fn prometheus(directory: &Path, scraped: &str, told: &str) -> (Running, String) {
    std::fs::write(directory.join("rules.yml"), rules::yaml(rules::PAGES)).unwrap();
    let [target, told] = [scraped, told].map(|url| url.strip_prefix("http://").unwrap());
    let config = json!({
        "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
        "rule_files": ["rules.yml"],
        "alerting": { "alertmanagers": [{ "static_configs": [{ "targets": [told] }] }] },
        "scrape_configs": [{ "job_name": "lifeboat", "static_configs": [{ "targets": [target] }] }],
    });
    std::fs::write(directory.join("prometheus.yml"), config.to_string()).unwrap();
    passes(&promtool(directory, &["check", "config", "prometheus.yml"]));
    let port = free_port();
    let log = std::fs::File::create(directory.join("prometheus.log")).unwrap();
    let child = Command::new("prometheus")
        .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .current_dir(directory)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("these tests need prometheus: run tests/run");
    (Running(child), format!("http://127.0.0.1:{port}"))
}

/// Every query of the dashboard, as it is with all services chosen.
fn queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(lifeboat::metrics::DASHBOARD).unwrap();
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expr = target["expr"].as_str().unwrap().replace("$service", ".*");
            found.push((panel["title"].as_str().unwrap().to_owned(), expr));
        }
    }
    found
}

const FAILS: &str = "format = 1\nid = \"nightly\"\ntitle = \"Nightly\"\nowner = \"us\"\nrevision = 1\n[[phases]]\ntitle = \
                     \"One\"\n[[phases.steps]]\nid = \"fail\"\ndo = \"command\"\nargv = [\"false\"]\n";

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_dashboard_gives_data_of_a_sandbox_and_a_failed_job_alarms() {
    let place = Place::new("metrics");
    let output = place.run(&["drill", "--headless", "--yes", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    // The sandbox's own primary is down, and how far ahead of the archive a server is, only a server can tell.
    let primary = Primary::start().await;
    primary.backup().run().await.expect("a base backup");
    primary.archive().await;
    let live = format!(
        "[stores.live]\nurl = \"file://{}\"\n[systems.live-db]\nkind = \"postgres\"\nenvironment = \"test\"\nurl = \"{}\"\n\
         backups = {{ store = \"live\", prefix = \"orders-db\" }}\nrestore = {{ directory = \"{}\" }}\n",
        primary.path("bucket").display(),
        primary.url.expose(),
        primary.path("restore").display()
    );
    let sandbox = std::fs::read_to_string(place.0.join("lifeboat.toml")).unwrap();
    let inventory = place.0.join("live.toml").display().to_string();
    std::fs::write(&inventory, format!("{sandbox}\n{live}")).unwrap();
    let state = place.0.join("home/.local/state/lifeboat").display().to_string();
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("nightly.toml"), FAILS).unwrap();
    let nightly = home.path().join("nightly.toml").display().to_string();
    let words = ["run", &nightly, "--headless", "--yes", "--inventory", &inventory, "--state-dir", &state];
    assert_eq!(place.lifeboat(&words).output().unwrap().status.code(), Some(1));

    let (_served, url) = serve(&place, &inventory, &state);
    let page = get(&format!("{url}/metrics")).await;
    let (_manager, manager) = alertmanager(home.path());
    get(&format!("{manager}/-/ready")).await;
    let (_server, prometheus) = prometheus(home.path(), &url, &manager);
    get(&format!("{prometheus}/-/ready")).await;
    until(&prometheus, "lifeboat_collected_timestamp_seconds").await;
    let queries = queries();
    assert!(queries.len() > 20, "{}", queries.len());
    for (panel, expr) in &queries {
        assert!(!query(&prometheus, expr).await.is_empty(), "“{panel}” shows nothing: {expr}\n{page}");
    }

    // The format, by Prometheus' own reader.
    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut check.stdin.take().unwrap(), page.as_bytes()).unwrap();
    let checked = check.wait_with_output().unwrap();
    assert!(checked.status.success() && checked.stderr.is_empty(), "{}\n{page}", text(&checked.stderr));

    // The failed job alarms there, with words that were filled in and a page that says what to do.
    until(&prometheus, "ALERTS{alertname=\"LifeboatJobFailed\",alertstate=\"firing\",runbook=\"nightly\"}").await;
    let alerts: Value = serde_json::from_str(&get(&format!("{prometheus}/api/v1/alerts")).await).unwrap();
    for alert in alerts["data"]["alerts"].as_array().unwrap() {
        assert!(!alert["annotations"].to_string().contains("<error"), "{alert:#}");
    }
    let alert = alerts["data"]["alerts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|alert| alert["labels"]["runbook"] == "nightly")
        .unwrap();
    assert_eq!(alert["annotations"]["summary"], "orders nightly: the newest run failed", "{alert:#}");
    let page = get(alert["annotations"]["runbook_url"].as_str().unwrap()).await;
    assert!(page.starts_with("LifeboatJobFailed (error)\n"), "{page}");
    // And the one who tells people has heard it, with the same words.
    let heard = async {
        loop {
            let told: Value =
                serde_json::from_str(&get(&format!("{manager}/api/v2/alerts?active=true")).await).unwrap();
            match told.as_array().unwrap().iter().find(|one| one["labels"] == alert["labels"]) {
                Some(one) => break one.clone(),
                None => clock::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    let heard = tokio::time::timeout(Duration::from_secs(60), heard).await.expect("the Alertmanager hears it");
    assert_eq!(heard["annotations"], alert["annotations"], "{heard:#}");

    // By a file, whole at any moment; and pushed to a real gateway, in the place of what it had.
    let file = home.path().join("lifeboat.prom");
    let look = |words: &[&str]| {
        let mut command = place.lifeboat(&["metrics", "--inventory", &inventory, "--state-dir", &state]);
        command.args(words).output().unwrap()
    };
    std::fs::write(&file, "old").unwrap();
    passes(&look(&["--textfile", file.to_str().unwrap()]));
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.contains("lifeboat_backup_age_seconds{") && written.ends_with("# EOF\n"), "{written}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o644, "another user reads it");
    assert!(
        std::fs::read_dir(home.path()).unwrap().all(|entry| !entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains(".tmp"))
    );
    let refused = look(&["--textfile", "/proc/nowhere/lifeboat.prom"]);
    assert!(
        refused.status.code() == Some(1) && text(&refused.stderr).contains("/proc/nowhere"),
        "{}",
        text(&refused.stderr)
    );

    let port = free_port();
    let gateway = format!("http://127.0.0.1:{port}");
    let mut command = Command::new("prometheus-pushgateway");
    command.arg(format!("--web.listen-address=127.0.0.1:{port}")).stdout(Stdio::null()).stderr(Stdio::null());
    let _gateway = Running(command.spawn().expect("these tests need prometheus-pushgateway: run tests/run"));
    get(&format!("{gateway}/-/ready")).await;
    passes(&look(&["--push", &gateway]));
    passes(&look(&["--push", &gateway]));
    let held = get(&format!("{gateway}/metrics")).await;
    let collected: Vec<&str> =
        held.lines().filter(|line| line.starts_with("lifeboat_collected_timestamp_seconds{")).collect();
    assert!(
        collected.len() == 1
            && collected[0].contains("job=\"lifeboat\"")
            && collected[0].contains("service=\"orders\""),
        "{held}"
    );
    let refused = look(&["--push", "http://192.0.2.1:9091"]);
    assert!(text(&refused.stderr).contains("in the clear"), "{}", text(&refused.stderr));
}
