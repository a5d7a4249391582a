//! TLS by rustls: the chain and the host name are verified unless the URL says that only the chain is to be.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::mutant;

use super::error::PgError;

/// What a URL asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mode {
    /// Nothing was said: plaintext on this machine, `verify-full` elsewhere.
    #[default]
    Unsaid,
    Disable,
    VerifyCa,
    VerifyFull,
}

impl Mode {
    /// libpq's words. `require` does not verify there; here it does, since an unverified channel proves nothing.
    pub(super) fn parse(word: &str) -> Result<Self, PgError> {
        match word {
            "disable" => Ok(Self::Disable),
            "allow" | "prefer" => Ok(Self::Unsaid),
            "verify-ca" => Ok(Self::VerifyCa),
            "require" | "verify-full" => Ok(Self::VerifyFull),
            _ => Err(PgError::Url(format!("sslmode is disable, require, verify-ca or verify-full, not `{word}`"))),
        }
    }

    pub(super) fn libpq(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull | Self::Unsaid => "verify-full",
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub(super) mode: Mode,
    /// A file of PEM certificates; the system's roots when absent.
    pub(super) root: Option<String>,
}

impl Wanted {
    /// What will be done: `Disable`, `VerifyCa` or `VerifyFull`.
    pub(super) fn effective(&self, local: bool, address: &str) -> Result<Mode, PgError> {
        match (self.mode, local) {
            (Mode::Unsaid | Mode::Disable, true) => Ok(Mode::Disable),
            (Mode::Disable, false) => Err(PgError::Plaintext { address: address.to_owned() }),
            (Mode::Unsaid, false) => Ok(Mode::VerifyFull),
            (mode, _) => Ok(mode),
        }
    }

    pub(super) fn settings(&self, mode: Mode) -> Result<ClientConfig, PgError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match &self.root {
            Some(path) => {
                let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(path)?), Arc::clone(&provider))
                    .build()
                    .map_err(|error| certificates(path, error))?;
                let lenient = mode == Mode::VerifyCa || mutant::removes("17");
                if lenient { Arc::new(ChainOnly(chain)) } else { chain }
            }
            None => {
                let system = rustls_platform_verifier::Verifier::new(Arc::clone(&provider))
                    .map_err(|error| certificates("the system", error))?;
                if mode == Mode::VerifyCa { Arc::new(ChainOnly(Arc::new(system))) } else { Arc::new(system) }
            }
        };
        Ok(builder(provider)?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
    }
}

fn builder(
    provider: Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, PgError> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| certificates("the TLS library", error))
}

fn roots(path: &str) -> Result<RootCertStore, PgError> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| certificates(path, error))? {
        let certificate = certificate.map_err(|error| certificates(path, error))?;
        store.add(certificate).map_err(|error| certificates(path, error))?;
    }
    if store.is_empty() {
        return Err(certificates(path, "there is no certificate in it"));
    }
    Ok(store)
}

fn certificates(path: &str, why: impl ToString) -> PgError {
    PgError::Certificates { path: path.to_owned(), why: why.to_string() }
}

/// `verify-ca`: everything but the host name.
#[derive(Debug)]
struct ChainOnly(Arc<dyn ServerCertVerifier>);

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The name is looked at last: this error means that the chain was good.
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
