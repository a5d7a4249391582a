//! The command line.

mod wal;

pub fn main() -> std::process::ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    // PostgreSQL waits for these: they run before anything else is set up.
    if let Some(code) = wal::fast_path(&args) {
        return code;
    }
    std::process::ExitCode::SUCCESS
}
