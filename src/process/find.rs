use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A program on the PATH, or in the places where distributions put servers.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/opt/homebrew/bin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| is_executable(candidate))
}

/// The directory that holds `postgres`, `pg_ctl` and the rest: `LIFEBOAT_PG_BIN`, else the newest version installed. A
/// directory counts only when it holds the whole server.
pub fn postgres_bin() -> Option<PathBuf> {
    let whole = |directory: &Path| ["postgres", "pg_ctl", "initdb"].iter().all(|p| is_executable(&directory.join(p)));
    if let Some(directory) = std::env::var_os("LIFEBOAT_PG_BIN").map(PathBuf::from) {
        return Some(directory).filter(|directory| whole(directory));
    }
    let mut versions: Vec<(u32, PathBuf)> =
        ["/usr/lib/postgresql", "/usr/pgsql", "/opt/homebrew/opt", "/usr/local/opt"]
            .iter()
            .filter_map(|root| std::fs::read_dir(root).ok())
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                let version = name.trim_start_matches("postgresql@").parse().ok()?;
                Some((version, entry.path().join("bin")))
            })
            .filter(|(_, directory)| whole(directory))
            .collect();
    versions.sort();
    versions.pop().map(|(_, directory)| directory).or_else(|| {
        let found = find_program("pg_ctl")?.canonicalize().ok()?;
        found.parent().map(Path::to_owned).filter(|directory| whole(directory))
    })
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
