//! The restored server's configuration: ours alone. What the source had is kept beside it, and switched on by a person.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use chrono::{DateTime, Utc};

use super::Plan;
use super::base::Base;
use super::target::Place;
use crate::event::{Failure, RecoveryTarget};
use crate::mutant;
use crate::process::Account;
use crate::system::postgres::control::Floor;

const NAMES: [&str; 4] = ["postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf"];

/// What goes into the configuration besides the plan.
pub struct Settings<'a> {
    pub plan: &'a Plan,
    pub base: &'a Base,
    pub floor: Floor,
    pub place: &'a Place,
    pub restore_command: &'a str,
    /// Bytes of replayed WAL that may stay.
    pub keep_wal: u64,
}

/// Whose configuration lies in the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// The source's, as they were backed up: kept aside.
    Source,
    /// Ours, for an earlier target: replaced.
    Ours,
}

/// Which part of a restore's life the configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Recovery,
    Promoted,
}

impl Settings<'_> {
    fn text(&self, phase: Phase) -> String {
        let mut text = String::from(
            "# Written by Lifeboat for a restored server. The source's own files, if its data directory held them,\n\
             # are in .lifeboat/source/. shared_preload_libraries is not carried over.\n",
        );
        let mut set = |name: &str, value: &str| {
            let value = value.replace('\\', r"\\").replace('\'', "''");
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name} = '{value}'");
        };
        if mutant::removes("5") {
            set("include", ".lifeboat/source/postgresql.conf");
        }
        set("cluster_name", "restored by lifeboat");
        set("listen_addresses", "127.0.0.1");
        set("port", &self.place.port.to_string());
        set("unix_socket_directories", &self.place.socket.display().to_string());
        set("ssl", "off");
        // A clone that archives would pollute the archive it came from.
        if !mutant::removes("5") {
            set("archive_mode", "off");
        }
        set("primary_conninfo", "");
        set("primary_slot_name", "");
        set("wal_level", "replica");
        for (name, value) in self.floor.settings() {
            set(name, &value.to_string());
        }
        set("shared_buffers", &format!("{}MB", shared_buffers_mb()));
        set("logging_collector", "off");
        set("log_destination", "stderr");
        set("log_line_prefix", "%m [%p] ");
        set("log_timezone", "UTC");
        // Failures are told from these lines.
        set("lc_messages", "C");
        for (name, value) in &self.base.client_settings {
            set(name, value);
        }
        if phase == Phase::Promoted {
            set("max_wal_size", "4GB");
            return text;
        }
        set("hot_standby", "on");
        set("autovacuum", "off");
        set("max_logical_replication_workers", "0");
        // No restartpoints while it matters.
        set("max_wal_size", &format!("{}MB", self.keep_wal >> 20));
        set("checkpoint_timeout", "1d");
        set("wal_retrieve_retry_interval", "100ms");
        let major = self.base.version_number / 10_000;
        if major >= 14 && cfg!(target_os = "linux") {
            set("recovery_init_sync_method", "syncfs");
        }
        // Replay's own process is the slowest; nobody else is to write, or to look ahead at what is in memory anyway.
        set("bgwriter_lru_maxpages", "0");
        if major >= 15 {
            if self.base.bytes < memory_bytes() / 2 {
                set("recovery_prefetch", "off");
            }
            set("log_startup_progress_interval", "2s");
        }
        set("restore_command", self.restore_command);
        set("recovery_target_timeline", &self.plan.timeline.to_string());
        set("recovery_target_inclusive", if self.plan.inclusive { "on" } else { "off" });
        set("recovery_target_action", "pause");
        match &self.plan.target {
            RecoveryTarget::Latest => {}
            RecoveryTarget::Time { time } => set("recovery_target_time", &postgres_time(*time)),
            RecoveryTarget::Lsn { lsn } => set("recovery_target_lsn", &lsn.to_string()),
            RecoveryTarget::Xid { xid } => set("recovery_target_xid", &xid.to_string()),
            RecoveryTarget::RestorePoint { name } => set("recovery_target_name", name),
        }
        text
    }

    /// Moves the source's files aside and writes ours, with the signal file.
    pub fn write(&self, data: &Path, owner: Option<&Account>, files: Files) -> Result<(), Failure> {
        let go = || {
            let aside = data.join(super::target::OURS).join("source");
            std::fs::create_dir_all(&aside)?;
            for name in NAMES.iter().filter(|_| files == Files::Source) {
                match std::fs::rename(data.join(name), aside.join(name)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            for name in ["recovery.signal", "standby.signal", "postmaster.pid"] {
                match std::fs::remove_file(data.join(name)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            place(data, "postgresql.conf", &self.text(Phase::Recovery), owner)?;
            place(&data.join(super::target::OURS), PROMOTED, &self.text(Phase::Promoted), owner)?;
            place(data, "postgresql.auto.conf", "", owner)?;
            place(data, "pg_ident.conf", "", owner)?;
            place(data, "pg_hba.conf", HBA, owner)?;
            // A standby waits at the end of WAL; recovery.signal alone would promote there by itself.
            let signal = if self.plan.target == RecoveryTarget::Latest { "standby.signal" } else { "recovery.signal" };
            place(data, signal, "", owner)
        };
        go().map_err(|error| Failure::new(format!("configuring the server in {} failed", data.display()), error))
    }
}

/// Where the configuration for after the promotion waits.
const PROMOTED: &str = "promoted.conf";

/// Puts the configuration of a server that takes writes in place: no recovery settings, still no archiving. It counts
/// from the next reload on.
pub fn switch_to_promoted(data: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(format!("configuring the server in {} failed", data.display()), error);
    // Nothing is fetched any more, and the next backup of this server must not hold them.
    for name in [super::target::KEYS, super::target::IDENTITY] {
        match std::fs::remove_file(data.join(super::target::OURS).join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    match std::fs::rename(data.join(super::target::OURS).join(PROMOTED), data.join("postgresql.conf")) {
        // An earlier attempt was here.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(failed),
    }
}

/// The socket's directory belongs to the server's user alone; over TCP everybody needs the password of their role.
/// (`md5` takes SCRAM passwords too.)
const HBA: &str = "# Written by Lifeboat: this machine only.\n\
    local all all              trust\n\
    host  all all 127.0.0.1/32 md5\n";

/// Writes a file for the server's user alone; it appears whole.
pub fn place(data: &Path, name: &str, text: &str, owner: Option<&Account>) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let (scratch, path) = (data.join(format!("{name}.lifeboat")), data.join(name));
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&scratch)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    file.sync_all()?;
    owner.map_or(Ok(()), |owner| owner.give(&scratch))?;
    std::fs::rename(scratch, path)
}

/// PostgreSQL refuses `…Z`.
pub fn postgres_time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S%.6f+00").to_string()
}

/// An eighth of the memory, between 128 MB and 2 GB.
fn shared_buffers_mb() -> u64 {
    ((memory_bytes() / 8) >> 20).clamp(128, 2048)
}

/// The machine's; 0 where that cannot be told.
fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    total.map_or(0, |kb: u64| kb * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_postgresql_reads_it() {
        let time = "2026-11-21T10:02:31.000507+01:00".parse::<DateTime<Utc>>().unwrap();
        assert_eq!(postgres_time(time), "2026-11-21 09:02:31.000507+00");
    }
}
