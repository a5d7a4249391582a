//! `lifeboat verify`: does everything still say what was signed, and who signed it?

use std::fmt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use ssh_key::PublicKey;
use ssh_key::public::KeyData;

use super::fold::fold;
use super::model::{JournalSeal, Report};
use super::sign::{AllowedSigners, Role, fingerprint, signatures};
use super::statement::{STATEMENT, Statement, siblings};
use super::{local_zone, words};
use crate::clock;
use crate::digest::Digest;
use crate::journal::{DrillDir, Journal, layout, read_blob};
use crate::mutant;

/// What to check, and by whose word.
#[derive(Debug, Clone)]
pub struct Request {
    /// The report's folder, or that of its drill.
    pub dir: PathBuf,
    /// Whose keys are trusted; without it, the `allowed_signers` in the folder, which is said.
    pub allowed_signers: Option<PathBuf>,
    /// Who must have signed for a role, when the caller knows.
    pub principals: Vec<(Role, String)>,
    /// The moment at which keys must be valid.
    pub at: DateTime<Utc>,
}

impl Request {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), allowed_signers: None, principals: Vec::new(), at: clock::wall_now() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Good,
    Bad,
    /// Neither: something that a person should know.
    Note,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub mark: Mark,
    pub text: String,
}

/// A signature that holds, by a key that is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoodSignature {
    pub role: Role,
    pub principal: String,
    pub fingerprint: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    /// Nothing has changed, and the operator has signed.
    Signed,
    /// Nothing has changed, as far as digests can tell; the operator has not signed.
    Unsigned,
    /// Something does not fit.
    Refused,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Verification {
    pub dir: PathBuf,
    /// Parsed from the very bytes that the signatures were checked over.
    pub statement: Option<Statement>,
    pub signatures: Vec<GoodSignature>,
    pub lines: Vec<Line>,
}

impl Verification {
    pub fn conclusion(&self) -> Conclusion {
        if self.statement.is_none() || self.lines.iter().any(|line| line.mark == Mark::Bad) {
            return Conclusion::Refused;
        }
        match self.signatures.iter().any(|signature| signature.role == Role::Operator) {
            true => Conclusion::Signed,
            false if mutant::removes("14b") => Conclusion::Signed,
            false => Conclusion::Unsigned,
        }
    }

    fn good(&mut self, text: impl Into<String>) {
        self.lines.push(Line { mark: Mark::Good, text: text.into() });
    }

    fn bad(&mut self, text: impl Into<String>) {
        self.lines.push(Line { mark: Mark::Bad, text: text.into() });
    }

    fn note(&mut self, text: impl Into<String>) {
        self.lines.push(Line { mark: Mark::Note, text: text.into() });
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            let sign = match line.mark {
                Mark::Good => '✓',
                Mark::Bad => '✗',
                Mark::Note => '·',
            };
            writeln!(f, "{sign} {}", words::clean(&line.text))?;
        }
        let names = |role| self.signatures.iter().find(|s| s.role == role).map(|s| s.principal.as_str());
        match (self.conclusion(), names(Role::Operator), names(Role::Approver)) {
            (Conclusion::Refused, ..) => {
                f.write_str("REFUSED: something above does not fit; do not rely on this report.")
            }
            (Conclusion::Unsigned, ..) => f.write_str("UNSIGNED: the operator has not signed this statement."),
            (Conclusion::Signed, operator, Some(approver)) => {
                write!(f, "SIGNED by {} and approved by {approver}.", operator.unwrap_or("?"))
            }
            (Conclusion::Signed, operator, None) => {
                write!(f, "SIGNED by {}; nobody has approved it.", operator.unwrap_or("?"))
            }
        }
    }
}

