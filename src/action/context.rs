//! What an action gets: its step, its systems, the variables, a place to work, and a sink.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::clock::SharedClock;
use crate::event::{Answer, Ask, Failure, Identity, Measure, Mode, Progress, Stream};
use crate::inventory::{Inventory, System};
use crate::mutant;
use crate::runbook::{Runbook, Step, placeholders};
use crate::secret::Redactor;

/// Everything an action may see. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub runbook: Arc<Runbook>,
    pub inventory: Arc<Inventory>,
    /// Role of the runbook → name in the inventory.
    pub bindings: Arc<BTreeMap<String, String>>,
    /// Index into `runbook.steps`.
    pub step: usize,
    pub attempt: u32,
    /// The same for every retry of one effect.
    pub effect_key: String,
    pub drill: String,
    pub mode: Mode,
    pub operator: String,
    /// Variables and captured facts so far. Structured values (the recovery point) are JSON.
    pub variables: Arc<BTreeMap<String, serde_json::Value>>,
    /// The drill's directory; scratch goes to `drill_dir/work/<step>`.
    pub drill_dir: PathBuf,
    /// Addresses of the bound source systems, by name, without user or password.
    pub sources: Arc<BTreeMap<String, String>>,
    /// Who answers for the step's system, as this drill has recorded it last.
    pub answered: Option<Identity>,
    /// This program, for `restore_command` and `archive_command`.
    pub lifeboat: PathBuf,
    pub clock: SharedClock,
    pub redactor: Redactor,
    pub cancel: CancellationToken,
    /// No person can correct a wrong answer.
    pub unattended: bool,
    pub sink: Sink,
}

impl Context {
    pub fn step(&self) -> &Step {
        &self.runbook.steps[self.step]
    }

    /// The system bound to a role.
    pub fn system(&self, role: &str) -> Option<&System> {
        self.inventory.systems.get(self.bindings.get(role)?)
    }

    /// A placeholder's value: a role's system, a built-in, or a variable.
    fn lookup(&self, name: &str) -> Option<String> {
        match (self.bindings.get(name), name) {
            (Some(system), _) => Some(system.clone()),
            (None, "service") => Some(self.inventory.service.clone()),
            (None, "drill") => Some(self.drill.clone()),
            (None, "operator") => Some(self.operator.clone()),
            (None, name) => self.variable(name),
        }
    }

    /// A text for people: placeholders that have no value yet stay as they are.
    pub fn expand(&self, text: &str) -> String {
        self.expand_strictly(text).unwrap_or_else(|_| text.to_owned())
    }

    /// A text that something is done with: a placeholder without a value is an error.
    pub fn expand_strictly(&self, text: &str) -> Result<String, Failure> {
        placeholders::expand(text, |name| self.lookup(name)).map_err(|missing| {
            Failure::new(format!("`{text}` cannot be filled in"), missing)
                .now("Give the value with --var name=value, or run the step that captures it first.")
        })
    }

    /// A directory of the step's own, made when missing.
    pub fn scratch(&self) -> Result<PathBuf, Failure> {
        let path = self.drill_dir.join("work").join(&self.step().id);
        std::fs::create_dir_all(&path)
            .map_err(|error| Failure::new(format!("cannot make {}", path.display()), error))?;
        Ok(path)
    }

    /// Asks a person; `None` when the step or the drill ends first.
    pub async fn ask(&self, ask: Ask) -> Option<Answer> {
        tokio::select! {
            answer = self.sink.ask(ask) => answer,
            () = self.cancel.cancelled() => None,
        }
    }

    /// Refuses an address that belongs to a source system, by whatever name: smoke tests look at what was restored.
    /// `address` is `host:port`. One that this drill restored is never refused.
    pub async fn refuse_source(&self, address: &str) -> Result<(), Failure> {
        let restored = self.bindings.values().filter_map(|name| self.inventory.systems.get(name));
        if restored.filter_map(|system| self.restored_address(system).ok()).any(|(host, port)| {
            Place::of(address)
                .is_some_and(|place| place.port == port && (is_loopback(&place.host) || place.host == host))
        }) {
            return Ok(());
        }
        for (name, source) in self.sources.iter().filter(|_| !mutant::removes("6")) {
            let (why, now) = match leads_to(source, address).await {
                Ok(false) => continue,
                Ok(true) => (
                    format!("{address} is the source of {name}; a smoke test may only reach restored systems"),
                    "Point the step at the restored system or at the application behind the cutover.",
                ),
                Err(unknown) => (
                    format!("whether {address} is the source of {name} at {source} cannot be told: {unknown}"),
                    "Put the name resolution right, or give the step an IP address; then retry.",
                ),
            };
            return Err(Failure::new(format!("the smoke test of {address} was not run"), why).now(now));
        }
        Ok(())
    }

    /// A variable as text; structured values as JSON.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|value| match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }
}

/// Whether two addresses, `host:port` with or without a path behind, lead to the same server: the same port of a machine
/// that both names mean. A server behind a Unix socket has the same port on this machine. The error is a name that does
/// not resolve.
async fn leads_to(source: &str, address: &str) -> Result<bool, String> {
    let (Some(source), Some(address)) = (Place::of(source), Place::of(address)) else { return Ok(false) };
    if source.port != address.port {
        return Ok(false);
    }
    if source.host.eq_ignore_ascii_case(&address.host) {
        return Ok(true);
    }
    let (machines, others) = (source.machines().await?, address.machines().await?);
    Ok(machines.iter().any(|machine| others.contains(machine)))
}

struct Place {
    /// Without brackets; a directory for a Unix socket.
    host: String,
    port: u16,
}

#[derive(PartialEq, Eq)]
enum Machine {
    /// By whichever of its addresses.
    This,
    At(IpAddr),
}

