//! Connections: by URL, verified, with deadlines that are ours, and errors that tell refused from denied from late.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue};

use crate::event::Failure;
use crate::secret::Secret;

/// Until the server has accepted us.
const CONNECT: Duration = Duration::from_secs(5);
/// For one answer. The client's own default, 500 ms, is shorter than a fork of a big server takes.
const ANSWER: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    #[error("that is no Redis URL: {why}")]
    Url { why: String },
    #[error("{address} is not this machine, and the URL asks for no TLS")]
    Plaintext { address: String },
    #[error("nothing listens at {address}: {why}")]
    Refused { address: String, why: String },
    #[error("{address} did not let us in: {why}")]
    Denied { address: String, why: String },
    #[error("{address} did not answer {operation} in time")]
    Timeout { address: String, operation: String },
    #[error("{address} is still loading its data")]
    Loading { address: String },
    #[error("{operation} at {address} failed: {why}")]
    Command { address: String, operation: String, why: String },
}

impl RedisError {
    fn of(address: &str, operation: &str, error: &redis::RedisError) -> Self {
        let (address, operation) = (address.to_owned(), operation.to_owned());
        let why = error.to_string();
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => {
                Self::Denied { address, why }
            }
            // "invalid password" of servers older than 6, and of AUTH without a configured password.
            _ if why.contains("AUTH") && why.contains("password") => Self::Denied { address, why },
            (_, Some("LOADING")) => Self::Loading { address },
            _ if error.is_timeout() => Self::Timeout { address, operation },
            _ if error.is_connection_refusal() => Self::Refused { address, why },
            _ => Self::Command { address, operation, why },
        }
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        let what = match &error {
            RedisError::Url { .. } | RedisError::Plaintext { .. } => "Redis cannot be reached",
            RedisError::Command { .. } => "Redis refused a command",
            _ => "Redis does not answer",
        };
        let now = match &error {
            RedisError::Url { .. } => "Write redis://host:port/db, rediss://… or unix:///path in the inventory.",
            RedisError::Plaintext { .. } => {
                "Use rediss://. If the network is trusted, say so in the URL: redis://…?plaintext=yes."
            }
            RedisError::Refused { .. } => "Check that the server runs and that host and port are right.",
            RedisError::Denied { .. } => "Check the user and password that the inventory points to.",
            RedisError::Timeout { .. } => "Check the network and the server's load, then retry.",
            RedisError::Loading { .. } => "Wait until it has loaded, then retry.",
            RedisError::Command { .. } => "Read the server's words above.",
        };
        Self::new(what, error).now(now)
    }
}

/// A connection to one database of one server. Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    connection: MultiplexedConnection,
    address: String,
}

impl Redis {
    /// Connects to `redis://`, `rediss://` (verified against the machine's roots; `SSL_CERT_FILE` names others) or
    /// `unix:`. Without TLS it goes to loopback and sockets only, unless the URL says `?plaintext=yes`.
    pub async fn connect(url: &Secret) -> Result<Self, RedisError> {
        let info = parse(url)?;
        let address = describe(info.addr());
        if let ConnectionAddr::Tcp(host, _) = info.addr()
            && !is_loopback(host)
            && !allows_plaintext(url)
        {
            return Err(RedisError::Plaintext { address });
        }
        Self::open(info, address).await
    }

    /// The same server, another database.
    pub async fn connect_to(url: &Secret, db: u32) -> Result<Self, RedisError> {
        let url = with_db(url, db)?;
        Self::connect(&url).await
    }

    async fn open(info: ConnectionInfo, address: String) -> Result<Self, RedisError> {
        let error = |error: redis::RedisError| RedisError::of(&address, "the connection", &error);
        let client = Client::open(info).map_err(error)?;
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(ANSWER));
        let connection = client.get_multiplexed_async_connection_with_config(&config).await.map_err(error)?;
        Ok(Self { connection, address })
    }

    /// Host and port, or the socket.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Runs a command; `operation` names it in errors.
    pub async fn query<T: FromRedisValue>(&self, operation: &str, command: &Cmd) -> Result<T, RedisError> {
        let mut connection = self.connection.clone();
        command.query_async(&mut connection).await.map_err(|error| RedisError::of(&self.address, operation, &error))
    }

    /// Runs commands in one round trip.
    pub async fn pipeline<T: FromRedisValue>(
        &self,
        operation: &str,
        pipeline: &redis::Pipeline,
    ) -> Result<T, RedisError> {
        let mut connection = self.connection.clone();
        pipeline.query_async(&mut connection).await.map_err(|error| RedisError::of(&self.address, operation, &error))
    }

    pub async fn ping(&self) -> Result<(), RedisError> {
        self.query("PING", &redis::cmd("PING")).await
    }

    pub async fn info(&self) -> Result<Info, RedisError> {
        let text: String = self.query("INFO", &redis::cmd("INFO")).await?;
        Ok(Info::parse(&text))
    }

    /// One value of CONFIG GET; `None` when the server does not tell.
    pub async fn config(&self, name: &str) -> Result<Option<String>, RedisError> {
        let pairs: BTreeMap<String, String> =
            self.query("CONFIG GET", redis::cmd("CONFIG").arg("GET").arg(name)).await?;
        Ok(pairs.into_values().next())
    }
}

