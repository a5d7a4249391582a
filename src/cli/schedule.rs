//! `lifeboat schedule`: what is to run by itself, when it last did, and what is overdue.

mod emit;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chrono::{DateTime, FixedOffset, Local, Utc};

use super::error::Result;
use super::{Global, paths};
use crate::clock;
use crate::event::Verdict;
use crate::history::{self, History, Overdue, Run};
use crate::inventory::{self, Inventory, Schedule};
use crate::report::words;
use crate::tui::clean;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The inventory [default: lifeboat.toml]
    #[arg(long, short, value_name = "FILE", env = "LIFEBOAT_INVENTORY", global = true)]
    inventory: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write what makes a scheduler run them: units and timers, lines of a crontab, or CronJobs
    Emit(emit::Args),
}

/// How one schedule stands.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The newest run, whatever came of it.
    pub last: Option<Run>,
    /// When the run after the newest good one was due; `None` when there is no good one.
    pub due: Option<DateTime<Utc>>,
    pub overdue: Option<Overdue>,
    /// The runbook's id, or why it cannot be read.
    pub runbook: std::result::Result<String, String>,
}

/// How a schedule stands at the moment `now`.
pub fn standing(schedule: &Schedule, inventory: &Inventory, history: &History, now: DateTime<Utc>) -> Standing {
    let runbook = paths::runbook(&schedule.runbook).map(|runbook| runbook.id).map_err(|error| match error.problems {
        Some(problems) => format!("{} has {}", schedule.runbook.display(), problems.count()),
        None => error.to_string(),
    });
    match &runbook {
        Ok(id) => {
            let due = history::due(schedule, id, inventory, &history.runs, now);
            Standing { last: due.last.cloned(), due: due.at, overdue: due.overdue, runbook }
        }
        Err(_) => Standing { last: None, due: None, overdue: Some(Overdue::Never), runbook },
    }
}

/// The next runs.
fn coming(schedule: &Schedule, now: DateTime<Utc>, count: usize) -> Vec<DateTime<Utc>> {
    let first = schedule.cadence.next(now);
    std::iter::successors(first, |at| schedule.cadence.next(*at)).take(count).collect()
}

/// One sentence, when there is something to say.
pub fn reminder(schedule: &Schedule, standing: &Standing) -> Option<String> {
    let name = clean(&schedule.name);
    if let Err(why) = &standing.runbook {
        return Some(format!("the schedule {name} has no runbook: {}", clean(why)));
    }
    let due = standing.due.map(|due| moment(schedule.cadence.local(due)));
    Some(match standing.overdue? {
        Overdue::By(late) => {
            format!("{name} is overdue by {}: it was due {}", roughly(late), due.unwrap_or_default())
        }
        Overdue::Never => match &standing.last {
            None => format!("{name} has never run ({})", clean(&schedule.cadence.written)),
            Some(last) => format!("{name} has never come to a good end; the last run: {}", word(last.verdict)),
        },
    })
}

/// Whole days and hours, or minutes: what a person says.
fn roughly(seconds: f64) -> String {
    let minutes = (seconds / 60.0) as u64;
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, m) => format!("{m} min"),
        (0, h, m) => format!("{h} h {m:02} min"),
        (d, h, _) => format!("{d} d {h} h"),
    }
}

fn word(verdict: Option<Verdict>) -> &'static str {
    verdict.map_or("under way", Verdict::word)
}

fn moment(at: DateTime<FixedOffset>) -> String {
    at.format("%a %Y-%m-%d %H:%M %:z").to_string()
}

/// 0: nothing is overdue; 1: something is, or cannot be run.
pub fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let inventory = inventory::load(&paths::inventory(args.inventory.as_deref())?)?;
    if let Some(Command::Emit(emit)) = args.command {
        return emit::run(global, &inventory, &emit);
    }
    let state = paths::state(global.state_dir.as_deref())?;
    let history = super::history::read(&state)?;
    let now = clock::wall_now();
    let all: Vec<(&Schedule, Standing)> =
        inventory.schedules.iter().map(|schedule| (schedule, standing(schedule, &inventory, &history, now))).collect();
    for damaged in &history.damaged {
        eprintln!("lifeboat: drill {} is left out: {}", damaged.drill, damaged.failure);
    }
    if args.json {
        print_json(&inventory, &all, &history, now);
    } else {
        print_table(&all, &state, now);
    }
    let bad = all.iter().any(|(_, standing)| standing.overdue.is_some() || standing.runbook.is_err());
    Ok(ExitCode::from(u8::from(bad)))
}

fn print_json(inventory: &Inventory, all: &[(&Schedule, Standing)], history: &History, now: DateTime<Utc>) {
    let rows: Vec<_> = all
        .iter()
        .map(|(schedule, standing)| {
            let next: Vec<_> = coming(schedule, now, 3)
                .into_iter()
                .map(|at| serde_json::json!({ "at": at, "there": schedule.cadence.local(at).to_rfc3339() }))
                .collect();
            let last = standing.last.as_ref().map(|run| {
                serde_json::json!({
                    "drill": run.drill, "started": run.started, "verdict": run.verdict,
                    "rto_seconds": run.rto.seconds.filter(|_| run.rto.recovered),
                })
            });
            serde_json::json!({
                "name": schedule.name,
                "runbook": standing.runbook.as_ref().ok(),
                "problem": standing.runbook.as_ref().err(),
                "cadence": schedule.cadence.written,
                "zone": schedule.cadence.zone,
                "on_calendar": schedule.cadence.on_calendar(),
                "mode": schedule.mode,
                "last": last,
                "due": standing.due,
                "overdue": standing.overdue.is_some(),
                "overdue_seconds": match standing.overdue { Some(Overdue::By(late)) => Some(late), _ => None },
                "next": next,
            })
        })
        .collect();
    println!(
        "{}",
        serde_json::json!({ "service": inventory.service, "now": now, "schedules": rows, "damaged": history.damaged })
    );
}

fn print_table(all: &[(&Schedule, Standing)], state: &Path, now: DateTime<Utc>) {
    if all.is_empty() {
        println!("this inventory has no [[schedules]]; `lifeboat schema inventory` says how one is written");
        return;
    }
    let here = |at: DateTime<Utc>| moment(at.with_timezone(&Local).fixed_offset());
    for (schedule, standing) in all {
        let cadence = &schedule.cadence;
        println!("{}  {} ({})", clean(&schedule.name), clean(&cadence.written), cadence.zone);
        match &standing.last {
            None => println!("  last     never, below {}", state.display()),
            Some(run) => {
                let rto = run.rto.seconds.filter(|_| run.rto.recovered);
                let rto = rto.map(|rto| format!(", RTO {}", words::duration(rto))).unwrap_or_default();
                println!("  last     {}  {}{rto}", here(run.started), word(run.verdict));
            }
        }
        for (index, at) in coming(schedule, now, 2).into_iter().enumerate() {
            let (own, there) = (here(at), moment(cadence.local(at)));
            let there = if own == there { String::new() } else { format!("  = {there} in {}", cadence.zone) };
            println!("  {}{own}{there}", if index == 0 { "next     " } else { "then     " });
        }
        match reminder(schedule, standing) {
            Some(text) => println!("  OVERDUE  {text}"),
            None => println!("  on time"),
        }
    }
}