/// Checks a report. Never fails: what could not be checked is a line of the answer.
pub fn verify(request: &Request) -> Verification {
    let dir = match request.dir.join(STATEMENT).exists() {
        true => request.dir.clone(),
        false => DrillDir::at(&request.dir).report(),
    };
    let mut found = Verification { dir: dir.clone(), statement: None, signatures: Vec::new(), lines: Vec::new() };
    let bytes = match std::fs::read(dir.join(STATEMENT)) {
        Ok(bytes) => bytes,
        Err(why) => {
            found.bad(format!("no {STATEMENT} in {}: {why}", request.dir.display()));
            return found;
        }
    };
    let statement = match Statement::parse(&bytes) {
        Ok(statement) => statement,
        Err(why) => {
            found.bad(why.to_string());
            return found;
        }
    };
    found.good(format!(
        "the statement of drill {}: {} in {}, {}",
        statement.drill,
        statement.service,
        statement.environment,
        statement.verdict.word()
    ));
    check_signatures(&mut found, request, &dir, &bytes, &statement);
    check_files(&mut found, &dir, &statement);
    let journal = [dir.join(layout::JOURNAL), dir.join("..").join(layout::JOURNAL)];
    match journal.iter().find(|path| path.exists()) {
        Some(path) => check_journal(&mut found, path, &statement),
        None => found.note("the journal is not beside the report: it was not checked"),
    }
    check_previous(&mut found, &dir, &statement);
    found.statement = Some(statement);
    found
}

fn check_signatures(found: &mut Verification, request: &Request, dir: &Path, bytes: &[u8], statement: &Statement) {
    let signed = signatures(dir).unwrap_or_default();
    let path = request.allowed_signers.clone().unwrap_or_else(|| dir.join("allowed_signers"));
    let allowed = match std::fs::read_to_string(&path) {
        Ok(text) => Ok(AllowedSigners::parse(&text)),
        Err(why) => Err(format!("{} cannot be read: {why}", path.display())),
    };
    if let Ok(allowed) = &allowed {
        for problem in &allowed.problems {
            found.note(format!("{}, {problem}", path.display()));
        }
        if request.allowed_signers.is_none() && !signed.is_empty() {
            found.note(
                "the keys are taken from the report's own folder, which whoever changes the report can change too: \
                 give a file of allowed signers that you trust",
            );
        }
    }
    let mut keys: Vec<(Role, KeyData)> = Vec::new();
    for role in Role::ALL {
        let expected = request.principals.iter().find(|(wanted, _)| *wanted == role).map(|(_, name)| name.as_str());
        let Some((_, signature)) = signed.iter().find(|(signer, _)| *signer == role) else {
            match expected {
                Some(name) => found.bad(format!("unsigned: no signature of {name} as {}", role.word())),
                None => found.note(format!("unsigned: no {} has signed", role.word())),
            }
            continue;
        };
        let signature = match signature {
            Ok(signature) => signature,
            Err(why) => {
                found.bad(format!("{} is no signature: {why}", role.file_name()));
                continue;
            }
        };
        let key = signature.public_key().clone();
        let print = fingerprint(&key);
        let fits = PublicKey::from(key.clone()).verify(role.namespace(), bytes, signature);
        if let Err(why) = fits.or_else(|why| if mutant::removes("16") { Ok(()) } else { Err(why) }) {
            let why = match why {
                ssh_key::Error::Namespace => format!("it is for {}", signature.namespace()),
                _ => "statement or signature has changed".to_owned(),
            };
            found.bad(format!("the signature of the {} does not fit: {why} ({print})", role.word()));
            continue;
        }
        keys.push((role, key.clone()));
        let principal = match &allowed {
            Ok(allowed) => allowed.find(&key, role.namespace(), expected, request.at),
            Err(why) => Err(why.clone()),
        };
        match principal {
            Ok(principal) => {
                found.good(format!("{}: signed by {principal} with {print}", role.word()));
                if role == Role::Operator && !statement.operator.split(", ").any(|name| name == principal) {
                    found.note(format!("the journal calls the operator {}", statement.operator));
                }
                found.signatures.push(GoodSignature { role, principal, fingerprint: print });
            }
            Err(why) => {
                found.bad(format!("the {}'s signature is by nobody who is trusted: {why} ({print})", role.word()))
            }
        }
    }
    if let [(_, one), (_, other)] = keys.as_slice()
        && one == other
    {
        found.bad("operator and approver signed with the same key: that is one person, not two");
    }
}

