//! `lifeboat metrics` and `lifeboat serve-metrics`: numbers for Prometheus.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;

use super::error::{CliError, Result};
use super::{Global, paths, runtime};
use crate::clock;
use crate::event::Failure;
use crate::inventory::{self, Inventory};
use crate::metrics::{self, Gateway, Looking, rules};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    look: Look,
    /// Write them to this file, as a whole: for the textfile collector of the node exporter
    #[arg(long, value_name = "FILE", conflicts_with = "push")]
    textfile: Option<PathBuf>,
    /// Send them to a Pushgateway, in the place of what it has of this service
    #[arg(long, value_name = "URL")]
    push: Option<String>,
    /// A PEM file with the only authorities that the Pushgateway's certificate may be of
    #[arg(long, value_name = "FILE", requires = "push")]
    ca: Option<PathBuf>,
    /// The way to the Pushgateway is a trusted network: http:// may leave this machine
    #[arg(long, requires = "push")]
    plaintext: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print alert rules for Prometheus; thresholds are metrics that come from the inventory
    Rules {
        /// The page that says what to do; {alert} becomes the alert's name [default: that of serve-metrics]
        #[arg(long, value_name = "URL", default_value = rules::PAGES, hide_default_value = true)]
        runbook_url: String,
    },
    /// Print a dashboard for Grafana
    Dashboard,
}

#[derive(Debug, clap::Args)]
struct Look {
    /// The inventory [default: lifeboat.toml]
    #[arg(long, short, value_name = "FILE", env = "LIFEBOAT_INVENTORY")]
    inventory: Option<PathBuf>,
    /// Look at the stores only; no server is asked how far it is
    #[arg(long)]
    stores_only: bool,
    /// Also look at what the providers do for the stores, like `lifeboat check --protection`
    #[arg(long)]
    protection: bool,
}

#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    #[command(flatten)]
    look: Look,
    /// Where to listen; there is no login
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9187")]
    listen: SocketAddr,
    /// The stores are not looked at more often than so
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    interval: Duration,
}

pub fn run(global: &Global, args: Args) -> Result<ExitCode> {
    match args.command {
        Some(Command::Rules { runbook_url }) => {
            print!("{}", rules::yaml(&runbook_url));
            return Ok(ExitCode::SUCCESS);
        }
        Some(Command::Dashboard) => {
            print!("{}", metrics::DASHBOARD);
            return Ok(ExitCode::SUCCESS);
        }
        None => {}
    }
    let looker = Looker::of(global, &args.look)?;
    let runtime = runtime()?;
    let text = runtime.block_on(looker.look()).map_err(CliError::failed)?;
    match (args.textfile, args.push) {
        (Some(path), _) => metrics::write_textfile(&path, &text).map_err(CliError::failed)?,
        (_, Some(url)) => {
            let gateway = Gateway { url, ca: args.ca, plaintext: args.plaintext };
            let pushed = metrics::push(&gateway, &looker.inventory.service, text);
            runtime.block_on(pushed).map_err(CliError::failed)?;
        }
        _ => print!("{text}"),
    }
    Ok(ExitCode::SUCCESS)
}

struct Looker {
    inventory: Inventory,
    state: PathBuf,
    looking: Looking,
}

impl Looker {
    fn of(global: &Global, look: &Look) -> Result<Self> {
        let inventory = inventory::load(&paths::inventory(look.inventory.as_deref())?)?;
        let scheduled = inventory.schedules.iter();
        let scheduled = scheduled.map(|one| paths::runbook(&one.runbook).ok().map(|runbook| runbook.id)).collect();
        Ok(Self {
            inventory,
            state: paths::state(global.state_dir.as_deref())?,
            looking: Looking { ask: !look.stores_only, protection: look.protection, scheduled },
        })
    }

    async fn look(&self) -> std::result::Result<String, Failure> {
        let snapshot = metrics::collect(&self.inventory, &self.state, &self.looking).await?;
        Ok(metrics::page(&snapshot, &self.inventory))
    }
}

struct Server {
    looker: Looker,
    interval: Duration,
    /// The newest page, and when it was made, since boot. Who comes while it is made waits for it.
    newest: Mutex<Option<(Duration, String)>>,
}

pub fn serve(global: &Global, args: ServeArgs) -> Result<ExitCode> {
    let looker = Looker::of(global, &args.look)?;
    let server = Arc::new(Server { looker, interval: args.interval, newest: Mutex::default() });
    let router = Router::new()
        .route("/metrics", get(page))
        .route("/runbooks/{alert}", get(runbook))
        .route("/-/healthy", get(async || "ok\n"))
        .with_state(server);
    let failed = |error: std::io::Error| {
        CliError::failed(
            Failure::new(format!("cannot listen on {}", args.listen), error)
                .now("Choose another address: --listen 127.0.0.1:PORT"),
        )
    };
    runtime()?.block_on(async {
        let listener = TcpListener::bind(args.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        println!("listening on http://{address}/metrics");
        let mut terminated = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupted = signal(SignalKind::interrupt()).map_err(failed)?;
        // A scrape that is under way may be cut: the next one comes.
        tokio::select! {
            served = axum::serve(listener, router) => served.map_err(failed),
            _ = terminated.recv() => Ok(()),
            _ = interrupted.recv() => Ok(()),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn page(State(server): State<Arc<Server>>) -> Response {
    let mut newest = server.newest.lock().await;
    let age = |made: Duration| clock::boot_now().saturating_sub(made);
    if newest.as_ref().is_none_or(|(made, _)| age(*made) >= server.interval) {
        match server.looker.look().await {
            Ok(text) => *newest = Some((clock::boot_now(), text)),
            Err(failure) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("{failure}\n")).into_response(),
        }
    }
    let Some((made, text)) = newest.as_ref() else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let headers = [
        (header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8".to_owned()),
        (header::AGE, age(*made).as_secs().to_string()),
    ];
    (headers, text.clone()).into_response()
}

async fn runbook(Path(alert): Path<String>) -> Response {
    match rules::rule(&alert) {
        Some(rule) => rule.page().into_response(),
        None => (StatusCode::NOT_FOUND, "there is no such alert\n").into_response(),
    }
}
