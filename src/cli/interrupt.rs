//! Signals to the process that runs a drill: it leaves in order, and `lifeboat resume` goes on.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::live::Beside;
use crate::clock;
use crate::mutant;
use crate::process::GRACE;

/// How long a first ctrl-C waits for a second: one by mistake does not end the drill hours later.
const LAPSE: Duration = Duration::from_secs(60);

/// From here on no signal ends the process by itself, so none can cut off a step without a record.
pub struct Signals {
    term: Signal,
    hangup: Signal,
    interrupt: Signal,
}

impl Signals {
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Cancels `leave` when the drill is to stop.
    pub async fn leave(mut self, leave: CancellationToken, beside: Beside) {
        // Cron, systemd and `timeout` send it once: nobody is there to be asked.
        let person = beside == Beside::Printer && io::stderr().is_terminal() && !mutant::removes("21");
        let interrupted = async {
            match beside {
                Beside::Prompts => std::future::pending().await,
                _ if person => asked_twice(&mut self.interrupt).await,
                _ => drop(self.interrupt.recv().await),
            }
        };
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.hangup.recv() => {}
            () = interrupted => {}
        }
        leave.cancel();
    }
}

/// Returns at the second ctrl-C.
async fn asked_twice(interrupt: &mut Signal) {
    let grace = GRACE.as_secs();
    loop {
        interrupt.recv().await;
        eprintln!(
            "Ctrl-C: once more stops the drill: what runs gets TERM, and KILL after {grace} s; `lifeboat resume` goes on \
             with it. Otherwise it goes on as before."
        );
        tokio::select! {
            _ = interrupt.recv() => break,
            () = clock::sleep(LAPSE) => eprintln!("It goes on."),
        }
    }
    eprintln!("Stopping: what runs is ended, and recorded");
}