/// What INFO said.
#[derive(Debug, Clone, Default)]
pub struct Info(BTreeMap<String, String>);

impl Info {
    fn parse(text: &str) -> Self {
        Self(
            text.lines()
                .filter_map(|line| line.trim_end().split_once(':'))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name).parse().ok()
    }

    /// `1` means yes.
    pub fn flag(&self, name: &str) -> bool {
        self.text(name) == "1"
    }

    /// Keys by database, expired ones included until Redis has noticed.
    pub fn keyspace(&self) -> BTreeMap<u32, u64> {
        self.0
            .iter()
            .filter_map(|(name, value)| {
                let db = name.strip_prefix("db")?.parse().ok()?;
                let keys = value.split(',').find_map(|part| part.strip_prefix("keys="))?;
                Some((db, keys.parse().ok()?))
            })
            .collect()
    }

    pub fn keys(&self) -> u64 {
        self.keyspace().values().sum()
    }
}

/// Where a URL leads, without user or password.
pub fn address(url: &Secret) -> Result<String, RedisError> {
    parse(url).map(|info| describe(info.addr()))
}

/// The user, password and database of `source` at another address of this machine: the URL of a restored server.
pub fn at_address(source: &Secret, host: &str, port: u16) -> Result<Secret, RedisError> {
    let info = parse(source)?;
    let redis = info.redis_settings();
    let user = redis.username().map(|user| percent(user.as_bytes())).unwrap_or_default();
    let login = match redis.password() {
        Some(password) => format!("{user}:{}@", percent(password.as_bytes())),
        None => String::new(),
    };
    Ok(Secret::new(format!("redis://{login}{host}:{port}/{}", redis.db())))
}

/// The same at a socket of this machine.
pub(super) fn at_socket(source: &Secret, socket: &Path) -> Result<Secret, RedisError> {
    let info = parse(source)?;
    let redis = info.redis_settings();
    let path = socket.as_os_str().as_encoded_bytes().split(|byte| *byte == b'/').map(percent).collect::<Vec<_>>();
    let mut url = format!("unix://{}?db={}", path.join("/"), redis.db());
    for (name, value) in [("user", redis.username()), ("pass", redis.password())] {
        if let Some(value) = value {
            url.push_str(&format!("&{name}={}", percent(value.as_bytes())));
        }
    }
    Ok(Secret::new(url))
}

pub(super) fn parse(url: &Secret) -> Result<ConnectionInfo, RedisError> {
    let parsed = redis::parse_redis_url(url.expose())
        .ok_or_else(|| RedisError::Url { why: "it must begin with redis://, rediss:// or unix:".to_owned() })?;
    // The crate's message may quote the URL, password and all: only its fixed words are repeated.
    redis::IntoConnectionInfo::into_connection_info(parsed)
        .map_err(|error| RedisError::Url { why: error.category().to_owned() })
}

pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether the address is this machine's, as far as it tells.
pub(super) fn is_here(address: &ConnectionAddr) -> bool {
    match address {
        ConnectionAddr::Unix(_) => true,
        ConnectionAddr::Tcp(host, _) => is_loopback(host),
        ConnectionAddr::TcpTls { host, .. } => is_loopback(host),
        _ => false,
    }
}

fn describe(address: &ConnectionAddr) -> String {
    match address {
        ConnectionAddr::Unix(path) => path.display().to_string(),
        ConnectionAddr::Tcp(host, port) => join(host, *port),
        ConnectionAddr::TcpTls { host, port, .. } => join(host, *port),
        other => other.to_string(),
    }
}

