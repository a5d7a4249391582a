//! The application `orders` in front of both: this program again, as `sandbox serve-orders`.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::process::Spec;
use crate::sandbox::error::SandboxError;
use crate::sandbox::layout::Layout;
use crate::sandbox::program;
use crate::sandbox::secrets::Passwords;

/// Its name in the inventory's connections and in `status`.
pub const NAME: &str = "orders";

/// The application.
pub struct App<'a> {
    pub layout: &'a Layout,
    pub port: u16,
    /// Orders a second.
    pub rate: u32,
}

impl App<'_> {
    pub fn url(port: u16) -> String {
        format!("http://127.0.0.1:{port}")
    }

    fn log(&self) -> PathBuf {
        self.layout.log(NAME)
    }

    /// Writes the file that it reads its connections from.
    pub fn create(&self, passwords: &Passwords, postgres: u16, redis: u16) -> Result<(), SandboxError> {
        program::create_private(&self.layout.app())?;
        let connections = serde_json::json!({
            "database_url": passwords.app_url(postgres).expose(),
            "cache_url": passwords.redis_url(redis).expose(),
        });
        program::write(&self.layout.connections(), 0o600, format!("{connections:#}\n"))
    }

    /// Starts it and waits until it says that it is well.
    pub async fn start(&self) -> Result<(), SandboxError> {
        let pid = Spec::new(self.layout.lifeboat())
            .args(["sandbox", "serve-orders", "--connections"])
            .arg(self.layout.connections())
            .arg("--ledger")
            .arg(self.layout.ledger())
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", self.port))
            .arg("--rate")
            .arg(self.rate.to_string())
            .cwd(self.layout.app())
            .detach(&self.log())?;
        // Where /proc is missing, `down` finds it by this.
        program::write(&self.layout.app().join("orders.pid"), 0o600, format!("{pid}\n"))?;
        super::wait_until("the start of the application", Duration::from_secs(30), &self.log(), || async {
            Ok(healthy(self.port).await)
        })
        .await
    }

    /// Waits until the application has acknowledged so many orders more, and returns how many there are now.
    pub async fn acknowledges(&self, more: u64) -> Result<u64, SandboxError> {
        let until = self.acknowledged()? + more;
        // Ten times as long as it should take.
        let limit = Duration::from_secs(20 + 10 * more / u64::from(self.rate.max(1)));
        super::wait_until(&format!("{more} more acknowledged orders"), limit, &self.log(), || async {
            Ok(self.acknowledged()? >= until)
        })
        .await?;
        self.acknowledged()
    }

    /// Lines of the ledger that are whole.
    pub fn acknowledged(&self) -> Result<u64, SandboxError> {
        let path = self.layout.ledger();
        match std::fs::read(&path) {
            Ok(bytes) => Ok(bytes.iter().filter(|byte| **byte == b'\n').count() as u64),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(SandboxError::io("reading", &path)(error)),
        }
    }
}

/// Whether `GET /health` is answered by 200.
pub async fn healthy(port: u16) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.take(4_096).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answered = tokio::time::timeout(Duration::from_secs(2), ask).await;
    matches!(answered, Ok(Ok(answer)) if answer.starts_with(b"HTTP/1.") && answer[8..].starts_with(b" 200"))
}
