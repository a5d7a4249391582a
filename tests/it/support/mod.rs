//! Real servers for the tests.

use std::path::Path;

pub mod postgres;
pub mod redis;

/// The root of the checkout.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
