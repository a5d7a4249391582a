//! Smoke tests reach what was restored, and nothing else.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::sandbox::text;
use crate::support::small::Small;

/// Listens as production would, on every address of this machine, and counts who comes.
fn decoy() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0")).unwrap();
    let (port, count) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(stream);
        }
    });
    (port, count)
}

fn refused(url: &str, kind: &str, steps: &[String], came: &AtomicUsize) {
    for step in steps {
        let head = format!("systems = {{ it = \"{kind}\" }}\nvariables = {{ host = {{ default = \"localhost\" }} }}");
        let step = format!("[[phases.steps]]\nid = \"smoke\"\ntitle = \"Smoke\"\ntimeout = \"5s\"\n{step}\n");
        let drill = Small::new(&Small::system("production", kind, url), &head, &step);
        let output = drill.run(&[]);
        let came = came.load(Ordering::SeqCst);
        assert_eq!(came, 0, "a smoke test reached production: {step}\n{}", text(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{step}\n{}", text(&output.stderr));
        let said = text(&output.stderr);
        assert!(said.contains("is the source of production") || said.contains("not been restored"), "{said}");
    }
}

#[test]
fn row_06_no_smoke_test_reaches_production() {
    let (port, came) = decoy();
    let name = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let mut steps = Vec::new();
    for host in ["127.0.0.1", "localhost", "LOCALHOST.", "127.0.0.7", "0.0.0.0", "[::1]", "{host}"] {
        steps.push(format!("do = \"smoke.tcp\"\naddress = \"{host}:{port}\""));
        steps.push(format!("do = \"smoke.http\"\nurl = \"http://{host}:{port}/health\""));
    }
    if std::net::ToSocketAddrs::to_socket_addrs(&(name.as_str(), port)).is_ok() {
        steps.push(format!("do = \"smoke.tcp\"\naddress = \"{name}:{port}\""));
    }
    steps.push("do = \"smoke.sql\"\nsystem = \"it\"\nsql = \"select 1\"".to_owned());
    refused(&format!("\"postgresql://app@127.0.0.1:{port}/orders\""), "postgres", &steps, &came);
}

#[test]
fn row_06_no_command_for_what_was_restored_reaches_the_source() {
    let (port, came) = decoy();
    let step = "do = \"smoke.redis\"\nsystem = \"it\"\nargv = [\"PING\"]".to_owned();
    refused(&format!("\"redis://127.0.0.1:{port}/0\""), "redis", &[step], &came);
}
