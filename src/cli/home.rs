//! `lifeboat` without a command: the home screen. And what every view of a drill is given.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use chrono::{FixedOffset, Local};

use super::error::{CliError, Result};
use super::forecast::Measured;
use super::{Global, Session, evidence, paths, replay, resume, run, runtime, schedule};
use crate::clock;
use crate::drill::DrillState;
use crate::event::{Failure, RecoveryTarget, Window};
use crate::history::{self, History};
use crate::inventory::{self, Inventory};
use crate::journal::{self, DrillDir};
use crate::recovery;
use crate::runbook;
use crate::tui::home::{Attention, DrillEntry, HomeChoice, HomeModel, HomeOptions, RunbookEntry, Severity};
use crate::tui::{self, Depth, Leave, Options, PointPreview, Preview, Themes};

/// Days after which a runbook that was never rehearsed again is worth a word: a quarter.
const OVERDUE: i64 = 92;

/// Opens the home screen, and again after what was chosen there.
pub fn run(global: &Global) -> Result<ExitCode> {
    use std::io::IsTerminal as _;
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() || global.plain {
        return Err(CliError::usage(
            Failure::new("the home screen needs a terminal", "there is none, or --plain was given").now(
                "Name a command: lifeboat run RUNBOOK, lifeboat drills, lifeboat points. `lifeboat --help` lists all.",
            ),
        ));
    }
    loop {
        let state = paths::state(global.state_dir.as_deref())?;
        let options = HomeOptions { themes: themes(global)?, zone: zone(), ascii: ascii(), log_file: None };
        let choice = runtime()?.block_on(tui::home::run(model(&state), options));
        let choice = choice.map_err(|error| CliError::failed(Failure::new("the terminal cannot be used", error)))?;
        match choice {
            HomeChoice::Quit => return Ok(ExitCode::SUCCESS),
            HomeChoice::Run(runbook) => {
                let args = run::Args { runbook, ..run::Args::default() };
                return run::run(global, args, false);
            }
            HomeChoice::Resume(dir) => return resume::of(global, &DrillDir::at(dir)),
            HomeChoice::Replay(journal) => {
                replay::play(global, &journal)?;
            }
            HomeChoice::Report(dir) => evidence::show(&DrillDir::at(dir))?,
        }
    }
}

/// What is known without asking any server.
fn model(state: &Path) -> HomeModel {
    let mut model = HomeModel::default();
    let mut known = None;
    let path = PathBuf::from("lifeboat.toml");
    match path.exists().then(|| inventory::load(&path)) {
        Some(Ok(inventory)) => {
            model.service.clone_from(&inventory.service);
            model.inventory = std::path::absolute(&path).ok();
            known = Some(inventory).filter(|inventory| !inventory.schedules.is_empty());
        }
        Some(Err(problems)) => model.attention.push(Attention {
            severity: Severity::Critical,
            text: format!("lifeboat.toml has {} errors; `lifeboat lint lifeboat.toml` shows them", problems.errors()),
        }),
        None => model.attention.push(Attention {
            severity: Severity::Warning,
            text:
                "there is no lifeboat.toml here: a runbook has nothing to work on. `lifeboat sandbox drill` needs none"
                    .to_owned(),
        }),
    }
    let mut drills: Vec<(DrillDir, DrillState)> = Vec::new();
    for dir in journal::layout::list(state).unwrap_or_default().into_iter().rev() {
        match history::fold(&dir.journal()) {
            Ok(drill) => drills.push((dir, drill)),
            Err(failure) => {
                model
                    .attention
                    .push(Attention { severity: Severity::Critical, text: format!("drill {}: {failure}", dir.id()) });
            }
        }
    }
    for (dir, drill) in &drills {
        let entry = entry(dir, drill);
        if drill.finished.is_none() { &mut model.under_way } else { &mut model.past }.push(entry);
    }
    if !model.under_way.is_empty() {
        let text = format!("{} drill(s) have not ended", model.under_way.len());
        model.attention.push(Attention { severity: Severity::Warning, text });
    }
    let own = std::fs::read_dir("runbooks").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut own: Vec<PathBuf> = own.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    own.sort();
    let shipped = paths::SHIPPED.iter().map(|(name, _)| PathBuf::from(name));
    let missing = shipped.filter(|name| !own.iter().any(|path| path.ends_with(name))).collect::<Vec<_>>();
    for path in own.into_iter().chain(missing) {
        model.runbooks.push(runbook_entry(path, &drills));
    }
    let rehearsed =
        drills.iter().filter(|(_, drill)| drill.finished.is_some()).map(|(_, drill)| drill.opened.wall).max();
    match rehearsed {
        // The inventory says how often.
        _ if known.is_some() => {}
        Some(last) if (clock::wall_now() - last).num_days() > OVERDUE => model.attention.push(Attention {
            severity: Severity::Warning,
            text: format!(
                "the last drill was {} days ago: the quarterly one is overdue",
                (clock::wall_now() - last).num_days()
            ),
        }),
        Some(_) => {}
        None => model.attention.push(Attention {
            severity: Severity::Info,
            text: "no drill has been run from here yet; the game-day runbook is a good first one".to_owned(),
        }),
    }
    model.attention.extend(known.iter().flat_map(|inventory| overdue(inventory, &drills)));
    model.attention.sort_by_key(|attention| attention.severity);
    model
}

