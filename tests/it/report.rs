//! The report, its statement and its signatures, against stock `ssh-keygen`, `ssh-agent` and `sha256sum`.

mod agent;
mod contents;
mod signatures;
pub mod story;
