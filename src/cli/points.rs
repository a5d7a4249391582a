//! `lifeboat points`: what can be recovered, as found in the buckets now.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use chrono::{DateTime, Local, SecondsFormat, Utc};

use super::error::{CliError, Result};
use super::forecast::Measured;
use super::{Global, paths, runtime};
use crate::event::{Basis, Failure, History, RecoveryPoint, RecoveryTarget, SystemWindow, Window};
use crate::inventory;
use crate::recovery;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The inventory [default: lifeboat.toml]
    #[arg(long, short, value_name = "FILE", env = "LIFEBOAT_INVENTORY")]
    inventory: Option<PathBuf>,
    /// Only these systems
    #[arg(long = "system", value_name = "SYSTEM")]
    systems: Vec<String>,
    /// Say whether this target can be reached, and how: latest, a time with an offset, lsn:…, xid:…, name:…
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Keep the target's own commit too
    #[arg(long)]
    inclusive: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

pub fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let inventory = inventory::load(&paths::inventory(args.inventory.as_deref())?)?;
    let target: Option<RecoveryTarget> = match args.target.as_deref().map(str::parse).transpose() {
        Ok(target) => target,
        Err(error) => {
            return Err(CliError::usage(
                Failure::new("that is no recovery target", error)
                    .now("Write it like 2026-11-21T10:02:31+01:00, lsn:0/4A2F11C8, xid:8841, name:NAME or latest."),
            ));
        }
    };
    let systems = match args.systems.is_empty() {
        true => inventory.systems.keys().cloned().collect(),
        false => args.systems,
    };
    let runtime = runtime()?;
    let looked = runtime.block_on(recovery::look(&inventory, &systems, None)).map_err(CliError::failed)?;
    let window = &looked.window;
    match target {
        None => {
            match args.json {
                true => println!("{}", serde_json::json!(window)),
                false => print(window),
            }
            Ok(ExitCode::SUCCESS)
        }
        Some(target) => {
            let point = runtime.block_on(looked.settle(&target, args.inclusive)).map_err(CliError::failed)?;
            judge(window, &point, &Measured::of(&paths::state(global.state_dir.as_deref())?), args.json)
        }
    }
}

/// Whether a target can be reached, and what that costs: exit code 0, else 1 with the reason.
fn judge(window: &Window, point: &RecoveryPoint, measured: &Measured, json: bool) -> Result<ExitCode> {
    let cost = recovery::cost(window, point).map_err(|refusal| CliError::failed(refusal.into()))?;
    let estimate = measured.estimate(window, point);
    let skews = recovery::skews(window, point);
    let seconds = |span: chrono::TimeDelta| span.as_seconds_f64();
    if json {
        let mut value = serde_json::json!(point);
        value["cost"] = serde_json::json!({
            "at": cost.at,
            "loss_seconds": cost.loss.map(seconds),
            "seconds_lost": cost.time_lost.map(seconds),
            "commits_lost": cost.commits_lost,
            "bytes_lost": cost.bytes_lost,
            "commits_kept": cost.commits_kept,
            "skew_seconds": skews.iter().map(|(system, skew)| (system, seconds(*skew))).collect::<BTreeMap<_, _>>(),
            "fetch_bytes": cost.fetch_bytes,
            "replay_bytes": cost.replay_bytes,
            "segments": cost.segments,
            "restore_seconds": estimate.map(|estimate| estimate.seconds),
            "measured_by": estimate.map(|estimate| estimate.restores),
            "warnings": cost.warnings,
        });
        println!("{value}");
        return Ok(ExitCode::SUCCESS);
    }
    show!(
        "{} {target} can be reached",
        if point.inclusive { "up to and with" } else { "just before" },
        target = point.target
    );
    for found in &window.systems {
        match found {
            SystemWindow::Postgres { system, .. } => {
                let plan =
                    recovery::plan_of(window, system, point).map_err(|refusal| CliError::failed(refusal.into()))?;
                show!(
                    "  {system}: base backup {}, timeline {}, {} segments of WAL, at most {} bytes to fetch",
                    plan.restore.label,
                    plan.restore.timeline,
                    plan.restore.segments.len(),
                    plan.fetch_bytes
                );
                if let Some(exact) = point.resolved.get(system) {
                    let side = if exact.inclusive { "with" } else { "before" };
                    let last =
                        exact.last_commit.map_or_else(String::new, |at| format!(", the last commit {}", time(at)));
                    show!("    stops {side} {}{last}", exact.lsn);
                    if exact.stragglers > 0 {
                        show!(
                            "    ▲ {} commits with a time within the target are given up: they stand behind the first one past it",
                            exact.stragglers
                        );
                    }
                }
            }
            SystemWindow::Redis { system, .. } => {
                if let Some(snapshot) = point.snapshots.get(system) {
                    show!("  {system}: snapshot {snapshot}");
                }
                if let Some(aof) = point.aof.get(system) {
                    let cut = if aof.cut { "cut at" } else { "whole, to" };
                    show!("  {system}: append-only file {}, {cut} {}", aof.label, time(aof.at));
                }
                if let Some(skew) = skews.get(system) {
                    show!("    {:.3} s before the target", seconds(*skew));
                }
            }
            SystemWindow::Managed { system, source, .. } => show!("  {system}: a new instance out of {source}"),
        }
    }
    if let (Some(commits), Some(bytes)) = (cost.commits_lost, cost.bytes_lost) {
        let kept = cost.commits_kept.map_or_else(String::new, |kept| format!(", keeps {kept} commits"));
        let span = cost.time_lost.map_or_else(String::new, |span| format!("{:.3} s, ", seconds(span)));
        show!("  gives up {span}{commits} commits, {bytes} bytes of WAL{kept}");
    }
    if let Some(loss) = cost.loss {
        show!("  loses {:.3} s up to the incident", seconds(loss));
    }
    if let Some(estimate) = estimate {
        let by = match estimate.restores {
            0 => "guessed: no past drill to measure by".to_owned(),
            1 => "measured by 1 past restore".to_owned(),
            restores => format!("measured by {restores} past restores"),
        };
        show!("  restored in about {:.0} s ({by})", estimate.seconds);
    }
    cost.warnings.iter().for_each(|warning| show!("  ▲ {warning}"));
    Ok(ExitCode::SUCCESS)
}

