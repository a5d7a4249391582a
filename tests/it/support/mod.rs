//! Real servers for the tests.

use std::path::Path;

pub mod postgres;
pub mod pty;
pub mod redis;
pub mod s3;
pub mod sandbox;

/// The root of the checkout.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
