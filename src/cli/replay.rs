//! `lifeboat replay`

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::error::{CliError, Result};
use super::forecast::Measured;
use super::{Global, Session, home, resume, runtime};
use crate::clock::SystemClock;
use crate::event::Failure;
use crate::replay::{Player, Recording};
use crate::tui::{self, PlayerAct, PlayerStatus};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A recording (a journal), or a drill: its directory, its id or the beginning of it
    #[arg(value_name = "FILE")]
    recording: String,
    /// How many times as fast as it was
    #[arg(long, value_name = "TIMES", default_value_t = 1.0)]
    speed: f64,
    /// Begin at this moment of the drill: 90s, 3m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    from: Option<Duration>,
    /// Print every event at once, line by line, and end
    #[arg(long)]
    dump: bool,
}

pub fn run(global: &Global, args: Args) -> Result<ExitCode> {
    if !(args.speed.is_finite() && args.speed > 0.0) {
        return Err(CliError::usage(Failure::new("cannot replay at that speed", "--speed must be above 0")));
    }
    let path = journal_of(global, &args.recording)?;
    if args.dump || !std::io::stdout().is_terminal() {
        return dump(&path);
    }
    show(global, &path, args.speed, args.from.unwrap_or_default())
}

/// From the beginning, as fast as it was.
pub fn play(global: &Global, path: &Path) -> Result<ExitCode> {
    show(global, path, 1.0, Duration::ZERO)
}

fn show(global: &Global, path: &Path, speed: f64, from: Duration) -> Result<ExitCode> {
    let recording = open(path)?;
    let session = Session::begin(global)?;
    runtime()?.block_on(async {
        let player = Player::new(recording, SystemClock::shared());
        player.set_speed(speed);
        player.seek(from);
        player.play();
        watch(global, &session, player).await
    })
}

/// Shows a player until its watcher leaves.
async fn watch(global: &Global, session: &Session, player: Player) -> Result<ExitCode> {
    let pace = tokio::spawn(player.clone().run());
    let (state, envelopes) = player.subscribe();
    // Nobody reads commands in a replay, and nothing but the player has anything to say.
    let (commands, _unread) = mpsc::channel(1);
    let (_notices, notices) = mpsc::unbounded_channel();
    let snapshot = player.clone();
    let view = tui::Session {
        state,
        envelopes,
        snapshot: Arc::new(move || snapshot.snapshot()),
        commands,
        clock: SystemClock::shared(),
        player: Some(Arc::new(Adapter(player))),
        // Nothing is chosen in a replay.
        preview: home::preview(Measured::default()),
        notices,
        themes: home::themes(global)?,
        options: home::options(global, session, "leave the replay".to_owned()),
    };
    let shown = home::watch(global, view).await;
    pace.abort();
    shown.map(|_| ExitCode::SUCCESS)
}

fn open(path: &Path) -> Result<Recording> {
    Recording::open(path).map_err(|error| {
        CliError::usage(
            Failure::new(format!("{} cannot be replayed", path.display()), error)
                .now("Is it a journal? If it was cut or changed, `lifeboat verify` on its drill says where."),
        )
    })
}

fn journal_of(global: &Global, word: &str) -> Result<PathBuf> {
    let path = Path::new(word);
    match path.is_file() {
        true => Ok(path.to_owned()),
        false => Ok(resume::find(global, Some(word))?.journal()),
    }
}

fn dump(path: &Path) -> Result<ExitCode> {
    let read = crate::journal::Journal::read(path)
        .map_err(|error| CliError::usage(Failure::new(format!("{} cannot be replayed", path.display()), error)))?;
    let (first, rest) = read.envelopes.split_first().ok_or_else(|| {
        CliError::usage(Failure::new(format!("{} cannot be replayed", path.display()), "it is empty"))
    })?;
    let mut state = crate::drill::DrillState::open(first)
        .map_err(|error| CliError::usage(Failure::new(format!("{} cannot be replayed", path.display()), error)))?;
    let mut printer = tui::plain::Printer::new(home::zone(), home::ascii(), true);
    printer.lines(&state, first).iter().for_each(|line| println!("{line}"));
    for envelope in rest {
        state.apply(envelope);
        printer.lines(&state, envelope).iter().for_each(|line| println!("{line}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The player as the screens know it.
struct Adapter(Player);

impl tui::Player for Adapter {
    fn status(&self) -> PlayerStatus {
        let position = self.0.position();
        PlayerStatus {
            position: position.elapsed,
            length: position.length,
            speed: position.speed,
            playing: position.playing,
            jumps: position.jumps,
        }
    }

    fn act(&self, act: PlayerAct) {
        let position = self.0.position().elapsed;
        match act {
            PlayerAct::Play => self.0.play(),
            PlayerAct::Pause => self.0.pause(),
            PlayerAct::SeekBack(by) => self.0.seek(position.saturating_sub(by)),
            PlayerAct::SeekForward(by) => self.0.seek(position + by),
            PlayerAct::PreviousStep => self.0.seek_step(false),
            PlayerAct::NextStep => self.0.seek_step(true),
            PlayerAct::Speed(speed) => self.0.set_speed(speed),
        }
    }
}
