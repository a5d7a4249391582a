use std::collections::BTreeMap;

use futures::future::BoxFuture;

use crate::event::{Answer, Ask, Failure, History, Outcome, RecoveryPoint, RecoveryTarget, SystemWindow, Window};
use crate::inventory::SystemDetail;
use crate::recovery;
use crate::system::postgres::{SourceEnd, source_end};

use super::{Action, Context, confirm::cancelled};

/// Where the chosen point leaves the tables to look at: a map from the system to a list of names.
pub(super) const SUSPECT_TABLES: &str = "suspect_tables";

/// `recovery.choose`: looks into the buckets, lets the person choose, and accepts only what can be reached. Sets
/// `recovery_point`, and `incident_at` when the suggestion is a moment or the point a suspect.
pub struct RecoveryChoose {
    /// Roles.
    pub systems: Vec<String>,
    pub suggest: Option<String>,
}

impl Action for RecoveryChoose {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            match self.choose(&context).await {
                Ok(Some(outcome)) => outcome,
                Ok(None) => cancelled(),
                Err(failure) => Outcome::failed(failure),
            }
        })
    }
}

impl RecoveryChoose {
    async fn choose(&self, context: &Context) -> Result<Option<Outcome>, Failure> {
        let suggestion = match self.suggest.as_deref().map(|text| context.expand(text)).filter(|text| !text.is_empty())
        {
            Some(text) => {
                let unusable = |error| {
                    Failure::new("the suggested recovery target cannot be used", error)
                        .now("Go back to the step that asks for it, and give a time with its offset.")
                };
                Some(text.parse::<RecoveryTarget>().map_err(unusable)?)
            }
            None => None,
        };
        let incident = match &suggestion {
            Some(RecoveryTarget::Time { time }) => Some(*time),
            _ => context.incident(),
        };
        if let Some(incident) = incident {
            context.sink.set("incident_at", incident.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)).await;
        }
        let names: Vec<String> =
            self.systems.iter().filter_map(|role| context.system(role)).map(|system| system.name.clone()).collect();
        context.sink.say(format!("looking into the backups of {}", names.join(" and "))).await;
        let (looked, ends) =
            tokio::join!(recovery::look(&context.inventory, &names, incident), self.source_ends(context));
        let looked = looked?;
        let window = &looked.window;
        say_window(context, window).await;
        // The last moment before the damage: nothing of the damage's own commit.
        let suggested = match &suggestion {
            Some(target) => match looked.settle(target, false).await {
                Ok(point) => Some(point),
                Err(failure) => {
                    context.sink.say(format!("the suggestion {target} cannot be reached: {}", failure.why)).await;
                    if context.unattended {
                        return Err(failure);
                    }
                    None
                }
            },
            None => None,
        };
        loop {
            let ask = Ask::RecoveryPoint { window: Box::new(window.clone()), suggested: suggested.clone() };
            let settled = match context.ask(ask).await {
                // Worked out anew from its target: what an answer claims about files is not believed.
                Some(Answer::Point { point }) => looked.settle(&point.target, point.inclusive).await,
                Some(Answer::Text { text }) => match text.parse::<RecoveryTarget>() {
                    Ok(target) => looked.settle(&target, false).await,
                    Err(error) => Err(Failure::new("that is no recovery target", error)),
                },
                _ => return Ok(None),
            };
            match settled {
                Ok(point) => return Ok(Some(self.chosen(context, window, point, &ends).await)),
                Err(failure) if context.unattended => return Err(failure),
                Err(failure) => context.sink.say(format!("not possible: {failure}")).await,
            }
        }
    }

    /// By system: where the WAL of the sources that still answer ends.
    async fn source_ends(&self, context: &Context) -> BTreeMap<String, SourceEnd> {
        let mut ends = BTreeMap::new();
        for system in self.systems.iter().filter_map(|role| context.system(role)) {
            if let (SystemDetail::Postgres(_), Ok(url)) = (&system.detail, context.source_url(system))
                && let Ok(end) = source_end(&url).await
            {
                ends.insert(system.name.clone(), end);
            }
        }
        ends
    }

    async fn chosen(
        &self,
        context: &Context,
        window: &Window,
        point: RecoveryPoint,
        ends: &BTreeMap<String, SourceEnd>,
    ) -> Outcome {
        let mut window = window.clone();
        // The damage is what the point stops before, whatever moment was reported.
        if let Some(at) = recovery::stops_before(&window, &point).map(|suspect| suspect.at) {
            window.incident = Some(at);
            context.sink.set("incident_at", at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)).await;
        }
        let window = &window;
        context.sink.set(SUSPECT_TABLES, serde_json::json!(recovery::tables_behind(window, &point))).await;
        let edge = if point.inclusive { "up to and with" } else { "just before" };
        let is_managed = |found: &SystemWindow| matches!(found, SystemWindow::Managed { .. });
        let timeline = match window.systems.iter().any(is_managed) && point.backups.is_empty() {
            true => String::new(),
            false => format!(", timeline {}", point.timeline),
        };
        let mut outcome = Outcome::passed(format!("{edge} {}{timeline}", point.target))
            .fact("target", point.target.to_string())
            .fact("inclusive", point.inclusive)
            .fact("timeline", point.timeline);
        for (system, backup) in &point.backups {
            outcome = outcome.fact(&format!("backup.{system}"), backup.clone());
        }
        for (system, snapshot) in &point.snapshots {
            outcome = outcome.fact(&format!("snapshot.{system}"), snapshot.clone());
        }
        for (system, aof) in &point.aof {
            let at = aof.at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
            outcome = outcome.fact(&format!("aof.{system}"), format!("{} to {at}", aof.label));
        }
        for (system, skew) in recovery::skews(window, &point) {
            outcome = outcome.fact(&format!("skew_seconds.{system}"), skew.as_seconds_f64());
        }
        for (system, exact) in &point.resolved {
            outcome = outcome
                .fact(&format!("lsn.{system}"), exact.lsn.to_string())
                .fact(&format!("commits_lost.{system}"), exact.commits_lost)
                .fact(&format!("bytes_lost.{system}"), exact.bytes_lost);
            let side = if exact.inclusive { "with" } else { "before" };
            let last = exact.last_commit.map_or_else(String::new, |at| format!("; the last commit is of {at}"));
            let (commits, bytes) = (exact.commits_lost, exact.bytes_lost);
            let own = window.systems.iter().find(|found| found.system() == system);
            let counted_to = own.and_then(|found| recovery::counted_to(found, &point));
            let least = if counted_to.is_some() { "at least " } else { "" };
            let text = format!(
                "{system}: stops {side} {}{last}; {least}{commits} commits behind it, {bytes} bytes of WAL, are given up",
                exact.lsn
            );
            context.sink.say(text).await;
            if exact.stragglers > 0 {
                let text =
                    format!("{system}: {} of them have a time within the target: {STRAGGLERS}", exact.stragglers);
                context.sink.say(text).await;
            }
        }
        let exposures = window.systems.iter().filter_map(|found| {
            let system = found.system();
            recovery::exposure(window, system, ends.get(system).copied())
        });
        outcome.measures.extend(exposures);
        for found in &window.systems {
            let SystemWindow::Postgres { system, history: Some(history), .. } = found else { continue };
            outcome = outcome.fact(&format!("segments_read.{system}"), history.read);
            outcome = outcome.fact(&format!("index_kept.{system}"), history.not_kept.is_none());
        }
        match serde_json::to_value(&point) {
            Ok(value) => context.sink.set("recovery_point", value).await,
            Err(error) => return Outcome::failed(Failure::new("the recovery point cannot be recorded", error)),
        }
        outcome
    }
}

