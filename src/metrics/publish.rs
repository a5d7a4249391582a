//! The ways to Prometheus: a file that its node exporter reads, and a Pushgateway.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::event::{Failure, causes};
use crate::inventory::is_loopback;

const PATIENCE: Duration = Duration::from_secs(15);

/// Replaces the file as a whole: its reader sees the old text or the new one. Everybody may read it, as its reader is
/// another user.
pub fn write_textfile(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(format!("the metrics cannot be written to {}", path.display()), error)
            .now("Name a file in the directory that the node exporter reads (--collector.textfile.directory), and see that this user may write there.")
    };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The collector reads what ends in .prom, the scratch file does not.
    let mut file =
        tempfile::Builder::new().prefix(".lifeboat-").suffix(".tmp").tempfile_in(directory).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(failed)?;
    file.persist(path).map(|_| ()).map_err(|error| failed(error.error))
}

/// Where a Pushgateway is.
pub struct Gateway {
    /// Without `/metrics/job/…`.
    pub url: String,
    /// The only authorities to trust; the system's when absent.
    pub ca: Option<PathBuf>,
    /// It may be reached in the clear beyond this machine.
    pub plaintext: bool,
}

/// Replaces what the gateway has of this service.
pub async fn push(gateway: &Gateway, service: &str, text: String) -> Result<(), Failure> {
    let failed = |why: String| {
        Failure::new(format!("the metrics cannot be pushed to {}", gateway.url), why)
            .now("Check the URL and that the Pushgateway runs: curl URL/-/ready")
    };
    let url = format!("{}/metrics/job/lifeboat/service/{service}", gateway.url.trim_end_matches('/'));
    let url = reqwest::Url::parse(&url).map_err(|error| failed(error.to_string()))?;
    let local = url.host_str().is_some_and(is_loopback);
    if url.scheme() != "https" && !local && !gateway.plaintext {
        return Err(failed("http:// would send them in the clear".to_owned())
            .now("Use https://, or --plaintext where the network is trusted."));
    }
    let mut client = reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none());
    if local {
        client = client.no_proxy();
    }
    if let Some(path) = &gateway.ca {
        let pem = std::fs::read(path).map_err(|error| failed(format!("{}: {error}", path.display())))?;
        let authorities = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| failed(causes(&error)))?;
        client = client.tls_certs_only(authorities);
    }
    let client = client.build().map_err(|error| failed(causes(&error)))?;
    let request = client.put(url).header(reqwest::header::CONTENT_TYPE, "text/plain; version=0.0.4").body(text);
    let answer = request.send().await.map_err(|error| failed(causes(&error.without_url())))?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => Err(failed(format!("it answered {status}: {}", answer.text().await.unwrap_or_default().trim()))),
    }
}
