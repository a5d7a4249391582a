//! Passwords that exist in this sandbox only.

use ssh_key::rand_core::{OsRng, RngCore as _};

use crate::secret::Secret;

/// PostgreSQL's superuser in the sandbox.
pub const ADMIN: &str = "lifeboat";
/// The application's role.
pub const APP: &str = "orders_app";
pub const DATABASE: &str = "orders";

/// Drawn anew by every `up`.
pub struct Passwords {
    pub admin: Secret,
    pub app: Secret,
    pub redis: Secret,
}

impl Passwords {
    pub fn draw() -> Self {
        Self { admin: password(), app: password(), redis: password() }
    }

    pub fn admin_url(&self, port: u16) -> Secret {
        Secret::new(format!("postgresql://{ADMIN}:{}@127.0.0.1:{port}/{DATABASE}", self.admin.expose()))
    }

    pub fn app_url(&self, port: u16) -> Secret {
        Secret::new(format!("postgresql://{APP}:{}@127.0.0.1:{port}/{DATABASE}", self.app.expose()))
    }

    pub fn redis_url(&self, port: u16) -> Secret {
        Secret::new(format!("redis://:{}@127.0.0.1:{port}/0", self.redis.expose()))
    }
}

/// 128 bits in hex: nothing in it needs quoting.
fn password() -> Secret {
    let mut bytes = [0; 16];
    OsRng.fill_bytes(&mut bytes);
    Secret::new(hex::encode(bytes))
}