fn print(window: &Window) {
    for found in &window.systems {
        match found {
            SystemWindow::Postgres {
                system,
                backups,
                coverage,
                gaps,
                forks,
                restore_points,
                history,
                warnings,
                ..
            } => {
                show!("{system} (PostgreSQL)");
                for backup in backups {
                    show!(
                        "  ■ base backup {}{}  ended {}  {} bytes, {} stored  timeline {}  from {} ({})",
                        backup.label,
                        backup.parent.as_ref().map_or(String::new(), |parent| format!(" (changes since {parent})")),
                        time(backup.stopped),
                        backup.bytes,
                        backup.stored_bytes,
                        backup.timeline,
                        backup.stop_lsn,
                        backup.basis
                    );
                }
                for run in coverage {
                    let until = run.to_time.map_or_else(String::new, |at| format!("  archived until {}", time(at)));
                    show!(
                        "  ━ WAL {} … {}  timeline {}  {} → {}{until} ({})",
                        run.first_segment,
                        run.last_segment,
                        run.timeline,
                        run.from,
                        run.to,
                        run.basis
                    );
                }
                for gap in gaps {
                    show!(
                        "  ✗ GAP {} … {}  timeline {}  {} segments are missing ({})",
                        gap.first_missing,
                        gap.last_missing,
                        gap.timeline,
                        gap.segments,
                        gap.basis
                    );
                }
                for fork in forks {
                    show!("  ⑂ timeline {} left {} at {} ({})", fork.timeline, fork.parent, fork.at, fork.basis);
                }
                for point in restore_points {
                    show!("  ◆ restore point {}  {}  {} ({})", point.name, time(point.at), point.lsn, point.basis);
                }
                if let Some(history) = history {
                    print_history(history);
                }
                if backups.is_empty() {
                    show!("  nothing can be restored: there is no base backup");
                }
                warnings.iter().for_each(|warning| show!("  ▲ {warning}"));
            }
            SystemWindow::Redis { system, snapshots, aof, warnings } => {
                show!("{system} (Redis)");
                for snapshot in snapshots {
                    show!(
                        "  ○ snapshot {}  {}  {} keys, {} bytes ({})",
                        snapshot.label,
                        time(snapshot.at),
                        snapshot.keys,
                        snapshot.bytes,
                        snapshot.basis
                    );
                }
                for range in aof {
                    let told = match range.until {
                        Some(until) => format!("nothing missing before {} (reported)", time(until)),
                        None => "shipped from a server that was down".to_owned(),
                    };
                    show!(
                        "  ━ AOF {}  {} → {} ({})  {told}  {} commands, {} bytes",
                        range.label,
                        time(range.from),
                        time(range.to),
                        range.basis,
                        range.commands,
                        range.bytes
                    );
                }
                if snapshots.is_empty() && aof.is_empty() {
                    show!("  nothing can be restored: there is neither a snapshot nor an append-only file");
                }
                warnings.iter().for_each(|warning| show!("  ▲ {warning}"));
            }
            SystemWindow::Managed { system, source, earliest, latest, warnings } => {
                let [from, to] = [earliest, latest].map(|at| at.map_or("unknown".to_owned(), time));
                show!("{system} (managed PostgreSQL: {source})");
                show!("  ━ any second from {from} to {to} ({})", Basis::Reported);
                warnings.iter().for_each(|warning| show!("  ▲ {warning}"));
            }
        }
    }
}

/// What the WAL says of the transactions in it.
fn print_history(history: &History) {
    let first = history.rates.iter().map(|rate| rate.from).min();
    let from = first.map_or_else(String::new, |at| format!("  from {}", time(at)));
    let to = history.to_time.map_or_else(String::new, |at| format!("  to {}", time(at)));
    show!(
        "  ∿ {} commits in {} → {}  timeline {}{from}{to} (observed; {} of {} segments read, the others by their index)",
        history.commits,
        history.from,
        history.to,
        history.timeline,
        history.read,
        history.segments
    );
    if let Some(why) = &history.not_kept {
        show!("    the index is not kept, and the next look reads them again: {why}");
    }
    for suspect in &history.suspects {
        show!("  ▲ suspect  {}  xid {}  {}  {suspect}", time(suspect.at), suspect.xid, suspect.lsn);
    }
    if history.suspects.is_empty() {
        show!("    no drop, truncate, mass delete or mass update in it");
    }
    if let Some(why) = &history.stopped {
        show!("  ✗ reading stopped at {}: {why}", history.to);
    }
}

/// Local with its offset, then UTC.
fn time(at: DateTime<Utc>) -> String {
    let local = at.with_timezone(&Local);
    let utc = at.to_rfc3339_opts(SecondsFormat::Millis, true);
    format!("{} ({utc})", local.format("%Y-%m-%d %H:%M:%S%.3f %:z"))
}
