//! Connections: verified TLS by default, plaintext only to this machine.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::PgError;
use super::tls;
use crate::secret::Secret;

/// How long a server may take to answer a log-in.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// What a `postgresql://` URL says, with the TLS parameters that the driver does not know taken out.
#[derive(Clone)]
pub struct Url {
    config: Config,
    tls: tls::Wanted,
}

impl Url {
    /// Reads `postgresql://user:password@host:port/database?sslmode=…&sslrootcert=…`.
    pub fn parse(url: &Secret) -> Result<Self, PgError> {
        let text = url.expose();
        if !text.starts_with("postgresql://") && !text.starts_with("postgres://") {
            return Err(PgError::Url("it does not begin with postgresql://".to_owned()));
        }
        let (base, query) = text.split_once('?').unwrap_or((text, ""));
        let mut wanted = tls::Wanted::default();
        let mut kept = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "sslmode" => wanted.mode = tls::Mode::parse(value)?,
                "sslrootcert" => wanted.root = Some(percent_decoded(value)).filter(|path| path != "system"),
                _ => kept.push(pair),
            }
        }
        let plain = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
        // The driver's message may quote the URL, and with it the password: only its kind is passed on.
        let mut config = Config::from_str(&plain).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            PgError::Url(format!("it is not of the form postgresql://user@host:port/database ({})", cause.trim()))
        })?;
        if config.get_hosts().is_empty() {
            return Err(PgError::Url("it names no host".to_owned()));
        }
        config.application_name("lifeboat").connect_timeout(TIMEOUT);
        Ok(Self { config, tls: wanted })
    }

    /// The same server, another database.
    pub fn with_database(mut self, name: &str) -> Self {
        self.config.dbname(name);
        self
    }

    pub fn with_user(mut self, name: &str) -> Self {
        self.config.user(name);
        self
    }

    pub fn user(&self) -> Option<&str> {
        self.config.get_user()
    }

    pub fn password(&self) -> Option<Secret> {
        self.config.get_password().map(|bytes| Secret::new(String::from_utf8_lossy(bytes)))
    }

    pub fn database(&self) -> &str {
        self.config.get_dbname().or(self.config.get_user()).unwrap_or("postgres")
    }

    pub fn host(&self) -> String {
        self.config.get_hosts().first().map(host_text).unwrap_or_default()
    }

    pub fn port(&self) -> u16 {
        self.config.get_ports().first().copied().unwrap_or(5432)
    }

    /// Where it answers, without user or password: `db.acme:5432/orders`.
    pub fn address(&self) -> String {
        format!("{}:{}/{}", self.host(), self.port(), self.database())
    }

    /// Loopback or a Unix socket: bytes never leave this machine.
    pub fn is_local(&self) -> bool {
        self.config.get_hosts().iter().all(|host| match host {
            Host::Tcp(name) => {
                name == "localhost" || IpAddr::from_str(name.trim_matches(['[', ']'])).is_ok_and(|ip| ip.is_loopback())
            }
            Host::Unix(_) => true,
        }) && self.config.get_hostaddrs().iter().all(IpAddr::is_loopback)
    }

    /// What libpq's programs read from their environment, so that nothing stands in the process list.
    pub(super) fn environment(&self) -> Result<Vec<(&'static str, String)>, PgError> {
        let mode = self.tls.effective(self.is_local(), &self.address())?;
        let mut pairs = vec![
            ("PGHOST", self.host()),
            ("PGPORT", self.port().to_string()),
            ("PGDATABASE", self.database().to_owned()),
            ("PGAPPNAME", "lifeboat".to_owned()),
            ("PGCONNECT_TIMEOUT", TIMEOUT.as_secs().to_string()),
            ("PGSSLMODE", mode.libpq().to_owned()),
        ];
        pairs.extend(self.user().map(|user| ("PGUSER", user.to_owned())));
        pairs.extend(self.password().map(|password| ("PGPASSWORD", password.expose().to_owned())));
        pairs.extend(self.tls.root.clone().map(|root| ("PGSSLROOTCERT", root)));
        Ok(pairs)
    }

    /// Logs in, within [`TIMEOUT`].
    pub async fn connect(&self) -> Result<Client, PgError> {
        let address = self.address();
        let mode = self.tls.effective(self.is_local(), &address)?;
        let mut config = self.config.clone();
        let attempt = async {
            if mode == tls::Mode::Disable {
                config.ssl_mode(SslMode::Disable);
                let (client, connection) = config.connect(NoTls).await?;
                drive(connection);
                Ok::<_, tokio_postgres::Error>(Ok(client))
            } else {
                config.ssl_mode(SslMode::Require);
                let settings = match self.tls.settings(mode) {
                    Ok(settings) => settings,
                    Err(error) => return Ok(Err(error)),
                };
                let (client, connection) = config.connect(MakeRustlsConnect::new(settings)).await?;
                drive(connection);
                Ok(Ok(client))
            }
        };
        match tokio::time::timeout(TIMEOUT, attempt).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(PgError::connecting(&address, &error)),
            Err(_) => Err(PgError::Silent { address, seconds: TIMEOUT.as_secs() }),
        }
    }
}