impl Place {
    fn of(text: &str) -> Option<Self> {
        let (host, rest) = text.rsplit_once(':')?;
        let port = rest.split('/').next().unwrap_or(rest).parse().ok()?;
        Some(Self { host: host.trim_matches(['[', ']']).trim_end_matches('.').to_owned(), port })
    }

    /// Every machine that the host means.
    async fn machines(&self) -> Result<Vec<Machine>, String> {
        if self.host.starts_with('/') || is_loopback(&self.host) {
            return Ok(vec![Machine::This]);
        }
        let unknown = |why: String| format!("`{}` does not resolve ({why})", self.host);
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let found: Vec<Machine> =
            found.map_err(|error| unknown(error.to_string()))?.map(|to| machine(to.ip())).collect();
        if found.is_empty() { Err(unknown("no address".to_owned())) } else { Ok(found) }
    }
}

/// An address belongs to this machine when a socket can be bound to it.
fn machine(ip: IpAddr) -> Machine {
    let ip = ip.to_canonical();
    let ours = ip.is_loopback() || ip.is_unspecified() || std::net::UdpSocket::bind((ip, 0)).is_ok();
    if ours { Machine::This } else { Machine::At(ip) }
}

/// Whether the host is this machine. A connection to the unspecified address goes to it too.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
    let local = |ip: IpAddr| ip.to_canonical().is_loopback() || ip.is_unspecified();
    host == "localhost" || host.ends_with(".localhost") || host.parse().is_ok_and(local)
}

/// What an action says while it works.
#[derive(Debug)]
pub enum SinkMessage {
    /// Raw bytes of a stream, as they came; the engine sanitises, redacts, samples and keeps them.
    Output {
        stream: Stream,
        bytes: Vec<u8>,
    },
    Progress(Progress),
    Measure(Measure),
    /// A variable for later steps.
    Set {
        name: String,
        value: serde_json::Value,
    },
    Ask {
        ask: Box<Ask>,
        reply: oneshot::Sender<Answer>,
    },
}

/// The action's end of the channel. Sending waits when the engine is behind: output is backpressure, not memory.
#[derive(Clone)]
pub struct Sink(mpsc::Sender<SinkMessage>);

impl Sink {
    /// `capacity` is in messages.
    pub fn channel(capacity: usize) -> (Self, mpsc::Receiver<SinkMessage>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Self(sender), receiver)
    }

    /// One line of our own narration.
    pub async fn say(&self, line: impl Into<String>) {
        let mut bytes = line.into().into_bytes();
        bytes.push(b'\n');
        self.output(Stream::Lifeboat, bytes).await;
    }

    pub async fn output(&self, stream: Stream, bytes: Vec<u8>) {
        // The engine is gone only when the drill is; there is no one left to tell.
        let _ = self.0.send(SinkMessage::Output { stream, bytes }).await;
    }

    pub async fn progress(&self, progress: Progress) {
        let _ = self.0.send(SinkMessage::Progress(progress)).await;
    }

    /// As [`Sink::progress`], from code that cannot wait: dropped when the engine is behind, the next one is newer.
    pub fn offer(&self, progress: Progress) {
        let _ = self.0.try_send(SinkMessage::Progress(progress));
    }

    pub async fn measure(&self, measure: Measure) {
        let _ = self.0.send(SinkMessage::Measure(measure)).await;
    }

    pub async fn set(&self, name: &str, value: impl Into<serde_json::Value>) {
        let _ = self.0.send(SinkMessage::Set { name: name.to_owned(), value: value.into() }).await;
    }

    /// Asks a person and waits; `None` when the drill ends first.
    pub async fn ask(&self, ask: Ask) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        self.0.send(SinkMessage::Ask { ask: Box::new(ask), reply }).await.ok()?;
        answer.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_source_is_recognised_in_every_spelling_of_this_machine() {
        let mut spellings: Vec<String> =
            ["127.0.0.1", "127.0.1.1", "localhost", "LOCALHOST.", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]"]
                .map(str::to_owned)
                .into();
        // The machine's own name and its address towards others, where it has them.
        spellings.push(nix::unistd::gethostname().unwrap().into_string().unwrap());
        let towards = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        if towards.connect("192.0.2.1:9").is_ok() {
            spellings.push(towards.local_addr().unwrap().ip().to_string());
        }
        for spelling in &spellings {
            for source in ["127.0.0.1:5432/orders", "/var/run/postgresql:5432/orders"] {
                let leads = async |port| leads_to(source, &format!("{spelling}:{port}")).await;
                // A machine need not know its own name; then it is not believed to be another.
                assert!(leads(5432).await.unwrap_or(true), "{source} {spelling}");
                assert_eq!(leads(5433).await, Ok(false), "{source} {spelling}");
            }
        }
        assert_eq!(leads_to("db.example:5432/orders", "DB.example.:5432").await, Ok(true));
        assert_eq!(leads_to("192.0.2.7:5432/orders", "[::ffff:192.0.2.7]:5432").await, Ok(true));
        assert_eq!(leads_to("192.0.2.7:5432/orders", "127.0.0.1:5432").await, Ok(false));
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_not_taken_for_another_machine() {
        let unknown = leads_to("db.invalid:5432/orders", "192.0.2.7:5432").await;
        assert!(unknown.as_ref().is_err_and(|why| why.contains("`db.invalid` does not resolve")), "{unknown:?}");
        assert!(leads_to("192.0.2.7:5432/orders", "db.invalid:5432").await.is_err());
        // Another port is another server, wherever it is.
        assert_eq!(leads_to("db.invalid:5432/orders", "192.0.2.7:8080").await, Ok(false));
    }
}
