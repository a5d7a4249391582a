//! What PostgreSQL answered, in words.

use std::error::Error as _;
use std::io;

use tokio_postgres::error::SqlState;

use crate::event::Failure;
use crate::process::ProcessError;
use crate::store::StoreError;

/// An operation on a PostgreSQL server or its backups that failed.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    #[error("the URL of PostgreSQL cannot be read: {0}")]
    Url(String),
    #[error("{address} would be reached without encryption")]
    Plaintext { address: String },
    #[error("the certificates of {path} cannot be read: {why}")]
    Certificates { path: String, why: String },
    #[error("nothing listens at {address}: {why}")]
    Refused { address: String, why: String },
    #[error("{address} cannot be reached: {why}")]
    Unreachable { address: String, why: String },
    #[error("{address} did not answer within {seconds} s")]
    Silent { address: String, seconds: u64 },
    #[error("{address} refused the log-in: {why}")]
    LogIn { address: String, why: String },
    #[error("TLS with {address} failed: {why}")]
    Tls { address: String, why: String },
    #[error("{address} takes no connections now: {why}")]
    NotReady { address: String, why: String },
    #[error("{operation} failed: {why}")]
    Sql { operation: &'static str, why: String, state: Option<String> },
    #[error("{operation} failed: {source}")]
    Io { operation: String, source: io::Error },
    #[error("{0}")]
    Process(#[from] ProcessError),
    #[error("{0}")]
    Store(#[from] StoreError),
    /// Anything that is already a sentence for a person.
    #[error("{0}")]
    Other(Box<Failure>),
}

impl PgError {
    pub(super) fn sql(operation: &'static str, error: &tokio_postgres::Error) -> Self {
        Self::Sql { operation, why: explain(error), state: error.code().map(|code| code.code().to_owned()) }
    }

    pub(super) fn io(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let operation = operation.into();
        move |source| Self::Io { operation, source }
    }

    /// The server said no with this SQLSTATE.
    pub fn is_state(&self, wanted: &SqlState) -> bool {
        matches!(self, Self::Sql { state: Some(state), .. } if state == wanted.code())
    }

    /// Sorts a failed attempt to connect.
    pub(super) fn connecting(address: &str, error: &tokio_postgres::Error) -> Self {
        let (address, why) = (address.to_owned(), explain(error));
        if let Some(code) = error.code() {
            return match code.code() {
                "28000" | "28P01" | "3D000" => Self::LogIn { address, why },
                "57P03" | "57P02" | "57P01" | "53300" => Self::NotReady { address, why },
                _ => Self::LogIn { address, why },
            };
        }
        let mut source = error.source();
        while let Some(inner) = source {
            if inner.downcast_ref::<rustls::Error>().is_some() {
                return Self::Tls { address, why };
            }
            if let Some(io) = inner.downcast_ref::<io::Error>() {
                if io.get_ref().is_some_and(|inner| inner.downcast_ref::<rustls::Error>().is_some()) {
                    return Self::Tls { address, why };
                }
                return match io.kind() {
                    // A Unix socket that is not there: no server has it open.
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Self::Refused { address, why },
                    io::ErrorKind::TimedOut => Self::Silent { address, seconds: super::connect::TIMEOUT.as_secs() },
                    _ => Self::Unreachable { address, why },
                };
            }
            source = inner.source();
        }
        if why.contains("server does not support TLS") {
            return Self::Tls { address, why };
        }
        if why.contains("password") || why.contains("authentication") {
            return Self::LogIn { address, why };
        }
        Self::Unreachable { address, why }
    }
}

/// The server's own words, or the chain of causes.
pub(super) fn explain(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        let mut text = db.message().to_owned();
        for (name, part) in [("detail", db.detail()), ("hint", db.hint())] {
            if let Some(part) = part {
                text.push_str(&format!("; {name}: {part}"));
            }
        }
        return format!("{text} (SQLSTATE {})", db.code().code());
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(&format!(": {inner_text}"));
        }
        source = inner.source();
    }
    text
}

impl From<PgError> for Failure {
    fn from(error: PgError) -> Self {
        match error {
            PgError::Other(failure) => *failure,
            PgError::Refused { address, why } => Self::new(format!("PostgreSQL at {address} cannot be reached"), why)
                .now("no server listens there: start it, or check host and port of its URL in the inventory"),
            PgError::Unreachable { address, why } => {
                Self::new(format!("PostgreSQL at {address} cannot be reached"), why)
                    .now("check host name, route and firewall; whether the server lives is not known")
            }
            PgError::Silent { address, seconds } => {
                Self::new(format!("PostgreSQL at {address} is silent"), format!("no answer within {seconds} s"))
                    .now("whether the server lives is not known: look at its machine, then retry")
            }
            PgError::LogIn { address, why } => Self::new(format!("the log-in at {address} was refused"), why)
                .now("check user, password and database of its URL in the inventory"),
            PgError::Plaintext { address } => Self::new(
                format!("the connection to {address} was not attempted"),
                "the URL says sslmode=disable, and plaintext is allowed only to this machine",
            )
            .now("write sslmode=verify-full, with sslrootcert=… when the certificate is of a private authority"),
            PgError::Tls { address, why } => Self::new(format!("TLS with {address} failed"), why)
                .now("give the authority that signed the server's certificate as sslrootcert=… in the URL"),
            PgError::NotReady { address, why } => {
                Self::new(format!("PostgreSQL at {address} takes no connections"), why)
                    .now("wait until it has started, or until a connection is free, then retry")
            }
            PgError::Sql { operation, why, .. } => Self::new(format!("{operation} failed"), why),
            PgError::Io { operation, source } => Self::new(format!("{operation} failed"), source),
            PgError::Process(error) => Self::new("a program could not be run", error),
            PgError::Store(error) => error.into(),
            other => Self::new(other.to_string(), ""),
        }
    }
}

impl From<Failure> for PgError {
    fn from(failure: Failure) -> Self {
        Self::Other(Box::new(failure))
    }
}
