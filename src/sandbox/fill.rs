//! The shop before the incident: rows, carts, sessions.

use super::error::SandboxError;
use super::record::Scale;
use super::secrets::{APP, DATABASE};
use super::servers::postgres::Primary;
use super::servers::redis::Cache;

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub customers: u64,
    pub orders: u64,
    pub carts: u64,
    pub sessions: u64,
    /// Orders a second that the application takes.
    pub rate: u32,
    /// Orders between the base backup and the damage, at least.
    pub traffic: u64,
    /// Transactions of the desk in that time, and their rows.
    pub rounds: u64,
    pub round_rows: u64,
}

impl Scale {
    pub fn sizes(self) -> Sizes {
        let small = Sizes {
            customers: 2_000,
            orders: 12_000,
            carts: 1_500,
            sessions: 2_000,
            rate: 50,
            traffic: 200,
            rounds: 40,
            round_rows: 500,
        };
        match self {
            Self::Small => small,
            Self::Medium => Sizes {
                customers: 200_000,
                orders: 2_200_000,
                carts: 60_000,
                sessions: 120_000,
                rate: 100,
                traffic: 2_000,
                rounds: 400,
                round_rows: 5_000,
            },
            Self::Large => Sizes {
                customers: 800_000,
                orders: 9_000_000,
                carts: 250_000,
                sessions: 500_000,
                rate: 100,
                traffic: 4_000,
                rounds: 1_200,
                round_rows: 5_000,
            },
        }
    }
}

/// Creates the database, its roles, its tables and their rows.
pub async fn postgres(primary: &Primary<'_>, seed: u64) -> Result<(), SandboxError> {
    let sizes = primary.scale.sizes();
    // The password stands in this statement only; it comes by standard input and PostgreSQL keeps its SCRAM hash.
    let roles = format!(
        "create role {APP} login password '{}';\ncreate database {DATABASE};\n",
        primary.passwords.app.expose()
    );
    primary.sql_in("postgres", "creating the database", roles).await?;
    // Room for the offsets that rows.sql adds to it.
    let seed = seed % (1 << 60);
    let variables = format!("\\set seed {seed}\n\\set customers {}\n\\set orders {}\n", sizes.customers, sizes.orders);
    let script = [
        variables.as_str(),
        include_str!("sql/schema.sql"),
        include_str!("sql/rows.sql"),
        include_str!("sql/references.sql"),
    ];
    primary.sql("filling the database", script.join("\n")).await?;
    Ok(())
}

/// What the shop's desk does between backup and damage.
pub async fn traffic(primary: &Primary<'_>) -> Result<(), SandboxError> {
    let sizes = primary.scale.sizes();
    let script = include_str!("sql/traffic.sql")
        .replace("ROUNDS", &sizes.rounds.to_string())
        .replace("SIZE", &sizes.round_rows.to_string());
    primary.sql("making traffic", script).await.map(|_| ())
}

/// What the application would have left there: carts of the newest orders (`cart:<order>`) and sessions of customers
/// (`session:<customer>`) that expire.
pub async fn redis(cache: &Cache<'_>, scale: Scale, seed: u64) -> Result<(), SandboxError> {
    let sizes = scale.sizes();
    let mut protocol = Vec::new();
    for order in sizes.orders - sizes.carts..sizes.orders {
        let draw = mix(seed, order);
        let (item, amount) = (format!("SKU-{:06}", draw % 65_536), 199 + draw % 8_192);
        let cart = serde_json::json!({ "order": order + 1, "item": item, "amount": amount }).to_string();
        command(&mut protocol, &["SET", &format!("cart:{}", order + 1), &cart]);
    }
    for customer in 1..=sizes.sessions {
        let order = (1 + mix(seed, customer) % sizes.orders).to_string();
        command(&mut protocol, &["SET", &format!("session:{customer}"), &order, "EX", "86400"]);
    }
    cache.pipe(protocol).await
}

/// A command in Redis's protocol.
fn command(protocol: &mut Vec<u8>, args: &[&str]) {
    protocol.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        protocol.extend_from_slice(format!("${}\r\n{arg}\r\n", arg.len()).as_bytes());
    }
}

/// SplitMix64: the same numbers for the same seed.
fn mix(seed: u64, i: u64) -> u64 {
    let mut z = seed.wrapping_add(i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
