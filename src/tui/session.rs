//! What the drill screen is given: a drill, a stream of envelopes, and where its commands go.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::FixedOffset;
use tokio::sync::{broadcast, mpsc};

use crate::clock::SharedClock;
use crate::drill::{DrillState, Elapsed};
use crate::event::{Command, Envelope, Failure, RecoveryPoint, RecoveryTarget, Window};
use crate::recovery::Cost;
use crate::runbook::Contact;

use super::theme::Themes;

/// Everything that a view of one drill needs; the full screen and the linear mode take the same.
pub struct Session {
    pub state: DrillState,
    pub envelopes: broadcast::Receiver<Arc<Envelope>>,
    /// A fresh state, for a view that fell behind and for a player that jumped.
    pub snapshot: Arc<dyn Fn() -> DrillState + Send + Sync>,
    /// Where the operator's wishes go. In a replay nothing reads it.
    pub commands: mpsc::Sender<Command>,
    pub clock: SharedClock,
    /// Present in a replay only.
    pub player: Option<Arc<dyn Player>>,
    /// What a candidate of the recovery point means.
    pub preview: Preview,
    /// Words from the program: refusals of commands, where the report lies.
    pub notices: mpsc::UnboundedReceiver<Notice>,
    pub themes: Themes,
    pub options: Options,
}

/// How a view looks and what it says.
#[derive(Debug, Clone)]
pub struct Options {
    /// Of the operator; UTC always stands beside it.
    pub zone: FixedOffset,
    /// Signs have ASCII twins: the locale is not UTF-8.
    pub ascii: bool,
    pub mouse: bool,
    /// What `q` means, truthfully: `leave (the drill stops here; lifeboat resume goes on)`.
    pub leave_text: String,
    /// Nothing is sent: a second pair of eyes.
    pub read_only: bool,
    /// Leaving offers to stop the engine too, which otherwise goes on.
    pub can_stop: bool,
    /// Said once the drill has ended; a [`Notice::After`] replaces it.
    pub after_text: Option<String>,
    /// People of the inventory; those of the runbook are added.
    pub contacts: Vec<Contact>,
    /// Named in the message after a panic.
    pub log_file: Option<PathBuf>,
}

/// How a look at the drill ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// The drill had ended.
    Finished,
    /// The operator left, and the drill has not ended.
    Left,
    /// The operator left, and wants the engine to end.
    Stopped,
    /// SIGTERM or SIGHUP.
    Terminated,
}

/// Words from the program to the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A command was not carried out.
    Refused(String),
    /// Something worth a line.
    Say(String),
    /// What to do after the end, one line each: where the report lies.
    After(String),
}

/// Works out what a target means; `inclusive` is whether the target's own commit is kept. Called on every move of the
/// cursor, so it must only compute.
pub type Preview = Arc<dyn Fn(&Window, &RecoveryTarget, bool) -> Result<PointPreview, Failure> + Send + Sync>;

/// A possible recovery point and what choosing it costs.
#[derive(Debug, Clone, PartialEq)]
pub struct PointPreview {
    pub point: RecoveryPoint,
    pub cost: Cost,
    /// By system: seconds from its snapshot to the point.
    pub skews: BTreeMap<String, f64>,
    /// Seconds until the systems are restored, when that can be told.
    pub ready_seconds: Option<f64>,
    /// Past restores that this was measured by; without any, it is a guess by a slow disk.
    pub measured_by: usize,
}

/// Paces a journal. The screens show its keys and otherwise cannot tell a replay from a live drill.
pub trait Player: Send + Sync {
    fn status(&self) -> PlayerStatus;
    fn act(&self, act: PlayerAct);
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlayerStatus {
    /// What "now" is.
    pub position: Elapsed,
    pub length: Elapsed,
    pub speed: f64,
    pub playing: bool,
    /// Counts jumps; a view takes a fresh snapshot when it changes.
    pub jumps: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PlayerAct {
    Play,
    Pause,
    SeekBack(Duration),
    SeekForward(Duration),
    /// To the start of the step before and after.
    PreviousStep,
    NextStep,
    /// 1.0 is real time.
    Speed(f64),
}
