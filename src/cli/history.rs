//! `lifeboat history`: past runs, the newest first, and how their recovery times go.

use std::path::Path;
use std::process::ExitCode;

use chrono::{DateTime, Local, Utc};

use super::error::{CliError, Result};
use super::{Global, home, paths};
use crate::event::{Failure, Mode, Verdict};
use crate::history::{self, History, Run};
use crate::report::model::Past;
use crate::report::{trend, words};
use crate::tui::clean;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only runs of this runbook, by its id
    #[arg(long, value_name = "ID")]
    runbook: Option<String>,
    /// Show so many runs at most, the newest
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Runs that can be compared: the same runbook, service and environment.
struct Group<'a> {
    /// The newest first.
    runs: Vec<&'a Run>,
}

impl<'a> Group<'a> {
    /// The runbook that ran last comes first.
    fn all(runs: &'a [Run]) -> Vec<Self> {
        let key = |run: &'a Run| (&run.runbook, &run.service, &run.environment);
        let mut groups: Vec<Self> = Vec::new();
        for run in runs {
            match groups.iter_mut().find(|group| key(group.runs[0]) == key(run)) {
                Some(group) => group.runs.push(run),
                None => groups.push(Self { runs: vec![run] }),
            }
        }
        groups
    }

    /// The oldest first.
    fn past(&self) -> Vec<Past> {
        self.runs.iter().rev().map(|run| Past::from(*run)).collect()
    }
}

pub fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let state = paths::state(global.state_dir.as_deref())?;
    let mut history = read(&state)?;
    if let Some(id) = &args.runbook {
        history.runs.retain(|run| run.runbook == *id);
    }
    let groups = Group::all(&history.runs);
    let shown = args.limit.unwrap_or(usize::MAX);
    if args.json {
        let trends: Vec<_> = groups.iter().map(trend_json).collect();
        let runs: Vec<_> = history.runs.iter().take(shown).collect();
        println!("{}", serde_json::json!({ "runs": runs, "damaged": history.damaged, "trends": trends }));
        return Ok(ExitCode::SUCCESS);
    }
    if history.runs.is_empty() {
        match &args.runbook {
            Some(id) => println!("no run of {id} below {}", state.display()),
            None => println!("no run below {}", state.display()),
        }
    }
    let mut left = shown;
    for group in groups.iter().take_while(|_| shown > 0) {
        let rows = group.runs.len().min(left);
        left -= rows;
        if rows > 0 {
            print_group(group, rows);
        }
    }
    for damaged in &history.damaged {
        eprintln!("lifeboat: drill {} is left out: {}", damaged.drill, damaged.failure);
    }
    Ok(ExitCode::SUCCESS)
}

/// Every run below a state directory.
pub fn read(state: &Path) -> Result<History> {
    history::read(state).map_err(|error| {
        CliError::failed(
            Failure::new(format!("cannot look into {}", state.display()), error)
                .now("Pass --state-dir DIR with the directory that holds the drills, or mend the disk."),
        )
    })
}

fn trend_json(group: &Group<'_>) -> serde_json::Value {
    let (newest, past) = (group.runs[0], group.past());
    serde_json::json!({
        "runbook": newest.runbook, "service": newest.service, "environment": newest.environment,
        "runs": group.runs.len(), "sentence": trend::sentence(&past),
    })
}

fn print_group(group: &Group<'_>, rows: usize) {
    /// Signs of a sparkline: they fit beside nothing on 80 columns.
    const SIGNS: usize = 72;
    let (newest, past) = (group.runs[0], group.past());
    let recent = &past[past.len().saturating_sub(SIGNS)..];
    println!("{}  {} · {}", clean(&newest.runbook), clean(&newest.service), clean(&newest.environment));
    let ascii = home::ascii();
    println!("  {}\n  {}", trend::sparkline(recent, ascii), trend::sentence(&past));
    let cells: Vec<[String; 6]> = group.runs[..rows].iter().map(|run| row(run, ascii)).collect();
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    for row in &cells {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        println!("  {}", padded.collect::<Vec<_>>().join("  ").trim_end());
    }
    if group.runs.len() > rows {
        println!("  and {} earlier", group.runs.len() - rows);
    }
    println!();
}

fn row(run: &Run, ascii: bool) -> [String; 6] {
    let sign = match run.verdict {
        None => ["◐", "-"],
        Some(Verdict::Passed) => ["✓", "+"],
        Some(Verdict::ObjectiveMissed) => ["▲", "!"],
        Some(Verdict::Failed | Verdict::Aborted | Verdict::NeedsPerson) => ["✗", "x"],
    }[usize::from(ascii)];
    let mode = match run.mode {
        Mode::Incident => "incident",
        Mode::Drill | Mode::Sandbox => "drill",
    };
    let of = |target: Option<f64>| target.map(|target| format!(" of {}", words::duration(target))).unwrap_or_default();
    let rto = match run.rto.seconds {
        Some(seconds) if run.rto.recovered => {
            format!("RTO {}{}", words::duration(seconds), of(run.rto.target_seconds))
        }
        _ => "RTO –".to_owned(),
    };
    let rpo = run.rpo.iter().map(|rpo| match rpo.seconds {
        Some(seconds) => {
            let missed = if rpo.met == Some(false) { " missed" } else { "" };
            format!("{} {}{}{missed}", clean(&rpo.system), words::duration(seconds), of(rpo.target_seconds))
        }
        None => format!("{} –", clean(&rpo.system)),
    });
    let rpo: Vec<String> = rpo.collect();
    [
        format!("{sign} {}", local(run.started)),
        format!("{mode}: {}", run.verdict.map_or("under way", Verdict::word)),
        rto,
        if rpo.is_empty() { String::new() } else { format!("RPO {}", rpo.join(", ")) },
        clean(&run.operator).into_owned(),
        signed(run),
    ]
}

/// `signed: ada, grace`; who the keys are, `verify` proves.
fn signed(run: &Run) -> String {
    match &run.evidence {
        None => "no report".to_owned(),
        Some(evidence) if !evidence.fits => "its report is not about this journal".to_owned(),
        Some(evidence) if evidence.signed.is_empty() => "unsigned".to_owned(),
        Some(evidence) => {
            let names = evidence.signed.iter().map(|by| clean(by.name.as_ref().unwrap_or(&by.key)).into_owned());
            format!("signed: {}", names.collect::<Vec<_>>().join(", "))
        }
    }
}

fn local(at: DateTime<Utc>) -> String {
    at.with_timezone(&Local).format("%Y-%m-%d %H:%M %:z").to_string()
}
