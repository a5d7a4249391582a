//! The application "orders" of the sandbox: a shop's HTTP server in front of PostgreSQL and Redis, with customers of its
//! own. It is what breaks and what is proven again; the drill knows it as any other service.
//!
//! It reads its connections from a file and takes up a changed file on `POST /reload` or SIGHUP: new connections are
//! proven before the old ones go.

mod backends;
mod http;
mod shop;
mod traffic;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::ledger::LedgerError;
use crate::event::Failure;
use shop::Shop;

/// What the application is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// A JSON file: `{"database_url": …, "cache_url": …}`.
    pub connections: PathBuf,
    /// Where acknowledged orders are written down.
    pub ledger: PathBuf,
    pub listen: SocketAddr,
    /// Orders a second that the traffic generator places; 0 for none.
    pub rate: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("{operation} failed: {source}")]
    Io { operation: String, source: std::io::Error },
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        Self::new("the application `orders` cannot run", error)
    }
}

/// Runs until SIGTERM or SIGINT; SIGHUP reloads the connections.
pub async fn serve(options: Options) -> Result<(), AppError> {
    let (stop, reload) = (CancellationToken::new(), Arc::new(Notify::new()));
    let listen = |kind, name: &str| {
        signal(kind).map_err(|source| AppError::Io { operation: format!("listening for {name}"), source })
    };
    let mut terminate = listen(SignalKind::terminate(), "SIGTERM")?;
    let mut interrupt = listen(SignalKind::interrupt(), "SIGINT")?;
    let mut hangup = listen(SignalKind::hangup(), "SIGHUP")?;
    let signals = async {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => reload.notify_one(),
            }
        }
        stop.cancel();
    };
    let (served, ()) = tokio::join!(
        async {
            let served = run(options, stop.clone(), reload.clone()).await;
            stop.cancel();
            served
        },
        async {
            tokio::select! {
                () = signals => {}
                () = stop.cancelled() => {}
            }
        }
    );
    served
}

/// Runs until `stop`; `reload` does what SIGHUP does. The databases may be down: it waits for them, and says so.
pub async fn run(options: Options, stop: CancellationToken, reload: Arc<Notify>) -> Result<(), AppError> {
    let io = |operation: String| move |source| AppError::Io { operation, source };
    let listener =
        tokio::net::TcpListener::bind(options.listen).await.map_err(io(format!("listening on {}", options.listen)))?;
    let shop = Arc::new(Shop::open(&options)?);
    if let Err(why) = shop.reload().await {
        tracing::warn!(%why, "the databases do not answer yet");
    }
    let server =
        axum::serve(listener, http::router(shop.clone())).with_graceful_shutdown(stop.clone().cancelled_owned());
    let reloads = async {
        loop {
            tokio::select! {
                () = reload.notified() => {
                    if let Err(why) = shop.reload().await {
                        tracing::warn!(%why, "the connections stay as they were");
                    }
                }
                () = stop.cancelled() => return,
            }
        }
    };
    let (served, (), ()) = tokio::join!(server, reloads, traffic::run(&shop, options.rate, &stop));
    served.map_err(io("serving HTTP".to_owned()))
}
