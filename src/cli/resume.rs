//! `lifeboat resume` and `lifeboat drills`

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::attach::{self, Keep};
use super::error::{CliError, Result};
use super::live::{Beside, Live, Outlet};
use super::run::Headless;
use super::{Global, Session, paths, runtime, setup};
use crate::engine::OpeningError;
use crate::event::{Failure, Mode};
use crate::history;
use crate::journal::{self, DrillDir};

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// The drill: its directory, its id or the beginning of it [default: the newest that has not ended]
    #[arg(value_name = "DRILL")]
    drill: Option<String>,
    /// The inventory [default: the one it was begun with]
    #[arg(long, short, value_name = "FILE")]
    inventory: Option<PathBuf>,
    #[command(flatten)]
    headless: Headless,
    /// Print one JSON object as the last line
    #[arg(long)]
    pub json: bool,
    /// Sign the report with this SSH key at the end
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Goes on with one drill, at the terminal.
pub fn of(global: &Global, dir: &DrillDir) -> Result<ExitCode> {
    run(global, Args { drill: Some(dir.path().display().to_string()), ..Args::default() }, false)
}

pub fn run(global: &Global, args: Args, json: bool) -> Result<ExitCode> {
    let dir = find(global, args.drill.as_deref())?;
    become_owner(&dir)?;
    let global = beside(global, &dir);
    let session = Session::begin(&global)?;
    let state = history::fold(&dir.journal()).map_err(CliError::failed)?;
    let inventory = args.inventory.clone().or_else(|| state.opening.inventory_path.clone()).ok_or_else(|| {
        CliError::usage(
            Failure::new("the journal does not say where its inventory is", "").now("Pass --inventory FILE."),
        )
    })?;
    let unattended = args.headless.unattended(state.opening.mode == Mode::Sandbox)?;
    let outlet = Outlet { json, sign_key: args.sign_key, reason: None };
    let beside = attach::beside(unattended.is_some());
    // Whatever is wrong with it is said before an engine is started.
    let opening = setup::reopening(&state, &inventory, unattended, session.redactor.clone())?;
    runtime()?.block_on(async {
        if let (Beside::Nobody, Some((_, verdict))) = (beside, state.finished) {
            let ended = OpeningError::Ended { verdict: verdict.word() };
            return Err(CliError::failed(Failure::new("the drill cannot be resumed", ended)));
        }
        if beside == Beside::Nobody {
            let keep = Keep { program: opening.lifeboat, inventory, operator: opening.operator };
            return attach::start_and_show(&global, &session, &dir, &keep, outlet).await;
        }
        let begun = opening
            .resume(dir.clone())
            .map_err(|error| CliError::failed(Failure::new("the drill cannot be resumed", error)))?;
        Live::new(&global, &session, dir, begun, outlet, beside).run().await
    })
}

/// The drill's own state directory: its log and its past stand beside it.
pub fn beside(global: &Global, dir: &DrillDir) -> Global {
    let state = dir.path().parent().and_then(Path::parent).map(Path::to_owned);
    Global { state_dir: state.or_else(|| global.state_dir.clone()), ..global.clone() }
}

/// A drill by directory, id, or the beginning of its id; without a word the newest that has not ended.
pub fn find(global: &Global, word: Option<&str>) -> Result<DrillDir> {
    if let Some(word) = word {
        let path = Path::new(word);
        let journal = path.join(journal::layout::JOURNAL);
        // A disk that does not answer is no reason to say that there is no such drill.
        let exists = journal.try_exists().map_err(|error| {
            CliError::failed(Failure::new(format!("cannot look at {}", journal.display()), error).now("Mend the disk."))
        })?;
        if exists {
            let path = std::path::absolute(path)
                .map_err(|error| CliError::usage(Failure::new(format!("cannot use {word}"), error)))?;
            return Ok(DrillDir::at(path));
        }
    }
    let state = paths::state(global.state_dir.as_deref())?;
    let drills = journal::layout::list(&state)
        .map_err(|error| CliError::usage(Failure::new(format!("cannot look into {}", state.display()), error)))?;
    let hint = || format!("`lifeboat drills` lists those below {}; --state-dir looks elsewhere.", state.display());
    match word {
        Some(word) => {
            let mut fitting: Vec<DrillDir> = drills.into_iter().filter(|dir| dir.id().starts_with(word)).collect();
            match (fitting.pop(), fitting.is_empty()) {
                (Some(dir), true) => Ok(dir),
                (Some(_), false) => {
                    Err(CliError::usage(Failure::new(format!("several drills begin with {word}"), "").now(hint())))
                }
                (None, _) => Err(CliError::usage(Failure::new(format!("there is no drill {word}"), "").now(hint()))),
            }
        }
        None => drills
            .into_iter()
            .rev()
            .find(|dir| history::fold(&dir.journal()).is_ok_and(|drill| drill.finished.is_none()))
            .ok_or_else(|| CliError::usage(Failure::new("no drill is under way", "").now(hint()))),
    }
}

/// A drill belongs to whoever began it: root becomes them before it goes on, so that servers and files keep their owner.
pub fn become_owner(dir: &DrillDir) -> Result<()> {
    let failed = |why: String| {
        CliError::failed(Failure::new(format!("cannot become the owner of {}", dir.path().display()), why))
    };
    let owner = std::fs::metadata(dir.path()).map_err(|error| failed(error.to_string()))?;
    if !nix::unistd::geteuid().is_root() || owner.uid() == 0 {
        return Ok(());
    }
    let user = nix::unistd::User::from_uid(owner.uid().into()).map_err(|error| failed(error.to_string()))?;
    let user = user.ok_or_else(|| failed(format!("user {} does not exist any more", owner.uid())))?;
    crate::process::become_user(&user).map_err(|error| failed(error.to_string()))
}

pub fn list(global: &Global, args: ListArgs) -> Result<ExitCode> {
    let state = paths::state(global.state_dir.as_deref())?;
    let drills = journal::layout::list(&state)
        .map_err(|error| CliError::usage(Failure::new(format!("cannot look into {}", state.display()), error)))?;
    let mut rows = Vec::new();
    for dir in drills.iter().rev() {
        match history::fold(&dir.journal()) {
            Ok(drill) => {
                let verdict = drill.finished.map(|(_, verdict)| verdict);
                let rto = drill.rto(drill.latest.elapsed).map(|rto| rto.as_secs_f64());
                if args.json {
                    rows.push(serde_json::json!({
                        "drill": dir.id(), "runbook": drill.runbook.id, "mode": drill.opening.mode,
                        "opened": drill.opened.wall, "verdict": verdict, "rto_seconds": rto, "directory": dir.path(),
                    }));
                } else {
                    println!(
                        "{}  {}  {:<20} {:<17} RTO {}",
                        drill.opened.wall.with_timezone(&chrono::Local).format("%Y-%m-%d %H:%M %:z"),
                        dir.id(),
                        drill.runbook.id,
                        verdict.map_or("under way", |verdict| verdict.word()),
                        rto.map_or("──".to_owned(), |seconds| format!("{seconds:.1} s")),
                    );
                }
            }
            Err(failure) if args.json => rows.push(serde_json::json!({ "drill": dir.id(), "error": failure })),
            Err(failure) => println!("{}  {failure}", dir.id()),
        }
    }
    if args.json {
        println!("{}", serde_json::json!({ "drills": rows }));
    } else if drills.is_empty() {
        println!("no drill below {}", state.display());
    }
    Ok(ExitCode::SUCCESS)
}
