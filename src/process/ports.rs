//! Free ports of this machine, for servers that are about to start.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use ssh_key::rand_core::{OsRng, RngCore as _};

/// Below what Linux (32768) and macOS (49152) give to outgoing connections: a port that is free now stays free.
const RANGE: Range<u16> = 15_000..32_000;

/// So many free loopback ports, no two alike.
pub fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    free_ports_in(RANGE)
}

/// The same out of these.
pub fn free_ports_in<const N: usize>(range: Range<u16>) -> io::Result<[u16; N]> {
    // All are held until the last is found.
    let mut held: Vec<TcpListener> = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let mut last = io::Error::other("no try");
        for _ in 0..200 {
            let tried = range.start + (OsRng.next_u32() % u32::from(range.end - range.start)) as u16;
            match TcpListener::bind((Ipv4Addr::LOCALHOST, tried)) {
                Ok(listener) => {
                    held.push(listener);
                    *port = tried;
                    break;
                }
                Err(error) => last = error,
            }
        }
        if *port == 0 {
            return Err(last);
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_are_free_and_differ() {
        let ports = free_ports::<5>().unwrap();
        let held: Vec<_> = ports.iter().map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).unwrap()).collect();
        assert_eq!(held.len(), 5);
    }
}