fn check_files(found: &mut Verification, dir: &Path, statement: &Statement) {
    for (name, digest) in &statement.report_sha256 {
        if name.contains('/') || name.starts_with('.') {
            found.bad(format!("the statement names a file outside its folder: {name}"));
            continue;
        }
        match Digest::of_file(&dir.join(name)) {
            Ok((actual, _)) if actual == *digest => found.good(format!("{name} is as it was")),
            Ok(_) => found.bad(format!("{name} has changed")),
            Err(why) => found.bad(format!("{name} cannot be read: {why}")),
        }
    }
}

fn check_journal(found: &mut Verification, path: &Path, statement: &Statement) {
    let sealed = &statement.journal;
    let read = match Journal::read(path) {
        Ok(read) => read,
        Err(why) => return found.bad(format!("the journal: {why}")),
    };
    let (sha256, bytes) = match Digest::of_file(path) {
        Ok(file) => file,
        Err(why) => return found.bad(format!("the journal cannot be read: {why}")),
    };
    let actual = JournalSeal { head: read.head, events: read.envelopes.len() as u64, bytes, sha256 };
    if mutant::removes("16b") {
        return;
    }
    if actual != *sealed {
        return found.bad(format!(
            "the journal is not the one of this statement: {} events up to {}, stated are {} up to {}",
            actual.events,
            actual.head.short(),
            sealed.events,
            sealed.head.short()
        ));
    }
    found.good(format!("the journal's {} events are as they were, up to {}", actual.events, actual.head.short()));
    let report = match fold(&read.envelopes, actual, local_zone) {
        Ok(report) => report,
        Err(why) => return found.bad(format!("the journal: {why}")),
    };
    match differences(statement, &report) {
        None => found.good("the statement's figures are what the journal says"),
        Some(fields) => found.bad(format!("the statement says otherwise than the journal: {fields}")),
    }
    check_outputs(found, &path.with_file_name("output"), &report);
}

/// The fields in which the statement and the journal disagree.
fn differences(statement: &Statement, report: &Report) -> Option<String> {
    let told = Statement {
        nonce: String::new(),
        report_sha256: Default::default(),
        previous_statement_sha256: None,
        ..statement.clone()
    };
    let values = (serde_json::to_value(told).ok()?, serde_json::to_value(Statement::figures(report)).ok()?);
    let (serde_json::Value::Object(told), serde_json::Value::Object(folded)) = values else { return None };
    let differs =
        |key: &&String| !told.get(*key).zip(folded.get(*key)).is_some_and(|(told, folded)| same(told, folded));
    let fields: Vec<_> = told.keys().filter(differs).cloned().collect();
    (!fields.is_empty()).then(|| fields.join(", "))
}

/// Equal, but for the last bits of a fraction that went through decimal digits.
fn same(one: &serde_json::Value, other: &serde_json::Value) -> bool {
    use serde_json::Value;
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(1.0),
            _ => a == b,
        },
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        (one, other) => one == other,
    }
}

fn check_outputs(found: &mut Verification, dir: &Path, report: &Report) {
    let outputs = &report.evidence.outputs;
    if outputs.is_empty() {
        return;
    }
    if !dir.is_dir() {
        return found.note("the steps' output is not beside the journal: it was not checked");
    }
    let mut good = 0;
    for output in outputs {
        match read_blob(dir, &output.blob) {
            Ok(_) => good += 1,
            Err(why) => found.bad(format!("the output of {}: {why}", output.step)),
        }
    }
    if good == outputs.len() {
        found.good(format!("the output of all {good} attempts is as it was"));
    }
}

fn check_previous(found: &mut Verification, dir: &Path, statement: &Statement) {
    let Some(previous) = statement.previous_statement_sha256 else { return };
    let Some(drill) = dir.canonicalize().ok().and_then(|dir| dir.parent().map(DrillDir::at)) else { return };
    let beside = siblings(&drill)
        .into_iter()
        .any(|sibling| Digest::of_file(&sibling.report().join(STATEMENT)).is_ok_and(|(digest, _)| digest == previous));
    match beside {
        true => found.good(format!("the statement before this one ({}) is beside it, as it was", previous.short())),
        false => found.note(format!("the statement before this one ({}) is not beside it", previous.short())),
    }
}
