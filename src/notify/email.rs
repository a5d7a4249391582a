//! E-mail, over TLS unless the inventory says otherwise.

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};

use super::Message;
use super::send::{CONNECT, Refused};
use crate::event::{Failure, causes};
use crate::inventory::{EmailSink, SmtpTls};
use crate::secret::Redactor;

/// A letter and the way it goes; it can be sent again and again.
pub(super) struct Letter {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    letter: lettre::Message,
}

impl Letter {
    /// Blocks while secrets are looked up.
    pub(super) fn prepare(sink: &EmailSink, message: &Message, redactor: &Redactor) -> Result<Self, Failure> {
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(sink.host.clone())
            .port(sink.port)
            .timeout(Some(CONNECT))
            .tls(tls(sink)?);
        if let Some((user, password)) = &sink.login {
            let (user, password) = (user.resolve()?, password.resolve()?);
            redactor.learn(password.expose());
            transport = transport.credentials(Credentials::new(user.expose().to_owned(), password.expose().to_owned()));
        }
        Ok(Self { transport: transport.build(), letter: letter(sink, message)? })
    }

    pub(super) async fn attempt(&self) -> Result<(), Refused> {
        self.transport.send(self.letter.clone()).await.map(|_| ()).map_err(|error| {
            let why = causes(&error);
            match error.is_permanent() || error.is_tls() || error.is_client() || why.contains("certificate") {
                true => Refused::for_good(why),
                false => Refused::for_now(why),
            }
        })
    }
}

fn tls(sink: &EmailSink) -> Result<Tls, Failure> {
    if sink.tls == SmtpTls::Plaintext {
        return Ok(Tls::None);
    }
    let place = sink.ca.as_ref().map_or_else(|| "the system".to_owned(), |path| path.display().to_string());
    let unusable = |why: String| {
        Failure::new(format!("the certificates of {place} cannot be used"), why)
            .now("Correct `ca` in the inventory: a PEM file with the authorities to trust.")
    };
    let mut parameters = TlsParameters::builder(sink.host.clone());
    if let Some(path) = &sink.ca {
        let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
        let authorities = Certificate::from_pem(&pem).map_err(|error| unusable(causes(&error)))?;
        parameters = parameters.certificate_store(CertificateStore::None).add_root_certificate(authorities);
    }
    let parameters = parameters.build().map_err(|error| unusable(causes(&error)))?;
    Ok(if sink.tls == SmtpTls::Implicit { Tls::Wrapper(parameters) } else { Tls::Required(parameters) })
}

fn letter(sink: &EmailSink, message: &Message) -> Result<lettre::Message, Failure> {
    let unusable = |why: String| {
        Failure::new("the e-mail cannot be written", why).now("Correct `from` and `to` of the sink in the inventory.")
    };
    let mailbox = |text: &str| text.parse::<Mailbox>().map_err(|error| unusable(format!("{text}: {error}")));
    let mut letter: MessageBuilder = lettre::Message::builder()
        .from(mailbox(&sink.from)?)
        .subject(message.title())
        .message_id(Some(format!("<{}@lifeboat>", uuid::Uuid::now_v7())))
        .date_now()
        .header(ContentType::TEXT_PLAIN)
        // No program answers that somebody is on holiday.
        .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned()))
        .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("X-Lifeboat-Alert"), message.alert.key()));
    for to in &sink.to {
        letter = letter.to(mailbox(to)?);
    }
    letter.body(message.to_string()).map_err(|error| unusable(error.to_string()))
}