fn join(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

fn allows_plaintext(url: &Secret) -> bool {
    redis::parse_redis_url(url.expose())
        .is_some_and(|url| url.query_pairs().any(|(name, value)| name == "plaintext" && value == "yes"))
}

fn with_db(url: &Secret, db: u32) -> Result<Secret, RedisError> {
    let mut parsed = redis::parse_redis_url(url.expose())
        .ok_or_else(|| RedisError::Url { why: "it must begin with redis://, rediss:// or unix:".to_owned() })?;
    if parsed.scheme().ends_with("unix") {
        let others: Vec<(String, String)> =
            parsed.query_pairs().filter(|(name, _)| name != "db").map(|(n, v)| (n.into(), v.into())).collect();
        parsed.query_pairs_mut().clear().extend_pairs(others).append_pair("db", &db.to_string());
    } else {
        parsed.set_path(&format!("/{db}"));
    }
    Ok(Secret::new(parsed.to_string()))
}

fn percent(text: &[u8]) -> String {
    text.iter()
        .map(|byte| match *byte {
            b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(url: &str) -> Secret {
        Secret::new(url)
    }

    #[test]
    fn an_address_holds_no_password() {
        for (url, expected) in [
            ("redis://app:hunter22@localhost:6380/2", "localhost:6380"),
            ("rediss://:hunter22@cache.internal", "cache.internal:6379"),
            ("redis://[::1]:7000", "[::1]:7000"),
            ("unix:///run/redis.sock?pass=hunter22&db=1", "/run/redis.sock"),
        ] {
            assert_eq!(address(&secret(url)).unwrap(), expected);
        }
        let error = address(&secret("http://:hunter22@x")).unwrap_err().to_string();
        assert!(!error.contains("hunter22"), "{error}");
        let error = address(&secret("redis://:hunter22@x/two")).unwrap_err().to_string();
        assert!(!error.contains("hunter22"), "{error}");
    }

    #[test]
    fn a_restored_url_keeps_user_password_and_database() {
        for source in ["redis://app:p%40ss@cache:6380/2", "unix:///s?user=app&pass=p%40ss&db=2"] {
            let url = at_address(&secret(source), "127.0.0.1", 7001).unwrap();
            assert_eq!(url.expose(), "redis://app:p%40ss@127.0.0.1:7001/2");
        }
        assert_eq!(at_address(&secret("redis://cache"), "127.0.0.1", 1).unwrap().expose(), "redis://127.0.0.1:1/0");
        let socket = at_socket(&secret("redis://app:p%40s+%26s@cache:6380/2"), Path::new("/srv/a b?/s")).unwrap();
        let info = parse(&socket).unwrap();
        let (redis, ConnectionAddr::Unix(path)) = (info.redis_settings(), info.addr()) else { panic!("{socket:?}") };
        assert_eq!((redis.username(), redis.password(), redis.db()), (Some("app"), Some("p@s+&s"), 2));
        assert_eq!(path, Path::new("/srv/a b?/s"));
    }

    #[test]
    fn another_database_of_the_same_server() {
        let db = |url: &str| parse(&with_db(&secret(url), 7).unwrap()).unwrap().redis_settings().db();
        assert_eq!(db("redis://:x@localhost:1/2"), 7);
        assert_eq!(db("unix:///s?pass=x&db=2"), 7);
    }

    #[tokio::test]
    async fn row_17_plaintext_leaves_the_machine_only_when_the_url_says_so() {
        // 192.0.2.0/24 is reserved for documentation: nothing answers there.
        let error = Redis::connect(&secret("redis://192.0.2.1:6379")).await.err().unwrap();
        assert!(matches!(&error, RedisError::Plaintext { address } if address == "192.0.2.1:6379"), "{error}");
        assert!(allows_plaintext(&secret("redis://192.0.2.1:6379/0?plaintext=yes")));
        assert!(!allows_plaintext(&secret("redis://192.0.2.1:6379/0?plaintext=no")));
        assert!(is_loopback("localhost") && is_loopback("127.9.9.9") && is_loopback("::1"));
        assert!(!is_loopback("localhost.example.com") && !is_loopback("10.0.0.1"));
    }

    #[test]
    fn info_reads_numbers_and_the_keyspace() {
        let info =
            Info::parse("# Keyspace\r\ndb0:keys=3,expires=1,avg_ttl=0\r\ndb7:keys=40,expires=0\r\nloading:0\r\n");
        assert_eq!(info.keyspace(), BTreeMap::from([(0, 3), (7, 40)]));
        assert_eq!((info.keys(), info.number("loading"), info.flag("loading")), (43, Some(0), false));
    }
}
