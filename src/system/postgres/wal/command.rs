//! The commands as PostgreSQL's configuration holds them. A shell reads them, so every item is quoted.

use std::path::Path;

use super::archive::Location;
use super::fetch::{Fetch, Origin};
use crate::store::Keys;

/// The value of `archive_command`; `program` is Lifeboat's absolute path.
pub fn archive_command(program: &Path, location: &Location) -> String {
    format!("{} %p", line(program, "push", location))
}

/// The value of `restore_command`.
pub fn restore_command(program: &Path, fetch: &Fetch) -> String {
    let mut text = match &fetch.from {
        Origin::Bucket(location) => line(program, "fetch", location),
        Origin::Engine(engine) => {
            let mut text = format!("exec {} wal fetch --engine {}", quoted(&program.to_string_lossy()), engine.word());
            for (name, value) in engine.options() {
                text.push_str(&format!(" {name} {}", quoted(&value)));
            }
            text
        }
    };
    let mut option = |name: &str, value: &str| text.push_str(&format!(" {name} {}", quoted(value)));
    let identity = match &fetch.from {
        Origin::Bucket(location) => location.encryption.identity_file(),
        Origin::Engine(_) => None,
    };
    if let Some(identity) = identity {
        option("--identity", &identity.to_string_lossy());
    }
    if let Some(stage) = &fetch.stage {
        option("--stage", &stage.to_string_lossy());
    }
    if let Some(id) = fetch.system_identifier {
        option("--system-id", &id.to_string());
    }
    if let Some(end) = &fetch.end {
        option("--end", end);
    }
    text.push_str(" %f %p");
    text
}

/// `exec`: no shell stays between, so that the command sees when the server is gone.
fn line(program: &Path, what: &str, location: &Location) -> String {
    let mut text = format!("exec {} wal {what} --store {}", quoted(&program.to_string_lossy()), quoted(&location.url));
    if !location.prefix.is_empty() {
        text.push_str(&format!(" --prefix {}", quoted(&location.prefix)));
    }
    if let Keys::File(path) = &location.keys {
        text.push_str(&format!(" --keys {}", quoted(&path.to_string_lossy())));
    }
    if what == "push" {
        for recipient in location.encryption.recipients() {
            text.push_str(&format!(" --encrypt-to {}", quoted(recipient.as_str())));
        }
    }
    text
}

/// For the shell, and for PostgreSQL's own `%` codes.
fn quoted(text: &str) -> String {
    let text = text.replace('%', "%%");
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:=+%,".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Encryption, Given, Pair};

    #[test]
    fn row_08_nothing_in_a_path_reaches_the_shell() {
        let (url, prefix) = ("file:///b; touch $(x)".to_owned(), "it's 100%".to_owned());
        let location =
            Location { url, prefix, keys: Keys::File("/run/keys;".into()), encryption: Encryption::default() };
        assert_eq!(
            archive_command(Path::new("/opt/life boat"), &location),
            r"exec '/opt/life boat' wal push --store 'file:///b; touch $(x)' --prefix 'it'\''s 100%%' --keys '/run/keys;' %p"
        );
    }

    #[test]
    fn no_key_stands_in_a_command() {
        let secret = |text: &str| crate::secret::Secret::new(text);
        let keys = Given::S3(Pair { access_key: secret("AKIA"), secret_key: secret("hunter2"), session_token: None });
        let (url, prefix) = ("s3://acme/x?region=r&endpoint=https://h".to_owned(), String::new());
        let location = Location { url, prefix, keys: Keys::Given(keys), encryption: Encryption::default() };
        assert_eq!(
            archive_command(Path::new("/l"), &location),
            "exec /l wal push --store 's3://acme/x?region=r&endpoint=https://h' %p"
        );
    }
}
