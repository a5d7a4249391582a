use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lifeboat::report;
use lifeboat::report::sign::{FileKey, MadeKey, Role, SignError, Signer, allowed_signers_line, make_key, sign};
use lifeboat::report::verify::{Conclusion, Request, verify};
use lifeboat::secret::Secret;

use super::story;

pub fn open(key: &MadeKey) -> FileKey {
    FileKey::open(&key.path, |_| None).unwrap()
}

/// What stock OpenSSH says to the statement in `dir`.
pub fn stock_accepts(dir: &Path, role: Role, namespace: &str, principal: &str, allowed: &Path) -> bool {
    let mut command = Command::new("ssh-keygen");
    command.args(["-Y", "verify", "-n", namespace, "-I", principal, "-f"]).arg(allowed).arg("-s");
    command.arg(dir.join(role.file_name())).stdin(std::fs::File::open(dir.join("statement.json")).unwrap());
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

/// What this program says to it.
fn ours_accepts(dir: &Path, role: Role, principal: &str, allowed: &Path) -> bool {
    let request = Request {
        allowed_signers: Some(allowed.to_owned()),
        principals: vec![(role, principal.to_owned())],
        ..Request::new(dir)
    };
    let found = verify(&request);
    found.signatures.iter().any(|signature| signature.role == role && signature.principal == principal)
}

struct Signed {
    state: tempfile::TempDir,
    dir: PathBuf,
    allowed: PathBuf,
    ada: MadeKey,
}

/// A report that ada has signed as operator.
fn signed() -> Signed {
    let state = tempfile::tempdir().unwrap();
    let dir = report::write(story::passed(state.path(), "019a-1").path()).unwrap().dir;
    let ada = make_key(&state.path().join("ada"), "ada's key").unwrap();
    let allowed = state.path().join("allowed_signers");
    let line = allowed_signers_line("ada@example.org", &[Role::Operator], &ada.public).unwrap();
    std::fs::write(&allowed, line + "\n").unwrap();
    sign(&dir, Role::Operator, "ada@example.org", &open(&ada)).unwrap();
    Signed { state, dir, allowed, ada }
}

#[test]
fn stock_ssh_keygen_and_this_program_agree() {
    let Signed { state: _state, dir, allowed, ada } = signed();
    let role = Role::Operator;
    let both = |principal: &str, expected: bool, why: &str| {
        assert_eq!(stock_accepts(&dir, role, role.namespace(), principal, &allowed), expected, "ssh-keygen: {why}");
        assert_eq!(ours_accepts(&dir, role, principal, &allowed), expected, "ours: {why}");
    };
    both("ada@example.org", true, "as signed");
    both("eve@example.org", false, "another principal");
    assert!(!stock_accepts(&dir, role, "lifeboat-approver", "ada@example.org", &allowed), "another namespace");

    let path = dir.join("statement.json");
    let good = std::fs::read(&path).unwrap();
    for index in [0, good.len() / 3, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[index] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        both("ada@example.org", false, "a changed byte");
    }
    std::fs::write(&path, [&good[..], b"\n"].concat()).unwrap();
    both("ada@example.org", false, "a byte more");
    std::fs::write(&path, &good).unwrap();
    both("ada@example.org", true, "as it was");

    // An operator's signature in the approver's place.
    std::fs::copy(dir.join(role.file_name()), dir.join(Role::Approver.file_name())).unwrap();
    let key = ada.public.to_openssh().unwrap();
    std::fs::write(&allowed, format!("ada@example.org {key}\n")).unwrap();
    let approver = Role::Approver;
    assert!(!stock_accepts(&dir, approver, approver.namespace(), "ada@example.org", &allowed));
    assert!(!ours_accepts(&dir, approver, "ada@example.org", &allowed));
    std::fs::remove_file(dir.join(approver.file_name())).unwrap();

    for (line, expected) in [
        (format!("ada@example.org {key}"), true),
        (format!("*@example.org namespaces=\"lifeboat-*\" {key}"), true),
        (format!("*@example.org,!ada@example.org {key}"), false),
        (format!("ada@example.org namespaces=\"git\" {key}"), false),
        (format!("ada@example.org namespaces=\"lifeboat-approver\" {key}"), false),
        (format!("ada@example.org valid-before=\"20200101\" {key}"), false),
        (format!("ada@example.org valid-after=\"20200101\",valid-before=\"20991231\" {key}"), true),
        (format!("ada@example.org valid-after=\"20990101Z\" {key}"), false),
        (format!("ada@example.org cert-authority {key}"), false),
        ("# nobody".to_owned(), false),
    ] {
        std::fs::write(&allowed, format!("{line}\n")).unwrap();
        both("ada@example.org", expected, &line);
    }

    let signature = dir.join(role.file_name());
    let good = std::fs::read(&signature).unwrap();
    std::fs::write(&allowed, format!("ada@example.org {key}\n")).unwrap();
    for index in (30..good.len() - 30).step_by(7) {
        let mut bytes = good.clone();
        bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
        std::fs::write(&signature, bytes).unwrap();
        both("ada@example.org", false, &format!("byte {index} of the signature"));
    }
}

#[test]
fn the_command_in_verify_txt_works_as_written() {
    let Signed { state, dir, allowed, .. } = signed();
    let bob = make_key(&state.path().join("bob"), "").unwrap();
    sign(&dir, Role::Approver, "bob@example.org", &open(&bob)).unwrap();
    let line = allowed_signers_line("bob@example.org", &[Role::Approver], &bob.public).unwrap();
    let text = std::fs::read_to_string(&allowed).unwrap() + &line + "\n";
    std::fs::write(dir.join("allowed_signers"), text).unwrap();
    let instructions = std::fs::read_to_string(dir.join("VERIFY.txt")).unwrap();
    let commands: Vec<_> = instructions.lines().map(str::trim).filter(|line| line.starts_with("ssh-keygen")).collect();
    assert_eq!(commands.len(), 2, "{instructions}");
    for command in commands {
        let output = Command::new("sh").args(["-c", command]).current_dir(&dir).output().unwrap();
        assert!(output.status.success(), "{command}");
        assert!(String::from_utf8(output.stdout).unwrap().starts_with("Good \"lifeboat-"));
    }
    let found = verify(&Request::new(&dir));
    assert_eq!(found.conclusion(), Conclusion::Signed, "{found}");
    let text = found.to_string();
    assert!(text.ends_with("SIGNED by ada@example.org and approved by bob@example.org."), "{text}");
    assert!(text.contains("taken from the report's own folder"), "{text}");
    assert!(text.contains("the journal calls the operator ada\n"), "{text}");
}

#[test]
fn nothing_is_signed_twice_and_nobody_approves_themselves() {
    let Signed { state, dir, ada, .. } = signed();
    let pem = std::fs::read(dir.join(Role::Operator.file_name())).unwrap();
    let bob = make_key(&state.path().join("bob"), "").unwrap();
    assert!(matches!(sign(&dir, Role::Operator, "bob", &open(&bob)), Err(SignError::Exists("operator"))));
    assert_eq!(std::fs::read(dir.join(Role::Operator.file_name())).unwrap(), pem);
    assert!(matches!(sign(&dir, Role::Approver, "ada", &open(&ada)), Err(SignError::SameKey("operator"))));
    assert!(!dir.join(Role::Approver.file_name()).exists());
    assert!(matches!(report::write(dir.parent().unwrap()), Err(report::ReportError::Signed { .. })));
    assert!(matches!(make_key(&ada.path, ""), Err(SignError::Io { .. })), "a key is never overwritten");
}

#[test]
fn one_key_for_two_roles_is_refused_by_verify_too() {
    let Signed { state: _state, dir, allowed, ada } = signed();
    let line = allowed_signers_line("ada@example.org", &Role::ALL, &ada.public).unwrap();
    std::fs::write(&allowed, line).unwrap();
    // With the stock tool, which has no such rule.
    let status = Command::new("ssh-keygen")
        .args(["-q", "-Y", "sign", "-n", "lifeboat-approver", "-f"])
        .args([&ada.path, &dir.join("statement.json")])
        .status()
        .unwrap();
    assert!(status.success());
    std::fs::rename(dir.join("statement.json.sig"), dir.join(Role::Approver.file_name())).unwrap();
    assert!(stock_accepts(&dir, Role::Approver, "lifeboat-approver", "ada@example.org", &allowed));
    let found = verify(&Request { allowed_signers: Some(allowed), ..Request::new(&dir) });
    assert_eq!(found.conclusion(), Conclusion::Refused);
    assert!(found.to_string().contains("the same key"), "{found}");
}

#[test]
fn row_16_a_signature_fits_no_other_drill() {
    let Signed { state, dir, allowed, ada } = signed();
    let other = report::write(story::passed(state.path(), "019a-2").path()).unwrap().dir;
    std::fs::copy(dir.join(Role::Operator.file_name()), other.join(Role::Operator.file_name())).unwrap();
    let request = |dir: &Path| Request { allowed_signers: Some(allowed.clone()), ..Request::new(dir) };
    assert_eq!(verify(&request(&dir)).conclusion(), Conclusion::Signed);
    assert_eq!(verify(&request(&other)).conclusion(), Conclusion::Refused, "a signature was taken for another drill");
    // Nor with its statement, nor with its whole report: the journal beside it is another one.
    for name in ["statement.json", "report.md", "report.html", "report.json"] {
        std::fs::copy(dir.join(name), other.join(name)).unwrap();
        let found = verify(&request(&other)).conclusion();
        assert_eq!(found, Conclusion::Refused, "another drill's report was taken for this one's, with its {name}");
    }
    drop(ada);
}

#[test]
fn a_changed_report_is_not_signed() {
    let state = tempfile::tempdir().unwrap();
    let dir = report::write(story::passed(state.path(), "019a-1").path()).unwrap().dir;
    let ada = make_key(&state.path().join("ada"), "").unwrap();
    std::fs::write(dir.join("report.html"), "all is well").unwrap();
    assert!(matches!(sign(&dir, Role::Operator, "ada", &open(&ada)), Err(SignError::Changed { .. })));
    for bad in ["", "a b", "a\nb", "$(id)", "a'b", "a,b", "*", "-f", "a\"b"] {
        assert!(matches!(sign(&dir, Role::Operator, bad, &open(&ada)), Err(SignError::Principal(_))), "{bad:?}");
    }
}

#[test]
fn keys_of_ssh_keygen_sign_encrypted_ones_too() {
    let state = tempfile::tempdir().unwrap();
    for (index, (kind, passphrase)) in
        [("ed25519", ""), ("ecdsa", ""), ("ed25519", "correct horse"), ("ecdsa", "correct horse")]
            .into_iter()
            .enumerate()
    {
        let dir = report::write(story::passed(state.path(), &format!("019a-{index}")).path()).unwrap().dir;
        let path = state.path().join(format!("key-{index}"));
        let status = Command::new("ssh-keygen")
            .args(["-q", "-t", kind, "-a", "2", "-C", "", "-N", passphrase, "-f"])
            .arg(&path)
            .status()
            .unwrap();
        assert!(status.success());
        let given = |text: &'static str| move |_: &Path| Some(Secret::new(text));
        if !passphrase.is_empty() {
            assert!(matches!(FileKey::open(&path, |_| None), Err(SignError::NoPassphrase { .. })));
            let wrong = FileKey::open(&path, given("wrong")).err().unwrap();
            assert!(wrong.to_string().contains("the passphrase does not fit"), "{wrong}");
        }
        let key = FileKey::open(&path, given("correct horse")).unwrap();
        sign(&dir, Role::Operator, "ada", &key).unwrap();
        let allowed = state.path().join("allowed");
        let line = allowed_signers_line("ada", &[Role::Operator], key.public_key()).unwrap();
        std::fs::write(&allowed, line).unwrap();
        assert!(stock_accepts(&dir, Role::Operator, "lifeboat-operator", "ada", &allowed), "{kind}");
        assert!(ours_accepts(&dir, Role::Operator, "ada", &allowed), "{kind}");
    }
}

#[test]
fn a_key_of_another_kind_is_named() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("rsa");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "rsa", "-N", "", "-f"]).arg(&path).status().unwrap();
    assert!(made.success());
    let error = FileKey::open(&path, |_| None).err().unwrap();
    assert!(error.to_string().contains("signs with ssh-rsa; Lifeboat signs with Ed25519"), "{error}");
}