/// Why a commit is given up whose time lies within the target.
const STRAGGLERS: &str = "they stand behind the first commit past it, and recovery follows the order of the WAL";

/// The window in words, for the record and for those who cannot see the picture.
async fn say_window(context: &Context, window: &Window) {
    for found in &window.systems {
        match found {
            SystemWindow::Postgres { system, backups, coverage, gaps, history, warnings, .. } => {
                for backup in backups {
                    let stopped = backup.stopped.format("%Y-%m-%d %H:%M:%S UTC");
                    let line = format!("{system}: base backup {} of {stopped}, {} bytes", backup.label, backup.bytes);
                    context.sink.say(line).await;
                }
                for run in coverage {
                    let line = format!(
                        "{system}: WAL of timeline {} from {} to {}, {} segments",
                        run.timeline, run.from, run.to, run.segments
                    );
                    context.sink.say(line).await;
                }
                for gap in gaps {
                    let line =
                        format!("{system}: GAP, {} segments are missing from {}", gap.segments, gap.first_missing);
                    context.sink.say(line).await;
                }
                if let Some(history) = history {
                    let History { commits, from, to, segments, read, not_kept, .. } = &**history;
                    let line = format!(
                        "{system}: {commits} commits from {from} to {to}; {read} of {segments} segments were read"
                    );
                    context.sink.say(line).await;
                    if let Some(why) = not_kept {
                        context.sink.say(format!("{system}: what they say is not kept for the next look: {why}")).await;
                    }
                }
                for warning in warnings {
                    context.sink.say(format!("{system}: {warning}")).await;
                }
            }
            SystemWindow::Redis { system, snapshots, aof, warnings } => {
                for snapshot in snapshots {
                    let at = snapshot.at.format("%Y-%m-%d %H:%M:%S%.3f UTC");
                    let line = format!("{system}: snapshot {} of {at}, {} keys", snapshot.label, snapshot.keys);
                    context.sink.say(line).await;
                }
                for range in aof {
                    let [from, to] = [range.from, range.end()].map(|at| at.format("%Y-%m-%d %H:%M:%S%.3f UTC"));
                    let line = format!("{system}: append-only file from {from} to {to}, {} commands", range.commands);
                    context.sink.say(line).await;
                }
                for warning in warnings {
                    context.sink.say(format!("{system}: {warning}")).await;
                }
            }
            SystemWindow::Managed { system, source, earliest, latest, warnings } => {
                let stamp = |at: &Option<chrono::DateTime<chrono::Utc>>| {
                    at.map_or("an unknown moment".to_owned(), |at| at.format("%Y-%m-%d %H:%M:%S UTC").to_string())
                };
                let (from, to) = (stamp(earliest), stamp(latest));
                context.sink.say(format!("{system}: {source}, any second from {from} to {to} (reported)")).await;
                for warning in warnings {
                    context.sink.say(format!("{system}: {warning}")).await;
                }
            }
        }
    }
}