/// What is overdue by the inventory's schedules: a few sentences, however many there are.
fn overdue(inventory: &Inventory, drills: &[(DrillDir, DrillState)]) -> Vec<Attention> {
    const SHOWN: usize = 3;
    let runs = drills.iter().map(|(dir, drill)| history::facts(dir, drill, None)).collect();
    let history = History { runs, damaged: Vec::new() };
    let now = clock::wall_now();
    let mut texts: Vec<String> = inventory
        .schedules
        .iter()
        .filter_map(|one| schedule::reminder(one, &schedule::standing(one, inventory, &history, now)))
        .collect();
    if texts.len() > SHOWN + 1 {
        let more = texts.len() - SHOWN;
        texts.truncate(SHOWN);
        texts.push(format!("{more} more are overdue; `lifeboat schedule` shows them"));
    }
    texts.into_iter().map(|text| Attention { severity: Severity::Warning, text }).collect()
}

fn runbook_entry(path: PathBuf, drills: &[(DrillDir, DrillState)]) -> RunbookEntry {
    let loaded = match path.exists() {
        true => runbook::load(&path),
        false => {
            let shipped = paths::SHIPPED.iter().find(|(name, _)| Path::new(name) == path).map_or("", |(_, text)| text);
            runbook::parse(shipped, &path.display().to_string())
        }
    };
    match loaded {
        Ok(runbook) => {
            // The newest first.
            let last = drills.iter().find(|(_, drill)| drill.runbook.id == runbook.id).map(|(_, drill)| drill);
            RunbookEntry {
                path,
                title: runbook.title,
                owner: runbook.owner,
                description: runbook.description,
                problem: None,
                last_run: last.map(|drill| drill.opened.wall),
                verdict: last.and_then(|drill| drill.finished).map(|(_, verdict)| verdict),
            }
        }
        Err(problems) => RunbookEntry {
            title: path.display().to_string(),
            path,
            owner: None,
            description: None,
            problem: Some(format!("{} errors; `lifeboat lint` shows them", problems.errors())),
            last_run: None,
            verdict: None,
        },
    }
}

fn entry(dir: &DrillDir, drill: &DrillState) -> DrillEntry {
    let focus = drill.runbook.steps.get(drill.focus());
    DrillEntry {
        dir: dir.path().to_owned(),
        journal: dir.journal(),
        title: drill.runbook.title.clone(),
        mode: drill.opening.mode,
        environment: drill.opening.environment.clone(),
        operator: drill.operator.clone(),
        opened: drill.opened.wall,
        verdict: drill.finished.map(|(_, verdict)| verdict),
        rto: drill.rto(drill.latest.elapsed),
        rto_target: drill.rto_target(),
        note: match drill.finished {
            Some(_) => None,
            None => focus.map(|step| format!("at “{}”", drill.expand(&step.title))),
        },
    }
}

/// The operator's offset now.
pub fn zone() -> FixedOffset {
    *clock::wall_now().with_timezone(&Local).offset()
}

/// Whether the terminal lacks signs beyond ASCII. One without a locale is more often a bare container than such a
/// terminal.
pub fn ascii() -> bool {
    let set = |name: &&str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(set);
    locale.is_some_and(|locale| !locale.to_lowercase().replace('-', "").contains("utf8") && locale != "C")
}

pub fn themes(global: &Global) -> Result<Themes> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let no_colour = !variable("NO_COLOR").is_empty();
    let name = match (&global.theme, no_colour) {
        (Some(name), false) => name.as_str(),
        (_, true) => "plain",
        (None, false) => "dark",
    };
    let own = etcetera::choose_base_strategy().ok().map(|strategy| {
        use etcetera::BaseStrategy as _;
        strategy.config_dir().join("lifeboat/themes")
    });
    let depth = Depth::of(&variable("COLORTERM"), &variable("TERM"));
    Themes::load(own.as_deref(), name, depth)
        .map_err(|error| CliError::usage(Failure::new(format!("the theme `{name}` cannot be used"), error)))
}

pub fn options(global: &Global, session: &Session, leave_text: String) -> Options {
    Options {
        zone: zone(),
        ascii: ascii(),
        mouse: global.mouse,
        leave_text,
        read_only: false,
        can_stop: false,
        after_text: None,
        contacts: Vec::new(),
        log_file: session.log.clone(),
    }
}

/// Screens, or lines where screens cannot be drawn or are not wanted.
pub async fn watch(global: &Global, view: tui::Session) -> Result<Leave> {
    use std::io::IsTerminal as _;
    let failed = |error: &dyn std::fmt::Display| {
        CliError::failed(Failure::new("the terminal cannot be used", error).now("Try again with --plain."))
    };
    let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
    if global.plain || dumb || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return tui::plain::run(view).await.map_err(|error| failed(&error));
    }
    tui::run_drill(view).await.map_err(|error| failed(&error))
}

/// What a candidate of the recovery point means; computed from the window and from what past drills took.
pub fn preview(measured: Measured) -> Preview {
    Arc::new(move |window: &Window, target: &RecoveryTarget, inclusive: bool| {
        let point = recovery::settle(window, target, inclusive).map_err(Failure::from)?;
        let cost = recovery::cost(window, &point).map_err(Failure::from)?;
        let estimate = measured.estimate(window, &point);
        let skews = recovery::skews(window, &point).into_iter();
        Ok(PointPreview {
            skews: skews.map(|(system, skew)| (system, skew.as_seconds_f64().abs())).collect(),
            ready_seconds: estimate.map(|estimate| estimate.seconds),
            measured_by: estimate.map_or(0, |estimate| estimate.restores),
            cost,
            point,
        })
    })
}