impl std::fmt::Debug for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Url({})", self.address())
    }
}

/// Logs in at a `postgresql://` URL.
pub async fn connect(url: &Secret) -> Result<Client, PgError> {
    Url::parse(url)?.connect().await
}

/// `host:port/database` of a URL, without user or password.
pub fn address(url: &Secret) -> Result<String, PgError> {
    Ok(Url::parse(url)?.address())
}

/// The connection ends when its client is dropped.
fn drive<F>(connection: F)
where
    F: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
{
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to PostgreSQL ended");
        }
    });
}

fn host_text(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    }
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Result<Url, PgError> {
        Url::parse(&Secret::new(text))
    }

    #[test]
    fn an_address_holds_neither_user_nor_password() {
        let address = |text: &str| url(text).unwrap().address();
        assert_eq!(address("postgresql://app:hunter2@db.acme:6543/orders?sslmode=verify-full"), "db.acme:6543/orders");
        assert_eq!(address("postgres://app@127.0.0.1/orders"), "127.0.0.1:5432/orders");
        assert_eq!(address("postgresql://app@/orders?host=/run/pg&port=5433"), "/run/pg:5433/orders");
        assert!(!format!("{:?}", url("postgresql://app:hunter2@db.acme/orders").unwrap()).contains("hunter2"));
    }

    #[test]
    fn a_bad_url_is_refused_without_its_password() {
        for bad in
            ["mysql://x", "postgresql://app:hunter2@db:notaport/x", "postgresql:///x", "postgresql://h/d?sslmode=maybe"]
        {
            let error = url(bad).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn row_17_plaintext_stays_on_this_machine() {
        for local in ["127.0.0.1", "localhost", "[::1]", "%2Frun%2Fpg"] {
            assert!(
                url(&format!("postgresql://app@{local}/orders?sslmode=disable")).unwrap().environment().is_ok(),
                "{local}"
            );
        }
        for remote in ["db.acme", "10.0.0.1", "localhost.evil.example"] {
            let refused = url(&format!("postgresql://app@{remote}/orders?sslmode=disable")).unwrap().environment();
            assert!(matches!(refused, Err(PgError::Plaintext { .. })), "{remote}");
            let pairs = url(&format!("postgresql://app@{remote}/orders")).unwrap().environment().unwrap();
            assert!(pairs.contains(&("PGSSLMODE", "verify-full".to_owned())), "{remote}");
        }
        let two = url("postgresql://app@127.0.0.1,db.acme/orders").unwrap();
        assert!(!two.is_local());
    }

    #[tokio::test]
    async fn a_refused_connection_is_told_from_silence() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let error = url(&format!("postgresql://app@127.0.0.1:{port}/x")).unwrap().connect().await.unwrap_err();
        assert!(matches!(error, PgError::Refused { .. }), "{error}");
        let error = url("postgresql://app@/x?host=/no/such/directory").unwrap().connect().await.unwrap_err();
        assert!(matches!(error, PgError::Refused { .. }), "{error}");
    }
}
