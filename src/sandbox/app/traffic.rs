//! Customers: orders at a steady rate, and patience while the database refuses.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::shop::{NewOrder, OrderError, Shop};
use crate::clock;

/// Between attempts while the database refuses; a reload ends the pause at once.
const PAUSE: Duration = Duration::from_millis(500);

const ITEMS: [&str; 6] = ["green tea", "black tea", "white cup", "blue cup", "tea pot", "sugar bowl"];

/// Places orders until `stop`.
pub async fn run(shop: &Shop, rate: u32, stop: &CancellationToken) {
    if rate == 0 {
        return;
    }
    let period = Duration::from_secs(1) / rate;
    let mut due = clock::boot_now();
    let mut number = 0;
    while !stop.is_cancelled() {
        let wait = due.saturating_sub(clock::boot_now());
        if !wait.is_zero() && !pause(wait, stop).await {
            return;
        }
        number += 1;
        if place(shop, number).await {
            // What a slow server has delayed is not made up for in a burst.
            due = (due + period).max(clock::boot_now().saturating_sub(period));
            continue;
        }
        tokio::select! {
            () = shop.changed.notified() => {}
            goes_on = pause(PAUSE, stop) => if !goes_on { return },
        }
        due = clock::boot_now();
    }
}

async fn place(shop: &Shop, number: i64) -> bool {
    let customers = match shop.backends().await {
        Ok(backends) => backends.customers,
        Err(error) => {
            refused(shop, &error.into());
            return false;
        }
    };
    // A step that shares no factor with most numbers of customers visits nearly all of them.
    let customer = 1 + number.wrapping_mul(7_919).rem_euclid(customers.max(1));
    let item = ITEMS[usize::try_from(number).unwrap_or(0) % ITEMS.len()].to_owned();
    let amount = 199 + number.wrapping_mul(37).rem_euclid(9_000);
    match shop.place(&NewOrder { customer, item, amount }).await {
        Ok(_) => {
            shop.note(|stats| stats.traffic = "running");
            true
        }
        Err(error) => {
            refused(shop, &error);
            false
        }
    }
}

/// Counts an order that was not taken.
pub fn refused(shop: &Shop, error: &OrderError) {
    tracing::debug!(%error, "an order was not taken");
    shop.note(|stats| {
        stats.rejected += 1;
        stats.in_doubt += u64::from(matches!(error, OrderError::InDoubt(_)));
        stats.traffic = "paused";
        stats.last_error = Some(error.to_string());
    });
}

/// False when it is time to stop.
async fn pause(wait: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = clock::sleep(wait) => true,
        () = stop.cancelled() => false,
    }
}
