//! The reader of WAL against `pg_waldump`, over everything that a cluster writes; and against WAL that is damaged.

mod archive;
mod damage;
mod index;
mod oracle;
