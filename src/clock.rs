//! Time: the only room that reads a clock or sleeps.
//!
//! Durations come from boot time, which neither a stepped wall clock nor a time zone can change and which goes on during
//! suspend; wall time is a label. `clippy.toml` forbids every other source.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};

/// A moment: what the wall clock says, and how long the machine has been up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Wall time, whole milliseconds; a label, never subtracted.
    pub wall: DateTime<Utc>,
    /// Time since boot, suspend included.
    pub boot: Duration,
}

pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where time comes from; passed in, so that logic can be tested without waiting.
pub trait Clock: Send + Sync {
    fn now(&self) -> Stamp;
    /// Completes once `duration` of boot time has passed.
    fn sleep(&self, duration: Duration) -> Sleep;
    /// Identifies this boot; durations across two boots cannot be told from boot time.
    fn boot_id(&self) -> String;
}

pub type SharedClock = Arc<dyn Clock>;

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl SystemClock {
    pub fn shared() -> SharedClock {
        Arc::new(Self)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Stamp {
        Stamp { wall: wall_now().trunc_subsecs(3), boot: boot_now() }
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that sleeps")]
    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }

    fn boot_id(&self) -> String {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|id| id.trim().to_owned())
            .unwrap_or_else(|_| "unknown".to_owned())
    }
}

/// Wall time in full resolution, for code that has no [`Clock`] at hand (log lines, names of files).
#[expect(clippy::disallowed_methods, reason = "the one place that reads wall time")]
pub fn wall_now() -> DateTime<Utc> {
    Utc::now()
}

/// Time since boot, suspend included where the kernel can tell.
pub fn boot_now() -> Duration {
    #[cfg(target_os = "linux")]
    let id = nix::time::ClockId::CLOCK_BOOTTIME;
    #[cfg(not(target_os = "linux"))]
    let id = nix::time::ClockId::CLOCK_MONOTONIC;
    match nix::time::clock_gettime(id) {
        Ok(spec) => Duration::from(spec),
        Err(_) => Duration::ZERO,
    }
}

/// Waits without a clock at hand: for the polling of servers, which no test drives by a manual clock.
#[expect(clippy::disallowed_methods, reason = "the one place that sleeps")]
pub async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Blocks this thread; only for synchronous commands that have no runtime (`wal fetch`).
#[expect(clippy::disallowed_methods, reason = "the one place that sleeps")]
pub fn block(duration: Duration) {
    std::thread::sleep(duration);
}

/// A clock that moves only when told to.
#[derive(Clone)]
pub struct ManualClock {
    state: Arc<Mutex<Manual>>,
}

struct Manual {
    now: Stamp,
    sleepers: Vec<(Duration, tokio::sync::oneshot::Sender<()>)>,
}

impl ManualClock {
    pub fn at(wall: DateTime<Utc>) -> Self {
        let now = Stamp { wall, boot: Duration::from_secs(1_000) };
        Self { state: Arc::new(Mutex::new(Manual { now, sleepers: Vec::new() })) }
    }

    /// Moves both clocks forward and wakes the sleepers whose time has come.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state.lock().expect("the manual clock's lock");
        state.now.wall += by;
        state.now.boot += by;
        let now = state.now.boot;
        let (due, later) = std::mem::take(&mut state.sleepers).into_iter().partition(|(at, _)| *at <= now);
        state.sleepers = later;
        drop(state);
        let due: Vec<_> = due;
        for (_, wake) in due {
            // A sleeper that was dropped needs no waking.
            let _ = wake.send(());
        }
    }

    /// Steps wall time only, as an administrator or NTP does.
    pub fn step_wall(&self, by: chrono::Duration) {
        self.state.lock().expect("the manual clock's lock").now.wall += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Stamp {
        self.state.lock().expect("the manual clock's lock").now
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        let (wake, woken) = tokio::sync::oneshot::channel();
        let mut state = self.state.lock().expect("the manual clock's lock");
        let due = state.now.boot + duration;
        state.sleepers.push((due, wake));
        Box::pin(async move {
            let _ = woken.await;
        })
    }

    fn boot_id(&self) -> String {
        "manual".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_when_its_time_has_come() {
        let clock = ManualClock::at(DateTime::UNIX_EPOCH);
        let mut sleep = clock.sleep(Duration::from_secs(5));
        clock.advance(Duration::from_secs(4));
        assert!(futures::poll!(&mut sleep).is_pending());
        clock.advance(Duration::from_secs(1));
        sleep.await;
    }

    #[test]
    fn a_stepped_wall_clock_does_not_move_boot_time() {
        let clock = ManualClock::at(DateTime::UNIX_EPOCH);
        let before = clock.now().boot;
        clock.step_wall(chrono::Duration::days(3650));
        assert_eq!(clock.now().boot, before);
    }
}
