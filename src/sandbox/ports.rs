use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use ssh_key::rand_core::{OsRng, RngCore as _};

use super::error::SandboxError;
use super::record::Ports;

/// Below what Linux (32768) and macOS (49152) give to outgoing connections: a port that is free now stays free.
const RANGE: std::ops::Range<u16> = 15_000..32_000;

/// Five free loopback ports, no two alike.
pub fn choose(dir: &Path) -> Result<Ports, SandboxError> {
    // All are held until the last is found.
    let mut held: Vec<(u16, TcpListener)> = Vec::new();
    let mut last = std::io::Error::other("no try");
    for _ in 0..200 {
        let port = RANGE.start + (OsRng.next_u32() % u32::from(RANGE.end - RANGE.start)) as u16;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => held.push((port, listener)),
            Err(error) => last = error,
        }
        if let [a, b, c, d, e] = held.as_slice() {
            let (restored_postgres, restored_redis) = (d.0, e.0);
            return Ok(Ports { postgres: a.0, redis: b.0, app: c.0, restored_postgres, restored_redis });
        }
    }
    Err(SandboxError::io("finding free ports for", dir)(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_are_free_and_differ() {
        let ports = choose(Path::new("/")).unwrap();
        let all = [ports.postgres, ports.redis, ports.app, ports.restored_postgres, ports.restored_redis];
        let held: Vec<_> = all.iter().map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).unwrap()).collect();
        assert_eq!(held.len(), all.len());
    }
}
